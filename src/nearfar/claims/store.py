"""What was measured, on disk: a small JSON file for each task, good for as long as code and settings stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from nearfar.files import write_json
from nearfar.recipes import Arms, Scale

PACKAGES = ("torch", "numpy", "scikit-learn")


@cache
def versions() -> dict[str, str]:
    """Of Python (major and minor) and of the packages that may change a measurement; ``"none"`` for a missing one."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@dataclass(frozen=True)
class Task:
    """One run of one experiment. ``source``: the recipe's file; ``fingerprint``: of the code it depends on."""

    recipe: str
    source: str
    scale: Scale
    seed: int
    sabotage: bool
    fingerprint: str

    @property
    def key(self) -> dict[str, Any]:
        """What a record must share with the task to stand for it; where the code lies does not matter."""
        key = asdict(self)
        del key["source"]
        return {**key, "versions": versions()}

    def __str__(self) -> str:
        return f"{self.recipe}, seed {self.seed}" + (", sabotaged" if self.sabotage else "")


@dataclass(frozen=True)
class Record:
    """What a task measured, the seconds it took (``wall``, ``cpu``), when it ended, and what warned meanwhile."""

    arms: Arms
    seconds: Mapping[str, float]
    finished: str
    warnings: list[str] = field(default_factory=list)


class Store:
    """The records in a folder. Anything that is no complete record of a task counts as absent."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, task: Task) -> Path:
        """The file of a task's record."""
        digest = hashlib.sha256(json.dumps(task.key, sort_keys=True).encode()).hexdigest()[:12]
        kind = "-sabotaged" if task.sabotage else ""
        return self.folder / task.recipe / f"{task.scale}-seed{task.seed}{kind}-{digest}.json"

    def get(self, task: Task) -> Record | None:
        """The record of a task, or None."""
        try:
            found = json.loads(self.path(task).read_text(encoding="utf-8"))
            if found.pop("key") != task.key:
                return None
            record = Record(**found)
            plain = {arm: {name: float(value) for name, value in of.items()} for arm, of in record.arms.items()}
            return record if plain == record.arms and set(record.seconds) == {"wall", "cpu"} else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, task: Task, record: Record) -> None:
        """Write a record, all of it or nothing. Raises :class:`~nearfar.errors.OutputError` when that cannot be."""
        write_json(self.path(task), {"key": task.key, **asdict(record)})
