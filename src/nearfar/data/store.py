"""Columns that grow on disk while they are read and are looked at through a memory map afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nearfar.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 16_384


def arrow() -> Any:
    """The module pyarrow, or :class:`MissingExtraError`."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "text") from error
    return pyarrow


def column_types(names: Sequence[str]) -> dict[str, Any]:
    """The Arrow type of each canonical column: float64 for ``score``, large_string for everything else."""
    pa = arrow()
    return {name: pa.float64() if name == "score" else pa.large_string() for name in names}


class ColumnStore:
    """Writes batches of columns to a temporary place and gives them back as one memory-mapped :class:`pyarrow.Table`.

    Memory does not grow with the rows. Every column becomes *one* Arrow chunk whose buffers lie in mapped files,
    because picking random rows (what training does at each step) costs some 10 ms a batch from a table of many chunks
    and some 0.1 ms from one. The files disappear with the table, or with the process, however it ends.

    Raises :class:`OutputError` when the temporary place is full or cannot be written.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.rows = 0
        self._types = column_types(names)
        self._sizes = dict.fromkeys(names, 0)
        self._files: dict[str, IO[bytes]] = {}
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="nearfar-data-"))
            self._finalizer = weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)
            for name in names:
                self._open(f"{name}.data")
                if name != "score":
                    self._open(f"{name}.offsets").write(np.zeros(1, np.int64).tobytes())
        except OSError as error:
            raise _no_room(error) from error

    def append(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows given as lists, or Arrow arrays, of equal length."""
        pa = arrow()
        count = len(columns[self.names[0]])
        try:
            for name in self.names:
                values, kind = columns[name], self._types[name]
                array = values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
                if array.null_count or len(array) != count:
                    raise ValueError(f"column {name!r} has nulls or {len(array)} instead of {count} rows")
                if name == "score":
                    self._files[f"{name}.data"].write(array.to_numpy(zero_copy_only=False).tobytes())
                else:
                    self._append_texts(name, array)
        except OSError as error:
            raise _no_room(error) from error
        self.rows += count

    def seal(self) -> pa.Table:
        """The table of everything added. The store is finished after that."""
        pa = arrow()
        try:
            for file in self._files.values():
                file.close()
            arrays = []
            for name in self.names:
                data = self._map(f"{name}.data")
                if name == "score":
                    arrays.append(pa.Array.from_buffers(pa.float64(), self.rows, [None, data]))
                else:
                    arrays.append(pa.LargeStringArray.from_buffers(self.rows, self._map(f"{name}.offsets"), data))
        except OSError as error:
            raise _no_room(error) from error
        table = pa.Table.from_arrays(arrays, names=list(self.names))
        if os.name == "posix":
            self._finalizer()  # the mapped bytes live on without their names, until the table or the process ends
        else:
            self._finalizer.detach()
            weakref.finalize(table, shutil.rmtree, str(self._folder), ignore_errors=True)
        return table

    def _append_texts(self, name: str, array: pa.Array) -> None:
        _, offsets_buffer, data = array.buffers()
        count = len(array)
        if not count:
            return
        offsets = np.frombuffer(offsets_buffer, np.int64, count + 1, array.offset * 8)
        start, end = int(offsets[0]), int(offsets[-1])
        if end > start:
            self._files[f"{name}.data"].write(memoryview(data)[start:end])
        self._files[f"{name}.offsets"].write((offsets[1:] - start + self._sizes[name]).tobytes())
        self._sizes[name] += end - start

    def _open(self, name: str) -> IO[bytes]:
        self._files[name] = open(self._folder / name, "wb", buffering=1 << 18)  # noqa: SIM115 - closed in seal
        return self._files[name]

    def _map(self, name: str) -> Any:
        pa = arrow()
        path = self._folder / name
        if not path.stat().st_size:  # an empty file cannot be mapped
            return pa.py_buffer(b"")
        with pa.memory_map(str(path), "r") as mapped:
            return mapped.read_buffer()


def in_memory(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The table of ``columns`` (canonical names), held in memory."""
    pa = arrow()
    types = column_types(list(columns))
    return pa.Table.from_arrays(
        [pa.array(values, types[name]) for name, values in columns.items()], names=list(columns)
    )


def _no_room(error: OSError) -> OutputError:
    hint = "set TMPDIR to a folder you may write to"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        hint = "free some space there, or set TMPDIR to a folder on a larger disk"
    return OutputError(
        f"the data cannot be kept on disk while it is used: {error.strerror or error}",
        where=tempfile.gettempdir(),
        hint=hint,
    )
