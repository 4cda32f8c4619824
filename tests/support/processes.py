"""A test file run by several processes that find each other through the folder they are given."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def of_processes(
    script: str, folder: Path, *, count: int = 2, environment: Mapping[str, str] | None = None, timeout: int = 300
) -> list[Any]:
    """What ``python script RANK FOLDER`` saved as ``RANK.pt`` in ``folder``, of the ranks that run side by side.

    The script may import ``support``. ``environment`` is added to this process's; a process that fails, or takes more
    than ``timeout`` seconds, fails the test with what it said.
    """
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    logs = [(folder / f"{rank}.log").open("w+") for rank in range(count)]  # a pipe that nobody reads would fill up
    running = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )
        for rank, log in enumerate(logs)
    ]
    try:
        for process, log in zip(running, logs, strict=True):
            process.wait(timeout=timeout)
            log.seek(0)
            assert process.returncode == 0, log.read()
    finally:
        for process, log in zip(running, logs, strict=True):
            process.kill()
            log.close()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
