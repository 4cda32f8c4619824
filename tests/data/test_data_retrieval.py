"""Retrieval sets in BEIR's layout, and retrieval sets made of pairs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from nearfar import data
from nearfar.data import Examples, RetrievalSet
from nearfar.errors import DataError, UsageError

CORPUS = [
    {"_id": "d1", "title": "Shuffle", "text": "Shuffle a list in place."},
    {"_id": "d2", "title": "", "text": "Sort a list."},
    {"_id": "d3", "text": "Без заголовка."},
    {"_id": 4, "title": "Empty", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "mix a list"},
    {"_id": "q2", "text": "order a list"},
    {"_id": "q3", "text": "not judged"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq2\t4\t1\n"
EXPECTED = {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1, "4": 1}}


def beir(
    folder: Path, *, corpus: object = CORPUS, queries: object = QUERIES, qrels: dict[str, str] | None = None
) -> Path:
    """Writes a set; texts are written as they are, rows as JSONL."""
    files = {"corpus.jsonl": corpus, "queries.jsonl": queries, **(qrels or {"qrels/test.tsv": QRELS})}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)  # type: ignore[attr-defined]
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def test_a_set_as_beir_has_it(tmp_path: Path) -> None:
    found = data.read_retrieval(beir(tmp_path))
    assert found.document_ids == ["d1", "d2", "d3", "4"]
    assert found.documents == ["Shuffle Shuffle a list in place.", "Sort a list.", "Без заголовка.", "Empty"]
    assert found.query_ids == ["q1", "q2"]
    assert found.queries == ["mix a list", "order a list"]
    assert found.qrels == EXPECTED
    assert found.split == "test"
    assert any("1 of 3 queries have no judgements" in note for note in found.notes)
    assert not any("no text" in note for note in found.notes)
    described = found.describe()
    for part in (
        "2 queries, 4 documents",
        "split test",
        "judgements: 4, of which relevant 3",
        "query: mix a list",
        "Shuffle a",
    ):
        assert part in described
    assert data.is_retrieval(tmp_path)


def test_every_file_may_be_gzipped_and_queries_may_be_a_table(tmp_path: Path) -> None:
    folder = beir(tmp_path / "a")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    assert data.is_retrieval(folder)
    same = data.read_retrieval(folder)
    assert same.sha256() == data.read_retrieval(beir(tmp_path / "b")).sha256()
    for header in ("", "query_id\ttext\n", "_id\ttext\n"):
        table = beir(tmp_path / "c")
        (table / "queries.jsonl").unlink(missing_ok=True)
        (table / "queries.tsv").write_text(header + 'q1\tmix a list\nq2\torder a list\nq3\tnot "judged\n')
        assert data.read_retrieval(table).sha256() == same.sha256()


@pytest.mark.parametrize("qrels", [
    QRELS, QRELS.split("\n", 1)[1], QRELS.replace("query-id\tcorpus-id\tscore", "query_id\tdoc_id\trelevance"),
    QRELS.split("\n", 1)[1].replace("\tcorpus", "").replace("q1\t", "q1\t0\t").replace("q2\t", "q2\tQ0\t"),
    QRELS.split("\n", 1)[1].replace("q1\t", "q1 0 ").replace("q2\t", "q2 0 ").replace("\t", " "),
    "\n" + QRELS + "\n", QRELS.replace("\n", "\r\n"), QRELS + "q1\td1\t2\n", QRELS.replace("\t2\n", "\t2.0\n"),
])  # fmt: skip
def test_judgements_in_every_usual_form(tmp_path: Path, qrels: str) -> None:
    assert data.read_retrieval(beir(tmp_path, qrels={"qrels.tsv": qrels})).qrels == EXPECTED


def test_documents_without_a_text_are_counted(tmp_path: Path) -> None:
    found = data.read_retrieval(beir(tmp_path, corpus=[*CORPUS, {"_id": "d5", "title": " ", "text": " "}]))
    assert "corpus.jsonl: 1 of 5 have no text" in found.notes


def test_which_split(tmp_path: Path) -> None:
    other = "q1\td2\t1\n"
    folder = beir(tmp_path / "a", qrels={"qrels/test.tsv": QRELS, "qrels/dev.tsv": other, "qrels/train.tsv.gz": other})
    assert data.read_retrieval(folder).qrels == EXPECTED
    assert data.read_retrieval(folder, split="dev").qrels == {"q1": {"d2": 1}}
    assert data.read_retrieval(folder, split="train").split == "train"
    with pytest.raises(DataError, match=r"no judgements for the split 'valid'(.|\n)*there are: dev, test, train"):
        data.read_retrieval(folder, split="valid")
    folder = beir(tmp_path / "b", qrels={"qrels/dev.tsv": other, "qrels/train.tsv": other})
    with pytest.raises(DataError, match=r"several splits(.|\n)*dev, train"):
        data.read_retrieval(folder)
    folder = beir(tmp_path / "c", qrels={"qrels/dev.tsv": other})
    assert data.read_retrieval(folder).split == "dev"
    folder = beir(tmp_path / "d", qrels={"qrels.tsv": other})
    assert data.read_retrieval(folder).split is None
    with pytest.raises(UsageError, match="no splits to choose"):
        data.read_retrieval(folder, split="test")


BROKEN = [
    ("corpus", '{"_id": "d1", "text": 5}', "corpus.jsonl, line 1, column 'text'", "the number 5 where text is needed"),
    ("corpus", '{"_id": "d1", "title": ["x"], "text": "a"}', "line 1, column 'title'", "a list where text"),
    ("corpus", '{"_id": "d1"}', "line 1, column 'text'", "the column is missing"),
    ("corpus", '{"text": "a"}', "line 1, column '_id'", "the id is missing"),
    ("corpus", '{"_id": " ", "text": "a"}', "line 1, column '_id'", "the id is empty"),
    ("corpus", '{"_id": 1.5, "text": "a"}', "line 1, column '_id'", "the number 1.5 where an id"),
    ("corpus", '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}', "line 2, column '_id'", "'d1' stands twice"),
    ("corpus", "oops", "line 1, character 1", "not valid JSON"),
    ("queries", '{"_id": "q1", "text": null}', "queries.jsonl, line 1, column 'text'", "null where text"),
    ("qrels", "q1\td1\thigh\nq1\td1\thigh", "test.tsv, line 2", "relevance 'high' is not a whole number"),
    ("qrels", "q1\td1\t0.5", "test.tsv, line 1", "relevance '0.5' is not a whole number"),
    ("qrels", "q1\td1", "test.tsv, line 1", "2 fields where query id, document id and relevance"),
    ("qrels", "q9\td9\t1\nq9\td9\t0", "test.tsv, line 2", "were judged 1 before and 0 here"),
]


@pytest.mark.parametrize(("file", "content", "where", "reason"), BROKEN)
def test_rows_that_cannot_be_used(tmp_path: Path, file: str, content: str, where: str, reason: str) -> None:
    good = {"corpus": '{"_id": "d9", "text": "z"}\n', "queries": '{"_id": "q9", "text": "y"}\n', "qrels": "q9\td9\t1\n"}
    good[file] = f"{content}\n{good[file]}"
    folder = beir(tmp_path, corpus=good["corpus"], queries=good["queries"], qrels={"qrels/test.tsv": good["qrels"]})
    with pytest.raises(DataError) as caught:
        data.read_retrieval(folder)
    assert reason in caught.value.message
    assert where in (caught.value.where or "")
    if "high" not in content:
        found = data.read_retrieval(folder, max_bad_rows=1)
        assert len(found.bad_rows) == 1
        assert "q9" in found.qrels


def test_judgements_that_lead_nowhere(tmp_path: Path) -> None:
    found = data.read_retrieval(
        beir(tmp_path / "a", qrels={"qrels/test.tsv": QRELS + "q1\tgone\t1\nq8\td1\t1\nq9\tgone\t1\n"})
    )
    assert found.qrels == EXPECTED
    assert any("2 of 7 judgements name queries that do not exist" in note for note in found.notes)
    assert any("1 of 7 judgements name documents that do not exist" in note for note in found.notes)
    with pytest.raises(DataError, match=r"none of the 1 judgements fits(.|\n)*'q1'(.|\n)*'d1'"):
        data.read_retrieval(beir(tmp_path / "b", qrels={"qrels/test.tsv": "d1\tq1\t1\n"}))
    with pytest.raises(DataError, match="there are no judgements in this file"):
        data.read_retrieval(beir(tmp_path / "c", qrels={"qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}))


def test_queries_without_a_relevant_document_are_kept_and_counted(tmp_path: Path) -> None:
    found = data.read_retrieval(beir(tmp_path, qrels={"qrels/test.tsv": "q1\td1\t0\nq2\td2\t1\n"}))
    assert found.query_ids == ["q1", "q2"]
    assert any("1 queries have judgements but no relevant document" in note for note in found.notes)


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_folders_that_are_no_set(tmp_path: Path, missing: str) -> None:
    folder = beir(tmp_path)
    (folder / missing).unlink()
    assert not data.is_retrieval(folder)
    with pytest.raises(DataError, match=r"(there is no|there are no)(.|\n)*corpus\.jsonl\[\.gz\]"):
        data.read_retrieval(folder)


def test_paths_that_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "beir").mkdir()
    (tmp_path / "x.jsonl").write_text("{}")
    assert not data.is_retrieval(tmp_path / "gone")
    assert not data.is_retrieval(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"no such folder(.|\n)*did you mean .*beir\?"):
        data.read_retrieval(tmp_path / "bier")
    with pytest.raises(DataError, match="a retrieval set is a folder"):
        data.read_retrieval(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"retrieval set(.|\n)*read_retrieval"):
        data.read(beir(tmp_path / "beir"))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    folder = beir(tmp_path)
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"there are no rows\nwhere: .*{name}"):
        data.read_retrieval(folder)


def test_a_set_made_of_pairs() -> None:
    rows = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "x"), ("a", "x"), ("A", "x")]
    examples = Examples.from_columns(dict(zip(("anchor", "positive"), zip(*rows, strict=True), strict=True)))
    found = RetrievalSet.from_pairs(examples)
    assert found.queries == ["a", "b", "c", "A"]
    assert found.documents == ["x", "y", "z"]
    by_text = {
        found.queries[found.query_ids.index(query)]: {found.documents[found.document_ids.index(document)]: relevance}
        for query, judged in found.qrels.items()
        for document, relevance in judged.items()
    }
    pairs = {
        (found.queries[found.query_ids.index(query)], found.documents[found.document_ids.index(document)])
        for query, judged in found.qrels.items()
        for document in judged
    }
    assert pairs == set(rows)
    assert all(relevance == 1 for judged in by_text.values() for relevance in judged.values())
    with pytest.raises(DataError, match="texts cannot be evaluated as retrieval"):
        RetrievalSet.from_pairs(Examples.from_columns({"text": ["a"]}))
    with pytest.raises(DataError, match="no pairs"):
        RetrievalSet.from_pairs(Examples.from_columns({"anchor": [], "positive": []}))


def test_the_fingerprint_sees_texts_and_judgements(tmp_path: Path) -> None:
    base = data.read_retrieval(beir(tmp_path / "a")).sha256()
    changed = [dict(row) for row in CORPUS]
    changed[1]["text"] = "Sort a list!"
    assert data.read_retrieval(beir(tmp_path / "b", corpus=changed)).sha256() != base
    assert (
        data.read_retrieval(beir(tmp_path / "c", qrels={"qrels.tsv": QRELS.replace("q2\t4\t1", "q2\t4\t0")})).sha256()
        != base
    )
    lines = QRELS.splitlines()
    assert (
        data.read_retrieval(beir(tmp_path / "d", qrels={"qrels.tsv": "\n".join([lines[0], *lines[:0:-1]])})).sha256()
        == base
    )
