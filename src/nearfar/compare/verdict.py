"""What a comparison says, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.evaluation.comparison import Difference
from nearfar.report.format import measure_name, points

_LISTED = 6


@dataclass(frozen=True)
class Verdict:
    """Entries ``better`` or ``worse`` than the reference and those ``untold`` from it, the one with the highest mean
    (``best``) and those that cannot be told from it (``level``); and all of it in ``sentences``."""

    reference: str
    better: list[str]
    worse: list[str]
    untold: list[str]
    best: str
    level: list[str]
    sentences: list[str]

    def __str__(self) -> str:
        return " ".join(self.sentences)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


def judge(
    differences: Sequence[Difference],
    pairs: Sequence[Difference],
    means: Mapping[str, float],
    *,
    reference: str,
    measure: str,
) -> Verdict:
    """The verdict by the corrected p values of ``differences`` (against the reference) and ``pairs`` (all pairs)."""
    better = sorted((each for each in differences if each.found and each.value > 0), key=lambda each: -each.value)
    worse = sorted((each for each in differences if each.found and each.value < 0), key=lambda each: each.value)
    untold = [each for each in differences if not each.found]
    best = max(means, key=lambda name: means[name])
    level = [
        each.second if each.first == best else each.first
        for each in pairs
        if best in (each.first, each.second) and not each.found
    ]
    name = measure_name(measure)
    sentences = [
        f"{listed([each.first for each in group])} {'is' if len(group) == 1 else 'are'} {word} than {reference} "
        f"by {amounts([abs(each.value) for each in group])} of {name}."
        for word, group in (("better", better), ("worse", worse))
        if group
    ]
    equal = [each for each in untold if each.value == 0 and each.visible == 0]
    if equal:
        sentences.append(f"{listed([each.first for each in equal])} gave exactly the same values as {reference}.")
    others = [each for each in untold if each not in equal]
    if others:
        sentences.append(_untold(others, len(differences), reference, name))
    if len(means) > 2:
        sentences.append(_level(best, level if any(each.found for each in pairs) else None, len(means)))
    return Verdict(
        reference,
        [each.first for each in better],
        [each.first for each in worse],
        [each.first for each in untold],
        best,
        level,
        sentences,
    )


def _untold(untold: Sequence[Difference], asked: int, reference: str, measure: str) -> str:
    names = [each.first for each in untold]
    told = f"cannot be told apart from {reference} at this budget"
    if len(names) == asked == 2:
        told = f"Neither {names[0]} nor {names[1]} can be told apart from {reference} at this budget"
    elif len(names) == asked > 2:
        told = f"None of the other {number(asked)} ({listed(names)}) can be told apart from {reference} at this budget"
    elif len(names) > 1:
        told = f"{listed(names)} {told}"
    else:
        told = f"{names[0]} {told}"
    least = max(each.visible for each in untold)
    if least >= 1:
        return f"{told}: even a difference of 100 points would not be seen."
    return f"{told}: a difference of less than about {points(least)} would not be seen."


def _level(best: str, level: Sequence[str] | None, count: int) -> str:
    if level is None:
        return "No two of them can be told apart."
    if not level:
        return f"{best} is the best of all: every other one can be told apart from it."
    if len(level) == count - 1:
        return f"{best} has the highest mean, and no other one can be told apart from it."
    return f"{best} has the highest mean; {listed(level)} cannot be told apart from it."


def listed(names: Sequence[str]) -> str:
    """``a, b and c``; of many the first few."""
    if len(names) > _LISTED:
        return ", ".join(names[: _LISTED - 1]) + f" and {len(names) - _LISTED + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def number(count: int) -> str:
    """A small number as a word."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[count] if count < len(words) else str(count)


def amounts(differences: Sequence[float]) -> str:
    """``0.82 points``, or ``0.82 to 2.10 points``."""
    if len(differences) == 1:
        return points(differences[0])
    return f"{points(min(differences)).removesuffix(' points')} to {points(max(differences))}"
