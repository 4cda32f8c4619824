"""From pairs, or a retrieval set, to pairs with mined hard negatives, ready to train on."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, OutputError, UsageError
from nearfar.files import atomic_path
from nearfar.negatives.mining import Mined, MiningRules, mine

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples, RetrievalSet

Embeddings = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MinedPairs:
    """What :func:`mine_pairs` wrote.

    ``rows``: pairs written, each with ``negatives`` hard negatives. ``short``: queries for which fewer documents met
    the rules; ``left_out``: their pairs that were not written. ``positive_score``, ``negative_score``: means, by the
    miner, over the pairs written and the mined negatives.
    """

    path: Path
    rows: int
    negatives: int
    queries: int
    documents: int
    short: int
    left_out: int
    positive_score: float
    negative_score: float


def mine_pairs(
    data: Examples | RetrievalSet,
    output: str | os.PathLike[str],
    *,
    miner: SentenceTransformer | tuple[Path, Path],
    rules: MiningRules | None = None,
    teacher: SentenceTransformer | tuple[Path, Path] | None = None,
    when_short: str = "random",
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> MinedPairs:
    """Mine hard negatives for every pair and write ``output`` (JSON lines: anchor, positive, negative_1, ...).

    Arguments:
        data: pairs, whose distinct positives are the documents; or a retrieval set (BEIR), whose judgements above 0 are
            the pairs. Documents with the text of a positive are never its negatives.
        miner: the model that finds near documents, or files of its embeddings ``(queries.npy, documents.npy)`` as
            ``nearfar encode`` writes them: a row for each pair of the file (or each distinct query and document, in
            order of appearance), float32 or float16.
        rules, teacher: see :func:`nearfar.negatives.mine`; the teacher is a model or files as well.
        when_short: "random" fills up with random documents that do not answer, so that no pair is lost; "drop" leaves
            the pair out.
        overwrite: replace an output that exists.
        device: where scores are computed.
        progress: called with (what, done, in all).

    Raises :class:`DataError` for data without pairs and embeddings that do not belong to it, :class:`OutputError`,
    :class:`UsageError`.
    """
    from nearfar.data import Examples, RetrievalSet

    rules = MiningRules() if rules is None else rules
    if when_short not in ("random", "drop"):
        raise UsageError(f"when_short must be 'random' or 'drop', not {when_short!r}")
    if Path(output).exists() and not overwrite:
        raise OutputError("the output exists already", where=str(output), hint="choose another, or pass --overwrite")
    judged = RetrievalSet.from_pairs(data) if isinstance(data, Examples) else data
    rows, columns = _judgements(judged)
    firsts = _first_rows(data) if isinstance(data, Examples) else (None, None)
    with tempfile.TemporaryDirectory(prefix="nearfar-mine-") as scratch:
        folder = Path(scratch)
        embedded = _embeddings("miner", miner, judged, firsts, folder, progress)
        judge = None if teacher is None else _embeddings("teacher", teacher, judged, firsts, folder, progress)
        found = mine(
            *embedded,
            (rows, columns),
            rules,
            groups=np.unique(np.asarray(judged.documents, dtype=object).astype(str), return_inverse=True)[1],
            teacher=judge,
            device=device,
            progress=None if progress is None else lambda done, total: progress("mining", done, total),
        )
        positive = [
            float(np.dot(embedded[0][i].astype(np.float32), embedded[1][j])) for i, j in zip(rows, columns, strict=True)
        ]
        return _write(Path(output), judged, rows, columns, found, rules, when_short, positive)


def _judgements(judged: RetrievalSet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of queries and documents of all pairs that answer."""
    query_row = {name: row for row, name in enumerate(judged.query_ids)}
    document_row = {name: row for row, name in enumerate(judged.document_ids)}
    pairs = [
        (query_row[query], document_row[document])
        for query, documents in judged.qrels.items()
        for document, relevance in documents.items()
        if relevance > 0 and query in query_row and document in document_row
    ]
    if not pairs:
        raise DataError("there is no pair to mine for: no judgement above 0 names a document that is there")
    table = np.array(pairs, dtype=np.int64)
    return table[:, 0], table[:, 1]


