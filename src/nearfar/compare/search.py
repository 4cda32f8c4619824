"""The search of an entry's temperature and learning rate: small, fixed, by the same rule for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearfar.compare.runs import Bench, Done, options_text
from nearfar.compare.settings import rates, temperatures
from nearfar.errors import TrainingError

if TYPE_CHECKING:
    from nearfar.compare.entries import Entry
    from nearfar.compare.progress import Progress
    from nearfar.compare.store import Store


@dataclass
class Search:
    """First the temperatures at the encoder's learning rate, then the other rates at the best of them: five runs with
    both, three with one, none where the entry fixes both or nothing is to be searched.

    The best is the one with the highest value on the validation part, of equal ones that which was tried first.
    ``done`` holds the runs.
    """

    entry: Entry
    temperatures: list[float]
    rates: list[float]
    done: list[Done] = field(default_factory=list)

    @classmethod
    def of(cls, entry: Entry, bench: Bench) -> Search:
        """What is to be tried for ``entry``."""
        own = [entry.learning_rate] if entry.learning_rate is not None else []
        if not bench.settings.search:
            return cls(entry, [], own)
        return cls(entry, temperatures(entry.temperature()), own or rates(bench.rate))

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        both = max(1, len(self.temperatures)) + max(1, len(self.rates)) - 1
        return both if both > 1 else 0

    def run(self, bench: Bench, store: Store, steps: int, progress: Progress) -> dict[str, float]:
        """The best options. Raises :class:`~nearfar.errors.TrainingError` when none could be trained."""
        first = {"learning_rate": self.rates[0]} if self.rates else {}
        if not self.runs:
            return first
        for options in [{"temperature": each, **first} for each in self.temperatures] or [first]:
            self._try(options, bench, store, steps, progress)
        for rate in self.rates[1:]:
            self._try({**self._best(), "learning_rate": rate}, bench, store, steps, progress)
        if all(run.validation is None for run in self.done):
            raise TrainingError(
                f"no setting of the search could be trained: {self.done[0].error}",
                where=self.entry.name,
                hint="fix other values: name=objective(temperature=..., learning_rate=...)",
            )
        return self._best()

    def _try(self, options: dict[str, float], bench: Bench, store: Store, steps: int, progress: Progress) -> None:
        key = {"phase": "search", "entry": self.entry.name, "options": options}
        done, was_there = store.run(key, lambda folder: bench.search(self.entry, options, steps, folder))
        progress.ran(done, f"search, {options_text(options)}", was_there)
        self.done.append(done)

    def _best(self) -> dict[str, float]:
        return dict(max(self.done, key=lambda run: float("-inf") if run.validation is None else run.validation).options)
