"""What the terminal shows while a comparison runs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nearfar.report.format import duration, measure_name

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.compare.runs import Done


class Progress:
    """One line a run on ``console``, with what is left; on a terminal a bar that is taken away at the end."""

    def __init__(self, console: Console | None, total: int, measure: str) -> None:
        self.console, self.total, self.measure = console, total, measure
        self._done = self._made = 0
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.console is not None and self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("comparing"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                console=self.console,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def ran(self, done: Done, what: str, was_there: bool) -> None:
        """A run is done, or was found done."""
        self._done += 1
        self._made += not was_there
        if self.console is None:
            return
        state = self._state(done, what)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, state=state)
        elif not was_there:
            self.console.print(f"{self._done}/{self.total}  {state}", markup=False, highlight=False, soft_wrap=True)

    def _state(self, done: Done, what: str) -> str:
        if done.error is not None:
            found = f"not usable: {done.error}"
        else:
            found = f"{measure_name(self.measure)} {done.validation or 0.0:.4f} on the validation part"
        left = self.total - self._done
        if not self._made or not left:
            return f"{done.entry}, {what}: {found}"
        seconds = (time.monotonic() - self._began) / self._made * left
        return f"{done.entry}, {what}: {found}; about {duration(seconds)} left"
