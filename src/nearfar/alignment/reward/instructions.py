"""Instructions that a program can check: what may be asked of a response, met or not, and said in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?。！？]+(?=\s|$)")
_ITEM_NUMBER = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without marks around them."""
    return _WORD.findall(text.lower())


def sentences(text: str) -> int:
    """How many sentences a text has: groups of end marks before a blank or the end, and what stands after the last.

    The numbers of list items end none.
    """
    text = _ITEM_NUMBER.sub("", text)
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    return len(ends) + bool(words(rest))


@dataclass(frozen=True)
class Instruction:
    """Something asked of a response. ``kind`` and ``value`` say what, ``text`` says it in a sentence, and ``met`` tells
    whether a response does it."""

    kind: str
    value: str | int
    text: str
    met: Callable[[str], bool] = field(compare=False, repr=False)


class InstructionKind(Protocol):
    """A kind of instruction; two of one kind never stand in one prompt, so that they cannot contradict each other."""

    @property
    def name(self) -> str: ...

    def draw(self, response: str, met: bool, random: Random) -> Instruction | None:
        """An instruction that the response meets, or does not; None where there is none of this kind."""
        ...


@dataclass(frozen=True)
class Length:
    """So many words (or ``unit="sentences"``, "paragraphs") at least or at most.

    ``slack``: how far from the response's length a bound may lie, as a share of it, default 0.5; at least one unit.
    ``most``: no bound above it (for worlds with few values), None: any.
    """

    unit: str = "words"
    slack: float = 0.5
    most: int | None = None
    name: str = "length"

    def draw(self, response: str, met: bool, random: Random) -> Instruction | None:
        length = self._count(response)
        away = random.randint(0, max(1, int(self.slack * length)))
        upper = random.random() < 0.5
        if met:
            bound = length + away if upper else length - away
        else:
            bound = length - max(1, away) if upper else length + max(1, away)
        if bound < 1 or (self.most is not None and bound > self.most):
            return None
        how = "at most" if upper else "at least"
        unit = self.unit if bound != 1 else self.unit.removesuffix("s")
        return Instruction(
            f"{how} {self.unit}",
            bound,
            f"Use {how} {bound} {unit}.",
            lambda text: self._count(text) <= bound if upper else self._count(text) >= bound,
        )

    def _count(self, text: str) -> int:
        if self.unit == "sentences":
            return sentences(text)
        if self.unit == "paragraphs":
            return len([part for part in re.split(r"\n\s*\n", text) if part.strip()])
        return len(words(text))


@dataclass(frozen=True)
class Word:
    """A word that has to be in the response (``wanted``), or must not be.

    ``vocabulary``: the words to draw from that the response does not hold; those it holds are drawn from itself, where
    they have ``letters`` letters at least, default 4, and are in the vocabulary if ``closed``.
    """

    vocabulary: Sequence[str]
    wanted: bool = True
    letters: int = 4
    closed: bool = False

    @property
    def name(self) -> str:
        """Its name among the kinds."""
        return "contains" if self.wanted else "lacks"

    def draw(self, response: str, met: bool, random: Random) -> Instruction | None:
        held = set(words(response))
        inside = sorted(word for word in held if len(word) >= self.letters)
        if self.closed:
            inside = [word for word in inside if word in set(self.vocabulary)]
        outside = [word for word in self.vocabulary if word.lower() not in held]
        choices = inside if met == self.wanted else outside
        if not choices:
            return None
        word = random.choice(choices)
        text = f'Use the word "{word}".' if self.wanted else f'Do not use the word "{word}".'
        return Instruction(self.name, word, text, lambda text: (word.lower() in words(text)) == self.wanted)


@dataclass(frozen=True)
class Opening:
    """The first word (or the last, ``place=-1``); another is drawn from ``vocabulary``."""

    vocabulary: Sequence[str]
    place: int = 0

    @property
    def name(self) -> str:
        """Its name among the kinds."""
        return "starts with" if self.place == 0 else "ends with"

    def draw(self, response: str, met: bool, random: Random) -> Instruction | None:
        said = words(response)
        if not said:
            return None
        others = [word for word in self.vocabulary if word.lower() != said[self.place]]
        if not met and not others:
            return None
        word = said[self.place] if met else random.choice(others)
        return Instruction(
            self.name,
            word,
            f'{"Start" if self.place == 0 else "End"} with the word "{word}".',
            lambda text: bool(words(text)) and words(text)[self.place] == word.lower(),
        )


@dataclass(frozen=True)
class Property:
    """Something a response has or has not (``check``), which may be asked for (``wanted``) or forbidden
    (``unwanted``)."""

    name: str
    check: Callable[[str], bool]
    wanted: str
    unwanted: str

    def draw(self, response: str, met: bool, random: Random) -> Instruction | None:
        asked = self.check(response) == met
        return Instruction(
            self.name,
            int(asked),
            self.wanted if asked else self.unwanted,
            lambda text: self.check(text) == asked,
        )


PROPERTIES = (
    Property("comma", lambda text: "," in text, "Use a comma at least once.", "Do not use any commas."),
    Property("question", lambda text: "?" in text, "Ask a question.", "Do not ask any question."),
    Property("digits", lambda text: any(map(str.isdigit, text)), "Give a number in digits.", "Do not use any digits."),
    Property(
        "list",
        lambda text: len(_LIST_ITEM.findall(text)) >= 2,
        "Answer with a list, each item on a line of its own.",
        "Do not answer with a list.",
    ),
    Property("exclamation", lambda text: "!" in text, "Use an exclamation mark.", "Do not use any exclamation marks."),
    Property(
        "capitals",
        lambda text: not any(map(str.isupper, text)),
        "Write in lower case only.",
        "Do not write in lower case only.",
    ),
    Property(
        "quotes",
        lambda text: bool(re.search(r"[\"“”]", text)),
        "Put something into quotation marks.",
        "Do not use any quotation marks.",
    ),
)
"""Properties of English texts that need no words drawn."""


def english(vocabulary: Sequence[str]) -> list[InstructionKind]:
    """The kinds of instructions for texts: length in words, sentences and paragraphs, words that are wanted or not
    (drawn from ``vocabulary`` where the response does not hold them), the first word, and :data:`PROPERTIES`."""
    return [
        Length(),
        Length("sentences", name="sentences"),
        Length("paragraphs", name="paragraphs"),
        Word(vocabulary),
        Word(vocabulary, wanted=False),
        Opening(vocabulary),
        *PROPERTIES,
    ]
