"""The three kinds of index, what each is made of and how it is asked for candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.errors import DataError, OutputError, UsageError
from nearfar.search.vectors import Vectors, faiss_module

KINDS = ("exact", "hnsw", "ivfpq")

HNSW_NEIGHBOURS = 32
"""M: links of a node (faiss's default; Malkov & Yashunin 2018 advise 5 to 48, more for high dimension and recall)."""
HNSW_BUILD_WIDTH = 200
"""efConstruction (the default of hnswlib, the authors' own code; faiss's 40 is quicker to build and finds less)."""
HNSW_SEARCH_WIDTH = 256
"""efSearch, raised to twice the number of candidates. On 100,000 functions (half of them copies; d = 256), asked with
docstrings, 0.985 of the ten nearest were found in 2 ms; 0.957 with 128, 0.996 with 512."""

PQ_BITS = 8
POINTS_PER_CENTROID = 39
"""Below this many training vectors for a centroid faiss warns that they are too few."""
FEWEST_FOR_IVFPQ = POINTS_PER_CENTROID * 2**PQ_BITS
MOST_FOR_TRAINING = 256 * 2**PQ_BITS
"""More than 256 vectors for a centroid do not help (faiss's own limit)."""

FEWEST_LISTS_READ = 16
LISTS_READ = 0.25
"""nprobe: the share of an ivfpq index's lists that a query reads. On the same functions, with 100 candidates compared
exactly: 0.90 of the ten nearest, in 3 ms (asked with the beginnings of functions, 0.965); a sixteenth found 0.81."""

_ADDED_AT_ONCE = 4096
Progress = Callable[[int, int], None]


def check_kind(kind: str) -> None:
    """:class:`UsageError` when ``kind`` is not one of :data:`KINDS`."""
    if kind not in KINDS:
        raise UsageError(f"there is no index of kind {kind!r}", hint=f"choose one of {', '.join(KINDS)}")


def check_count(kind: str, count: int) -> None:
    """:class:`DataError` when ``count`` documents are too few for ``kind``."""
    if count == 0:
        raise DataError("there are no documents to index")
    if kind == "ivfpq" and count < FEWEST_FOR_IVFPQ:
        raise DataError(
            f"an ivfpq index learns {2**PQ_BITS} centroids from at least {FEWEST_FOR_IVFPQ:,} documents, and there are "
            f"{count:,}",
            hint="use kind='exact' (quick enough for so few) or 'hnsw'",
        )


def build_kind(kind: str, vectors: Vectors, path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the faiss index of ``kind`` over ``vectors`` [n, d] to ``path`` and return its parameters.

    "hnsw" (Malkov & Yashunin 2018) holds the vectors and a graph over them in memory while it is built: (4 d + 8 M) n
    bytes and a little. With several threads the graph depends on their timing. "ivfpq" (Jégou, Douze & Schmid 2011)
    holds one byte for about four components: 4 √n lists, trained on a sample that is the same each time.

    Raises :class:`OutputError` when ``path`` cannot be written.
    """
    faiss = faiss_module()
    count, dimension = vectors.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_WIDTH
        parameters = {"neighbours": HNSW_NEIGHBOURS, "build_width": HNSW_BUILD_WIDTH}
    else:
        lists = max(min(round(4 * math.sqrt(count)), count // POINTS_PER_CENTROID), 1)
        parts = pq_parts(dimension)
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(dimension), dimension, lists, parts, PQ_BITS, faiss.METRIC_INNER_PRODUCT
        )
        sample = min(count, max(MOST_FOR_TRAINING, 64 * lists))
        rows = np.sort(np.random.default_rng(0).choice(count, size=sample, replace=False))
        index.train(np.ascontiguousarray(vectors[rows]))
        parameters = {"lists": lists, "parts": parts, "bits": PQ_BITS}
    for start in range(0, count, _ADDED_AT_ONCE):
        stop = min(start + _ADDED_AT_ONCE, count)
        index.add(np.array(vectors[start:stop], dtype=np.float32, order="C"))
        if progress is not None:
            progress(stop, count)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        reason = "no space left" if "No space left" in str(error) else str(error).strip().split("\n")[0]
        raise OutputError(
            f"cannot write: {reason}", where=str(path), hint="free some space or choose another folder"
        ) from error
    return parameters


def pq_parts(dimension: int) -> int:
    """Into how many parts product quantisation cuts a vector: the divisor of ``dimension`` nearest to its quarter."""
    divisors = [number for number in range(1, dimension + 1) if dimension % number == 0]
    return min(divisors, key=lambda number: abs(math.log(4 * number / dimension)))


def candidates(index: Any, kind: str, queries: Vectors, count: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Rows that may be among the ``count`` nearest of each query: at most ``count``, fewer when fewer are found."""
    faiss = faiss_module()
    parameters = None
    if kind == "hnsw":
        parameters = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH_WIDTH, 2 * count))
    elif kind == "ivfpq":
        parameters = faiss.SearchParametersIVF(nprobe=max(FEWEST_LISTS_READ, round(LISTS_READ * index.nlist)))
    _, rows = index.search(queries, count, params=parameters)
    return [found[found >= 0] for found in rows]
