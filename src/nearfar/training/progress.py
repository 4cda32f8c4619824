"""What a run shows and writes while it goes: a progress line, metrics.jsonl, warnings about the space.

Importing this module imports transformers.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nearfar.files import atomic_path, output_error
from nearfar.training.watch import look as look_at_space

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.training.trainer import Trainer

Look = Callable[..., "dict[str, Any] | None"]
"""``look(method, loss, warmed_up=...)``: as :func:`nearfar.training.watch.look`."""

LOOKS = 20
"""How often a run looks at its space, but not more often than every :data:`LEAST_STEPS` steps."""
LEAST_STEPS = 5

_SECONDS_BETWEEN_LINES = 10.0


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, appended and flushed at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one record."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error

    def cut(self, step: int) -> list[dict[str, Any]]:
        """Forget what comes after ``step`` (which a resumed run will do again); the records that stay."""
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the process died
            if record.get("step", 0) <= step:
                kept.append(record)
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        return kept


class Recorder(TrainerCallback):
    """Writes each logged step to ``metrics`` and takes a ``look`` about :data:`LOOKS` times a run (at the embedding
    space, by default); a verdict is given to ``say`` (None: as a UserWarning), each once."""

    def __init__(
        self, metrics: MetricsFile | None, *, say: Callable[[str], None] | None = None, look: Look = look_at_space
    ) -> None:
        self.trainer: Trainer | None = None
        self.metrics = metrics
        self.say = say
        self.look = look
        self._told: set[str] = set()
        self._next_look = 1

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        record = {"step": state.global_step, **logs}
        if state.global_step >= self._next_look or state.global_step >= state.max_steps:
            self._next_look = state.global_step + max(LEAST_STEPS, state.max_steps // LOOKS)
            record.update(self._look(state, float(logs["loss"])))
        if self.metrics is not None:
            self.metrics.append(record)

    def _look(self, state: TrainerState, loss: float) -> dict[str, Any]:
        if self.trainer is None:
            return {}
        found = self.look(self.trainer.method, loss, warmed_up=state.global_step >= 0.2 * state.max_steps)
        if found is None:
            return {}
        verdict = found.get("verdict")
        kind = " ".join(str(verdict).split()[:4])
        if verdict is not None and kind not in self._told:
            self._told.add(kind)
            message = f"step {state.global_step:,}: {verdict}"
            if self.say is not None:
                self.say(message)
            else:
                warnings.warn(message, UserWarning, stacklevel=2)
        return found


class Progress(TrainerCallback):
    """One line on ``console`` with step, rate, time left, loss, what else of the logs is ``shown`` (name in the logs ->
    name to show), and the evaluation's main measure (``main``).

    A live bar on a terminal; elsewhere a plain line at most every ten seconds and after each evaluation.
    """

    def __init__(
        self,
        console: Console,
        *,
        main: str | None = None,
        batch_size: int = 1,
        shown: Mapping[str, str] | None = None,
    ) -> None:
        self.console = console
        self.shown = dict(shown or {})
        self._values: dict[str, float] = {}
        self.main = main
        self.batch_size = batch_size
        self._bar: Any = None
        self._task: Any = None
        self._loss: float | None = None
        self._measure: float | None = None
        self._first = 0
        self._began = self._line_at = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._first, self._began = state.global_step, time.monotonic()
        self._line_at = self._began
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, state="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, state=self._state(state))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            self._values = {name: float(logs[key]) for key, name in self.shown.items() if key in logs}
        if (
            self._bar is None
            and state.is_world_process_zero
            and time.monotonic() - self._line_at > _SECONDS_BETWEEN_LINES
        ):
            self._line(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        if self.main is not None and metrics:
            self._measure = metrics.get(f"eval_{self.main}")
        if state.is_world_process_zero:
            self._line(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, state: TrainerState) -> None:
        self._line_at = time.monotonic()
        left = "" if self._bar is not None else f", {self._left(state)} left"
        self.console.print(
            f"step {state.global_step:,}/{state.max_steps:,}  {self._state(state)}{left}", markup=False, highlight=False
        )

    def _state(self, state: TrainerState) -> str:
        parts = [f"{self._rate(state) * self.batch_size:,.0f} rows/s"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4f}")
        parts += [f"{name} {value:.4g}" for name, value in self._values.items()]
        if self._measure is not None:
            parts.append(f"{self.main} {self._measure:.4f}")
        return "  ".join(parts)

    def _rate(self, state: TrainerState) -> float:
        passed = time.monotonic() - self._began
        return (state.global_step - self._first) / passed if passed > 0 else 0.0

    def _left(self, state: TrainerState) -> str:
        rate = self._rate(state)
        seconds = round((state.max_steps - state.global_step) / rate) if rate else 0
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
