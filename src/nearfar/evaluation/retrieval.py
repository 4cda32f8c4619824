"""Retrieval: how high the right documents stand when all documents are ordered for each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Evaluation, mean_measure
from nearfar.evaluation.ranking import (
    Judged,
    judged,
    measure_ranks,
    parse_measure,
    ranks_by_embedding,
    ranks_by_run,
    tie_order,
)

if TYPE_CHECKING:
    from nearfar.data import Examples, RetrievalSet

MEASURES = ("ndcg@10", "mrr", "mrr@10", "recall@1", "recall@10", "recall@100", "map")
"""What is measured by default; the first is the main one, as in BEIR (Thakur et al., 2021)."""

PAIR_MAIN = "mrr"
"""The main measure of pairs, as in CodeSearchNet (Husain et al., 2019): one right document a query."""


def retrieval(
    query_embeddings: npt.NDArray[np.floating[Any]],
    document_embeddings: npt.NDArray[np.floating[Any]],
    data: RetrievalSet,
    *,
    measures: Sequence[str] = MEASURES,
    main: str | None = None,
    gain: str = "linear",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Rank all documents for each query by the dot product of their embeddings, and measure.

    ``query_embeddings`` ``[q, d]`` and ``document_embeddings`` ``[m, d]`` (L2-normalised for cosine) belong to
    ``data.queries`` and ``data.documents``. Ranks are exact; no matrix of all scores is held. ``measures`` are names
    of :func:`~nearfar.evaluation.ranking.measure_ranks`, ``main`` defaults to the first. Queries without a relevant
    document are left out and counted in ``details["excluded_queries"]``.

    Raises :class:`~nearfar.errors.DataError` for fewer than two documents, embeddings of another number or size than
    the data, and no relevant document at all; :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
    """
    if len(query_embeddings) != len(data.query_ids) or len(document_embeddings) != len(data.document_ids):
        raise DataError(
            f"{len(query_embeddings):,} query and {len(document_embeddings):,} document embeddings do not belong to "
            f"{len(data.query_ids):,} queries and {len(data.document_ids):,} documents"
        )
    if query_embeddings.ndim != 2 or query_embeddings.shape[1:] != document_embeddings.shape[1:]:
        raise DataError(
            f"embeddings of the shapes {query_embeddings.shape} and {document_embeddings.shape} cannot be compared"
        )
    entries = relevant_entries(data)
    queries = np.asarray(query_embeddings, np.float32)[entries.queries]
    ranks = ranks_by_embedding(
        queries, np.asarray(document_embeddings, np.float32), entries, tie_order(data.document_ids)
    )
    return measured(
        entries, ranks, len(data.documents), measures=measures, main=main, gain=gain, resamples=resamples, seed=seed
    )


def retrieval_run(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    measures: Sequence[str] = MEASURES,
    main: str | None = None,
    gain: str = "linear",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Measure a finished run, ``run[query id][document id] = score``, as trec_eval does.

    Every query of ``qrels`` with a relevant document counts; one that is not in the run has found nothing
    (trec_eval's ``-c``). Documents that were not returned are not found, however many there are.
    """
    query_ids = list(qrels)
    document_ids = list(dict.fromkeys(document for documents in qrels.values() for document in documents))
    entries = judged(query_ids, document_ids, qrels)
    ranks = ranks_by_run(run, query_ids, document_ids, entries)
    return measured(entries, ranks, None, measures=measures, main=main, gain=gain, resamples=resamples, seed=seed)


def candidates(data: Examples | RetrievalSet) -> RetrievalSet:
    """Pairs as a retrieval set: each distinct anchor is a query, each distinct positive or negative a document.

    All positives of equal anchors are relevant to them, so rows that say the same twice are no errors of the model. A
    retrieval set is returned as it is. Raises :class:`~nearfar.errors.DataError` for another shape, no rows, and
    fewer than two documents (the only document would always be found).
    """
    from nearfar.data import Examples, RetrievalSet

    if not isinstance(data, Examples):
        return data
    found = RetrievalSet.from_pairs(data)
    known = set(found.documents)
    for name in data.negatives:
        for text in data.column(name):
            if text not in known:
                known.add(text)
                found.document_ids.append(f"d{len(found.documents)}")
                found.documents.append(text)
    if len(found.documents) < 2:
        raise DataError(
            "all pairs have the same positive, so there is nothing to tell apart",
            hint="retrieval needs at least two different positives",
        )
    return found


def relevant_entries(data: RetrievalSet) -> Judged:
    """The relevant documents of ``data``; raises :class:`~nearfar.errors.DataError` where there is nothing to rank."""
    if len(data.documents) < 2:
        raise DataError(f"{len(data.documents)} documents cannot be ranked; at least 2 are needed")
    return judged(data.query_ids, data.document_ids, data.qrels)


def measured(
    entries: Judged,
    ranks: npt.NDArray[np.float64],
    documents: int | None,
    *,
    measures: Sequence[str],
    main: str | None,
    gain: str,
    resamples: int,
    seed: int,
) -> Evaluation:
    """The measures of given ranks, with intervals over the queries."""
    names = list(dict.fromkeys(measures))
    if not names:
        raise UsageError("no measure was asked for")
    chosen = main or names[0]
    if chosen not in names:
        names.insert(0, chosen)
    for name in names:
        parse_measure(name)
    per_item = {name: measure_ranks(name, entries, ranks, gain=gain) for name in names}
    details: dict[str, Any] = {
        "queries": len(entries.queries),
        "excluded_queries": entries.excluded,
        "relevant": len(entries.query),
        "gain": gain,
    }
    if documents is not None:
        details["documents"] = documents
    return Evaluation(
        {name: mean_measure(name, values, resamples=resamples, seed=seed) for name, values in per_item.items()},
        chosen,
        "retrieval",
        per_item,
        details,
    )
