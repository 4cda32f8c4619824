"""What a recipe is: a paper as a combination of parts, and its claim as statements that an experiment decides."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from nearfar.errors import DataError

if TYPE_CHECKING:
    from nearfar.objectives import Objective
    from nearfar.training.text_training import TextTraining

Scale = Literal["smoke", "quick", "full"]
"""``"quick"``: five seeds and the sabotage in a minute or two on two cores; ``"full"``: more data, steps or settings;
``"smoke"``: a few steps on little data in a second, to see that everything is measured (its values mean nothing)."""

Setting = TypeVar("Setting")


def at(scale: Scale, *, smoke: Setting, quick: Setting, full: Setting) -> Setting:
    """The setting for a scale: ``at(scale, smoke=3, quick=600, full=2000)``."""
    return {"smoke": smoke, "quick": quick, "full": full}[scale]


Arms: TypeAlias = Mapping[str, Mapping[str, float]]
"""What an experiment measured: by arm (a baseline, the method, a variant of it), by measure."""


class Experiment(Protocol):
    """Measures a paper's claim once, with everything random drawn from ``seed``.

    The arms of one seed share data, initialisation and batches wherever they can. With ``sabotage`` the plausible
    wrong implementation that the recipe names takes the method's place; arms that it leaves as they were need not be
    returned again.
    """

    def __call__(self, seed: int, scale: Scale, *, sabotage: bool = False) -> Arms: ...


@dataclass(frozen=True)
class Paper:
    """Where a recipe comes from. ``arxiv`` is the bare number, such as ``"2004.11362"``."""

    title: str
    authors: str
    year: int
    arxiv: str = ""

    def __str__(self) -> str:
        return f"{self.authors}, {self.year}" + (f", arXiv:{self.arxiv}" if self.arxiv else "")


@dataclass(frozen=True)
class Statement:
    """One checkable sentence: ``measure`` of the arm ``method`` is higher (lower) than that of ``baseline``.

    ``baseline`` is an arm or a number. The difference of a seed is ``method - baseline`` (``baseline - method`` where
    ``direction`` is ``"lower"``), so that what the paper claims is always above ``margin``. A negative margin states
    that the method is not worse by more than that. ``because`` says where statement and margin come from.
    """

    measure: str
    method: str
    baseline: str | float
    direction: Literal["higher", "lower"] = "higher"
    margin: float = 0.0
    because: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin):
            raise ValueError(f"margin is {self.margin}; it must be a finite number")

    def difference(self, arms: Arms) -> float:
        """How far one seed's measurements lie in the claimed direction.

        Raises :class:`~nearfar.errors.DataError` when an arm or measure is missing, or a value is not finite.
        """
        found = self._value(arms, self.method)
        against = self._value(arms, self.baseline) if isinstance(self.baseline, str) else self.baseline
        return found - against if self.direction == "higher" else against - found

    def _value(self, arms: Arms, arm: str) -> float:
        try:
            value = float(arms[arm][self.measure])
        except KeyError:
            has = "; ".join(f"{name}: {', '.join(measures)}" for name, measures in arms.items())
            raise DataError(f"the experiment measured no {self.measure!r} of {arm!r}", hint=f"it has {has}") from None
        if not math.isfinite(value):
            raise DataError(f"{self.measure} of {arm} is {value}, which cannot be judged")
        return value

    def __str__(self) -> str:
        other = f"that of {self.baseline}" if isinstance(self.baseline, str) else f"{self.baseline:g}"
        if self.margin < 0:
            beyond = "lower" if self.direction == "higher" else "higher"
            return f"{self.measure} of {self.method} is not {beyond} than {other} by more than {-self.margin:g}"
        by = f" by more than {self.margin:g}" if self.margin else ""
        return f"{self.measure} of {self.method} is {self.direction} than {other}{by}"


@dataclass(frozen=True)
class Recipe:
    """A paper as parts that are already there, and its central claim as an experiment.

    Arguments:
        id: the name it is found by, such as ``"mv-dhel"``.
        paper: where it comes from.
        claim: the paper's central claim in one sentence.
        parts: what it combines, by question: ``relation``, ``views``, ``encoder``, ``head``, ``score``, ``objective``,
            ``procedure``, ``evaluation``.
        defaults: the settings it recommends, with the paper's names.
        world: the data and the models of the experiment, in a few sentences; everything a reader needs to judge it.
        statements: what must come out; all of them, for the claim to hold.
        experiment: measures them, see :class:`Experiment`.
        sabotage: the plausible wrong implementation that must not pass, in a sentence.
        not_asserted: what the paper claims beyond the statements and why the experiment does not assert it.
        verified: what formula and claim were checked against.
        weak: True where the formula is an interpretation or the paper's figures were not seen.
        build: the paper's objective for a user's own data, by its options; None where the paper needs more than that.
        training: how ``nearfar train FILE --recipe ID`` trains on a user's texts; None where it does not.
        module: the module that it is written in; found by itself.
    """

    id: str
    paper: Paper
    claim: str
    parts: Mapping[str, str]
    world: str
    statements: Sequence[Statement]
    experiment: Experiment
    sabotage: str
    defaults: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    not_asserted: str = ""
    verified: str = ""
    weak: bool = False
    build: Callable[..., Objective] | None = None
    training: TextTraining | None = None
    module: str = field(default_factory=lambda: _writing_module(), repr=False)

    @property
    def title(self) -> str:
        """The paper's title."""
        return self.paper.title

    @property
    def wing(self) -> str:
        """The folder of ``recipes/`` it stands in, such as ``"representation"``; ``"own"`` for one outside nearfar."""
        package, _, _ = self.module.rpartition(".")
        above, _, wing = package.rpartition(".")
        return wing if above == __package__ else "own"

    def shortcomings(self) -> list[str]:
        """What is missing or malformed in the text of the recipe, a sentence each; empty when it is complete."""
        found = []
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            found.append(f"the id {self.id!r} is not lower-case words joined by hyphens")
        texts = {
            "paper.title": self.paper.title,
            "paper.authors": self.paper.authors,
            "claim": self.claim,
            "world": self.world,
            "sabotage": self.sabotage,
            **{f"parts[{name!r}]": text for name, text in self.parts.items()},
        }
        found += [f"{name} is empty" for name, text in texts.items() if not text.strip()]
        if self.paper.arxiv and not re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", self.paper.arxiv):
            found.append(f"paper.arxiv is {self.paper.arxiv!r}, not a bare arXiv number")
        if not self.parts:
            found.append("it names no parts")
        if not self.statements:
            found.append("it makes no statement")
        for statement in self.statements:
            if statement.margin and not statement.because.strip():
                found.append(f"{str(statement)!r} does not say where its margin comes from (because)")
            if statement.method == statement.baseline:
                found.append(f"{str(statement)!r} compares an arm with itself")
        return found


def _writing_module() -> str:
    """The module whose code makes the recipe: the first frame outside this one (and dataclasses, for ``replace``)."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "__main__"))
