"""Rows that cannot be used: reported with file, line, column and reason, or skipped and kept."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nearfar import data
from nearfar.errors import DataError, OutputError, UsageError

GOOD = b'{"anchor": "a", "positive": "b"}\n'
LIMIT = 1000


def read_bytes(tmp_path: Path, content: bytes, name: str = "x.jsonl", max_bad_rows: int = 0) -> data.Examples:
    path = tmp_path / name
    path.write_bytes(content)
    return data.read(path, max_bad_rows=max_bad_rows, text_limit=LIMIT)


BROKEN_JSON = [
    (b'{"anchor": "a", "positive": "b"', 32, "not valid JSON"),
    (b'{"anchor": "a" "positive": "b"}', 16, "not valid JSON"),
    (b"{'anchor': 'a'}", 2, "not valid JSON"),
    (b'{"anchor": "a", "positive": "b"} {}', 34, "not valid JSON: Extra data"),
    (b"oops", 1, "not valid JSON"),
    (b"5", None, "the number 5 where an object with named columns is needed"),
    (b'["a", "b"]', None, "a list where an object with named columns is needed"),
    (b'"a"', None, "the text 'a' where an object"),
    (b"null", None, "null where an object"),
    (b'{"anchor": "a"}', "positive", "the column is missing (there are: anchor)"),
    (b"{}", "anchor", "the column is missing (there are: none)"),
    (b'{"anchor": 5, "positive": "b"}', "anchor", "the number 5 where text is needed"),
    (b'{"anchor": "a", "positive": null}', "positive", "null where text is needed"),
    (b'{"anchor": "a", "positive": ["b"]}', "positive", "a list where text is needed; write one text a column"),
    (b'{"anchor": {"x": 1}, "positive": "b"}', "anchor", "an object where text is needed"),
    (b'{"anchor": true, "positive": "b"}', "anchor", "true where text is needed"),
    (b'{"anchor": "a\xff", "positive": "b"}', 14, "byte 0xff is not valid UTF-8"),
    ("{\"anchor\": \"é".encode() + b'\xc3", "positive": "b"}', 14, "byte 0xc3 is not valid UTF-8"),
    (b'{"anchor": "a\x00", "positive": "b"}', 14, "NUL byte"),
    (b'{"anchor": "a\\u0000", "positive": "b"}', "anchor", "a NUL character"),
    (b'{"anchor": "a\\ud83d", "positive": "b"}', "anchor", "half a character (the lone surrogate U+D83D)"),
    (b'{"anchor": "' + b"a" * (LIMIT + 1) + b'", "positive": "b"}', "anchor", "1,001 bytes, more than the 1,000"),
    (b'{"anchor": "' + "é".encode() * 501 + b'", "positive": "b"}', "anchor", "1,002 bytes, more than the 1,000"),
    (b'{"anchor": "a", "anchor": "c", "positive": "b"}', "anchor", "the name stands twice"),
    (b'{"anchor": "a", "positive": "b", "n": ' + b"9" * 5000 + b"}", None, "JSON that cannot be read"),
    (b'{"anchor": "a", "positive": "b", "n": ' + b"[" * 100_000 + b"}", None, "JSON that cannot be read"),
    (b'{"anchor": "' + b"a" * 1_004_000 + b'", "positive": "b"}', None, "the line is longer than 1,004,000 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "column", "reason"), BROKEN_JSON, ids=range(len(BROKEN_JSON)))
def test_a_broken_line(tmp_path: Path, line: bytes, column: str | int | None, reason: str) -> None:
    content = GOOD * 2 + line + b"\n" + GOOD
    with pytest.raises(DataError) as caught:
        read_bytes(tmp_path, content)
    assert reason in caught.value.message
    assert "x.jsonl, line 3" in (caught.value.where or "")
    assert "--max-bad-rows" in (caught.value.hint or "")
    if isinstance(column, str):
        assert f"column '{column}'" in (caught.value.where or "")
    elif column is not None:
        assert f"character {column}" in (caught.value.where or "")
    examples = read_bytes(tmp_path, content, max_bad_rows=1)
    assert len(examples) == 3
    assert len(examples.bad_rows) == 1
    bad = examples.bad_rows[0]
    assert (Path(bad.file).name, bad.line, bad.column) == ("x.jsonl", 3, column)
    assert reason in bad.reason
    assert "bad rows skipped: 1" in examples.describe()


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    examples = read_bytes(tmp_path, b'{"text": "' + b"a" * LIMIT + b'"}\n')
    assert len(examples.column("text")[0]) == LIMIT


def test_ten_million_bytes_are_the_default_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"a" * 10_000_000 + b"\n" + b"b" * 10_000_001 + b"\nshort\n")
    with pytest.raises(DataError, match=r"10,000,001 bytes, more than the 10,000,000[^\n]*\n.*line 2, column 'text'"):
        data.read(path)
    assert [len(text) for text in data.read(path, max_bad_rows=1).column("text")] == [10_000_000, 5]


def test_one_bad_row_too_many(tmp_path: Path) -> None:
    content = GOOD + b"oops\n" + GOOD + b"5\n" + GOOD + b'{"anchor": "a"}\n'
    assert len(read_bytes(tmp_path, content, max_bad_rows=3)) == 3
    with pytest.raises(DataError) as caught:
        read_bytes(tmp_path, content, max_bad_rows=2)
    assert "may be skipped (2)" in caught.value.message
    assert "line 6, column 'positive'" in (caught.value.where or "")
    assert "line 2" in (caught.value.hint or "")
    assert "line 4" in (caught.value.hint or "")


def test_nothing_but_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no rows; 2 bad rows were skipped, the first: .*line 1"):
        read_bytes(tmp_path, b"oops\nno\n", max_bad_rows=5)


@pytest.mark.parametrize(("value", "reason"), [
    ("NaN", "not finite"), ("Infinity", "not finite"), ("-Infinity", "not finite"), ("1e999", "not finite"),
    ("null", "null where a number is needed"), ('"4.5"', "the text '4.5' where a number is needed"),
    ("[1]", "a list where"), ("1" + "0" * 400, "not finite"),
])  # fmt: skip
def test_bad_scores_in_json(tmp_path: Path, value: str, reason: str) -> None:
    content = f'{{"sentence1": "a", "sentence2": "b", "score": {value}}}\n'.encode()
    with pytest.raises(DataError, match=r"line 1, column 'score'") as caught:
        read_bytes(tmp_path, content)
    assert reason in caught.value.message


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", "high", "4,5", "1_000", "0x10", "１"])
def test_bad_scores_in_csv(tmp_path: Path, value: str) -> None:
    content = f'sentence1,sentence2,score\na,b,0.5\nc,d,"{value}"\n'.encode()
    with pytest.raises(DataError, match=r"(not finite|where a number is needed)[^\n]*\n.*line 3, column 'score'"):
        read_bytes(tmp_path, content, "x.csv")


@pytest.mark.parametrize(
    ("value", "reason"), [("null", "null where a label"), ("1.5", "the number 1.5"), ('" "', "empty")]
)
def test_bad_labels(tmp_path: Path, value: str, reason: str) -> None:
    content = f'{{"text": "a", "label": {value}}}\n'.encode()
    with pytest.raises(DataError, match="column 'label'") as caught:
        read_bytes(tmp_path, content)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" + "text\na\n".encode("utf-16-le"), "\ufefftext\na\n".encode("utf-16-be")]
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl"])
def test_utf16_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(DataError, match=r"UTF-16, not UTF-8(.|\n)*iconv -f UTF-16 -t UTF-8"):
        read_bytes(tmp_path, content, name, max_bad_rows=100)


def test_old_macintosh_lines_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="carriage return alone"):
        read_bytes(tmp_path, b"text\rone\rtwo\r", "a.csv")


def test_gzip_that_is_cut_short(tmp_path: Path) -> None:
    import random

    lines = b"".join(b'{"text": "%d"}\n' % random.Random(0).getrandbits(60 + i % 3) for i in range(20_000))
    whole = gzip.compress(lines)
    for damaged in (whole[: len(whole) // 2], whole[:-20] + b"\0" * 12 + whole[-8:], whole[:-8] + b"\0" * 8):
        with pytest.raises(DataError, match=r"gzip data is damaged or cut short(.|\n)*x.jsonl.gz"):
            read_bytes(tmp_path, damaged, "x.jsonl.gz", max_bad_rows=100)


def test_no_room_for_the_mapped_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    from nearfar.data import store

    monkeypatch.setattr(store, "_unnamed_file", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with pytest.raises(OutputError, match=r"No space left(.|\n)*TMPDIR"):
        read_bytes(tmp_path, GOOD)


@pytest.mark.parametrize("options", [{"max_bad_rows": -1}, {"text_limit": 0}])
def test_options_without_sense(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        data.read(tmp_path, **options)
