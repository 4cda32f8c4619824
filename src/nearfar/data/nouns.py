"""Labels out of captions: the nouns a text mentions, as classes of what it describes (Mehta et al., 2024).

::

    from nearfar.data.nouns import NounVocabulary, listed

    vocabulary = NounVocabulary.mine(captions, listed(my_nouns), at_least=500)
    labels = vocabulary.tags(captions)                      # [[3, 17], [], ...] for objectives.CatLIP
    rows = vocabulary.rows(["dog", "wolves", "unicorn"])    # where their classifiers are: [3, 41, None]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Synset = Callable[[str], "str | None"]
"""From the base form of a word to the key of what it means, or None where it is no noun: equal keys, one class."""

_MARKUP = re.compile(r"<[^<>]*>|\b(?:https?://|www\.)\S+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s?$")

# the rules by which WordNet finds base forms of nouns, and -ves of -fe and -oes of -o beside them
_ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("ves", "fe"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("oes", "o"),
    ("men", "man"),
    ("ies", "y"),
)
_IRREGULAR = {
    "axes": "axis",
    "bacteria": "bacterium",
    "cacti": "cactus",
    "children": "child",
    "criteria": "criterion",
    "dice": "die",
    "feet": "foot",
    "fungi": "fungus",
    "geese": "goose",
    "indices": "index",
    "lice": "louse",
    "matrices": "matrix",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "phenomena": "phenomenon",
    "stimuli": "stimulus",
    "teeth": "tooth",
    "vertices": "vertex",
}


def words(text: str) -> list[str]:
    """The words of a text in lower case: letters, with hyphens and apostrophes inside. Markup and addresses go."""
    return [_POSSESSIVE.sub("", word) for word in _WORD.findall(_MARKUP.sub(" ", text).lower())]


def base_forms(word: str) -> list[str]:
    """What a noun may be the plural of, the word itself first: ``leaves`` -> ``leaves, leave, leaf, leafe``.

    By rules (those of WordNet) and a short list of irregular plurals; which of them is a word is for a dictionary to
    say.
    """
    found = [word]
    if word in _IRREGULAR:
        found.append(_IRREGULAR[word])
    found += [
        word[: len(word) - len(ending)] + single
        for ending, single in _ENDINGS
        if word.endswith(ending) and len(word) > len(ending) and not (ending == "s" and word.endswith("ss"))
    ]
    return list(dict.fromkeys(found))


def listed(nouns: Iterable[str]) -> Synset:
    """A synset mapper of a plain list of nouns: a word of the list means itself, any other nothing."""
    known = frozenset(noun.lower() for noun in nouns)
    return lambda lemma: lemma if lemma in known else None


def wordnet_nouns(reader: Any) -> Synset:
    """The mapper of the paper: the first noun sense of a word, where that sense is named after the word.

    ``reader`` is NLTK's WordNet (``nltk.corpus.wordnet``, whose data is not part of this library). ``car`` means
    ``n02958343``; ``auto``, whose first sense is named ``car``, means nothing, as in the official code.
    """

    def first_sense(lemma: str) -> str | None:
        name = f"{lemma}.n.01"
        senses = reader.synsets(lemma, pos="n")
        if not senses or senses[0].name() != name:
            return None
        return f"n{senses[0].offset():08d}"

    return first_sense


class NounVocabulary:
    """The nouns that count, and the labels that a text has by them.

    Arguments:
        keys: of the classes, in their order.
        synset: from a base form to a key, see :data:`Synset`.
        counts: how many texts carry each, where known.

    Raises :class:`~nearfar.errors.UsageError` for a key that is there twice.
    """

    def __init__(self, keys: Sequence[str], synset: Synset, counts: Sequence[int] | None = None) -> None:
        self.keys = tuple(keys)
        self.synset = synset
        self.counts = None if counts is None else tuple(counts)
        self._number = {key: number for number, key in enumerate(self.keys)}
        if len(self._number) != len(self.keys):
            twice = [key for key, count in Counter(self.keys).items() if count > 1]
            raise UsageError(f"a class must be there once: {', '.join(twice[:5])}")
        self._meanings: dict[str, str | None] = {}

    @classmethod
    def mine(
        cls, captions: Iterable[str], synset: Synset, *, at_least: int = 500, most: int | None = None
    ) -> NounVocabulary:
        """The nouns that ``at_least`` so many captions mention (V_tau; the paper's 500), the most frequent first.

        ``most`` keeps the most frequent ones only. A caption counts once for a noun, however often it mentions it.
        Equal counts go by key. Raises :class:`~nearfar.errors.DataError` when no noun is frequent enough.
        """
        if at_least < 1 or (most is not None and most < 1):
            raise UsageError(f"at_least and most must be at least 1, got {at_least} and {most}")
        reading = cls((), synset)
        counted = Counter(key for caption in captions for key in reading.meanings(caption))
        kept = sorted((key for key, count in counted.items() if count >= at_least), key=lambda k: (-counted[k], k))
        if not kept:
            raise DataError(
                f"no noun is mentioned by {at_least:,} captions",
                hint=f"the most frequent one is mentioned by {max(counted.values(), default=0):,}: lower at_least",
            )
        kept = kept[:most]
        return cls(kept, synset, [counted[key] for key in kept])

    def __len__(self) -> int:
        return len(self.keys)

    def meanings(self, text: str) -> list[str]:
        """The keys of all nouns of a text, of the vocabulary or not, each once, in the order of the text."""
        found = (self._meaning(word) for word in words(text))
        return list(dict.fromkeys(key for key in found if key is not None))

    def tags(self, captions: Iterable[str]) -> list[list[int]]:
        """The numbers of the classes that each caption mentions, ascending, each once; none: an empty list.

        Such items are no waste: they are far from all classes.
        """
        found = ((self._number.get(key) for key in self.meanings(caption)) for caption in captions)
        return [sorted(number for number in numbers if number is not None) for numbers in found]

    def multi_hot(self, captions: Iterable[str]) -> Tensor:
        """The same as a bool table ``[n, classes]``, for vocabularies small enough to write all classes out."""
        import torch

        carried = self.tags(captions)
        table = torch.zeros(len(carried), len(self), dtype=torch.bool)
        for row, numbers in enumerate(carried):
            table[row, numbers] = True
        return table

    def rows(self, names: Iterable[str]) -> list[int | None]:
        """Where the classes of another label set stand in this vocabulary; None for those that do not.

        For :func:`nearfar.encoders.transfer.transfer_rows`. A name of several words is looked up as a whole with
        underscores, as WordNet writes it (``polar_bear``), and then by its last word, the head of an English noun.
        """
        found = []
        for name in names:
            parts = words(name)
            whole = self._meaning("_".join(parts)) if parts else None
            key = whole if whole is not None or not parts else self._meaning(parts[-1])
            found.append(None if key is None else self._number.get(key))
        return found

    def _meaning(self, word: str) -> str | None:
        if word not in self._meanings:
            keys = (self.synset(lemma) for lemma in base_forms(word))
            self._meanings[word] = next((key for key in keys if key is not None), None)
        return self._meanings[word]
