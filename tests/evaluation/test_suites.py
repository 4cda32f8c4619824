from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import data, encoders, evaluation
from nearfar.cli.app import run
from nearfar.data import Examples
from nearfar.data.few_shot import draw_per_label, hold_out_per_label
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.suites import KINDS, parse_suite, read_suites, run_suites

WORDS = [first + second for first in ("ka", "lo", "mi", "ne", "po", "ru") for second in "bdfgklmn"]


def write(path: Path, names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def model() -> Any:
    return encoders.load("static", texts=WORDS * 2, dimension=16, vocabulary_size=400, device="cpu")


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "static"
    encoders.save(model, folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, random = tmp_path_factory.mktemp("suites"), np.random.default_rng(0)
    scored, labelled, pairs = [], [], []
    for row in range(60):
        words, shared = random.choice(WORDS, 8, replace=False), int(random.integers(0, 5))
        one, other = " ".join(words[:4]), " ".join([*words[:shared], *words[4 : 8 - shared]])
        scored.append((one, other, shared))
        pairs.append((one, other, int(shared > 2)))
        kind = row % 3
        labelled.append((" ".join([*random.choice(WORDS[16 * kind : 16 * kind + 16], 4), str(row)]), f"kind {kind}"))
    return {
        "similarity": write(place / "sts.csv", ("sentence1", "sentence2", "score"), scored),
        "pairs": write(place / "duplicates.csv", ("sentence1", "sentence2", "label"), pairs),
        "retrieval": write(place / "near.csv", ("anchor", "positive"), [row[:2] for row in scored]),
        "labels": write(place / "kinds.csv", ("text", "label"), labelled),
        "odd": write(place / "odd.csv", ("left", "right", "gold"), scored),
    }


def test_every_suite_is_the_evaluation_it_names(model: Any, files: dict[str, Path]) -> None:
    labels = files["labels"]
    asked = [f"{kind}={files[kind]}" for kind in ("similarity", "pairs", "retrieval")]
    asked += [f"{kind}={labels}" for kind in ("classification", "clustering", "few-shot")]
    found = run_suites(model, asked, shots=4, resamples=30)
    assert [suite.kind for suite in found] == ["similarity", "pairs", "retrieval", "classification", "clustering",
                                               "few-shot"]  # fmt: skip
    for suite in (found[0], found[2], found[3]):
        path = files.get(suite.kind, labels)
        assert suite.evaluation.to_dict() == evaluation.evaluate(model, data.read(path), resamples=30).to_dict()
        assert suite.name == path.name
    pairs = data.read(files["pairs"])
    one, other = (encoders.encode(model, pairs.column(name)) for name in ("sentence1", "sentence2"))
    expected = evaluation.pair_classification(
        (one.astype("f8") * other).sum(1), np.array(pairs.column("score")) == 1, resamples=30
    )
    assert found[1].evaluation.value == pytest.approx(expected.value, abs=1e-6)
    points = encoders.encode(model, data.read(labels).column("text"))
    expected = evaluation.clustering(points, data.read(labels).column("label"), resamples=30)
    assert found[4].evaluation.value == pytest.approx(expected.value)
    for suite in found:
        assert suite.shown[0] == suite.evaluation.main
        for name in suite.shown:
            measure = suite.evaluation.measures[name]
            assert measure.low <= measure.value <= measure.high


def test_few_shot_by_plain_loops(model: Any, files: dict[str, Path]) -> None:
    from sklearn.linear_model import LogisticRegression

    examples = data.read(files["labels"])
    found = evaluation.few_shot(model, examples, shots=3, draws=4, resamples=20, seed=1)
    pool, asked = hold_out_per_label(examples, 0.5, seed=1)
    codes, names = pool.labels()
    queries = encoders.encode(model, asked.column("text"))
    shares = []
    for draw in range(4):
        rows = draw_per_label(codes, 3, seed=1, draw=draw)
        points = encoders.encode(model, [pool[row]["text"] for row in rows.tolist()])
        learnt = LogisticRegression(C=10.0, max_iter=1000).fit(points, codes[rows])
        shares.append(np.mean(learnt.predict(queries) == asked.labels(names)[0]))
    assert found.value == pytest.approx(np.mean(shares), abs=1e-9)
    assert found.per_item["few_shot_accuracy"].mean() == pytest.approx(found.value)
    assert found.details == {"asked": len(asked), "labels": 3, "shots": 3, "draws": 4}
    train = evaluation.few_shot(model, asked, train=pool, shots=3, draws=4, resamples=20, seed=1)
    assert train.value == pytest.approx(found.value)
    more = evaluation.few_shot(model, examples, shots=10, draws=4, resamples=20, seed=1)
    assert more.value >= found.value - 0.05
    with pytest.raises(UsageError):
        evaluation.few_shot(model, examples, draws=0)
    with pytest.raises(DataError, match="not pairs"):
        evaluation.few_shot(model, Examples.from_columns({"anchor": ["a"], "positive": ["b"]}))
    one = Examples.from_columns({"text": ["a", "b", "c"], "label": ["x"] * 3})
    with pytest.raises(DataError, match="one label"):
        evaluation.few_shot(model, one)


def test_suites_are_read_as_they_are_written(files: dict[str, Path]) -> None:
    assert parse_suite("pairs=a.csv") == ("pairs", "a.csv", None)
    assert parse_suite("Few_Shot=a=b.csv") == ("few-shot", "a=b.csv", None)
    assert parse_suite("similarity=x.tsv,sentence1=a,sentence2,score=c") == (
        "similarity",
        "x.tsv",
        "sentence1=a,sentence2,score=c",
    )
    assert parse_suite("general") == ("general", "", None)
    for wrong in ("sts=a.csv", "pairs", "pairs=", "general=a.csv", ""):
        with pytest.raises(UsageError):
            parse_suite(wrong)
    odd = f"similarity={files['odd']},sentence1=left,sentence2=right,score=gold"
    (read,) = read_suites([odd])
    assert read.data is not None
    assert len(read.data) == 60
    with pytest.raises(DataError, match="takes labelled texts"):
        read_suites([f"clustering={files['similarity']}"])
    with pytest.raises(DataError, match="suites for labelled texts: classification, clustering, few-shot"):
        read_suites([f"pairs={files['labels']}"])


def test_what_goes_wrong_names_the_suite(model: Any, files: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"pairs suite, sts\.csv"):
        run_suites(model, [f"pairs={files['similarity']}"], resamples=10)
    with pytest.raises(UsageError, match="no suite"):
        run_suites(model, [])
    assert set(KINDS) == set(evaluation.suites.SHOWN)


def call(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as stopped:
        run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == code, err
    return out, err


def test_the_command(saved: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []
    for kind, name in (("similarity", "similarity"), ("clustering", "labels"), ("few-shot", "labels")):
        asked += ["--suite", f"{kind}={files[name]}"]
    out, _ = call(capsys, "evaluate", saved, *asked, "--suite", "general", "--shots", 3)
    for text in ("similarity", "v_measure", "few_shot_accuracy", "general", "spearman", "95 %"):
        assert text in out
    out, _ = call(capsys, "evaluate", saved, *asked, "--shots", 3, "--json", "--baseline", saved)
    found = json.loads(out)
    assert [each["suite"] for each in found[str(saved)]["suites"]] == ["similarity", "clustering", "few-shot"]
    assert found[str(saved)]["suites"][0]["measures"]["spearman"]["n"] == 60
    _, err = call(capsys, "evaluate", saved, files["similarity"], *asked, code=2)
    assert "beside suites" in err
    _, err = call(capsys, "evaluate", saved, code=2)
    assert "nothing to evaluate on" in err
    _, err = call(capsys, "evaluate", saved, *asked, "--baseline", "bm25", code=2)
    assert "bm25" in err
    out, _ = call(capsys, "evaluate", saved, files["similarity"])
    assert "spearman" in out
