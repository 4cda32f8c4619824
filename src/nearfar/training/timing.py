"""What a step of one method costs beside a step of another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from nearfar.errors import UsageError


def cpu_seconds(steps: Mapping[str, Callable[[], Any]], *, rounds: int = 9) -> dict[str, float]:
    """Median CPU seconds of each step, each run once unmeasured and then once in each of ``rounds`` in turns.

    CPU time of this process (all its threads) rather than time on the clock, turns rather than blocks and the median
    rather than the mean: what else runs on the machine then slows all alike. Kernels of a GPU are not counted.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}; at least one is needed")
    for step in steps.values():
        step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
