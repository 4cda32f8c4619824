"""Documents: how they are recognised and read, that their rows stand together, where they begin and end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from nearfar import data
from nearfar.data import Examples
from nearfar.data.columns import parse_columns, recognise
from nearfar.errors import DataError, UsageError

SENTENCES = [["It rained.", "So we stayed."], ["One."], ["A.", "B.", "C."]]
FLAT = [sentence for document in SENTENCES for sentence in document]


def documents() -> Examples:
    return Examples.from_columns({"text": FLAT, "document": ["a", "a", "b", "c", "c", "c"]})


@pytest.mark.parametrize(("names", "shape"), [
    ("text document", "documents"),
    ("Document Text", "documents"),
    ("id text document source", "documents"),
    ("text document author", "texts"),          # who wrote it is no place of origin: nothing is guessed
    ("text document label", "labelled texts"),
    ("text document image", "texts"),
    ("query document", "pairs"),
    ("query document text", ""),
    ("text docid", "texts"),
    ("text title", "texts"),
])  # fmt: skip
def test_what_is_recognised_by_names_alone(names: str, shape: str) -> None:
    if not shape:
        with pytest.raises(DataError, match="more than one way"):
            recognise(names.split(), "x.csv")
        return
    assert recognise(names.split(), "x.csv").shape == shape


@pytest.mark.parametrize(("names", "shapes", "shape"), [
    ("text document author", ("documents",), "documents"),
    ("text document label", ("documents",), "documents"),
    ("text document", ("texts", "pairs"), "texts"),
    ("text document", (), "texts"),
    ("text", ("documents",), "texts"),
    ("query document", ("documents",), "pairs"),
])  # fmt: skip
def test_what_is_wanted_decides(names: str, shapes: tuple[str, ...], shape: str) -> None:
    assert recognise(names.split(), "x.csv", shapes=shapes).shape == shape


@pytest.mark.parametrize(("columns", "roles"), [
    ("text,document", {"text": "text", "document": "document"}),
    ("text=line,document=story", {"text": "line", "document": "story"}),
    ("document=story", {"text": "story", "document": "story"}),
    ("sentences", {"text": "sentences", "document": "sentences"}),
    ("document=blank-line", {"text": "text", "document": "blank-line"}),
    ("document=file", {"text": "text", "document": "file"}),
    ("query=q,document=d", {"anchor": "q", "positive": "d"}),
])  # fmt: skip
def test_the_columns_option(columns: str, roles: dict[str, str]) -> None:
    assert parse_columns(columns) == roles


def check_the_same(examples: Examples, names: list[str] | None = None) -> None:
    assert examples.shape == "documents"
    assert examples.column("text") == FLAT
    assert examples.documents().tolist() == [0, 2, 3, 6]
    if names is not None:
        assert [examples.column("document")[row] for row in (0, 2, 3)] == names


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".txt.gz"])
def test_the_same_documents_out_of_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    rows = [
        {"text": text, "document": name}
        for name, sentences in zip("abc", SENTENCES, strict=True)
        for text in sentences
    ]  # fmt: skip
    columns = None
    if suffix in (".csv", ".tsv"):
        sign = {".csv": ",", ".tsv": "\t"}[suffix]
        path.write_text(f"text{sign}document\n" + "".join(f"{row['text']}{sign}{row['document']}\n" for row in rows))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = "\n\n \n".join("\n".join(document) for document in SENTENCES).encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
        columns = "text,document=blank-line"
    examples = data.read(path, columns=columns)
    check_the_same(examples, ["1", "2", "3"] if columns else ["a", "b", "c"])
    assert "documents: 3, of 1 to 3 sentences (median 2)" in examples.describe()


@pytest.mark.parametrize("name", ["sentences", "document", "Sentences"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_may_be_a_document(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    rows = [{"id": number, name: sentences} for number, sentences in enumerate(SENTENCES)]
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    check_the_same(data.read(path), ["1", "2", "3"])
    assert f"{name!r} as documents, a list of sentences each" in data.read(path).describe()
    check_the_same(data.read([path, path]).select(range(6)))
    assert len(data.read([path, path]).documents()) == 7
    assert data.read(path).sha256() == data.read(path, columns=f"document={name}").sha256()


def test_a_list_has_an_id_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"document": "a", "sentences": ["One.", "Two."]}\n')
    examples = data.read(path)
    assert examples.column("text") == ["One.", "Two."]
    assert examples.layout.ignored == ("document",)


def test_lists_are_asked_for_by_their_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"lines": ["One.", "Two."]}\n')
    with pytest.raises(DataError, match="not known"):
        data.read(path)
    assert data.read(path, columns="document=lines").documents().tolist() == [0, 2]
    path.write_text('{"document": ["a"], "summary": "b"}\n')
    with pytest.raises(DataError, match="not known"):
        data.read(path)
    path.write_text('{"text": ["a", "b"]}\n')
    with pytest.raises(DataError, match=r"a list where text is needed[^\n]*--columns document="):
        data.read(path)


@pytest.mark.parametrize(("row", "reason"), [
    ('{"document": "a text"}', "the text 'a text' where a list of sentences is needed"),
    ('{"document": []}', "the list of sentences is empty"),
    ('{"document": null}', "null where a list"),
    ('{"document": ["a", 5]}', "sentence 2: the number 5 where text is needed"),
    ('{"document": ["a", "b\\u0000"]}', "sentence 2: a NUL"),
    ('{"document": ["a", ["b"]]}', "sentence 2: a list where text"),
])  # fmt: skip
def test_a_list_that_cannot_be_used(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"document": ["ok"]}\n' + row + '\n{"document": ["fine", "too"]}\n')
    with pytest.raises(DataError, match=reason) as caught:
        data.read(path)
    assert "line 2, column 'document'" in (caught.value.where or "")
    examples = data.read(path, max_bad_rows=1)
    assert examples.column("text") == ["ok", "fine", "too"]
    assert examples.documents().tolist() == [0, 1, 3]


def test_plain_text_is_texts_unless_documents_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a\n\nb\n")
    assert data.read(path).shape == "texts"
    assert data.read(path, shapes=("documents",)).shape == "texts"
    with pytest.raises(DataError, match=r"no column 'document'(.|\n)*--columns text,document=blank-line"):
        data.read(path, columns="text,document")
    table = tmp_path / "x.csv"
    table.write_text("text,story\na,1\nb,1\n")
    with pytest.raises(DataError, match=r"no column 'blank-line'(.|\n)*divides plain text"):
        data.read(table, columns="text,document=blank-line")


def test_each_file_a_document(tmp_path: Path) -> None:
    for name, text in (("b.txt", "three\n"), ("a.txt", "one\n\ntwo\n")):
        (tmp_path / name).write_text(text)
    examples = data.read(tmp_path, columns="text,document=file")
    assert examples.column("text") == ["one", "two", "three"]
    assert examples.documents().tolist() == [0, 2, 3]
    # blank lines end documents, and so do files
    assert data.read(tmp_path, columns="text,document=blank-line").documents().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scattered_rows_are_an_error_with_its_place(tmp_path: Path, suffix: str) -> None:
    names = [1, 1, 2, 2, 1, 3]
    path = tmp_path / f"x{suffix}"
    if suffix == ".csv":
        path.write_text("text,document\n" + "".join(f"t{i},{name}\n" for i, name in enumerate(names)))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": [f"t{i}" for i in range(6)], "document": names}), path)
    with pytest.raises(DataError, match=r"document '1' goes on here(.|\n)*sort the rows by document") as caught:
        data.read(path)
    assert ("line 6" if suffix == ".csv" else "row 5") in (caught.value.where or "")
    assert "column 'document'" in (caught.value.where or "")
    assert data.read(path, max_bad_rows=1).documents().tolist() == [0, 2, 4, 5]
    assert data.read(path, columns="text").shape == "texts"


def test_documents_of_two_files_that_are_called_alike(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,document\nx,1\ny,2\n")
    with pytest.raises(DataError, match=r"document '1' goes on(.|\n)*b.csv, line 2(.|\n)*a name of its own"):
        data.read(tmp_path)


def test_a_document_that_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,document\nx,1\ny, \n")
    with pytest.raises(DataError, match="the document is empty"):
        data.read(path)


def test_where_documents_begin_and_end() -> None:
    examples = documents()
    assert examples.documents().dtype == np.int64
    assert examples.documents().tolist() == [0, 2, 3, 6]
    assert examples.select([5, 4, 0, 1]).documents().tolist() == [0, 2, 4]
    assert examples.select([]).documents().tolist() == [0]
    assert examples.select([2]).documents().tolist() == [0, 1]
    assert examples.text_columns == ["text"]
    assert list(examples.texts()) == FLAT
    assert examples.only("texts").shape == "texts"
    assert examples.only("texts").column("text") == FLAT
    with pytest.raises(UsageError, match="these are texts, not documents"):
        examples.only("texts").documents()
    with pytest.raises(UsageError, match="does not hold 'pairs'"):
        examples.only("pairs")


def test_a_split_keeps_documents_whole() -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 40)
    names = np.repeat(np.arange(40), sizes)
    examples = Examples.from_columns({"text": ["the same"] * len(names), "document": names.tolist()})
    rest, held = examples.split(0.25, 3)
    assert not set(rest.column("document")) & set(held.column("document"))
    assert len(rest) + len(held) == len(examples)
    assert len(held) / len(examples) == pytest.approx(0.25, abs=0.05)
    for part in (rest, held):
        assert len(part.documents()) == len(set(part.column("document"))) + 1
    with pytest.raises(DataError, match="they all have the same document"):
        Examples.from_columns({"text": ["a", "b"], "document": [1, 1]}).split(0.5)


def test_the_check_of_documents() -> None:
    found = {finding.name: finding for finding in data.check(documents(), batch_size=4).findings}
    assert (found["single-sentence-documents"].severity, found["single-sentence-documents"].count) == ("info", 1)
    assert found["single-sentence-documents"].examples == ('row 3: "One." | "b"',)
    assert "false-negatives" not in found
    again = Examples.from_columns({"text": ["a", "A ", "b", "b", "a"], "document": [1, 1, 1, 2, 2]})
    report = data.check(again)
    repeated = next(finding for finding in report.findings if finding.name == "repeated-sentences")
    assert (repeated.count, repeated.examples) == (1, ('row 2: "A" | "1"',))  # row 4 begins a document
    assert "5 rows of documents" in report.text()
    alone = data.check(Examples.from_columns({"text": ["a", "b"], "document": [1, 2]}))
    with pytest.raises(DataError, match="none has a neighbour"):
        alone.raise_on_errors()
    most = data.check(Examples.from_columns({"text": list("abcde"), "document": [1, 2, 3, 4, 4]}))
    assert [finding.severity for finding in most.findings if finding.name == "single-sentence-documents"] == ["warning"]


def test_the_same_sentence_in_two_documents_is_no_duplicate() -> None:
    examples = Examples.from_columns({"text": ["a", "b", "a", "c", "c"], "document": [1, 1, 2, 2, 2]})
    found = {finding.name: finding.count for finding in data.check(examples).findings}
    assert found["duplicate-rows"] == 1


def test_fingerprints_know_where_documents_end() -> None:
    one = Examples.from_columns({"text": ["a", "b"], "document": [1, 1]})
    two = Examples.from_columns({"text": ["a", "b"], "document": [1, 2]})
    assert one.sha256() != two.sha256() != one.only("texts").sha256()
    assert one.sha256() == Examples.from_columns({"document": [["a", "b"]]}).sha256()
