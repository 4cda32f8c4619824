from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import encoders
from nearfar.cli.app import run
from nearfar.data import Examples
from nearfar.encoders import Calibration, calibration_of, set_calibration
from nearfar.encoders.calibration import FILE
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.evaluation import calibrate, calibrate_encoder
from nearfar.evaluation.calibration import labelled_pairs


def made(n: int = 200, *, gap: float = 0.3, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Similarities with many ties; near pairs are more similar by ``gap`` in the mean."""
    random = np.random.default_rng(seed)
    near = random.random(n) < 0.4
    return np.round(0.4 + gap * near + 0.15 * random.standard_normal(n), digits).clip(-1, 1), near


def rates(similarities: np.ndarray, near: np.ndarray, threshold: float) -> tuple[float, float, float]:
    true = sum(1 for s, y in zip(similarities, near, strict=True) if s >= threshold and y)
    false = sum(1 for s, y in zip(similarities, near, strict=True) if s >= threshold and not y)
    return (true / (true + false) if true + false else np.nan, true / near.sum(), false / (~near).sum())


def plain(similarities: np.ndarray, near: np.ndarray, wanted: str, target: float) -> float | None:
    """The lowest of all thresholds that keep what is wanted, by trying each."""
    lowest = None
    distinct = sorted(set(similarities.tolist()), reverse=True)
    for place, value in enumerate(distinct):
        precision, recall, wrong = rates(similarities, near, value)
        if recall > 0 and (precision >= target if wanted == "precision" else wrong <= target):
            following = distinct[place + 1] if place + 1 < len(distinct) else value
            lowest = (value + following) / 2
    return lowest


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("wanted", "target"), [("precision", 0.9), ("precision", 0.6), ("false_positive_rate", 0.05)])
def test_the_threshold_is_the_lowest_that_keeps_what_is_wanted(seed: int, wanted: str, target: float) -> None:
    similarities, near = made(seed=seed)
    found = calibrate(similarities, near, **{wanted: target}, resamples=20)  # type: ignore[arg-type]
    assert found.threshold == pytest.approx(plain(similarities, near, wanted, target), abs=1e-12)
    expected = rates(similarities, near, found.threshold)
    assert tuple(found.here.values()) == pytest.approx(expected, abs=1e-12)
    assert found.is_near(similarities).sum() == sum(similarities >= found.threshold)
    assert (found.pairs, found.near) == (200, near.sum())


def test_intervals_and_what_new_pairs_show_by_plain_loops() -> None:
    similarities, near = made(120, seed=3)
    found = calibrate(similarities, near, precision=0.8, resamples=3_000)
    random = np.random.default_rng(77)
    thresholds, outside = [], []
    for _ in range(1_500):
        rows = random.integers(0, 120, 120)
        threshold = plain(similarities[rows], near[rows], "precision", 0.8)
        thresholds.append(1.0 if threshold is None else threshold)
        if threshold is not None:
            left = np.setdiff1d(np.arange(120), rows)
            # the threshold lies between values of the resample; what is left out may lie between them too
            outside.append(rates(similarities[left], near[left], threshold))
    low, high = np.quantile(thresholds, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    for name, column in (("precision", 0), ("recall", 1), ("false_positive_rate", 2)):
        values = np.array([each[column] for each in outside])
        assert found.expected[name]["value"] == pytest.approx(np.nanmean(values), abs=0.02)


def test_what_was_wanted_is_what_new_pairs_show_on_average() -> None:
    shown, promised = [], []
    for seed in range(30):
        similarities, near = made(300, seed=seed, digits=6)
        found = calibrate(similarities, near, precision=0.85, resamples=100)
        others, truth = made(5_000, seed=1_000 + seed, digits=6)
        shown.append(rates(others, truth, found.threshold)[0])
        promised.append(found.expected["precision"]["value"])
        assert found.here["precision"] >= 0.85
    assert np.mean(promised) == pytest.approx(np.mean(shown), abs=0.015)


def test_invariances_and_edges() -> None:
    similarities, near = made(80)
    found = calibrate(similarities, near, precision=0.8, resamples=50)
    order = np.random.default_rng(1).permutation(80)
    shuffled = calibrate(similarities[order], near[order], precision=0.8, resamples=50)
    assert shuffled.threshold == found.threshold
    assert calibrate(similarities, near, precision=0.8, resamples=50) == found
    two = calibrate([0.9, 0.1], [True, False], precision=1.0, resamples=50)
    assert two.threshold == pytest.approx(0.5)
    assert two.expected["precision"]["low"] >= 0.0
    everything = calibrate([0.9, 0.8, 0.1], [True, False, True], precision=0.5, resamples=20)
    assert everything.threshold == 0.1
    assert everything.here["recall"] == 1.0
    none_wrong = calibrate([0.9, 0.8, 0.7], [True, False, True], false_positive_rate=0.0, resamples=20)
    assert none_wrong.threshold == pytest.approx(0.85)


def test_what_cannot_be_is_said() -> None:
    similarities, near = made(100)
    with pytest.raises(DataError, match=r"no threshold has a precision of 0\.9.*highest is 0\.5"):
        calibrate([0.5, 0.5, 0.4, 0.4], [True, False, True, False], precision=0.9)
    with pytest.raises(DataError, match="leaves no near pair"):
        calibrate([0.9, 0.8], [False, True], false_positive_rate=0.0)
    for wrong in ({}, {"precision": 0.9, "false_positive_rate": 0.1}, {"precision": 0.0}, {"precision": 1.2}):
        with pytest.raises(UsageError):
            calibrate(similarities, near, **wrong)
    with pytest.raises(UsageError):
        calibrate(similarities, near, false_positive_rate=1.0)
    with pytest.raises(DataError, match="all pairs are near"):
        calibrate(similarities, np.ones(100, bool), precision=0.9)
    with pytest.raises(DataError, match="all pairs are far"):
        calibrate(similarities, np.zeros(100, bool), precision=0.9)
    with pytest.raises(DataError):
        calibrate(similarities[:-1], near, precision=0.9)
    similarities[4] = np.nan
    with pytest.raises(DataError, match="finite"):
        calibrate(similarities, near, precision=0.9)


def scored(scores: list[float]) -> Examples:
    return Examples.from_columns(
        {
            "sentence1": [f"a{i}" for i in range(len(scores))],
            "sentence2": [f"b{i}" for i in range(len(scores))],
            "score": scores,
        }
    )


def test_pairs_of_every_shape() -> None:
    assert labelled_pairs(scored([1, 0, 1]))[2].tolist() == [True, False, True]
    assert labelled_pairs(scored([5, 2, 4, 0]), at_least=4)[2].tolist() == [True, False, True, False]
    assert labelled_pairs(scored([1, 1]))[2].tolist() == [True, True]
    with pytest.raises(DataError, match="4 values"):
        labelled_pairs(scored([5, 2, 4, 0]))
    triples = Examples.from_columns({"anchor": ["a", "b"], "positive": ["c", "d"], "negative": ["e", "f"]})
    first, second, near = labelled_pairs(triples)
    assert list(zip(first, second, near.tolist(), strict=True)) == [
        ("a", "c", True),
        ("b", "d", True),
        ("a", "e", False),
        ("b", "f", False),
    ]
    with pytest.raises(DataError, match="all pairs are near"):
        labelled_pairs(Examples.from_columns({"anchor": ["a"], "positive": ["c"]}))
    with pytest.raises(DataError, match="no labelled pairs"):
        labelled_pairs(Examples.from_columns({"text": ["a"]}))


WORDS = [first + second for first in ("ka", "lo", "mi", "ne") for second in "bdfgklmn"]


def sentences(rows: int = 80, *, seed: int = 0) -> Examples:
    """Pairs that share most of their words, and pairs that share none or one."""
    random = np.random.default_rng(seed)
    one, other, score = [], [], []
    for row in range(rows):
        words = random.choice(WORDS, 8, replace=False)
        shared = int(random.integers(2, 5)) if row % 2 else int(random.integers(0, 3))
        one.append(" ".join(words[:4]))
        other.append(" ".join([*words[:shared], *words[4 : 8 - shared]]))
        score.append(row % 2)
    return Examples.from_columns({"sentence1": one, "sentence2": other, "score": score})


@pytest.fixture(scope="module")
def model() -> Any:
    return encoders.load("static", texts=WORDS * 2, dimension=16, vocabulary_size=400, device="cpu")


@pytest.fixture(scope="module")
def calibrated(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "calibrated"
    calibrate_encoder(model, sentences(), precision=0.9, resamples=50)
    encoders.save(model, folder)
    return folder


def test_the_cosines_of_the_encoder_are_what_counts(model: Any) -> None:
    examples = sentences()
    found = calibrate_encoder(model, examples, precision=0.9, resamples=50)
    first, second = (encoders.encode(model, examples.column(name)) for name in ("sentence1", "sentence2"))
    near = np.array(examples.column("score")) == 1
    expected = calibrate((first.astype("f8") * second).sum(1), near, precision=0.9, resamples=50)
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-6)
    assert found.fingerprint == encoders.fingerprint(model)
    assert calibration_of(model) == found


@pytest.mark.parametrize("pooling", ["mean", "distinct"])
def test_it_is_saved_and_loaded_with_the_model(pooling: str, tmp_path: Path) -> None:
    made = encoders.load("static", texts=WORDS * 2, dimension=8, vocabulary_size=400, pooling=pooling, device="cpu")
    found = calibrate_encoder(made, sentences(), false_positive_rate=0.1, resamples=50)
    encoders.save(made, tmp_path / "saved")
    again = encoders.load(tmp_path / "saved")
    assert calibration_of(again) == found
    encoders.save(again, tmp_path / "again")
    assert calibration_of(encoders.load(tmp_path / "again")) == found
    set_calibration(again, None)
    encoders.save(again, tmp_path / "without")
    assert calibration_of(encoders.load(tmp_path / "without")) is None
    assert calibration_of(made) == found


def test_one_of_other_weights_does_not_go_with_them(calibrated: Path, tmp_path: Path) -> None:
    import torch

    changed = encoders.load(calibrated)
    assert calibration_of(changed) is not None
    with torch.no_grad():
        next(changed.parameters()).add_(0.1)
    encoders.save(changed, tmp_path / "changed")
    assert not (tmp_path / "changed" / FILE).exists()
    shutil.copy(calibrated / FILE, tmp_path / "changed" / FILE)
    with pytest.warns(UserWarning, match="other weights"):
        stale = encoders.load(tmp_path / "changed")
    assert calibration_of(stale) is None


def test_a_damaged_file_is_said(calibrated: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(calibrated, place)
    known = json.loads((place / FILE).read_text())
    damaged: list[Any] = ["[]", "{", json.dumps({**known, "threshold": "high"}), json.dumps({**known, "low": 1e999})]
    damaged += [json.dumps({key: value for key, value in known.items() if key != "pairs"})]
    for text in damaged:
        (place / FILE).write_text(text)
        with pytest.raises(ModelError):
            encoders.load(place)
    assert Calibration.from_dict(known).to_dict() == known


def call(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as stopped:
        run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == code, err
    return out, err


def test_the_command(calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, pairs = tmp_path / "model", tmp_path / "pairs.jsonl"
    shutil.copytree(calibrated, place)
    examples = sentences(seed=4)
    rows = [examples[row] for row in range(len(examples))]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, _ = call(capsys, "calibrate", place, pairs, "--false-positive-rate", 0.05)
    for text in ("near from a cosine of", "interval of the threshold", "false positive rate", "calibration.json"):
        assert text in out
    kept = calibration_of(encoders.load(place))
    assert kept is not None
    assert (kept.wanted, kept.target) == ("false_positive_rate", 0.05)
    out, _ = call(capsys, "calibrate", place, pairs, "--precision", 0.9, "--output", tmp_path / "other", "--json")
    found = json.loads(out)
    other = calibration_of(encoders.load(tmp_path / "other"))
    assert other is not None
    assert other.threshold == found["threshold"]
    assert calibration_of(encoders.load(place)) == kept
    out, _ = call(capsys, "evaluate", place, pairs)
    assert f"near from {kept.threshold:.3f}" in out
    out, _ = call(capsys, "evaluate", place, pairs, "--json")
    assert json.loads(out)[str(place)]["calibration"]["threshold"] == kept.threshold
    _, err = call(capsys, "calibrate", "minilm", pairs, "--precision", 0.9, code=2)
    assert "--output" in err
    _, err = call(capsys, "calibrate", place, pairs, code=2)
    assert "precision" in err
    flat = [{**row, "score": number % 2} for number, row in enumerate([rows[0]] * 10)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in flat))
    _, err = call(capsys, "calibrate", place, pairs, "--precision", 0.9, code=1)
    assert "no threshold has a precision of 0.9" in err


def test_a_search_says_which_hits_are_near(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = tmp_path / "documents.jsonl"
    texts = sentences().column("sentence2")[:20]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    call(capsys, "index", calibrated, documents, "--output", tmp_path / "index")
    out, _ = call(capsys, "search", tmp_path / "index", texts[0], "--json")
    hits = [json.loads(line) for line in out.splitlines()]
    kept = calibration_of(encoders.load(calibrated))
    assert kept is not None
    assert [hit["near"] for hit in hits] == [hit["score"] >= kept.threshold for hit in hits]
    assert hits[0]["near"]
    out, _ = call(capsys, "search", tmp_path / "index", texts[0])
    assert f"{sum(hit['near'] for hit in hits)} of 10 are near" in out
