"""Reading a run folder as it is found: complete, half written, from an older version, or edited by hand."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar.errors import DataError
from nearfar.report import format as fmt

FILES = ("config.json", "metrics.jsonl", "metrics.json", "data-check.json", "versions.json", "diagnostics.json")


@dataclass
class RunFolder:
    """What a run folder holds. A file that is missing or unreadable has its reason, in a line, in :attr:`absent`.

    Raises :class:`~nearfar.errors.DataError` when ``path`` is no folder or holds none of a run's files.
    """

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    bad_lines: int = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Read every file of the folder that can be read."""
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise DataError("there is no such run folder", where=str(path), hint="name the folder that training wrote")
        for name in FILES:
            folder._read(name)
        if all(reason.startswith("The run folder has no") for reason in folder.absent.values()) and not folder.content:
            raise DataError(
                "this is not the folder of a training run", where=str(path), hint=f"it should hold {', '.join(FILES)}"
            )
        return folder

    def mapping(self, name: str) -> Mapping[str, Any]:
        """The JSON object in the file ``name``; an empty one when it is absent."""
        value = self.content.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The lines of metrics.jsonl that are JSON objects."""
        records: list[Mapping[str, Any]] = self.content.get("metrics.jsonl", [])
        return records

    def _read(self, name: str) -> None:
        try:
            text = (self.path / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            self.absent[name] = f"The run folder has no {name}."
            return
        except OSError as error:
            self.absent[name] = f"{name} cannot be read: {error.strerror or error}."
            return
        if name.endswith(".jsonl"):
            self.content[name] = self._lines(text)
            return
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.absent[name] = f"{name} is not JSON: {error}."
            return
        if isinstance(value, dict):
            self.content[name] = value
        else:
            self.absent[name] = f"{name} holds no JSON object."

    def _lines(self, text: str) -> list[Mapping[str, Any]]:
        records: list[Mapping[str, Any]] = []
        for line in filter(str.strip, text.split("\n")):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                records.append(record)
            else:
                self.bad_lines += 1
        return records


def find(value: Any, *names: str) -> Any:
    """The value under the first of ``names`` that nested mappings have, the shallowest first; None when none does."""
    for name in names:
        waiting = deque([value])
        while waiting:
            current = waiting.popleft()
            if isinstance(current, Mapping):
                if current.get(name) is not None:
                    return current[name]
                waiting.extend(current.values())
    return None


def flatten(value: Mapping[str, Any], *, prefix: str = "", depth: int = 4) -> list[tuple[str, str]]:
    """Nested settings as (dotted name, written value) pairs; what lies deeper than ``depth`` is written as JSON."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item and depth > 1:
            rows += flatten(item, prefix=f"{name}.", depth=depth - 1)
        else:
            rows.append((name, written(item)))
    return rows


def written(value: Any) -> str:
    """A setting as a reader writes it: ``yes``, ``none``, ``0.05``, ``a, b``; anything nested as JSON."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else fmt.number(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return fmt.shorten(", ".join(map(str, value)), 400) or "none"
    return fmt.shorten(json.dumps(value, ensure_ascii=False), 400)
