"""Whatever is done to a file, reading ends in examples or in an error for the user, never in anything else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pytest

from nearfar import data
from nearfar.errors import NearfarError

ROWS = [{"anchor": f'question {i} "q" é', "positive": f"answer, {i}\n🙂"} for i in range(20)]
PIECES = [
    b'"', b'""', b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"{", b"}", b"[", b"]",
    b"null", b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"\xef\xbb\xbf", b"\xf0\x9f", b"\xff\xfe",
]  # fmt: skip


def whole_file(suffix: str, folder: Path) -> bytes:
    if suffix in (".parquet", ".arrow"):
        pa = pytest.importorskip("pyarrow")
        table = pa.Table.from_pylist(ROWS)
        if suffix == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, folder / "whole")
        else:
            with pa.OSFile(str(folder / "whole"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        return (folder / "whole").read_bytes()
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    if suffix == ".csv":
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        return stream.getvalue().encode()
    return {
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines, mtime=0),
        ".json": json.dumps(ROWS, indent=1).encode(),
        ".tsv": b"anchor\tpositive\n" + "".join(f"{row['anchor']}\tx{i}\n" for i, row in enumerate(ROWS)).encode(),
        ".txt": "\n".join(row["anchor"] for row in ROWS).encode(),
    }[suffix]


def damaged(content: bytes, generator: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5, 20])):
        place = generator.randrange(len(result) + 1)
        kind = generator.random()
        if kind < 0.35:
            result[place:place] = generator.choice(PIECES)
        elif kind < 0.55:
            del result[place : place + generator.choice([1, 3, 50])]
        elif kind < 0.75 and place < len(result):
            result[place] = generator.randrange(256)
        elif kind < 0.9:
            start = generator.randrange(len(result) + 1)
            result[place:place] = result[start : start + generator.randrange(60)]
        else:
            del result[place:]
    return bytes(result)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow"])
def test_damaged_files_end_in_examples_or_in_an_error_for_the_user(tmp_path: Path, suffix: str) -> None:
    generator = random.Random(suffix)
    whole = whole_file(suffix, tmp_path)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(whole)
    assert len(data.read(path)) == len(ROWS)
    outcomes = set()
    for _ in range(150):
        path.write_bytes(damaged(whole, generator))
        try:
            examples = data.read(
                path, max_bad_rows=generator.choice([0, 2, 1000]), text_limit=generator.choice([100, 10_000])
            )
        except NearfarError as error:
            outcomes.add("error" if error.where else "an error without a place")
        else:
            assert len(examples) > 0
            assert len(examples.describe().encode("utf-8")) > 0
            data.check(examples, batch_size=8).text()
            outcomes.add("examples")
    assert outcomes == ({"error"} if suffix == ".jsonl.gz" else {"error", "examples"})


@pytest.mark.parametrize("row", [
    {"document": ["One sentence.", "Another, é.", "A third"]},
    {"text": "a caption", "image": [0.5, -1.25, 3.0]},
    {"text": "a review", "label": "good", "domain": "source"},
])  # fmt: skip
def test_damaged_rows_of_lists_and_numbers(tmp_path: Path, row: dict[str, object]) -> None:
    generator = random.Random(str(row))
    rows = [row] * 10
    if "domain" in row:
        rows = [{**row, "domain": "target", "label": None}, *rows]
    whole = b"".join(json.dumps(each).encode() + b"\n" for each in rows)
    path = tmp_path / "x.jsonl"
    path.write_bytes(whole)
    columns = "text,label,domain" if "domain" in row else None
    assert len(data.read(path, columns=columns)) in (10, 11, 30)
    outcomes = set()
    for _ in range(150):
        path.write_bytes(damaged(whole, generator))
        try:
            examples = data.read(path, columns=columns, max_bad_rows=generator.choice([0, 2, 1000]))
        except NearfarError:
            outcomes.add("error")
        else:
            assert len(examples.describe().encode("utf-8")) > 0
            data.check(examples, batch_size=8).text()
            outcomes.add("examples")
    assert outcomes == {"error", "examples"}