def _first_rows(examples: Examples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows in which the distinct anchors and the distinct positives appear first."""
    firsts = []
    for name in ("anchor", "positive"):
        seen: dict[str, int] = {}
        for row, text in enumerate(examples.column(name)):
            seen.setdefault(text, row)
        firsts.append(np.fromiter(seen.values(), dtype=np.int64, count=len(seen)))
    return firsts[0], firsts[1]


def _embeddings(
    what: str,
    source: Any,
    judged: RetrievalSet,
    firsts: tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None],
    folder: Path,
    progress: Progress | None,
) -> Embeddings:
    """The embeddings of the distinct queries and documents, memory-mapped."""
    if isinstance(source, tuple):
        queries = _from_file(source[0], len(judged.queries), firsts[0], "queries")
        return queries, _from_file(source[1], len(judged.documents), firsts[1], "documents")
    from nearfar import encoders

    def embed(texts: list[str], task: Any) -> npt.NDArray[np.floating]:
        told = None if progress is None else lambda done, total: progress(f"{what}: embedding {task}s", done, total)
        return encoders.encode_file(source, texts, folder / f"{what}-{task}", task=task, progress=told).open()

    return embed(judged.queries, "query"), embed(judged.documents, "document")


def _from_file(path: Path, count: int, first_rows: npt.NDArray[np.int64] | None, what: str) -> npt.NDArray[np.floating]:
    try:
        stored: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"the embeddings of the {what} cannot be read: {error}", where=str(path)) from error
    if stored.ndim != 2 or not np.issubdtype(stored.dtype, np.floating):
        raise DataError(
            f"the embeddings of the {what} are {list(stored.shape)} of {stored.dtype}, not [rows, dimension] of floats",
            where=str(path),
            hint="nearfar encode --dtype float32 or float16 writes such a file",
        )
    if stored.shape[0] == count:
        return stored
    rows = None if first_rows is None or not len(first_rows) else int(first_rows.max()) + 1
    if first_rows is None or rows is None or stored.shape[0] < rows:
        raise DataError(
            f"there are embeddings of {stored.shape[0]:,} {what}, but {count:,} {what}",
            where=str(path),
            hint="embed the column of the same file: nearfar encode MODEL FILE --column NAME",
        )
    picked: npt.NDArray[np.floating] = stored[first_rows]
    return picked


def _write(
    output: Path,
    judged: RetrievalSet,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    found: Mined,
    rules: MiningRules,
    when_short: str,
    positive_scores: list[float],
) -> MinedPairs:
    generator = np.random.default_rng(rules.seed)
    answers: dict[int, set[str]] = {}
    for row, column in zip(rows, columns, strict=True):
        answers.setdefault(int(row), set()).add(judged.documents[column])
    short = {int(row) for row in np.unique(rows) if found.candidates[row] < rules.count}
    written, left_out, kept_scores = 0, 0, []
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row, column, score in zip(rows, columns, positive_scores, strict=True):
            chosen = [int(document) for document in found.documents[row] if document >= 0]
            if len(chosen) < rules.count:
                if when_short == "random":
                    chosen += list(_random(judged, answers[int(row)], chosen, rules, generator))
                if len(chosen) < rules.count:
                    left_out += 1
                    continue
            line = {"anchor": judged.queries[row], "positive": judged.documents[column]}
            line.update({f"negative_{k + 1}": judged.documents[document] for k, document in enumerate(chosen)})
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            written += 1
            kept_scores.append(score)
        if not written:
            raise DataError(
                "no query has enough documents that meet the rules", hint="loosen them, or ask for fewer negatives"
            )
    return MinedPairs(
        path=output,
        rows=written,
        negatives=rules.count,
        queries=len(judged.queries),
        documents=len(judged.documents),
        short=len(short),
        left_out=left_out,
        positive_score=float(np.mean(kept_scores)),
        negative_score=float(np.nanmean(found.scores)) if np.isfinite(found.scores).any() else float("nan"),
    )


def _random(
    judged: RetrievalSet, answers: set[str], chosen: list[int], rules: MiningRules, generator: np.random.Generator
) -> Iterator[int]:
    """Documents that do not answer and whose text was not chosen, until there are enough or many were tried."""
    texts = answers | {judged.documents[document] for document in chosen}
    wanted = rules.count - len(chosen)
    tries = min(len(judged.documents), 1000 + 100 * rules.count)
    for document in generator.choice(len(judged.documents), tries, replace=False, shuffle=True):
        if wanted == 0:
            return
        if judged.documents[document] not in texts:
            texts.add(judged.documents[document])
            wanted -= 1
            yield int(document)
