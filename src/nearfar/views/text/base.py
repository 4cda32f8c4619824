"""What a view of texts is: a callable that draws one random version of every text, a string, of a batch."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from random import Random

import torch

from nearfar.errors import DataError, UsageError
from nearfar.views.base import is_number

_SEEDS = 2**62
_EDGES = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


class TextView:
    """Base of the views of strings: ``view(texts, generator=None)`` gives a new version of every text, a list.

    Each text is changed with probability ``p``, by parameters of its own; one that is not changed, and one that a view
    can do nothing with (an empty one always), comes back as it was, letter by letter. Everything random comes from
    ``generator`` (default: torch's global one), which gives each text a number; what happens to a text depends on its
    number alone, not on the texts beside it. :meth:`by_seeds` takes the numbers themselves.

    Words are what stands between blanks, so that punctuation stays with its word. Where words are changed, what comes
    out is joined by single blanks. No view makes an empty text of one that is not.

    A subclass writes :meth:`change`, or :meth:`change_all` where texts are changed together.
    Raises :class:`~nearfar.errors.UsageError` for a ``p`` outside [0, 1], :class:`~nearfar.errors.DataError` for what
    is not a list of texts.
    """

    def __init__(self, p: float = 1.0) -> None:
        self.p = share_of(f"{type(self).__name__}: p", p)

    def __call__(self, texts: Sequence[str], generator: torch.Generator | None = None) -> list[str]:
        return self.by_seeds(texts, seeds(len(checked(type(self).__name__, texts)), generator))

    def by_seeds(self, texts: Sequence[str], numbers: Sequence[int]) -> list[str]:
        """The views of ``texts`` that the numbers give, one a text: the same number, the same view of a text."""
        checked(type(self).__name__, texts)
        draws = [Random(number) for number in numbers]
        chosen = [place for place, draw in enumerate(draws) if draw.random() < self.p and texts[place].strip()]
        seen = list(texts)
        changed = self.change_all([texts[place] for place in chosen], [draws[place] for place in chosen])
        for place, text in zip(chosen, changed, strict=True):
            seen[place] = text
        return seen

    def change_all(self, texts: list[str], draws: list[Random]) -> list[str]:
        """A new version of every text, each with what is random from its own of ``draws``."""
        return [self.change(text, draw) for text, draw in zip(texts, draws, strict=True)]

    def change(self, text: str, draw: Random) -> str:
        """A new version of one text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if isinstance(value, _SHORT))
        return f"{type(self).__name__}({options})"


_SHORT = (int, float, str, tuple, type(None))


class WordView(TextView):
    """Base of the views that change the words of a text, in the order that they stand in."""

    def change(self, text: str, draw: Random) -> str:
        words = text.split()
        changed = self.change_words(list(words), draw) if words else words
        return " ".join(changed) if changed and changed != words else text

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        """A new version of the words, at least one; where none are left the text stays as it was."""
        raise NotImplementedError


class TextPairs:
    """Base of what makes both views at once: ``pairs(texts, generator=None)`` gives two lists, text i's two views.

    What is random comes from ``generator`` as in :class:`TextView`. A subclass writes :meth:`split`.
    """

    def __call__(self, texts: Sequence[str], generator: torch.Generator | None = None) -> tuple[list[str], list[str]]:
        return self.by_seeds(texts, seeds(len(checked(type(self).__name__, texts)), generator))

    def by_seeds(self, texts: Sequence[str], numbers: Sequence[int]) -> tuple[list[str], list[str]]:
        """The two views of each text that the numbers give."""
        checked(type(self).__name__, texts)
        both = [self.split(text, Random(number)) for text, number in zip(texts, numbers, strict=True)]
        return [one for one, _ in both], [other for _, other in both]

    def split(self, text: str, draw: Random) -> tuple[str, str]:
        """Two parts or versions of one text; twice the text where it is too short."""
        raise NotImplementedError

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if isinstance(value, _SHORT))
        return f"{type(self).__name__}({options})"


class Identity(TextView):
    """Every text as it is: a side whose only difference is the encoder's dropout."""

    def __init__(self) -> None:
        super().__init__()

    def change(self, text: str, draw: Random) -> str:
        return text


class Chain(TextView):
    """One view of texts after the other, each with numbers of its own."""

    def __init__(self, *views: TextView) -> None:
        super().__init__()
        self.views = views

    def by_seeds(self, texts: Sequence[str], numbers: Sequence[int]) -> list[str]:
        seen = list(checked(type(self).__name__, texts))
        for place, view in enumerate(self.views):
            seen = view.by_seeds(seen, [seed_of(number, place) for number in numbers])
        return seen

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.views))})"


class Each(TextView):
    """A view by any function ``text -> text``, random or not.

    Arguments: ``function``; ``p``: default 1.
    """

    def __init__(self, function: Callable[[str], str], *, p: float = 1.0) -> None:
        super().__init__(p)
        self.function = function

    def change(self, text: str, draw: Random) -> str:
        return self.function(text) or text


def seeds(count: int, generator: torch.Generator | None = None) -> list[int]:
    """``count`` numbers below 2^62 from ``generator``, torch's global one by default."""
    device = "cpu" if generator is None else generator.device
    numbers: list[int] = torch.randint(_SEEDS, (count,), generator=generator, device=device).tolist()
    return numbers


def seed_of(*parts: int) -> int:
    """A number below 2^62 that depends on all of ``parts`` (a run's seed, an epoch, a row, a side), and on nothing
    else."""
    digest = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _SEEDS


def checked(name: str, texts: Sequence[str]) -> Sequence[str]:
    """``texts``, or a DataError where they are not a list of strings."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{name}: a view takes a list of texts, got {texts!r}")
    return texts


def share_of(name: str, given: float, *, least: float = 0.0, most: float = 1.0) -> float:
    """``given`` as a number in [least, most]; UsageError for anything else."""
    if not is_number(given) or not least <= given <= most:
        raise UsageError(f"{name} must lie in [{least:g}, {most:g}], got {given!r}")
    return float(given)


def whole(name: str, given: int, least: int = 1) -> int:
    """``given`` as a whole number from ``least`` on; UsageError for anything else."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise UsageError(f"{name} must be a whole number, at least {least}, got {given!r}")
    return given


def counted(share: float, words: int) -> int:
    """``ceil(share * words)``: 0.1 of 10 words is 1, of 11 it is 2 (EDA's count is at least 1 as well)."""
    return math.ceil(share * words - 1e-9)


def core(word: str) -> tuple[str, str, str]:
    """What stands before a word, the word, and what stands after it: ``'("Well,'`` is ``'("'``, ``'Well'``, ``','``."""
    if word.isalnum():
        return "", word, ""
    found = _EDGES.match(word)
    assert found is not None
    return found[1], found[2], found[3]


def in_place_of(word: str, other: str) -> str:
    """``other`` where ``word`` stood: between the same marks, and with a capital where that one had one."""
    before, kept, after = core(word)
    if kept[:1].isupper():
        other = other.upper() if len(kept) > 1 and kept.isupper() else other[:1].upper() + other[1:]
    return before + other + after
