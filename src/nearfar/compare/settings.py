"""What can be set about a comparison, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nearfar.errors import UsageError
from nearfar.training import TrainingSettings

TEMPERATURES = (0.1, 0.03, 0.3)
"""Temperatures tried, the same for all whose own default lies in :data:`USUAL`: they divide cosines."""
FACTORS = (1.0, 0.3, 3.0)
"""Temperatures tried where the default lies elsewhere, as multiples of it; and learning rates, as multiples of the
encoder's default."""
USUAL = (0.01, 0.6)

LEAST_STEPS = 10
"""Steps that a run makes at least, however short a budget in seconds is."""

SEARCH_SEED = 1_000_003
"""Seed of the search: not one of the seeds that are compared."""

_OF_THE_COMPARISON = (
    "data", "output", "evaluate", "hold_out", "objective", "parameters", "epochs", "steps", "learning_rate", "seed",
    "evaluate_every", "early_stop", "log_every", "checkpoint_every", "tensorboard", "baselines", "overwrite", "resume",
)  # fmt: skip
"""Settings of a training run that a comparison decides itself."""

_UNITS = {
    "steps": ("", "step", "steps"),
    "epochs": ("epoch", "epochs"),
    "seconds": ("s", "sec", "second", "seconds"),
    "minutes": ("min", "minute", "minutes"),
    "hours": ("h", "hour", "hours"),
}


@dataclass(frozen=True)
class Budget:
    """What each training run may use: ``amount`` of ``"steps"``, ``"epochs"`` or ``"seconds"`` of training."""

    amount: float
    unit: Literal["steps", "epochs", "seconds"]

    @classmethod
    def parse(cls, text: str | int) -> Budget:
        """From ``400``, ``"400 steps"``, ``"3 epochs"``, ``"120s"``, ``"2min"`` or ``"1h"``. Raises UsageError."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
        unit = next((name for name, words in _UNITS.items() if match and match[2] in words), None)
        amount = float(match[1]) if match else 0.0
        if unit is None or amount <= 0 or (unit == "steps" and not amount.is_integer()) or isinstance(text, bool):
            raise UsageError(
                f"the budget {text!r} cannot be read",
                where="--budget",
                hint="for each training run: steps (400), epochs (3epochs), seconds (120s) or minutes (2min)",
            )
        if unit in ("minutes", "hours"):
            return cls(amount * {"minutes": 60.0, "hours": 3600.0}[unit], "seconds")
        return cls(amount, unit)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.amount:,g} {self.unit if self.amount != 1 else self.unit[:-1]}"


@dataclass
class CompareSettings:
    """What ``nearfar compare`` offers.

    Data:
        data, columns: what is trained on, see :func:`nearfar.data.read`.
        test: file or folder (pairs, scored pairs, labelled texts, retrieval set) of the final figures; None: a fifth of
            the data, at most 5,000 rows. dev: likewise for the search; None: 15 % of what is left, at most 2,000 rows.
        split_seed: which rows these are.
    Runs:
        seeds: final runs of each entry, with the seeds 0, 1, ...
        budget: of each run (:meth:`Budget.parse`); None: the epochs that ``nearfar train`` makes by default.
        reference: the entry that the others are compared with; None: the first.
        measure: what is compared; None: by the data (``knn_accuracy``, ``mrr``, ``ndcg@10`` or ``spearman``).
        search: try temperatures and learning rates; False: defaults, and what entries fix.
        evaluations: on the validation part, during a run; the best weights among them count. None: 4 with a static
            encoder, 1 (at the end) with a transformer, whose evaluations take longer than its steps.
    Training:
        training: any other setting of :class:`nearfar.training.TrainingSettings` (encoder, batch_size, ...).
    Result:
        output: the folder. overwrite: replace what is there; what is unfinished goes on if its settings are these, and
            is thrown away otherwise.
    """

    data: str | list[str] | None = None
    output: str = ""
    dev: str | None = None
    test: str | None = None
    split_seed: int = 0
    seeds: int = 5
    budget: str | int | None = None
    reference: str | None = None
    measure: str | None = None
    search: bool = True
    evaluations: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("output", "dev", "test"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else os.fspath(value))
        if not self.output:
            raise UsageError("there is no place to write the comparison to", where="--output", hint="name a folder")
        _whole("--seeds", self.seeds, 2, "give at least 2: one seed says nothing about others; 5 is a good number")
        _whole("--split-seed", self.split_seed, 0, "give a whole number, 0 or more")
        if self.seeds > SEARCH_SEED:
            raise UsageError(f"{self.seeds} seeds are too many", where="--seeds")
        if self.evaluations is not None:
            _whole("--evaluations", self.evaluations, 1, "give at least 1, at the end")
        if self.budget is not None:
            Budget.parse(self.budget)
        taken = [name for name in self.training if name in _OF_THE_COMPARISON]
        if taken:
            raise UsageError(f"a comparison sets {', '.join(taken)} itself", hint="leave it out")
        self.base()

    def base(self, **more: Any) -> TrainingSettings:
        """The settings that all runs share, with ``more``."""
        return TrainingSettings.from_dict({**self.training, "baselines": [], **more})

    def to_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        return asdict(self)


def temperatures(default: float | None) -> list[float]:
    """The temperatures to try for an entry with this default; none where there is none to try."""
    if default is None:
        return []
    if USUAL[0] <= default <= USUAL[1]:
        return list(TEMPERATURES)
    return [default * factor for factor in FACTORS]


def rates(default: float) -> list[float]:
    """The learning rates to try where this is the encoder's default."""
    return [default * factor for factor in FACTORS]


def paths(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> str | list[str] | None:
    """Paths as texts."""
    if data is None or isinstance(data, (str, os.PathLike)):
        return None if data is None else os.fspath(data)
    return [os.fspath(path) for path in data]


def _whole(where: str, value: Any, least: int, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{where.lstrip('-').replace('-', ' ')} cannot be {value!r}", where=where, hint=hint)
