"""Views that change what a text says and little of how it looks: hard negatives, not positives.

A text that such a view can do nothing with comes back as it was, and is then no negative: whoever trains with them
leaves those out that are equal to their text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from random import Random

from nearfar.errors import UsageError
from nearfar.views.text.base import TextView, WordView, core, counted, in_place_of, share_of
from nearfar.views.text.thesaurus import Thesaurus, Words

NEGATIONS = frozenset(("not", "no", "never", "n't", "cannot", "nothing", "nobody", "none", "neither", "without"))
"""Words that turn a sentence into its opposite."""

_AUXILIARY = """
am is are was were be been can could may might must shall should will would do does did has have had
"""
_AUXILIARIES = frozenset(_AUXILIARY.split())
_CONTRACTED = re.compile(r"^(.+)n['’]t$", re.IGNORECASE)
_STEMS = {"wo": "will", "ca": "can", "sha": "shall"}
_NUMBER = re.compile(r"\d+")


class AntonymReplacement(WordView):
    """``ceil(share * words)`` random words replaced by one of their antonyms (CLINE; Wang et al., 2021).

    Fewer where fewer have antonyms, none where none has.

    Arguments: ``antonyms``: a thesaurus of opposites, a mapping or a path (of WordNet's folder its antonyms);
    ``share``: of all words, default 0.2 (CLINE); ``p``: default 1.
    """

    def __init__(self, antonyms: Words, share: float = 0.2, *, p: float = 1.0) -> None:
        super().__init__(p)
        if isinstance(antonyms, Thesaurus) or not isinstance(antonyms, str):
            self.antonyms = Thesaurus.of(antonyms)
        else:
            self.antonyms = Thesaurus.read(antonyms, relation="antonyms")
        self.share = share_of("AntonymReplacement: share", share)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        known = [place for place, word in enumerate(words) if self.antonyms(core(word)[1])]
        for place in draw.sample(known, min(counted(self.share, len(words)), len(known))):
            words[place] = in_place_of(words[place], draw.choice(self.antonyms(core(words[place])[1])))
        return words


class Negation(WordView):
    """An English sentence said the other way round: a negation taken out, or "not" put behind the first auxiliary verb.

    Where there is a "not" or "never" it goes, and "n't" leaves its verb (``isn't`` is ``is``, ``won't`` is ``will``);
    else "not" follows the first of am, is, are, was, were, be, been, can, could, may, might, must, shall, should, will,
    would, do, does, did, has, have, had (``can`` becomes ``cannot``). A text without any of these stays. Nothing is
    random but whether a text is changed.

    Arguments: ``p``: default 1.
    """

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        for place, word in enumerate(words):
            before, kept, after = core(word)
            if kept.lower() in ("not", "never") and len(words) > 1:
                if place and after:  # the mark that ended the sentence
                    words[place - 1] += after
                return words[:place] + words[place + 1 :]
            if kept.lower() == "cannot":
                words[place] = in_place_of(word, "can")
                return words
            if found := _CONTRACTED.match(kept):
                stem = found[1]
                words[place] = before + (in_place_of(stem, _STEMS[stem.lower()]) if stem.lower() in _STEMS else stem)
                words[place] += after
                return words
        for place, word in enumerate(words):
            before, kept, after = core(word)
            if kept.lower() == "can":
                words[place] = before + kept + "not" + after
                return words
            if kept.lower() in _AUXILIARIES:
                return [*words[:place], before + kept, "not" + after, *words[place + 1 :]]
        return words


class NumberSwap(TextView):
    """Every number of a text replaced by another of as many digits, or only some of them.

    A number is a run of digits (of ``3.14`` there are two); it begins with 0 where the old one did. ``numbers`` of the
    corpus are taken where they are given, whatever their length.

    Arguments: ``share``: each number's probability, where none is chosen one is, default 1; ``numbers``: to draw from,
    default random digits; ``p``: default 1.
    """

    def __init__(self, share: float = 1.0, *, numbers: Sequence[str] = (), p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("NumberSwap: share", share)
        self.numbers = tuple(numbers)

    def change(self, text: str, draw: Random) -> str:
        places = [found.span() for found in _NUMBER.finditer(text)]
        if not places:
            return text
        chosen = [place for place in places if draw.random() < self.share] or [draw.choice(places)]
        for start, end in reversed(chosen):
            text = text[:start] + self._other(text[start:end], draw) + text[end:]
        return text

    def _other(self, number: str, draw: Random) -> str:
        if self.numbers:
            others = [each for each in self.numbers if each != number]
            return draw.choice(others) if others else number
        least = 10 ** (len(number) - 1) if number[0] != "0" and len(number) > 1 else 0
        most = 10 ** len(number) - 1 if number[0] != "0" or len(number) == 1 else 10 ** (len(number) - 1) - 1
        other = draw.randint(least, most - 1)
        return str(other + (other >= int(number))).zfill(len(number))


class NameSwap(TextView):
    """Names of a text replaced by other names.

    Names are those given (whole words; case counts), or, where none are, what a text itself writes with a capital
    within a sentence, each replaced by a random other of the same batch: the view of a text is then a function of its
    number and of the texts beside it.

    Arguments: ``names``: to find and to draw from, default none; ``p``: default 1.
    """

    def __init__(self, names: Collection[str] = (), *, p: float = 1.0) -> None:
        super().__init__(p)
        self.names = tuple(dict.fromkeys(names))
        if len(self.names) == 1:
            raise UsageError("NameSwap: one name alone has no other to take its place")
        joined = "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True))
        self._given = re.compile(rf"(?<!\w)(?:{joined})(?!\w)") if names else None

    def by_seeds(self, texts: Sequence[str], numbers: Sequence[int]) -> list[str]:
        self._beside = sorted({name for text in texts for name in self._found(text)})
        return super().by_seeds(texts, numbers)

    def change(self, text: str, draw: Random) -> str:
        others = self.names or self._beside
        new: dict[str, str] = {}
        for name in dict.fromkeys(self._found(text)):
            left = [other for other in others if other != name]
            if left:
                new[name] = draw.choice(left)
        if not new:
            return text
        pattern = self._given or _NAME
        return pattern.sub(lambda found: new.get(found[0], found[0]), text)

    def _found(self, text: str) -> list[str]:
        return (self._given or _NAME).findall(text)


_NAME = re.compile(r"(?<=[\w,;] )[A-ZÀ-ÖØ-Þ]\w+(?: [A-ZÀ-ÖØ-Þ]\w+)*")
"""Words with a capital behind another word: the first of a sentence has one whatever it is."""
