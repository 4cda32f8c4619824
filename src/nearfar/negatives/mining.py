"""Hard negatives out of files of embeddings: the nearest documents of each query that do not answer it.

Documents are streamed in blocks and only the best of each query are kept, so memory holds a block of scores and the
candidates, whatever the number of documents. Embeddings may be memory-mapped files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar.errors import UsageError

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

QUERY_BLOCK = 1024
DOCUMENT_BLOCK = 32_768


@dataclass(frozen=True)
class MiningRules:
    """Which near documents are taken for hard negatives.

    ``count``: how many for a query. ``first_rank``, ``last_rank``: the window of ranks, 1 = the nearest document that
    does not answer the query; skipping the first few avoids unlabelled positives. ``lowest_score``, ``highest_score``:
    bounds of the similarity. ``margin``: a negative scores at least this much below the query's worst positive.
    ``ratio``: a negative scores at most this share of it (NV-Retriever, Moreira et al., 2024, arXiv:2407.15831:
    TopK-MarginPos with 0.05 and TopK-PercPos with 0.95 were their best). All bounds are judged by the teacher's scores
    where a teacher is given. ``sampling``: "top" takes the nearest of those left, "random" any of them (``seed``).

    Raises :class:`UsageError` for rules that nothing can meet.
    """

    count: int = 5
    first_rank: int = 1
    last_rank: int = 100
    lowest_score: float | None = None
    highest_score: float | None = None
    margin: float | None = None
    ratio: float | None = None
    sampling: str = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"mining gives at least one negative a query, not {self.count}")
        if not 1 <= self.first_rank <= self.last_rank:
            raise UsageError(
                f"the window of ranks {self.first_rank} to {self.last_rank} is empty", hint="ranks count from 1"
            )
        if self.last_rank - self.first_rank + 1 < self.count:
            raise UsageError(
                f"{self.count} negatives do not fit into ranks {self.first_rank} to {self.last_rank}",
                hint="widen the window",
            )
        if self.sampling not in ("top", "random"):
            raise UsageError(f"sampling must be 'top' or 'random', not {self.sampling!r}")


@dataclass(frozen=True)
class Mined:
    """``documents [n, count]``: rows of the documents, -1 where too few met the rules; ``scores [n, count]`` the
    (miner's) similarities, NaN there. ``candidates [n]``: how many met the rules."""

    documents: Integers
    scores: npt.NDArray[np.float32]
    candidates: Integers


def mine(
    queries: Floats,
    documents: Floats,
    positives: tuple[Integers, Integers],
    rules: MiningRules | None = None,
    *,
    groups: Integers | None = None,
    teacher: tuple[Floats, Floats] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Mined:
    """The hard negatives of each query.

    Arguments:
        queries, documents: embeddings ``[n, d]`` and ``[m, d]`` (arrays or memory-mapped files), compared by dot
            product: normalise them for cosines.
        positives: ``(query rows, document rows)`` of all pairs that answer; several a query are allowed. A query
            without any has no threshold from ``margin`` and ``ratio``.
        rules: see :class:`MiningRules`.
        groups: ``[m]`` integers; a document of the same group as a positive (a copy of its text) is no negative.
        teacher: embeddings of queries and documents by a second, better model, that judges the bounds.
        device: where the scores are computed.
        progress: called with (queries done, queries).

    Raises :class:`UsageError` for arrays that do not fit together.
    """
    rules = MiningRules() if rules is None else rules
    n, m = _sizes("embeddings", queries, documents)
    if teacher is not None and _sizes("the teacher's embeddings", *teacher) != (n, m):
        raise UsageError(f"the teacher's embeddings must be of the same {n:,} queries and {m:,} documents")
    if groups is not None and groups.shape != (m,):
        raise UsageError(f"groups must be [{m}], got {list(groups.shape)}")
    answers = _Answers(n, m, *positives, groups)
    generator = np.random.default_rng(rules.seed)
    found = Mined(
        np.full((n, rules.count), -1, dtype=np.int64),
        np.full((n, rules.count), np.nan, dtype=np.float32),
        np.zeros(n, dtype=np.int64),
    )
    for start in range(0, n, QUERY_BLOCK):
        rows = slice(start, min(n, start + QUERY_BLOCK))
        excluded = answers.excluded(rows)
        scores, columns = _nearest(queries[rows], documents, rules.last_rank + excluded.shape[1], torch.device(device))
        answered = (columns[:, :, None] == excluded[:, None, :]).any(2) if excluded.shape[1] else columns < 0
        rank = np.cumsum(~answered, axis=1)
        allowed = ~answered & (rank >= rules.first_rank) & (rank <= rules.last_rank) & np.isfinite(scores)
        judged_by = (queries, documents) if teacher is None else teacher
        judged = scores if teacher is None else _scores_of(judged_by, rows, columns)
        allowed &= _within_bounds(judged, answers.worst(judged_by, rows), rules)
        found.candidates[rows] = allowed.sum(1)
        for i in range(columns.shape[0]):
            left = np.flatnonzero(allowed[i])
            if rules.sampling == "random" and len(left) > rules.count:
                left = np.sort(generator.choice(left, rules.count, replace=False))
            chosen = left[: rules.count]
            found.documents[start + i, : len(chosen)] = columns[i, chosen]
            found.scores[start + i, : len(chosen)] = scores[i, chosen]
        if progress is not None:
            progress(rows.stop, n)
    return found


class _Answers:
    """The positives of each query and the copies of them, by row, without an n x m matrix."""

    def __init__(self, n: int, m: int, query_rows: Integers, document_rows: Integers, groups: Integers | None) -> None:
        query_rows, document_rows = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        if query_rows.shape != document_rows.shape or query_rows.ndim != 1:
            raise UsageError(f"positives must be two vectors alike, got {query_rows.shape} and {document_rows.shape}")
        for what, values, size in (("query", query_rows, n), ("document", document_rows, m)):
            if len(values) and not 0 <= values.min() <= values.max() < size:
                raise UsageError(f"positives name {what} rows outside 0..{size - 1}")
        order = np.argsort(query_rows, kind="stable")
        self.rows, self.columns = query_rows[order], document_rows[order]
        self.members: tuple[Integers, Integers] | None = None
        if groups is not None:
            by_group = np.argsort(groups, kind="stable")
            self.members = (groups[by_group], by_group)
            self.groups = groups

    def _of(self, row: int) -> Integers:
        return self.columns[np.searchsorted(self.rows, row) : np.searchsorted(self.rows, row, side="right")]

    def excluded(self, rows: slice) -> Integers:
        """Documents that are no negatives, ``[t, e]``, filled up with -2."""
        found = []
        for row in range(rows.start, rows.stop):
            columns = self._of(row)
            if self.members is not None and len(columns):
                groups, members = self.members
                columns = np.concatenate(
                    [
                        members[np.searchsorted(groups, group) : np.searchsorted(groups, group, side="right")]
                        for group in np.unique(self.groups[columns])
                    ]
                )
            found.append(columns)
        width = max((len(columns) for columns in found), default=0)
        table = np.full((len(found), width), -2, dtype=np.int64)
        for i, columns in enumerate(found):
            table[i, : len(columns)] = columns
        return table

    def worst(self, embeddings: tuple[Floats, Floats], rows: slice) -> npt.NDArray[np.float32]:
        """The lowest score of a positive ``[t]``; infinity for a query without one."""
        lowest = np.full(rows.stop - rows.start, np.inf, dtype=np.float32)
        queries, documents = embeddings
        for row in range(rows.start, rows.stop):
            columns = self._of(row)
            if len(columns):
                lowest[row - rows.start] = (_float32(documents[columns]) @ _float32(queries[row])).min()
        return lowest


def _nearest(
    queries: Floats, documents: Floats, k: int, device: torch.device
) -> tuple[npt.NDArray[np.float32], Integers]:
    """The ``k`` best scores of each query and their documents, ``[t, k]``, best first, over blocks of documents."""
    query = torch.from_numpy(_float32(queries)).to(device)
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, documents.shape[0], DOCUMENT_BLOCK):
        block = torch.from_numpy(_float32(documents[start : start + DOCUMENT_BLOCK])).to(device)
        scores, columns = (query @ block.T).topk(min(k, block.shape[0]), dim=1)
        columns = columns + start
        if best is not None:
            scores, columns = torch.cat([best[0], scores], 1), torch.cat([best[1], columns], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            columns = columns.gather(1, order)
        best = (scores, columns)
    assert best is not None
    return best[0].cpu().numpy(), best[1].cpu().numpy()


def _scores_of(embeddings: tuple[Floats, Floats], rows: slice, columns: Integers) -> npt.NDArray[np.float32]:
    """Scores ``[t, k]`` of single pairs."""
    queries, documents = embeddings
    scores: npt.NDArray[np.float32] = np.stack(
        [_float32(documents[columns[i]]) @ _float32(queries[rows.start + i]) for i in range(columns.shape[0])]
    )
    return scores


def _within_bounds(
    scores: npt.NDArray[np.float32], worst: npt.NDArray[np.float32], rules: MiningRules
) -> npt.NDArray[np.bool_]:
    highest = np.full_like(worst, np.inf)
    judged = np.isfinite(worst)
    if rules.margin is not None:
        highest[judged] = worst[judged] - np.float32(rules.margin)
    if rules.ratio is not None:  # of a negative similarity, a share lies above it
        share = worst[judged] - np.abs(worst[judged]) * np.float32(1 - rules.ratio)
        highest[judged] = np.minimum(highest[judged], share)
    if rules.highest_score is not None:
        highest = np.minimum(highest, np.float32(rules.highest_score))
    lowest = -np.inf if rules.lowest_score is None else rules.lowest_score
    return np.asarray((scores <= highest[:, None]) & (scores >= lowest))


def _float32(values: Floats) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=np.float32, order="C")  # a copy: a mapped file is not writable, which torch minds


def _sizes(what: str, queries: Floats, documents: Floats) -> tuple[int, int]:
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise UsageError(f"{what} must be [n, d] and [m, d], got {list(queries.shape)} and {list(documents.shape)}")
    if not queries.shape[0] or not documents.shape[0]:
        raise UsageError(f"{what}: there are {queries.shape[0]:,} queries and {documents.shape[0]:,} documents")
    return queries.shape[0], documents.shape[0]
