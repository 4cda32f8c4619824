"""The unfinished comparison: what has been run so far, beside the output, so that a killed comparison goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.compare.runs import Done
from nearfar.errors import OutputError
from nearfar.files import atomic_path, write_json

PLAN, RUNS = "plan.json", "runs"


class Store:
    """A hidden folder beside ``output`` with the plan of the comparison and every finished run.

    ``plan`` decides every result; its digest must be that of the work found there. ``overwrite`` throws away that
    of another plan. :attr:`found` counts the runs that were there.

    Raises :class:`OutputError` when an unfinished comparison with another plan is there.
    """

    def __init__(self, output: Path, plan: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = output.parent / f".{output.name}.unfinished"
        self.lock = output.parent / f".{output.name}.lock"
        self._plan = json.loads(json.dumps(plan, default=str))
        self._overwrite = overwrite
        self.found = 0

    @property
    def training(self) -> Path:
        """Where the present run has its checkpoints."""
        return self.path / "training"

    def open(self) -> None:
        """Make the folder, or find the finished runs of the same comparison in it."""
        known = self._read(self.path / PLAN)
        if known is not None and known != self._plan:
            if not self._overwrite:
                changed = sorted(name for name in {*known, *self._plan} if known.get(name) != self._plan.get(name))
                raise OutputError(
                    "an unfinished comparison with other settings is here; they differ in " + ", ".join(changed),
                    where=str(self.path),
                    hint="repeat its command to go on, pass --overwrite to start anew, or choose another output",
                )
            known = None
        if known is None:
            shutil.rmtree(self.path, ignore_errors=True)
            (self.path / RUNS).mkdir(parents=True)
            write_json(self.path / PLAN, self._plan)
        self.found = len(list((self.path / RUNS).glob("*.json")))

    def run(self, key: Mapping[str, Any], make: Callable[[Path], Done]) -> tuple[Done, bool]:
        """The run of this key: as it was found, or made by ``make(folder for checkpoints)`` and kept; and whether it
        was found."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        place = self.path / RUNS / name
        found = self._read(place.with_suffix(".json"))
        if found is not None:
            items = place.with_suffix(".npy")
            return Done(**found, items=np.load(items, allow_pickle=False) if items.exists() else None), True
        folder = self.training / name
        done = make(folder)
        if done.items is not None:
            with atomic_path(place.with_suffix(".npy")) as temporary, open(temporary, "wb") as file:
                np.save(file, done.items, allow_pickle=False)
        write_json(place.with_suffix(".json"), done.to_dict())
        return done, False

    def value(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result that is kept under ``name``: as it was found, or made now."""
        place = self.path / f"{name}.json"
        found = self._read(place)
        if found is None:
            found = make()
            write_json(place, found)
        return found

    def remove(self) -> None:
        """Forget it all."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None
