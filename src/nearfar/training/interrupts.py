"""Ctrl-C and SIGTERM ask for an end at the next step; a second Ctrl-C does not wait."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A context in which SIGINT and SIGTERM set ``requested`` (the signal's name) instead of ending the program.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python handles no signals, and on
    leaving the context, signals do what they did before.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.requested is not None
        self.requested = signal.Signals(number).name
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
