"""Time and peak memory of a call, inside this process."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Cost:
    """Median, lowest and highest wall seconds over the repetitions, and the highest peak above the start in bytes."""

    seconds: float
    lowest: float
    highest: float
    peak: int


def measure(call: Callable[[], object], *, repeat: int = 3, warm_up: bool = True) -> Cost:
    """Run ``call`` once to warm up and ``repeat`` times measured."""
    if warm_up:
        call()
    times, peaks = [], []
    for _ in range(repeat):
        gc.collect()
        before = reset_peak()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        peaks.append(peak() - before)
    return Cost(statistics.median(times), min(times), max(times), max(peaks))


def reset_peak() -> int:
    """Forget the highest resident memory so far (Linux) and return the present one in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The highest resident memory since :func:`reset_peak`, in bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this benchmark needs Linux")


def machine() -> str:
    """One line about the machine, for the table's head."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}"
