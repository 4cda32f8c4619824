"""Retrieval sets in BEIR's layout: a corpus, queries, and judgements of which documents answer which query."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar.data.columns import PAIRS
from nearfar.data.examples import Examples
from nearfar.data.json_rows import read_json
from nearfar.data.lines import is_blank, read_lines, report_fault
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.sources import Source, near_names, read_error
from nearfar.data.table_rows import split_tsv
from nearfar.data.values import BadValueError, kind_of, shorten, text_check
from nearfar.errors import DataError, UsageError

_LAYOUT = """\
  corpus.jsonl[.gz]    {"_id": "d1", "title": "...", "text": "..."}   (title may be missing)
  queries.jsonl[.gz]   {"_id": "q1", "text": "..."}                   (or queries.tsv: query-id <tab> text)
  qrels/test.tsv       query-id <tab> corpus-id <tab> score           (also dev.tsv, train.tsv; or one qrels.tsv)"""
_ID_HEADERS = {"_id", "id", "qid", "query_id", "query-id", "queryid"}


@dataclass
class RetrievalSet:
    """Queries, documents and judgements, for evaluation.

    ``documents[i]`` (title and text, a blank between) has the id ``document_ids[i]``; ``queries[j]`` the id
    ``query_ids[j]``. ``qrels[query id][document id]`` is the relevance, a whole number; above 0 is relevant, and what
    is not there was not judged. Only queries with judgements are kept. ``split`` is the file of judgements used,
    ``source`` the folder.
    """

    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    split: str | None = None
    source: Path | None = None
    bad_rows: list[BadRow] = field(default_factory=list)
    blank_lines: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_pairs(cls, examples: Examples) -> RetrievalSet:
        """Every distinct positive is a document, every distinct anchor a query, every row a judgement of relevance 1.

        Ids are ``d0``, ``d1``, ... and ``q0``, ``q1``, ... in order of appearance. Raises :class:`DataError` for
        another shape than pairs, and when there are no rows.
        """
        if examples.shape != PAIRS:
            raise DataError(
                f"{examples.shape} cannot be evaluated as retrieval", hint="pairs can: columns anchor and positive"
            )
        if not len(examples):
            raise DataError("there are no pairs to make a retrieval set of")
        documents: dict[str, str] = {}
        queries: dict[str, str] = {}
        qrels: dict[str, dict[str, int]] = {}
        for batch in examples.batches():
            for anchor, positive in zip(batch["anchor"], batch["positive"], strict=True):
                document = documents.setdefault(positive, f"d{len(documents)}")
                qrels.setdefault(queries.setdefault(anchor, f"q{len(queries)}"), {})[document] = 1
        return cls(
            list(documents.values()),
            list(documents),
            list(queries.values()),
            list(queries),
            qrels,
            source=examples.source[0] if examples.source else None,
        )

    def __repr__(self) -> str:
        return f"RetrievalSet({len(self.queries):,} queries, {len(self.documents):,} documents)"

    def sha256(self) -> str:
        """A fingerprint of documents, queries and judgements (hex)."""
        whole = hashlib.sha256(b"nearfar retrieval set 1")
        for ids, texts in ((self.document_ids, self.documents), (self.query_ids, self.queries)):
            whole.update(f"\0{len(ids)}".encode())
            for text in (part for pair in zip(ids, texts, strict=True) for part in pair):
                encoded = text.encode("utf-8")
                whole.update(len(encoded).to_bytes(8, "little") + encoded)
        for query, document, relevance in sorted(self._judgements()):
            whole.update(f"\0{len(query)} {query}\0{len(document)} {document}\0{relevance}".encode())
        return whole.hexdigest()

    def describe(self, width: int = 100) -> str:
        """What was understood, in plain words: sizes, judgements, what was left out, and an example."""
        relevances = [relevance for _, _, relevance in self._judgements()]
        relevant = sum(relevance > 0 for relevance in relevances)
        origin = f" from {self.source.name}" if self.source else ""
        split = f", split {self.split}" if self.split else ""
        grades = sorted(set(relevances))
        lines = [
            f"retrieval set: {len(self.queries):,} queries, {len(self.documents):,} documents{origin}{split}",
            f"judgements: {len(relevances):,}, of which relevant {relevant:,} "
            f"({relevant / max(len(self.queries), 1):.1f} a query)"
            + (f"; grades {', '.join(map(str, grades))}" if len(grades) > 1 else ""),
        ]
        if self.bad_rows:
            lines.append(f"bad rows skipped: {len(self.bad_rows):,}, the first: {self.bad_rows[0]}")
        if self.blank_lines:
            lines.append(f"blank lines: {self.blank_lines:,}")
        lines += [f"note: {note}" for note in self.notes]
        for query_id, query in zip(self.query_ids, self.queries, strict=True):
            best = max(self.qrels[query_id].items(), key=lambda item: item[1])
            if best[1] > 0:
                document = self.documents[self.document_ids.index(best[0])] if best[0] in self.document_ids else best[0]
                lines += ["example:", f"  query: {shorten(query, width)}", f"  document: {shorten(document, width)}"]
                break
        return "\n".join(lines)

    def _judgements(self) -> Iterator[tuple[str, str, int]]:
        for query, documents in self.qrels.items():
            for document, relevance in documents.items():
                yield query, document, relevance


def is_retrieval(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder in BEIR's layout: corpus, queries and judgements are there."""
    folder = Path(path)
    try:
        return bool(_path(folder, "corpus") and _path(folder, "queries") and _qrels_files(folder))
    except OSError:
        return False


