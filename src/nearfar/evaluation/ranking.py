"""Where the relevant documents stand, exactly and without a matrix of all scores; and what that is worth.
 Documents are ordered by score (highest first) and equal scores by document id (highest string first), as trec_eval
orders them. The order among equals is thus fixed and says nothing about relevance: an encoder that gives every text
the same embedding gets the measures of a random order, not a perfect score.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, ModelError, UsageError

IntArray = npt.NDArray[np.int64]

_SCORES_AT_ONCE = 1 << 24  # 64 MB of float32
_MEASURE = re.compile(r"(ndcg|mrr|map|recall|precision|success)(?:@([1-9]\d*))?")


@dataclass(frozen=True)
class Judged:
    """The relevant documents of all queries, one entry a (query, document): ``query``, ``document``, ``grade``
    ``[e]`` by query.

    ``queries`` are the rows of the queries that have any, in order; ``query`` counts among these. ``excluded``
    queries have no relevant document and are asked of no measure.
    """

    query: IntArray
    document: IntArray
    grade: npt.NDArray[np.float64]
    queries: IntArray
    excluded: int


def judged(query_ids: Sequence[str], document_ids: Sequence[str], qrels: Mapping[str, Mapping[str, int]]) -> Judged:
    """The entries of ``qrels`` with a grade above 0, as rows of ``query_ids`` and ``document_ids``.

    A relevant document that is not among ``document_ids`` has the row -1: it can never be found, and counts as not
    found. Raises :class:`~nearfar.errors.DataError` when no query has a relevant document or an id stands twice.
    """
    rows = {identity: row for row, identity in enumerate(document_ids)}
    for ids, kind in ((query_ids, "query"), (document_ids, "document")):
        if len(set(ids)) != len(ids):
            raise DataError(f"a {kind} id stands twice, so its judgements are ambiguous")
    query: list[int] = []
    document: list[int] = []
    grade: list[float] = []
    queries: list[int] = []
    for row, identity in enumerate(query_ids):
        relevant = [(rows.get(key, -1), value) for key, value in qrels.get(identity, {}).items() if value > 0]
        if relevant:
            query += [len(queries)] * len(relevant)
            document += [place for place, _ in relevant]
            grade += [float(value) for _, value in relevant]
            queries.append(row)
    if not queries:
        raise DataError("no query has a relevant document", hint="judgements need a relevance above 0")
    return Judged(
        np.asarray(query, np.int64),
        np.asarray(document, np.int64),
        np.asarray(grade, np.float64),
        np.asarray(queries, np.int64),
        len(query_ids) - len(queries),
    )


def tie_order(document_ids: Sequence[str]) -> IntArray:
    """``[m]``: the place of each document among documents of equal score (0 first): ids in descending string order."""
    order = sorted(range(len(document_ids)), key=document_ids.__getitem__, reverse=True)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


def ranks_by_embedding(
    queries: npt.NDArray[np.float32], documents: npt.NDArray[np.float32], entries: Judged, tie: IntArray
) -> npt.NDArray[np.float64]:
    """The rank (1 = first) of every entry's document when all ``documents`` ``[m, d]`` are ordered by dot product.

    ``queries`` ``[q, d]`` has a row for each of ``entries.queries``. Exact ranks over all documents; at most
    16 million scores are held at once. Returns ``[e]`` float64, ``inf`` for documents that are not there. Raises
    :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
    """
    for name, embeddings in (("queries", queries), ("documents", documents)):
        check_finite(embeddings, name)
    size = max(1, _SCORES_AT_ONCE // max(len(documents), 1))
    transposed = documents.T
    blocks = ((start, queries[start : start + size] @ transposed) for start in range(0, len(queries), size))
    return ranks_by_scores(blocks, entries, tie)


def ranks_by_scores(
    blocks: Iterable[tuple[int, npt.NDArray[np.floating]]], entries: Judged, tie: IntArray
) -> npt.NDArray[np.float64]:
    """The rank of every entry's document, from blocks ``(first query, scores [t, m])`` that cover all queries in
    order."""
    ranks = np.full(len(entries.query), np.inf)
    starts = np.searchsorted(entries.query, np.arange(len(entries.queries) + 1))
    for first, scores in blocks:
        for offset, row in enumerate(scores):
            begin, end = starts[first + offset], starts[first + offset + 1]
            found = np.flatnonzero(entries.document[begin:end] >= 0) + begin
            ranks[found] = _ranks_in_row(row, entries.document[found], tie)
    return ranks


def _ranks_in_row(row: npt.NDArray[np.floating], documents: IntArray, tie: IntArray) -> npt.NDArray[np.float64]:
    if len(documents) > 16:  # one sort is cheaper than many passes
        place = np.empty(len(row), np.int64)
        place[np.lexsort((tie, -row))] = np.arange(1, len(row) + 1)
        return place[documents].astype(np.float64)
    ranks = np.empty(len(documents))
    for number, document in enumerate(documents):
        equal = np.flatnonzero(row == row[document])
        ahead = np.count_nonzero(row > row[document])
        ranks[number] = 1 + ahead + np.count_nonzero(tie[equal] < tie[document])
    return ranks


def ranks_by_run(
    run: Mapping[str, Mapping[str, float]],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    entries: Judged,
) -> npt.NDArray[np.float64]:
    """The rank of every entry's document in ``run[query id][document id] = score``; ``inf`` where it was not returned.

    Scores are compared as float32, as trec_eval does. A query that is not in the run found nothing. Raises
    :class:`~nearfar.errors.DataError` for a score that is not a number.
    """
    ranks = np.full(len(entries.query), np.inf)
    starts = np.searchsorted(entries.query, np.arange(len(entries.queries) + 1))
    for number, row in enumerate(entries.queries):
        found = run.get(query_ids[row], {})
        if not found:
            continue
        ids = sorted(found, reverse=True)
        scores = np.asarray([found[identity] for identity in ids], np.float32)
        if np.isnan(scores).any():
            raise DataError("a score of the run is not a number", where=f"query {query_ids[row]}")
        order = np.argsort(-scores, kind="stable")
        place = {ids[index]: rank for rank, index in enumerate(order.tolist(), 1)}
        for entry in range(starts[number], starts[number + 1]):
            document = entries.document[entry]
            if document >= 0:
                ranks[entry] = place.get(document_ids[document], np.inf)
    return ranks


def measure_ranks(
    name: str, entries: Judged, ranks: npt.NDArray[np.float64], *, gain: str = "linear"
) -> npt.NDArray[np.float64]:
    """A measure of each query, ``[q]`` in [0, 1], from the ranks of its relevant documents.

    ``name`` is one of these, with ``@k`` to look at the first k documents only. R is the set of relevant documents,
    r(d) a rank:

    - ``mrr``: ``1 / min r(d)``, 0 if nothing is found;
    - ``map``: ``1/|R| * sum_d (relevant documents up to r(d)) / r(d)``; divided by all of R also ``@k``, as trec_eval
      does;
    - ``ndcg``: ``sum_d gain(d) / log2(1 + r(d))`` over that of the best order (Järvelin and Kekäläinen, 2002). ``gain``
      ``"linear"`` is the grade, as in trec_eval's ndcg_cut and BEIR; ``"exponential"`` is ``2^grade - 1`` (Burges et
      al., 2005);
    - ``recall``: share of R found; ``precision`` (``@k`` only): share of the k that is relevant; ``success``: 1 if
      any is found.

    Raises :class:`~nearfar.errors.UsageError` for another name or gain.
    """
    kind, cut = parse_measure(name)
    if gain not in ("linear", "exponential"):
        raise UsageError(f"the gain {gain!r} is not known", hint="linear, exponential")
    queries = len(entries.queries)
    relevant = np.bincount(entries.query, minlength=queries)
    order = np.lexsort((ranks, entries.query))
    query, rank = entries.query[order], ranks[order]
    inside = rank <= (np.inf if cut is None else cut)
    inside &= np.isfinite(rank)
    number = np.arange(len(query)) - np.searchsorted(query, query) + 1.0  # 1, 2, ... within each query

    def total(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _sums(query, np.where(inside, values, 0.0), queries)

    if kind == "mrr":
        return total(np.where(number == 1, 1.0 / rank, 0.0))
    if kind == "map":
        return total(number / rank) / relevant
    if kind == "recall":
        return total(np.ones(len(query))) / relevant
    if kind == "precision":
        return total(np.ones(len(query))) / (cut or 1)
    if kind == "success":
        return np.where(total(np.ones(len(query))) > 0, 1.0, 0.0)
    gains = entries.grade if gain == "linear" else np.exp2(entries.grade) - 1.0
    best = np.lexsort((-gains, entries.query))
    ideal = np.where(number <= (np.inf if cut is None else cut), gains[best] / np.log2(1.0 + number), 0.0)
    return total(gains[order] / np.log2(1.0 + rank)) / _sums(query, ideal, queries)


def _sums(groups: IntArray, values: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(groups, weights=values, minlength=number), np.float64)


def parse_measure(name: str) -> tuple[str, int | None]:
    """``"ndcg@10"`` as ``("ndcg", 10)``. Raises :class:`~nearfar.errors.UsageError` for a name that is not known."""
    match = _MEASURE.fullmatch(name)
    if match is None or (match[1] == "precision" and match[2] is None):
        raise UsageError(
            f"the measure {name!r} is not known", hint="ndcg, mrr, map, recall, success, each also @k; precision@k"
        )
    return match[1], int(match[2]) if match[2] else None


def check_finite(embeddings: npt.NDArray[np.floating], what: str) -> None:
    """Raises :class:`~nearfar.errors.ModelError` when an embedding has a NaN or an infinity, naming the first such
    row."""
    for start in range(0, len(embeddings), 65_536):
        rows = np.flatnonzero(~np.isfinite(embeddings[start : start + 65_536]).all(axis=1))
        if len(rows):
            raise ModelError(
                f"the embeddings of the {what} are not finite, so nothing can be ranked by them",
                where=f"row {start + int(rows[0])}",
                hint="the model has diverged, or its weights are damaged",
            )
