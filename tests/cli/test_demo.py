"""The demo in small: every step of it, on fewer functions and a smaller encoder."""

from __future__ import annotations

import json

import pytest

from nearfar import demo
from nearfar.cli.demo import show


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    return demo.run(
        tmp_path_factory.mktemp("demo") / "run",
        limit=2_000,
        settings={"dimension": 64, "vocabulary_size": 4_000, "batch_size": 256, "epochs": 3.0},
    )


def test_demo_writes_what_it_found(small: demo.Demo) -> None:
    metrics = json.loads((small.folder / "metrics.json").read_text())
    assert set(metrics["mrr"]) == {"trained", "bm25", "untrained"}
    assert {"training", "total"} <= set(metrics["seconds"])
    assert metrics["mrr"]["trained"] > metrics["mrr"]["untrained"]
    assert metrics["held_out"] == 500
    assert metrics["baselines"]["bm25"]["mrr"]["value"] == metrics["mrr"]["bm25"]
    ratio = metrics["ratio_to_bm25"]
    assert ratio["value"] == pytest.approx(metrics["mrr"]["trained"] / metrics["mrr"]["bm25"])
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert (small.folder / "report.html").exists()


def test_demo_chooses_nothing_by_its_evaluation(small: demo.Demo) -> None:
    lines = [json.loads(line) for line in (small.folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line["step"] for line in lines if "evaluation" in line]
    assert evaluated == [json.loads((small.folder / "metrics.json").read_text())["steps"]]


def test_demo_indexes_everything_and_answers(small: demo.Demo) -> None:
    from nearfar.search import Index

    index = Index.open(small.folder / "index")
    assert len(index) == small.items == 2_000
    hit = index.search(["sort a list"], k=1)[0][0]
    assert {"where", "summary", "file", "line"} <= set(hit.fields)
    assert all(len(hits) == 3 for hits in small.hits.values())


def test_demo_shows_it(small: demo.Demo, capsys: pytest.CaptureFixture[str]) -> None:
    show(small)
    said = capsys.readouterr().out
    assert "trained / BM25" in said
    assert all(question in said for question in small.hits)
    assert "nearfar search" in said
