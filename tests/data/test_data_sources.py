"""Paths: what is not there, folders, splits, files that are not what their name says."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from nearfar import data
from nearfar.errors import DataError

ROW = '{"text": "hello"}\n'


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(ROW)
    (tmp_path / "other.csv").write_text("text\na\n")
    with pytest.raises(
        DataError, match=r"no such file or folder(.|\n)*trian\.jsonl\nmend: did you mean .*/train\.jsonl\?"
    ):
        data.read(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match=r"did you mean .*/train\.jsonl\?"):
        data.read(tmp_path / "train.csv.gz")
    with pytest.raises(DataError, match=r"holds: other\.csv, train\.jsonl"):
        data.read(tmp_path / "something-else")
    with pytest.raises(DataError, match="patterns are not expanded"):
        data.read(tmp_path / "*.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"did you mean .*/folder\?"):
        data.read(tmp_path / "foldre" / "deep" / "train.jsonl")
    with pytest.raises(DataError, match="NUL"):
        data.read("a\0b")
    with pytest.raises(DataError, match="no file was given"):
        data.read([])


def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        data.read(tmp_path / "pipe")


@pytest.mark.parametrize(("content", "reason"), [
    (b"PK\x03\x04rest", "a zip archive"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\x00\x00", "xz"), (b"%PDF-1.7", "PDF"),
    (b"\x28\xb5\x2f\xfd1", "zstandard"), (b"\x80\x04\x95\x00", "a Python pickle, which is never opened"),
    (b"SQLite format 3\0", "SQLite"), (b"\x93NUMPY\x01", "NumPy"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.bin", "a.jsonl", "a.csv"])
def test_files_that_are_no_text(tmp_path: Path, content: bytes, reason: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        data.read(tmp_path / name)


@pytest.mark.parametrize(("name", "reason"), [
    ("a.jsonl.gz", "not gzip"), ("a.parquet", "not Parquet"), ("a.arrow", "not an Arrow file"),
    ("a.parquet.gz", "not gzip"),
])  # fmt: skip
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_text(ROW)
    with pytest.raises(DataError, match=rf"{reason}(.|\n)*{name}"):
        data.read(tmp_path / name)


def test_a_file_gzipped_twice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(gzip.compress(ROW.encode())))
    with pytest.raises(DataError, match="gzipped twice"):
        data.read(tmp_path / "a.jsonl.gz")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    path = tmp_path / "a.jsonl"
    path.write_text(ROW)
    real = open

    def refuse(file: object, *arguments: object, **options: object) -> object:
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", refuse)  # as root every file may be read
    with pytest.raises(DataError, match=r"cannot read: Permission denied\nwhere: .*a\.jsonl"):
        data.read(path)


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("text,id\nthree,1\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"four\n"))
    (tmp_path / "d.jsonl").write_bytes(b"")
    (tmp_path / "e.csv").write_text("text,id\n")
    (tmp_path / "LICENSE.txt").write_text("Do as you like.\n")
    (tmp_path / "README.md").write_text("# Readme\n")
    (tmp_path / ".hidden.jsonl").write_text("oops")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.jsonl").write_text(ROW)
    examples = data.read(tmp_path)
    assert examples.column("text") == ["one", "two", "three", "four"]
    assert [path.name for path in examples.source] == ["a.jsonl", "b.csv", "c.txt.gz", "e.csv"]
    assert examples.layout.ignored == ("id",)
    notes = "\n".join(examples.notes)
    for part in ("d.jsonl is empty", "e.csv has no rows", "LICENSE.txt, README.md, sub/"):
        assert part in notes
    assert "hidden" not in notes


def test_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"anchor": "a", "positive": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"query": "a", "document": "b"}\n')
    with pytest.raises(
        DataError, match=r"do not have the same columns: .*query, document here, .*anchor, positive in a\.jsonl"
    ):
        data.read(tmp_path)


@pytest.mark.parametrize(("names", "splits"), [
    (("train.jsonl", "dev.jsonl"), "train, validation"), (("en-train.jsonl", "de-test.jsonl"), "test, train"),
    (("my_train_01.jsonl", "my_val_01.jsonl"), "train, validation"),
])  # fmt: skip
def test_splits_in_one_folder_are_not_mixed(tmp_path: Path, names: tuple[str, ...], splits: str) -> None:
    for name in names:
        (tmp_path / name).write_text(ROW)
    with pytest.raises(DataError, match=rf"several splits: {splits}(.|\n)*name the file"):
        data.read(tmp_path)
    assert len(data.read([tmp_path / name for name in names])) == 2  # said in so many words, they are


def test_shards_of_one_split_are_one_split(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"train-0000{number}-of-00003.jsonl").write_text(f'{{"text": "row {number}"}}\n')
    assert data.read(tmp_path).column("text") == ["row 0", "row 1", "row 2"]


def test_a_folder_with_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file that can be read(.|\n)*it holds: nothing"):
        data.read(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"\0")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"it holds: data/, model\.bin"):
        data.read(tmp_path)


def test_bad_rows_are_counted_over_all_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f"{ROW}oops\n")
    assert [Path(bad.file).name for bad in data.read(tmp_path, max_bad_rows=2).bad_rows] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(DataError, match=r"b\.jsonl, line 2"):
        data.read(tmp_path, max_bad_rows=1)
