"""``nearfar search`` by files of examples, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nearfar import encoders
from nearfar.cli.app import run
from nearfar.search import Index

PRAISE = ("lovely", "great", "perfect", "splendid")
BLAME = ("awful", "dreadful", "broken", "useless")
THINGS = ("hotel", "room", "breakfast", "pool")


def _texts(words: tuple[str, ...]) -> list[str]:
    return [f"the {thing} was {word}" for thing in THINGS for word in words]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    documents = [f"{word} {thing} today" for thing in THINGS for word in PRAISE + BLAME]
    model = encoders.load("static", texts=[*documents, *_texts(PRAISE + BLAME)], dimension=32, device="cpu")
    Index.build(folder / "index", model, [{"id": text, "text": text} for text in documents])
    (folder / "praise.txt").write_text("\n".join(_texts(PRAISE)) + "\n")
    (folder / "blame.csv").write_text("text\n" + "\n".join(_texts(BLAME)) + "\n")
    (folder / "empty.txt").write_text("")
    (folder / "pairs.csv").write_text("anchor,positive\na,b\n")
    return folder


def _call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("tuned", [[], ["--tuned"], ["--tune-encoder"]])
def test_like_and_unlike(place: Path, capsys: pytest.CaptureFixture[str], tuned: list[str]) -> None:
    code, out, err = _call(
        capsys, "search", place / "index", "--like", place / "praise.txt", "--unlike", place / "blame.csv",
        "--top", 16, "--json", *tuned,
    )  # fmt: skip
    assert code == 0, err
    hits = [json.loads(line) for line in out.splitlines()]
    assert [hit["rank"] for hit in hits] == list(range(1, 17))
    assert all(hit["id"].split()[0] in PRAISE for hit in hits)
    assert hits[0]["like"] == [str(place / "praise.txt")]
    assert hits[0]["tuning"] == {"": "none", "--tuned": "adapter", "--tune-encoder": "encoder"}["".join(tuned)]


def test_unlike_alone_and_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "search", place / "index", "--unlike", place / "praise.txt", "-k", 3)
    assert code == 0
    assert "unlike praise.txt" in out
    assert sum(word in out for word in BLAME) >= 1
    assert not any(word in out for word in PRAISE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to search for"),
        (["a question", "--like", "praise.txt"], "both given"),
        (["a question", "--tuned"], "only sets"),
        (["--like", "praise.txt", "--tuned", "--tune-encoder"], "two ways"),
        (["--like", "empty.txt"], "the file is empty"),
        (["--like", "pairs.csv"], "these are pairs"),
        (["--like", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_errors(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    named = [str(place / each) if each.endswith((".txt", ".csv")) else each for each in arguments]
    code, _, err = _call(capsys, "search", place / "index", *named)
    assert code in (1, 2)
    assert says in " ".join(err.split())
