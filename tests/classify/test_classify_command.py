from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nearfar.classify import Classified
from nearfar.cli.app import run

from .conftest import labelled


def call(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as stopped:
        run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == code, err
    return out, err


def save(path: Path, rows: int = 60, seed: int = 0, *, columns: tuple[str, ...] = ("text", "label")) -> Path:
    examples = labelled(rows, seed=seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(examples.column(name) for name in columns), strict=True))
    return path


def test_it_works_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "train.csv")
    few = ("--draws", "2", "--pairs", "64", "--explain", "0")
    out, err = call(capsys, "classify", "train.csv", "--shots", "4", "--encoder", "static", *few)
    for word in ("setfit", "untuned", "linear head", "tf-idf", "accuracy", "runs/classifier/report.html"):
        assert word in out
    assert "draw 2 of 2" in err
    assert (tmp_path / "runs/classifier/model/classifier/classifier.json").is_file()
    out, _ = call(capsys, "report", "runs/classifier", "--json")
    assert json.loads(out) == {"report": "runs/classifier/report.html"}
    # the same by its whole name, and as JSON
    more = ("--baselines", "none", "--test", save(tmp_path / "test.csv", 20, 3), "--output", "other", "--json")
    out, _ = call(capsys, "classify", "train", "train.csv", "--shots", "0", "--encoder", "static", *few, *more)
    found = json.loads(out)
    assert found["asked"] == 20
    assert found["draws"] == 1
    assert list(found["measures"]) == ["setfit"]
    _, err = call(capsys, "classify", "train.csv", "--output", "other", code=1)
    assert "exists" in err
    _, err = call(capsys, "classify", "train.csv", "--baselines", "bm25", code=2)
    assert "choose from" in err


def test_a_file_is_predicted(classified: Classified, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = save(tmp_path / "texts.csv", 12, 5, columns=("text",))
    for name in ("out.csv", "out.tsv", "out.jsonl"):
        call(capsys, "classify", "predict", classified.folder, texts, "--output", tmp_path / name)
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    asked = labelled(12, seed=5).column("text")
    assert [row["text"] for row in rows] == asked
    assert [row["label"] for row in rows] == classified.classifier.predict(asked)
    best = classified.classifier.probabilities(asked).max(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(best.tolist(), abs=1e-6)
    with open(tmp_path / "out.tsv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file, delimiter="\t")] == [row["label"] for row in rows]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in rows]
    _, err = call(capsys, "classify", "predict", classified.folder, texts, "--output", tmp_path / "out.csv", code=1)
    assert "exists" in err
    _, err = call(capsys, "classify", "predict", classified.folder, texts, "--output", tmp_path / "out.xml", code=2)
    assert ".csv" in err
    out, _ = call(capsys, "classify", "predict", classified.folder, texts)
    assert rows[0]["label"] in out


def test_labels_of_the_file_judge(classified: Classified, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = save(tmp_path / "labelled.csv", 40, 5)
    out, _ = call(capsys, "classify", "predict", classified.folder, texts, "--output", tmp_path / "p.jsonl", "--json")
    found = json.loads(out)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    right = [line["label"] == line["truth"] for line in lines]
    assert found["rows"] == 40
    assert found["measures"]["accuracy"]["value"] == pytest.approx(sum(right) / 40)
    out, _ = call(capsys, "classify", "predict", classified.folder, texts)
    assert "accuracy" in out
    (tmp_path / "pairs.csv").write_text("anchor,positive\na,b\n")
    _, err = call(capsys, "classify", "predict", classified.folder, tmp_path / "pairs.csv", code=1)
    assert "these are pairs" in err


def test_a_prediction_is_explained(classified: Classified, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lime")
    out, _ = call(capsys, "classify", "explain", classified.folder, "kab kad lon", "--samples", "60")
    assert "fidelity" in out
    assert "kab" in out
    few = ("--samples", "60", "--json", "--label", "class 2")
    out, _ = call(capsys, "classify", "explain", classified.folder, "kab kad lon", "mib", *few)
    found = json.loads(out)
    assert [each["label"] for each in found] == ["class 2", "class 2"]
    assert [word for word, _ in found[1]["words"]] == ["mib"]
    _, err = call(capsys, "classify", "explain", classified.folder, "kab", "--label", "nothing", code=2)
    assert "no label" in err
    _, err = call(capsys, "classify", "explain", classified.folder, "?!", code=1)
    assert "no word" in err


def test_help_and_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = call(capsys, "classify", "--help")
    for command in ("train", "predict", "explain"):
        assert command in out
    _, err = call(capsys, "classify", "predict", tmp_path, tmp_path / "none.csv", code=1)
    assert "none.csv" in err
    _, err = call(capsys, "classify", tmp_path / "none.csv", "--output", tmp_path / "run", code=1)
    assert "none.csv" in err
