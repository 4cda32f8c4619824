"""From pairs to pairs with mined hard negatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import data
from nearfar.data import Examples, RetrievalSet
from nearfar.errors import DataError, OutputError, UsageError
from nearfar.negatives import MiningRules, mine_pairs

# documents on a line: a's answers lie at 0 and 1, the rest further and further away; "copy" is d0's text again
ANCHORS = ["a", "a", "b", "c"]
POSITIVES = ["d0", "d1", "d2", "d9"]
ANGLES = {"a": 0.0, "b": 0.9, "c": 2.0, "d0": 0.05, "d1": 0.5, "d2": 1.0, "d9": 2.2}


def _vectors(names: list[str]) -> np.ndarray:
    return np.array([[np.cos(ANGLES[name]), np.sin(ANGLES[name])] for name in names], dtype=np.float32)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "q.npy", _vectors(ANCHORS))
    np.save(tmp_path / "d.npy", _vectors(POSITIVES))
    return tmp_path / "q.npy", tmp_path / "d.npy"


def _examples() -> Examples:
    return Examples.from_columns({"anchor": ANCHORS, "positive": POSITIVES})


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_pair_gets_its_querys_nearest_other_documents(files: tuple[Path, Path], tmp_path: Path) -> None:
    found = mine_pairs(_examples(), tmp_path / "out.jsonl", miner=files, rules=MiningRules(count=2))
    assert _lines(tmp_path / "out.jsonl") == [
        {"anchor": "a", "positive": "d0", "negative_1": "d2", "negative_2": "d9"},
        {"anchor": "a", "positive": "d1", "negative_1": "d2", "negative_2": "d9"},
        {"anchor": "b", "positive": "d2", "negative_1": "d1", "negative_2": "d0"},
        {"anchor": "c", "positive": "d9", "negative_1": "d2", "negative_2": "d1"},
    ]
    assert (found.rows, found.short, found.left_out) == (4, 0, 0)
    scores = _vectors(ANCHORS) @ _vectors(POSITIVES).T
    assert found.positive_score == pytest.approx(np.diag(scores).mean(), abs=1e-6)
    again = data.read(tmp_path / "out.jsonl")
    assert (again.shape, again.negatives) == ("pairs", ["negative_1", "negative_2"])


def test_short_queries_are_filled_up_or_left_out(files: tuple[Path, Path], tmp_path: Path) -> None:
    rules = MiningRules(count=2, highest_score=0.5)  # a: d9 alone; b: d9 alone; c: d1, d0
    out = tmp_path / "out.jsonl"
    found = mine_pairs(_examples(), out, miner=files, rules=rules)
    assert (found.rows, found.short, found.left_out) == (4, 2, 0)
    lines = _lines(out)
    assert lines[0]["negative_1"] == "d9"
    assert {lines[0]["negative_2"], lines[1]["negative_2"]} == {"d2"}  # neither an answer nor twice the same
    assert lines[2]["negative_1"] == "d9"
    assert lines[2]["negative_2"] in ("d0", "d1")
    found = mine_pairs(_examples(), out, miner=files, rules=rules, when_short="drop", overwrite=True)
    assert (found.rows, found.short, found.left_out) == (1, 2, 3)
    assert [line["anchor"] for line in _lines(out)] == ["c"]


def test_a_retrieval_set_and_copies_of_an_answer(tmp_path: Path) -> None:
    judged = RetrievalSet(
        ["0", "1", "2", "3"],
        ["same", "far", "same", "near"],
        ["q"],
        ["question"],
        {"q": {"0": 2, "1": 0}},
    )
    np.save(tmp_path / "q.npy", np.array([[1.0, 0.0]], dtype=np.float16))
    np.save(tmp_path / "d.npy", np.array([[1.0, 0], [0, 1], [1, 0], [0.8, 0.6]], dtype=np.float16))
    mine_pairs(
        judged, tmp_path / "out.jsonl", miner=(tmp_path / "q.npy", tmp_path / "d.npy"), rules=MiningRules(count=2)
    )
    assert _lines(tmp_path / "out.jsonl") == [
        {"anchor": "question", "positive": "same", "negative_1": "near", "negative_2": "far"}
    ]


def test_a_model_embeds_what_it_mines(tmp_path: Path) -> None:
    from nearfar import encoders

    texts = ["red apple", "green apple", "fast car", "slow car", "red car"]
    model = encoders.load("static", texts=texts, dimension=8, vocabulary_size=400)
    examples = Examples.from_columns({"anchor": texts, "positive": [text + " here" for text in texts]})
    told: list[str] = []
    found = mine_pairs(
        examples,
        tmp_path / "out.jsonl",
        miner=model,
        teacher=model,
        rules=MiningRules(count=1, ratio=1.0),
        progress=lambda what, done, total: told.append(what),
    )
    queries, documents = encoders.encode(model, texts), encoders.encode(model, examples.column("positive"))
    scores = queries @ documents.T
    for i, line in enumerate(_lines(tmp_path / "out.jsonl")):
        allowed = [j for j in range(5) if j != i and scores[i, j] <= scores[i, i] + 1e-6]
        if allowed:
            assert line["negative_1"] == documents_of(examples)[max(allowed, key=lambda j: scores[i, j])]
    assert found.queries == 5
    assert {what.split(":")[0] for what in told} == {"miner", "teacher", "mining"}


def documents_of(examples: Examples) -> list[str]:
    return examples.column("positive")


def test_bad_input_leaves_nothing_behind(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    np.save(tmp_path / "short.npy", _vectors(["d0", "d1"]))
    np.save(tmp_path / "int8.npy", np.zeros((4, 2), dtype=np.int8))
    (tmp_path / "no.npy").write_text("no array")
    for name, message in (("short", "2 documents, but 4"), ("int8", "of int8"), ("no", "cannot be read")):
        with pytest.raises(DataError, match=message):
            mine_pairs(_examples(), out, miner=(files[0], tmp_path / f"{name}.npy"))
    with pytest.raises(DataError, match="no query has enough"):
        mine_pairs(_examples(), out, miner=files, rules=MiningRules(count=4), when_short="drop")
    with pytest.raises(UsageError, match="'random' or 'drop'"):
        mine_pairs(_examples(), out, miner=files, when_short="keep")
    with pytest.raises(DataError, match="no pair to mine for"):
        mine_pairs(RetrievalSet(["0"], ["x"], ["q"], ["y"], {"q": {"0": 0}}), out, miner=files)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        mine_pairs(_examples(), out, miner=files)
    assert out.read_text() == "mine"
    assert not list(tmp_path.glob(".out*"))
