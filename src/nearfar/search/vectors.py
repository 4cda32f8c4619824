"""A file of vectors that grows by appending and becomes, with its header, a faiss flat index that can be mapped."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError

Vectors = npt.NDArray[np.float32]

_COUNT = slice(8, 16)  # after the four-letter kind and the 32-bit dimension


def faiss_module() -> Any:
    """The module ``faiss``; :class:`MissingExtraError` when it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise MissingExtraError("faiss-cpu", "search") from None
    return faiss


def flat_header(dimension: int, count: int) -> bytes:
    """The bytes before the vectors in the file of a ``faiss.IndexFlatIP`` with ``count`` vectors.

    They are those of an empty index with the number of vectors (64 bits at byte 8) and the number of floats (the last
    64 bits) filled in; that this is so for the installed faiss is checked on an index with one vector.
    """
    faiss = faiss_module()
    empty = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dimension)).tobytes())

    def filled(number: int) -> bytes:
        header = bytearray(empty)
        header[_COUNT] = struct.pack("<q", number)
        header[-8:] = struct.pack("<Q", number * dimension)
        return bytes(header)

    one = faiss.IndexFlatIP(dimension)
    one.add(np.zeros((1, dimension), dtype=np.float32))
    if faiss.serialize_index(one).tobytes() != filled(1) + bytes(4 * dimension):
        raise RuntimeError(f"faiss {faiss.__version__} writes flat indexes in a form that is not known here")
    return filled(count)


def file_size(dimension: int, count: int) -> int:
    """Bytes of the file with ``count`` vectors."""
    return len(flat_header(dimension, count)) + 4 * dimension * count


def set_count(path: Path, dimension: int, count: int) -> None:
    """Cut the file to its first ``count`` vectors (begin it, if it is not there) and say so in its header."""
    header = flat_header(dimension, count)
    path.touch()
    with open(path, "r+b") as file:
        file.write(header)
        file.truncate(len(header) + 4 * dimension * count)
        file.flush()
        os.fsync(file.fileno())


def mapped(path: Path, dimension: int, count: int) -> Vectors:
    """The vectors of the file, ``[count, dimension]``, memory-mapped, read only."""
    if count == 0:
        return np.zeros((0, dimension), dtype=np.float32)
    start = len(flat_header(dimension, count))
    return np.memmap(path, dtype=np.float32, mode="r", offset=start, shape=(count, dimension))


def open_faiss(path: Path) -> Any:
    """The faiss index in ``path``, memory-mapped where the installed faiss can; :class:`DataError` when it is none."""
    faiss = faiss_module()
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    try:
        return faiss.read_index(str(path), flags)
    except Exception as error:  # faiss raises RuntimeError and swig's own
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"the index file cannot be read: {reason}", where=str(path)) from None
