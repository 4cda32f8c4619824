"""The documents of an index: one JSON object a line, and where each line begins."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.errors import DataError


def document_line(document: Any, number: int) -> tuple[bytes, str]:
    """(the line to store, the text to embed) of document ``number`` (from 1).

    :class:`DataError` when it is no dict with a "text", when its "id" is no text or number, or when it holds what
    JSON cannot.
    """
    where = f"document {number:,}"
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        what = f"its text is {document.get('text')!r:.60}" if isinstance(document, dict) else f"{document!r:.60}"
        raise DataError(f'a document is a dict with a "text", found {what}', where=where)
    name = document.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
        raise DataError(f'a document\'s "id" is a text or a whole number, found {name!r:.60}', where=where)
    try:
        line = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the document cannot be stored as JSON: {error}", where=where) from None
    return line + b"\n", document["text"]


class Documents:
    """The stored documents, memory-mapped: any of them by its row."""

    def __init__(self, path: Path, offsets: Path, count: int) -> None:
        """``path``: the JSON lines; ``offsets``: a .npy of ``count`` + 1 int64. :class:`DataError` if they disagree."""
        self.path = path
        try:
            self._offsets = np.load(offsets, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
            if self._offsets.shape != (count + 1,) or self._offsets.dtype != np.int64 or self._offsets[-1] != size:
                raise DataError("the documents of the index are not complete", where=str(path))
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DataError(f"the documents of the index cannot be read: {error}", where=str(path)) from None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Document ``row`` (from 0) as it was given."""
        start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
        try:
            document = json.loads(self._map[start:stop])
        except ValueError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("text"), str):
            raise DataError("the document is damaged", where=f"{self.path}, line {row + 1}")
        return document

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()


def stored_lines(path: Path, count: int) -> Iterator[bytes]:
    """The first ``count`` lines of ``path``."""
    with open(path, "rb") as file:
        for _ in range(count):
            yield file.readline()


def cut(path: Path, size: int) -> None:
    """Leave the first ``size`` bytes of ``path`` (begin it, if it is not there)."""
    path.touch()
    os.truncate(path, size)
