"""Tasks in parallel processes that survive each other: one that dies costs its task alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from nearfar.claims import worker
from nearfar.claims.store import Record, Task

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Record | str]]:
    """Each task with its record, or with what went wrong as a text, in the order in which they end.

    At most ``workers`` processes of one thread each, started afresh (spawn). Leaving the iteration early, by Ctrl-C
    too, ends them.
    """
    waiting = deque(tasks)
    hands: list[_Hand] = []
    try:
        while waiting or any(hand.task for hand in hands):
            for hand in hands:
                if hand.task is None and waiting:
                    hand.give(waiting.popleft())
            while waiting and len(hands) < workers:
                hands.append(_Hand.start())
                hands[-1].give(waiting.popleft())
            busy = {hand.end: hand for hand in hands if hand.task}
            for end in wait(list(busy)):
                hand = busy[end]  # type: ignore[index]
                assert hand.task is not None
                task, answer = hand.task, hand.answer()
                if answer is None:
                    answer = hand.obituary()
                    hands.remove(hand)
                yield task, answer
    finally:
        for hand in hands:
            hand.dismiss()


@dataclass
class _Hand:
    """A worker's process, this side of its pipe, and the task it is at."""

    process: BaseProcess
    end: Connection
    task: Task | None = None

    @classmethod
    def start(cls) -> _Hand:
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        process = context.Process(target=worker.serve, args=(far,), daemon=True)
        with _as_a_worker():
            process.start()
        far.close()  # so that the pipe ends when the process does
        return cls(process, near)

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it has died: `answer` finds out
            self.end.send(task)

    def answer(self) -> Any:
        """What it says of its task; None when it has died."""
        self.task = None
        try:
            return self.end.recv()
        except (EOFError, OSError):
            return None

    def obituary(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        self.end.close()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"its process was ended {how}" + (" (out of memory?)" if code == -signal.SIGKILL else "")

    def dismiss(self) -> None:
        self.end.close()
        if self.task is not None:
            self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _as_a_worker() -> Iterator[None]:
    """For a process started inside: one thread for the numerical libraries, which read this when they are imported,
    and no SIGINT, which the terminal sends to all processes at once."""
    before = {name: os.environ.get(name) for name in _THREADS}
    masks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if masks else set()
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
