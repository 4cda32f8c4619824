"""What of the evaluation data was seen in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nearfar.data.columns import PAIRS, SCORED_PAIRS
from nearfar.data.examples import Examples
from nearfar.data.findings import SHOWN, Facts, Finding
from nearfar.data.fingerprints import Hashes, combined, text_hashes
from nearfar.data.retrieval import RetrievalSet
from nearfar.data.values import shorten


def overlap_findings(facts: Facts, evaluation: Examples | RetrievalSet) -> Iterator[Finding]:
    """Evaluation pairs that are training pairs (in either order), and evaluation texts that are training texts."""
    seen_texts = np.unique(np.concatenate([facts.hashes[name] for name in facts.names]))
    seen_pairs = _pairs(facts.hashes) if facts.examples.shape in (PAIRS, SCORED_PAIRS) else None
    if isinstance(evaluation, RetrievalSet):
        yield from _retrieval_overlap(evaluation, seen_texts, seen_pairs)
        return
    if not len(evaluation):
        return
    names = evaluation.text_columns[:2]
    hashes = {name: evaluation.hashes(name) for name in names}
    if len(names) == 2 and seen_pairs is not None:
        rows = np.flatnonzero(np.isin(_pairs(hashes), seen_pairs))
        yield from _found(
            "warning", "overlap-pairs", rows, evaluation, names, "evaluation pairs are training pairs too"
        )
    texts = "evaluation texts ({}) occur in training"
    for place, name in enumerate(names):
        rows = np.flatnonzero(np.isin(hashes[name], seen_texts))
        # An answer that is known is no leak by itself; a question that is known is.
        severity = "info" if place == 1 and evaluation.shape == PAIRS else "warning"
        yield from _found(severity, "overlap-texts", rows, evaluation, [name], texts.format(name))


def _pairs(hashes: dict[str, Hashes]) -> Hashes:
    first, second = list(hashes.values())[:2]
    return combined(first, second, ordered=False)


def _found(
    severity: str, name: str, rows: npt.NDArray[np.int64], evaluation: Examples, columns: list[str], detail: str
) -> Iterator[Finding]:
    if len(rows):
        taken = evaluation.take(rows[:SHOWN])
        shown = (
            " | ".join(f'"{shorten(taken[column][place], 60)}"' for column in columns)
            for place in range(len(rows[:SHOWN]))
        )
        lines = tuple(f"evaluation row {int(row) + 1:,}: {line}" for row, line in zip(rows, shown, strict=False))
        yield Finding(severity, name, len(rows), len(rows) / len(evaluation), detail, lines)


def _retrieval_overlap(evaluation: RetrievalSet, seen_texts: Hashes, seen_pairs: Hashes | None) -> Iterator[Finding]:
    queries, documents = text_hashes(evaluation.queries), text_hashes(evaluation.documents)
    if seen_pairs is not None:
        query_place = {query: place for place, query in enumerate(evaluation.query_ids)}
        document_place = {document: place for place, document in enumerate(evaluation.document_ids)}
        relevant = [
            (query_place[query], document_place[document])
            for query, judged in evaluation.qrels.items()
            for document, relevance in judged.items()
            if relevance > 0 and query in query_place and document in document_place
        ]
        if relevant:
            first, second = np.array(relevant, np.int64).T
            known = np.flatnonzero(np.isin(combined(queries[first], documents[second], ordered=False), seen_pairs))
            lines = tuple(
                f'"{shorten(evaluation.queries[first[row]], 60)}" | "{shorten(evaluation.documents[second[row]], 60)}"'
                for row in known[:SHOWN]
            )
            if len(known):
                detail = "relevant query-document pairs of the evaluation are training pairs too"
                yield Finding("warning", "overlap-pairs", len(known), len(known) / len(relevant), detail, lines)
    for what, severity, hashes, texts in (
        ("queries", "warning", queries, evaluation.queries),
        ("documents", "info", documents, evaluation.documents),
    ):
        known = np.flatnonzero(np.isin(hashes, seen_texts))
        if len(known):
            lines = tuple(f'"{shorten(texts[row], 60)}"' for row in known[:SHOWN])
            detail = f"evaluation texts ({what}) occur in training"
            yield Finding(severity, "overlap-texts", len(known), len(known) / len(hashes), detail, lines)
