"""The same rows out of every format, and what each format allows."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from nearfar import data
from nearfar.errors import DataError

ROWS = [
    {"anchor": "How do I shuffle a list?", "positive": 'Call "random.shuffle(x)", in place.'},
    {"anchor": "Здравствуй, мир", "positive": "你好，世界"},
    {"anchor": "שלום עולם", "positive": "مرحبا بالعالم"},
    {"anchor": "नमस्ते दुनिया", "positive": "👩‍👩‍👧‍👦 family 🏳️‍🌈"},
    {"anchor": "naïve café", "positive": "a, b; c | d"},
    {"anchor": "", "positive": "an empty anchor is a row"},
]


def write(path: Path, text: str | bytes) -> Path:
    content = text.encode("utf-8") if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: list[dict[str, str]], path: Path, **options: object) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(examples: data.Examples) -> list[dict[str, str]]:
    return [examples[index] for index in range(len(examples))]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    "suffix", [".jsonl", ".ndjson", ".json", "-array.json", "-pretty.json", ".csv", ".tsv", ".parquet"]
)
def test_the_same_rows_out_of_every_format(tmp_path: Path, suffix: str, ending: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    if suffix == "-array.json":
        write(path, json.dumps(ROWS))
    elif suffix == "-pretty.json":
        write(path, json.dumps(ROWS, indent=2, ensure_ascii=False))
    elif suffix == ".csv":
        as_csv(ROWS, path)
    elif suffix == ".tsv":
        write(path, "anchor\tpositive\n" + "".join(f"{row['anchor']}\t{row['positive']}\n" for row in ROWS))
    elif suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write(path, as_jsonl(ROWS))
    if ending:
        path = write(tmp_path / f"{path.name}.gz", path.read_bytes())
    examples = data.read(path)
    assert examples.shape == "pairs"
    assert rows_of(examples) == ROWS
    assert (
        examples.sha256()
        == data.Examples.from_columns({name: [row[name] for row in ROWS] for name in ROWS[0]}).sha256()
    )
    assert examples.source == [path]
    assert not examples.bad_rows


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last_line_ends", [True, False])
def test_line_ends_and_byte_order_marks(
    tmp_path: Path, suffix: str, line_end: str, mark: bytes, last_line_ends: bool
) -> None:
    texts = ["one", "two ", "three"]
    if suffix == ".json":
        text = json.dumps([{"text": text} for text in texts], indent=1)
    elif suffix == ".jsonl":
        text = as_jsonl([{"text": text} for text in texts])
    else:
        text = "".join(f"{line}\n" for line in ([] if suffix == ".txt" else ["text"]) + texts)
    if not last_line_ends:
        text = text.rstrip("\n")
    path = write(tmp_path / f"texts{suffix}", mark + text.replace("\n", line_end).encode())
    examples = data.read(path)
    assert examples.shape == "texts"
    assert examples.column("text") == texts


@pytest.mark.parametrize(("suffix", "text"), [
    (".jsonl", '\n{"text": "a"}\n  \n{"text": "b"}\n\n'),
    (".csv", "text\n\na\n   \nb\n\n"),
    (".tsv", "\ntext\tlabel\na\t1\n\nb\t2\n  \n"),
    (".txt", "\na\n\t \nb\n\n"),
])  # fmt: skip
def test_blank_lines_are_counted_and_are_no_rows(tmp_path: Path, suffix: str, text: str) -> None:
    examples = data.read(write(tmp_path / f"x{suffix}", text))
    assert examples.column("text") == ["a", "b"]
    assert examples.blank_lines == 3
    assert "blank lines: 3" in examples.describe()


def test_an_unknown_suffix_is_plain_text(tmp_path: Path) -> None:
    examples = data.read(write(tmp_path / "notes.md", "# head\u2028line\n- item\x0cpage\n"))
    assert examples.column("text") == ["# head\u2028line", "- item\x0cpage"]


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(as_jsonl(ROWS).encode()))
    assert rows_of(data.read(path)) == ROWS


def test_json_values_of_every_kind_as_labels_and_scores(tmp_path: Path) -> None:
    labelled = data.read(
        write(
            tmp_path / "l.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n{"text": "c", "label": " x "}\n',
        )
    )
    assert labelled.column("label") == ["1", "true", "x"]
    scored = data.read(
        write(
            tmp_path / "s.jsonl",
            '{"sentence1": "a", "sentence2": "b", "score": 1}\n{"sentence1": "a", "sentence2": "b", "score": -0.25e1}\n'
            '{"sentence1": "a", "sentence2": "b", "score": false}\n',
        )
    )
    assert scored.column("score") == [1.0, -2.5, 0.0]


def test_columns_that_only_some_rows_have(tmp_path: Path) -> None:
    """Ignored columns may come and go and are all named; one that changes the meaning may not appear on the way."""
    rows = [{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(300)]
    late = [dict(row) for row in rows]
    late[250]["source"] = "web"
    examples = data.read(write(tmp_path / "ok.jsonl", as_jsonl(late)))
    assert len(examples) == 300
    assert examples.layout.ignored == ("source",)
    late[251]["negative"] = "n"
    with pytest.raises(DataError, match=r"from this row on there is 'negative'[^\n]*\n.*line 252"):
        data.read(write(tmp_path / "late.jsonl", as_jsonl(late)))
    # Told what the columns are, the file can be read.
    assert len(data.read(tmp_path / "late.jsonl", columns="anchor,positive")) == 300


def test_the_first_row_alone_does_not_decide_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"anchor": "a"}\n' + as_jsonl(ROWS))
    with pytest.raises(DataError, match=r"the column is missing[^\n]*\n.*line 1, column 'positive'"):
        data.read(path)
    assert rows_of(data.read(path, max_bad_rows=1)) == ROWS


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_json_array_is_read_alike_however_it_is_cut_into_chunks(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfar.data import json_rows

    monkeypatch.setattr(json_rows, "_CHUNK", size)
    rows = [{**row, "score": number * 1.5, "more": {"deep": [1, [2.5, None, True]]}} for number, row in enumerate(ROWS)]
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=3, ensure_ascii=False),
        " \n[ ]\n".replace(" ]", json.dumps(rows)[1:]),
    ):
        assert rows_of(data.read(write(tmp_path / "a.json", text))) == ROWS


@pytest.mark.parametrize(("text", "reason", "place"), [
    ('[{"text": "a"}\n{"text": "b"}]', "a comma or ] is missing", "line 2, character 1"),
    ('[{"text": "a"},\n  {"text": oops}]', "not valid JSON: Expecting value", "line 2, character 12"),
    ('[{"text": "a"},\n {"text": "b"', "not valid JSON", "line 2"),
    ('[{"text": "a"}', "the array is not closed", "line 1"),
    ('[{"text": "a"}] [{"text": "b"}]', "something follows the end of the array", "line 1, character 17"),
    ('[{"text": "a"},]', "not valid JSON", "line 1, character 16"),
    ('[{"text": "a\nb"}]', "Invalid control character", "line 1"),
    ("{\n  \"text\": \"a\"\n}", "neither an array of objects nor one object a line", "line 1"),
])  # fmt: skip
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_broken_json_array_says_where(
    tmp_path: Path, text: str, reason: str, place: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfar.data import json_rows

    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    with pytest.raises(DataError) as caught:
        data.read(write(tmp_path / "a.json", text), max_bad_rows=10)
    assert reason in caught.value.message
    assert place in (caught.value.where or "")


def test_invalid_utf8_in_a_json_array_says_the_line(tmp_path: Path) -> None:
    content = b'[{"text": "ok"},\n {"text": "\xe9t\xe9"}]'
    with pytest.raises(DataError, match=r"byte 0xe9 is not valid UTF-8.*\n.*line 2, character 12"):
        data.read(write(tmp_path / "a.json", content))


def test_wrong_items_of_an_array_are_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "a"},\n["b"],\n{"text": null}, {"text": "d"}]')
    examples = data.read(path, max_bad_rows=2)
    assert examples.column("text") == ["a", "d"]
    assert [(bad.line, bad.column) for bad in examples.bad_rows] == [(2, None), (3, "text")]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz"])
def test_an_empty_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    with pytest.raises(DataError, match=r"empty|no rows|blank lines|not Parquet"):
        data.read(write(tmp_path / f"a{suffix}", content))


@pytest.mark.parametrize(("name", "text"), [
    ("a.csv", "anchor,positive\n"), ("a.tsv", "anchor\tpositive"), ("a.json", "[]"), ("a.jsonl", "\n\n"),
    ("a.txt", " \n"),
])  # fmt: skip
def test_files_without_rows(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(DataError, match="there are no rows"):
        data.read(write(tmp_path / name, text))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_progress_is_told(tmp_path: Path, suffix: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"text": f"t{i}"} for i in range(40_000)]
    path = tmp_path / f"x{suffix}"
    if suffix == ".jsonl":
        write(path, as_jsonl(rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    told: list[int] = []
    assert len(data.read(path, progress=told.append)) == 40_000
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == 40_000


def test_one_row(tmp_path: Path) -> None:
    examples = data.read(write(tmp_path / "a.csv", "anchor,positive\nx,y\n"))
    assert rows_of(examples) == [{"anchor": "x", "positive": "y"}]
    assert "1 row" in examples.describe()


@pytest.mark.parametrize(("name", "text", "column"), [
    ("a.csv", "anchor,positive\n1,a\n2.5,b\n-3e4,c\n", "'anchor'"),
    ("a.tsv", "text\tlabel\n1\ta\n2\tb\n", "'text'"),
    ("a.txt", "1\n22\n333\n", "'text'"),
])  # fmt: skip
def test_a_column_of_numbers_where_text_is_needed(tmp_path: Path, name: str, text: str, column: str) -> None:
    with pytest.raises(DataError, match=f"column {column} holds nothing but numbers"):
        data.read(write(tmp_path / name, text))


def test_one_text_that_is_no_number_is_enough_to_take_a_column_for_text(tmp_path: Path) -> None:
    assert len(data.read(write(tmp_path / "a.txt", "1984\n2001\nBrazil\n"))) == 3


def test_numbers_quoted_in_json_are_texts(tmp_path: Path) -> None:
    assert data.read(write(tmp_path / "a.jsonl", '{"text": "1984"}\n')).column("text") == ["1984"]
