"""Evaluation while training: the best weights so far, and when to give up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nearfar.files import atomic_folder, write_json
from nearfar.training import checkpoints
from nearfar.training.folder import BEST
from nearfar.training.method import Method
from nearfar.training.processes import is_main, on_main, together

if TYPE_CHECKING:
    from nearfar.evaluation import Evaluation

Judge: TypeAlias = Callable[[Any, Any], "Evaluation"]

Measures = dict[str, dict[str, float]]
"""``{measure: {"value", "low", "high", "n"}}``."""


class Evaluator:
    """Evaluates ``encoder`` on ``data`` when called, on the main process (on all where weights are sharded); keeps
    the best ``method``'s weights in ``folder/best``. Both may be anything that ``judge`` takes.

    ``patience``: evaluations without a better main measure after which :attr:`exhausted` is true; None: never. A larger
    value is better in all main measures. ``record(step, measures)`` is called with each result. ``judge(encoder,
    data)`` evaluates; None: :func:`nearfar.evaluation.evaluate`. ``keep``: whether the best weights are kept.
    """

    def __init__(
        self,
        encoder: Any,
        data: Any,
        *,
        method: Method,
        folder: Path,
        main: str,
        patience: int | None = None,
        record: Callable[[int, Measures], None] | None = None,
        judge: Judge | None = None,
        seed: int = 0,
        keep: bool = True,
    ) -> None:
        self.encoder = encoder
        self.data = data
        self.method = method
        self.folder = folder
        self.main = main
        self.patience = patience
        self.record = record
        self.judge = judge
        self.seed = seed
        self.keep = keep
        self.history: list[tuple[int, float]] = []

    def resume(self, history: list[tuple[int, float]]) -> None:
        """Go on after evaluations ``(step, main measure)`` of an earlier part of the run."""
        self.history = list(history)

    def __call__(self, step: int) -> dict[str, float]:
        """Evaluate after ``step``: ``{measure: value}``, on every process."""
        called = together if self.method.sharded else on_main
        found = called(lambda: self._evaluate().to_dict())
        value = found[self.main]["value"]
        self.history.append((step, value))
        if self.keep and on_main(lambda: value > self._best_value()):
            self._keep(step, found)
        if is_main() and self.record is not None:
            self.record(step, found)
        return {name: measure["value"] for name, measure in found.items()}

    @property
    def exhausted(self) -> bool:
        """Whether the last ``patience`` evaluations were no better than one before them."""
        if self.patience is None or len(self.history) <= self.patience:
            return False
        values = [value for _, value in self.history]
        return max(values[-self.patience :]) <= max(values[: -self.patience])

    def best(self) -> dict[str, Any] | None:
        """``{"step", "measures"}`` of the best weights kept, or None."""
        try:
            found = json.loads((self.folder / BEST / "best.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def load_best(self) -> dict[str, Any] | None:
        """Put the best weights into the method (on every process); what :meth:`best` says of them."""
        from nearfar.training.weights import load_weights

        best = self.best()
        if best is not None:
            load_weights(self.method, self.folder / BEST / "model.safetensors")
        return best

    def _evaluate(self) -> Evaluation:
        from nearfar import evaluation

        if self.judge is not None:
            return self.judge(self.encoder, self.data)
        return evaluation.evaluate(self.encoder, self.data, seed=self.seed)

    def _best_value(self) -> float:
        best = self.best()
        return float(best["measures"][self.main]["value"]) if best is not None else float("-inf")

    def _keep(self, step: int, measures: Measures) -> None:
        from nearfar.training.weights import gather_weights, save_weights

        gathered = gather_weights(self.method)
        if not is_main():
            return
        with (
            checkpoints.writing(self.folder, step),
            atomic_folder(self.folder / BEST, overwrite=True) as place,
        ):
            save_weights(self.method, place / "model.safetensors", gathered)
            write_json(place / "best.json", {"step": step, "measures": measures})
