"""Columns that grow on disk while they are read and are looked at through a memory map afterwards."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
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
    """The Arrow type of each canonical column: float64 for ``score``, lists of float32 for ``image`` (of length 0 where
    there is none), large_string for everything else."""
    pa = arrow()
    numbers = {"score": pa.float64(), "image": pa.large_list(pa.float32())}
    return {name: numbers.get(name, pa.large_string()) for name in names}


class ColumnStore:
    """Writes batches of columns to a temporary place and gives them back as one memory-mapped :class:`pyarrow.Table`.

    Memory does not grow with the rows. Every column becomes *one* Arrow chunk whose buffers are mapped files, because
    picking random rows (what training does at each step) costs some 10 ms a batch from a table of many chunks and some
    0.1 ms from one. The files have no name, so they are gone with the table, or with the process, however it ends.

    Raises :class:`OutputError` when the temporary place is full or cannot be written.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.rows = 0
        self._types = column_types(names)
        self._sizes = dict.fromkeys(names, 0)
        try:
            self._data = {name: _unnamed_file() for name in names}
            self._offsets = {name: _unnamed_file() for name in names if name != "score"}
            for file in self._offsets.values():
                file.write(np.zeros(1, np.int64).tobytes())
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
                    self._data[name].write(array.to_numpy(zero_copy_only=False).tobytes())
                else:
                    self._append_lists(name, array)
        except OSError as error:
            self._abandon()
            raise _no_room(error) from error
        self.rows += count

    def seal(self) -> pa.Table:
        """The table of everything added. The store is finished after that."""
        pa = arrow()
        arrays = []
        try:
            for name in self.names:
                data = _mapped(self._data[name])
                if name == "score":
                    arrays.append(pa.Array.from_buffers(pa.float64(), self.rows, [None, data]))
                    continue
                offsets = _mapped(self._offsets[name])
                if name == "image":
                    numbers = pa.Array.from_buffers(pa.float32(), self._sizes[name], [None, data])
                    of_rows = pa.Array.from_buffers(pa.int64(), self.rows + 1, [None, offsets])
                    arrays.append(pa.LargeListArray.from_arrays(of_rows, numbers))
                else:
                    arrays.append(pa.LargeStringArray.from_buffers(self.rows, offsets, data))
        except OSError as error:
            self._abandon()
            raise _no_room(error) from error
        return pa.Table.from_arrays(arrays, names=list(self.names))

    def _abandon(self) -> None:
        """Close the files below their buffers, which would otherwise try to write once more when they are dropped."""
        for file in (*self._data.values(), *self._offsets.values()):
            raw = getattr(file, "raw", None)
            if raw is not None:
                raw.close()

    def _append_lists(self, name: str, array: pa.Array) -> None:
        """Texts, lists of bytes, or lists of float32."""
        count = len(array)
        if not count:
            return
        buffers = array.buffers()
        offsets = np.frombuffer(buffers[1], np.int64, count + 1, array.offset * 8)
        start, end = int(offsets[0]), int(offsets[-1])
        if end > start and name == "image":
            self._data[name].write(array.values.to_numpy()[start:end].tobytes())
        elif end > start:
            self._data[name].write(memoryview(buffers[2])[start:end])
        self._offsets[name].write((offsets[1:] - start + self._sizes[name]).tobytes())
        self._sizes[name] += end - start


def _unnamed_file() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="nearfar-data-", buffering=1 << 18)


def _mapped(file: IO[bytes]) -> Any:
    """The content of ``file`` as a mapped Arrow buffer. The file is closed; the mapping keeps its content alive."""
    pa = arrow()
    with file:
        file.flush()
        if not os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
            return pa.py_buffer(b"")
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


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
        where=tempfile.tempdir or os.environ.get("TMPDIR") or "the folder for temporary files",
        hint=hint,
    )