def read_retrieval(
    folder: str | os.PathLike[str], *, split: str | None = None, max_bad_rows: int = 0, text_limit: int = 10_000_000
) -> RetrievalSet:
    """Read a retrieval set in BEIR's layout (Thakur et al., 2021); every file may be gzipped.

    ``split`` names the file in ``qrels/``; by default ``test``, as in BEIR, or the only one there is. Judgements are
    lines of query id, document id and relevance separated by tabs, with or without a header, or TREC's four columns.
    Queries without judgements are left out, as BEIR leaves them out. Judgements of queries or documents that do not
    exist are kept out and counted in ``notes``.

    Raises :class:`DataError` (file, line, column, reason) for rows that cannot be used beyond ``max_bad_rows``, ids
    that stand twice, a relevance that is not a whole number, contradicting judgements, and a set in which nothing
    fits together.
    """
    place = Path(folder)
    if not place.is_dir():
        missing = not place.exists()
        reason = "there is no such folder" if missing else "a retrieval set is a folder"
        hint = near_names(place) if missing else None
        raise DataError(reason, where=str(place), hint=hint or f"a retrieval set holds\n{_LAYOUT}")
    log = ReadLog(max_bad_rows)
    corpus, queries_file = _wanted(place, "corpus"), _wanted(place, "queries")
    judgements_file, split = _choose_qrels(place, split)
    documents = _read_texts(corpus, log, text_limit)
    queries = _read_texts(queries_file, log, text_limit)
    for source, found in ((corpus, documents), (queries_file, queries)):
        if not found:
            raise DataError("there are no rows", where=str(source.path))
        empty = sum(not text for text in found.values())
        if empty:
            log.notes.append(f"{source.path.name}: {empty:,} of {len(found):,} have no text")
    qrels = _read_qrels(judgements_file, documents, queries, log, text_limit)
    judged = [query for query in queries if query in qrels]
    if len(judged) < len(queries):
        log.notes.append(
            f"{len(queries) - len(judged):,} of {len(queries):,} queries have no judgements and are left out"
        )
    without = sum(not any(relevance > 0 for relevance in documents.values()) for documents in qrels.values())
    if without:
        log.notes.append(f"{without:,} queries have judgements but no relevant document")
    return RetrievalSet(
        list(documents),
        list(documents.values()),
        judged,
        [queries[query] for query in judged],
        {query: qrels[query] for query in judged},
        split,
        place,
        log.bad_rows,
        log.blank_lines,
        log.notes,
    )


def _path(folder: Path, stem: str) -> tuple[Path, str] | None:
    """The file ``stem`` in one of the forms it may have, and its format."""
    for suffix in ("jsonl", "tsv"):
        for ending in ("", ".gz"):
            path = folder / f"{stem}.{suffix}{ending}"
            if path.is_file():
                return path, suffix
    return None


def _source(path: Path, kind: str) -> Source:
    try:
        with open(path, "rb") as stream:
            gzipped = stream.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise read_error(path, error) from error
    if path.suffix == ".gz" and not gzipped:
        raise DataError("its name ends in .gz but it is not gzip", where=str(path))
    return Source(path, kind, gzipped)


def _wanted(folder: Path, stem: str) -> Source:
    found = _path(folder, stem)
    if found is None:
        raise DataError(f"there is no {stem}.jsonl", where=str(folder), hint=f"a retrieval set holds\n{_LAYOUT}")
    return _source(*found)


def _qrels_files(folder: Path) -> dict[str, Path]:
    """The files of judgements by split; the key of a single qrels.tsv is empty."""
    single = _path(folder, "qrels")
    if single and single[1] == "tsv":
        return {"": single[0]}
    if not (folder / "qrels").is_dir():
        return {}
    found = ((re.fullmatch(r"(.+)\.tsv(\.gz)?", entry.name), entry) for entry in sorted((folder / "qrels").iterdir()))
    return {match.group(1): entry for match, entry in found if match and not entry.name.startswith(".")}


