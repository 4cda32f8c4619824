"""One experiment in a process of its own: what is run there, and what comes back."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from datetime import datetime, timezone
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from pathlib import Path

from nearfar.claims.store import Record, Task
from nearfar.errors import DataError, NearfarError
from nearfar.recipes import Arms, Recipe, registry

_MOST_WARNINGS = 20


def load(source: str) -> Recipe:
    """The recipe in a file: one of nearfar's by its module, any other by running the file."""
    path = Path(source)
    wings = Path(registry.__file__).parent
    if path.parent.parent == wings:
        return registry.of_module(f"{registry.__package__}.{path.parent.name}.{path.stem}")
    return registry.of_file(path)


def measure(task: Task) -> Record:
    """Run a task's experiment here.

    Raises whatever the experiment raises, and :class:`~nearfar.errors.DataError` when what it returns is no mapping of
    finite measures by arm.
    """
    recipe = load(task.source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wall, cpu = time.perf_counter(), time.process_time()
        arms = checked(recipe.experiment(task.seed, task.scale, sabotage=task.sabotage))
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    # those of libraries (deprecations and the like) say nothing of the measurement
    said = dict.fromkeys(str(each.message) for each in caught if "nearfar" in each.filename)
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Record(arms, seconds, finished, list(said)[:_MOST_WARNINGS])


def checked(arms: Arms) -> Arms:
    """``arms`` as plain floats. Raises :class:`~nearfar.errors.DataError` for anything else or values not finite."""
    if not isinstance(arms, Mapping) or not arms:
        raise DataError(f"the experiment returned {arms!r}", hint="return {arm: {measure: value}}")
    made: dict[str, dict[str, float]] = {}
    for arm, measures in arms.items():
        if not isinstance(measures, Mapping) or not measures:
            raise DataError(f"the experiment returned {measures!r} for the arm {arm!r}", hint="{measure: value}")
        made[arm] = {}
        for name, value in measures.items():
            try:
                made[arm][name] = float(value)
            except (TypeError, ValueError, RuntimeError):
                raise DataError(f"{name} of {arm} is {value!r}, not a number") from None
            if not math.isfinite(made[arm][name]):
                raise DataError(f"{name} of {arm} is {made[arm][name]}, which cannot be judged")
    return made


def serve(tasks: Connection) -> None:
    """Measure what comes in at ``tasks`` until it is closed; answers a :class:`Record`, or the error as a text."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    os.dup2(2, 1)  # standard output is the parent's, for results
    _end_with_parent()
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            task = tasks.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Record | str = measure(task)
        except BaseException as error:  # whatever an experiment does, its worker lives on
            answer = _said(error)
        try:
            tasks.send(answer)
        except OSError:
            return


def _said(error: BaseException) -> str:
    if isinstance(error, NearfarError):
        return str(error).replace("\n", "; ")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
