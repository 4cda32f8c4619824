"""Views that change letters and marks: typing errors, reading errors, case, punctuation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Literal, get_args

from nearfar.errors import UsageError
from nearfar.views.text.base import TextView, WordView, share_of, whole

MARKS = (".", ";", "?", ":", "!", ",")
"""AEDA's six."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _beside(rows: tuple[str, ...]) -> dict[str, str]:
    """The keys that touch each: left, right, and the two (three) above and below, each row half a key to the right."""
    near: dict[str, set[str]] = {key: set() for row in rows for key in row}
    for number, row in enumerate(rows):
        for place, key in enumerate(row):
            near[key].update(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
            if number + 1 < len(rows):
                below = rows[number + 1][max(0, place - 1) : place + 1]
                near[key].update(below)
                for other in below:
                    near[other].add(key)
    return {key: "".join(sorted(keys)) for key, keys in near.items()}


KEYBOARD: Mapping[str, str] = _beside(_ROWS)
"""The keys beside each on an English keyboard."""

OCR: Mapping[str, str] = {
    "0": "oO",
    "1": "lI",
    "5": "S",
    "6": "b",
    "8": "B",
    "9": "g",
    "B": "8",
    "I": "1l",
    "O": "0",
    "S": "5",
    "b": "6h",
    "c": "eo",
    "e": "c",
    "g": "9q",
    "h": "b",
    "i": "1l",
    "l": "1I",
    "n": "u",
    "o": "0c",
    "q": "g",
    "u": "nv",
    "v": "u",
}
"""What a reading machine takes a character for."""

Kind = Literal["keyboard", "ocr", "swap", "delete", "case"]


class CharacterNoise(TextView):
    """Characters changed as typing or reading changes them, one kind at a time.

    ``floor(rate * characters)`` characters, at least one, of those that the kind can change (letters, and digits for
    "ocr"), at different places; fewer where fewer can be changed:

    - ``keyboard``: a key beside it, in the letter's case;
    - ``ocr``: what looks like it;
    - ``swap``: exchanged with the next letter of its word, if it is another one (no letter in two exchanges);
    - ``delete``: left out, where its word has another character;
    - ``case``: the other case.

    Arguments: ``kind``; ``rate``: default 0.05; ``p``: default 1. Raises UsageError for another kind.
    """

    def __init__(self, kind: Kind, rate: float = 0.05, *, p: float = 1.0) -> None:
        super().__init__(p)
        if kind not in get_args(Kind):
            raise UsageError(f"CharacterNoise: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        self.kind = kind
        self.rate = share_of("CharacterNoise: rate", rate)

    def change(self, text: str, draw: Random) -> str:
        letters = list(text)
        count = max(1, int(self.rate * len(letters) + 1e-9)) if self.rate else 0
        places = [place for place in range(len(letters)) if _can[self.kind](letters, place)]
        draw.shuffle(places)
        done = 0
        touched: set[int] = set()
        for place in places:
            if done == count:
                break
            if self._changed(letters, place, touched, draw):
                done += 1
        changed = "".join(letters)
        return changed if changed.strip() else text

    def _changed(self, letters: list[str], place: int, touched: set[int], draw: Random) -> bool:
        letter = letters[place]
        if self.kind == "keyboard":
            other = draw.choice(KEYBOARD[letter.lower()])
            letters[place] = other.upper() if letter.isupper() else other
        elif self.kind == "ocr":
            letters[place] = draw.choice(OCR[letter])
        elif self.kind == "case":
            letters[place] = letter.swapcase()
        elif self.kind == "delete":
            if not _has_neighbour(letters, place):
                return False
            letters[place] = ""
        else:
            if touched & {place, place + 1}:
                return False
            touched |= {place, place + 1}
            letters[place], letters[place + 1] = letters[place + 1], letter
        return True


def _swappable(letters: list[str], place: int) -> bool:
    if place + 1 >= len(letters):
        return False
    one, other = letters[place], letters[place + 1]
    return one.isalpha() and other.isalpha() and one != other


def _has_neighbour(letters: list[str], place: int) -> bool:
    """Whether the word of this character has another one that was not left out."""
    for step in (-1, 1):
        other = place + step
        while 0 <= other < len(letters) and not letters[other].isspace():
            if letters[other]:
                return True
            other += step
    return False


_can: Mapping[str, Callable[[list[str], int], bool]] = {
    "keyboard": lambda letters, place: letters[place].lower() in KEYBOARD,
    "ocr": lambda letters, place: letters[place] in OCR,
    "case": lambda letters, place: len(letters[place].swapcase()) == 1 and letters[place].swapcase() != letters[place],
    "delete": lambda letters, place: letters[place].isalpha(),
    "swap": _swappable,
}


class Punctuation(WordView):
    """Marks put between words: from 1 to ``max(1, floor(share * words))`` of them, each before a word of its own (AEDA;
    Karimi et al., 2021). All words stay, in their order.

    Arguments: ``share``: default 1/3 (AEDA); ``marks``: default :data:`MARKS`; ``p``: default 1.
    """

    def __init__(self, share: float = 1 / 3, *, marks: tuple[str, ...] = MARKS, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("Punctuation: share", share)
        self.marks = tuple(marks)
        if not self.marks or not all(self.marks):
            raise UsageError("Punctuation: marks must hold at least one, and none that is empty")

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        most = max(1, int(self.share * len(words) + 1e-9))
        chosen = set(draw.sample(range(len(words)), draw.randint(1, most)))
        return [each for place, word in enumerate(words) for each in _marked(word, place in chosen, self.marks, draw)]


def _marked(word: str, chosen: bool, marks: tuple[str, ...], draw: Random) -> list[str]:
    return [draw.choice(marks), word] if chosen else [word]


class CharacterMask(TextView):
    """A random run of characters replaced by one mark (Mirror-BERT; Liu et al., 2021).

    A text that is not longer than the run keeps its first character.

    Arguments: ``length``: of the run, default 5 (Mirror-BERT); ``mark``: default "[MASK]", which must be what the
    encoder's tokenizer calls it (RoBERTa: "<mask>"); ``p``: default 1.
    """

    def __init__(self, length: int = 5, *, mark: str = "[MASK]", p: float = 1.0) -> None:
        super().__init__(p)
        self.length = whole("CharacterMask: length", length)
        self.mark = mark

    def change(self, text: str, draw: Random) -> str:
        length = min(self.length, len(text) - 1)
        if length < 1:
            return text
        start = draw.randint(0 if length == self.length else 1, len(text) - length)
        return text[:start] + self.mark + text[start + length :]
