"""What columns beside the texts say: which rows make a document, have the same image, are of the target domain."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.data.fingerprints import Hashes
from nearfar.data.values import shorten
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TARGET = "target"
_SCAN_ROWS = 1024


def document_offsets(names: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Where the runs of equal ``names`` begin, and where the last ends, ``[k + 1]``."""
    codes = name_codes(names)[0]
    return np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)][: len(codes)]]).astype(np.int64)


def held_out_groups(groups: npt.NDArray[Any], fraction: float, seed: int, *, by: str) -> npt.NDArray[np.bool_]:
    """Which rows ``[n]`` to hold out at random: whole ``groups [n]``, about ``fraction`` of the rows, at least one
    group and not all.

    Groups are drawn until their rows come as near to ``fraction`` as the drawn order allows. ``by``: what the rows of a
    group have in common, in words. Raises :class:`UsageError` for a ``fraction`` outside of (0, 1), :class:`DataError`
    where there is one group.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError("the part to hold out must be between 0 and 1, both excluded", where=f"fraction={fraction}")
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(
            f"{len(groups):,} rows cannot be split: they all have the same {by}",
            hint=f"a split keeps rows with the same {by} together; give the evaluation data as its own file",
        )
    # Groups in the order of the data: the draw must not depend on what the hashes happen to be.
    first_seen = np.full(len(sizes), len(groups), np.int64)
    np.minimum.at(first_seen, group, np.arange(len(groups)))
    order = np.argsort(first_seen)[np.random.default_rng(seed).permutation(len(sizes))]
    held = np.cumsum(sizes[order])
    count = int(np.argmin(np.abs(held[:-1] - fraction * len(groups)))) + 1
    out = np.zeros(len(sizes), bool)
    out[order[:count]] = True
    chosen: npt.NDArray[np.bool_] = out[group]
    return chosen


def domain_codes(
    names: pa.ChunkedArray, labelled: npt.NDArray[np.bool_], target: str | None
) -> tuple[npt.NDArray[np.int64], tuple[str, str]]:
    """0 for rows of the source, 1 for those of the target, ``[n]``, and the names of both; see
    :meth:`nearfar.data.Examples.domains`."""
    codes, found = name_codes(names)
    if len(found) != 2:
        raise UsageError(f"there are {len(found)} domains where two are needed: {', '.join(map(repr, found[:5]))}")
    if target is not None and target not in found:
        raise UsageError(f"there is no domain {target!r}", hint=f"the domains are {found[0]!r} and {found[1]!r}")
    without = [name for code, name in enumerate(found) if not labelled[codes == code].any()]
    chosen = target if target is not None else without[0] if len(without) == 1 else TARGET
    if chosen not in found:
        raise UsageError(
            f"which of the domains {shorten(found[0], 40)!r} and {shorten(found[1], 40)!r} is the target is not clear: "
            + ("neither has labels" if without else "both have labels"),
            hint=f"name it (target={found[1]!r}), or leave the labels of its rows empty",
        )
    place = found.index(chosen)
    return (codes == place).astype(np.int64), (found[1 - place], chosen)


def vector_length(column: pa.ChunkedArray) -> int:
    """How many numbers the vectors of a column have; 0 where none has any."""
    from pyarrow import compute

    return int(compute.max(compute.list_value_length(column)).as_py() or 0)


def vectors(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.float32]:
    """The vectors of a column as ``[n, width]``; NaN where one has no numbers."""
    from pyarrow import compute

    there = compute.list_value_length(column).to_numpy() > 0
    found = np.full((len(column), width), np.nan, np.float32)
    found[there] = column.combine_chunks().flatten().to_numpy().reshape(-1, width or 1)
    return found


def vector_hashes(column: pa.ChunkedArray) -> Hashes:
    """One number for each vector of a column, ``[n]`` uint64, equal for those of equal numbers."""
    width = vector_length(column)
    digests = b"".join(
        blake2b(row.tobytes(), digest_size=8).digest() for part in _parts(column, width) for row in part + np.float32(0)
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def vector_ids(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number from 0 on for each vector of a column, ``[n]``, equal for those of equal numbers; -1 for those without
    any."""
    from pyarrow import compute

    there = compute.list_value_length(column).to_numpy() > 0
    ids = np.full(len(column), -1, np.int64)
    ids[there] = np.unique(vector_hashes(column)[there], return_inverse=True)[1]
    return ids


def vector_zeros(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which vectors of a column ``[n]`` are nothing but zeros."""
    width = vector_length(column)
    found = [(part == 0).all(1) for part in _parts(column, width)]
    return np.concatenate(found) & (width > 0) if found else np.zeros(0, bool)


def _parts(column: pa.ChunkedArray, width: int) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(column), _SCAN_ROWS):
        yield vectors(column.slice(start, _SCAN_ROWS), width)


def name_codes(names: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The place of each name among those that occur, ``[n]``, and these in the order in which they come."""
    encoded = names.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()