def _choose_qrels(folder: Path, split: str | None) -> tuple[Source, str | None]:
    files = _qrels_files(folder)
    if not files:
        raise DataError("there are no judgements", where=str(folder), hint=f"a retrieval set holds\n{_LAYOUT}")
    if "" in files:
        if split is not None:
            raise UsageError(
                f"there are no splits to choose {split!r} from: the judgements are in one file", where=str(folder)
            )
        return _source(files[""], "tsv"), None
    chosen = split or ("test" if "test" in files else next(iter(files)) if len(files) == 1 else None)
    if chosen not in files:
        problem = (
            f"there are no judgements for the split {split!r}" if split else "there are judgements for several splits"
        )
        raise DataError(
            problem, where=str(folder / "qrels"), hint=f"there are: {', '.join(files)}; choose one as split"
        )
    return _source(files[chosen], "tsv"), chosen


def _read_texts(source: Source, log: ReadLog, text_limit: int) -> dict[str, str]:
    """Id -> text of a corpus or of queries."""
    check = text_check(text_limit)
    texts: dict[str, str] = {}
    for line, row in _id_rows(source, log, text_limit):
        column = "_id"
        try:
            identity = _identity(row)
            if identity in texts:
                raise BadValueError(f"the id {shorten(identity, 60)!r} stands twice")
            column = "title"
            title = check(row["title"]).strip() if row.get("title") is not None else ""
            column = "text"
            if "text" not in row:
                raise BadValueError(f"the column is missing (there are: {', '.join(list(row)[:8])})")
            texts[identity] = f"{title} {check(row['text'])}".strip()
        except BadValueError as error:
            log.bad(BadRow(str(source.path), line, column, str(error)))
    return texts


def _identity(row: dict[str, Any]) -> str:
    value = row.get("_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadValueError("the id is missing" if value is None else f"{kind_of(value)} where an id is needed")
    if not value.strip():
        raise BadValueError("the id is empty")
    return value.strip()


def _id_rows(source: Source, log: ReadLog, text_limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if source.format == "jsonl":
        yield from read_json(source, log, text_limit)
        return
    names = ["_id", "text"]
    for number, (line, fields) in enumerate(_tsv_lines(source, log, text_limit, len(names))):
        if number == 0 and fields[0].strip().casefold() in _ID_HEADERS:
            names = ["_id", *(name.strip() for name in fields[1:])]
            if "text" not in names:
                raise DataError("the header has no column 'text'", where=f"{source.path}, line {line}")
            continue
        if len(fields) != len(names):
            log.bad(
                BadRow(
                    str(source.path),
                    line,
                    None,
                    f"{len(fields)} fields where {len(names)} are needed: {', '.join(names)}",
                )
            )
            continue
        yield line, dict(zip(names, fields, strict=True))


def _tsv_lines(source: Source, log: ReadLog, text_limit: int, width: int) -> Iterator[tuple[int, list[str]]]:
    for line in read_lines(source, text_limit):
        if line.fault:
            report_fault(line, source, log)
        elif is_blank(line.text):
            log.blank_lines += 1
        else:
            yield line.number, split_tsv(line.text.removesuffix("\n").removesuffix("\r"), width)


def _read_qrels(
    source: Source, documents: dict[str, str], queries: dict[str, str], log: ReadLog, text_limit: int
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    unknown = {"queries": 0, "documents": 0}
    total = 0
    for number, (line, raw) in enumerate(_tsv_lines(source, log, text_limit, 3)):
        fields = raw if len(raw) > 1 else raw[0].split()
        try:
            query, document, grade = _judgement(fields)
        except BadValueError as error:
            if number == 0 and len(fields) in (3, 4) and not any(sign.isdigit() for sign in fields[-1]):
                continue  # the header
            log.bad(BadRow(str(source.path), line, None, str(error)))
            continue
        total += 1
        if query not in queries or document not in documents:
            unknown["queries" if query not in queries else "documents"] += 1
            continue
        before = qrels.setdefault(query, {}).setdefault(document, grade)
        if before != grade:
            reason = f"query {query!r} and document {document!r} were judged {before} before and {grade} here"
            log.bad(BadRow(str(source.path), line, None, reason))
    if not qrels:
        _complain(source, total, documents, queries)
    for what, count in unknown.items():
        if count:
            log.notes.append(f"{count:,} of {total:,} judgements name {what} that do not exist and are left out")
    return qrels


def _judgement(fields: Sequence[str]) -> tuple[str, str, int]:
    if len(fields) not in (3, 4):
        raise BadValueError(f"{len(fields)} fields where query id, document id and relevance are needed")
    query, document, relevance = fields[0].strip(), fields[-2].strip(), fields[-1].strip()
    if not re.fullmatch(r"[-+]?\d+(\.0*)?", relevance, re.ASCII):
        raise BadValueError(f"the relevance {shorten(relevance, 40)!r} is not a whole number")
    return query, document, int(relevance.partition(".")[0])


def _complain(source: Source, total: int, documents: dict[str, str], queries: dict[str, str]) -> None:
    if not total:
        raise DataError("there are no judgements in this file", where=str(source.path))
    raise DataError(
        f"none of the {total:,} judgements fits the queries and documents",
        where=str(source.path),
        hint=f"ids of queries look like {next(iter(queries))!r}, ids of documents like {next(iter(documents))!r}; "
        "a line holds query id, document id, relevance",
    )
