from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import encoders
from nearfar.classify import Classified, ClassifySettings, classify, draws
from nearfar.classify.settings import BASELINES
from nearfar.data import Examples
from nearfar.errors import DataError, OutputError, UsageError

from .conftest import SMALL, labelled


def test_a_run_says_how_good_every_method_is(classified: Classified) -> None:
    results = classified.results
    assert results["methods"] == ["setfit", *BASELINES]
    assert results["draws"] == 2
    assert results["examples"] == 20
    assert results["asked"] == 48
    assert results["steps"] == 6  # 96 pairs, sixteen a step
    for measures in results["measures"].values():
        for each in measures.values():
            assert 0 <= each["low"] <= each["value"] <= each["high"] <= 1
            assert each["n"] == 48
    for name, measures in results["measures"].items():
        assert measures["accuracy"]["value"] == pytest.approx(np.mean([draw[name] for draw in results["by_draw"]]))
    for gain in results["gains"]:
        expected = [results["measures"][name]["accuracy"]["value"] for name in (gain["first"], gain["second"])]
        assert gain["value"] == pytest.approx(expected[0] - expected[1])
    assert results["measures"]["setfit"]["accuracy"]["value"] > 0.5  # of four labels


def test_the_saved_model_is_the_first_draw_and_its_figures_are_true(classified: Classified) -> None:
    from nearfar.data.few_shot import hold_out_per_label

    asked = hold_out_per_label(labelled(), 0.5, seed=0)[1]
    said = classified.classifier.predict(asked.column("text"))
    share = np.mean([one == other for one, other in zip(said, asked.column("label"), strict=True)])
    assert share == pytest.approx(classified.results["by_draw"][0]["setfit"])
    table = np.array(classified.results["table"])
    assert table.sum() == 2 * len(asked)
    assert table.trace() / table.sum() == pytest.approx(classified.results["measures"]["setfit"]["accuracy"]["value"])
    for row, each in enumerate(classified.results["classes"]):
        assert each["recall"] == pytest.approx(table[row, row] / table[row].sum())
        assert each["asked"] == 12


def test_predictions_are_explained(classified: Classified) -> None:
    pytest.importorskip("lime")
    found = classified.results["explanations"]
    assert len(found) == 2
    for each in found:
        assert {word for word, _ in each["words"]} <= set(each["text"].split())
        assert each["label"] in classified.results["labels"]


def test_the_folder_holds_model_figures_and_page(classified: Classified) -> None:
    config = json.loads((classified.folder / "config.json").read_text())
    assert config["command"] == ["nearfar", "classify", "train.csv"]
    assert config["classification"]["shots"] == 5
    assert json.loads((classified.folder / "results.json").read_text()) == classified.results
    page = (classified.folder / "report.html").read_text()
    for text in ("class 3", "Confusions", "Explanations", "TF-IDF", "linear head"):
        assert text in page
    assert not list(classified.folder.parent.glob(".*unfinished"))


def run(output: Path, encoder: Path | str, examples: Examples | None = None, **options: Any) -> Classified:
    settings = ClassifySettings(output=str(output), encoder=str(encoder), **{**SMALL, **options})
    return classify(settings, examples=labelled() if examples is None else examples)


def test_tuning_draws_labels_apart(classified: Classified, bert_folder: Path) -> None:
    texts = labelled(seed=7)
    codes = texts.labels()[0]

    def gap(model: Any) -> float:
        points = encoders.encode(model, texts.column("text"))
        cosines, same = points @ points.T, codes[:, None] == codes[None, :]
        return float(cosines[same].mean() - cosines[~same].mean())

    assert gap(classified.classifier.encoder) > gap(encoders.load(bert_folder)) + 0.1


def test_killed_it_goes_on_to_the_same_results(
    classified: Classified, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = draws.Bench.draw, []

    def breaks(self: Any, examples: Examples, rows: Any, number: int, *rest: Any) -> Any:
        calls.append(number)
        if number == 1 and len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, examples, rows, number, *rest)

    monkeypatch.setattr(draws.Bench, "draw", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", bert_folder)
    assert not (tmp_path / "run").exists()
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path / "run", bert_folder, pairs=64)
    found = run(tmp_path / "run", bert_folder)
    assert calls == [0, 1, 1]
    for name in ("measures", "gains", "by_draw", "classes", "explanations"):
        assert found.results[name] == classified.results[name]


def test_a_test_file_is_asked_and_its_texts_are_not_learnt(tmp_path: Path) -> None:
    examples, test = labelled(60), labelled(40, seed=1)
    both = Examples.from_columns({name: [*examples.column(name), *test.column(name)[:8]] for name in ("text", "label")})
    settings = ClassifySettings(
        output=str(tmp_path / "run"), encoder="static", **{**SMALL, "shots": None, "explanations": 0}, baselines=[]
    )
    found = classify(settings, examples=both, test=test)
    assert found.results["draws"] == 1
    assert found.results["asked"] == 40
    assert found.results["examples"] == 60
    assert "8 examples left out" in found.results["notes"][0]
    assert found.results["gains"] == []
    assert list(found.results["measures"]) == ["setfit"]
    assert found.results["explanations"] == []
    assert "No prediction was explained" in (found.folder / "report.html").read_text()


def test_rare_labels_are_noted_and_two_labels_do(tmp_path: Path) -> None:
    examples = labelled(24, classes=2)
    texts = [*examples.column("text"), "ruk rul", "ruk rum"]
    rare = Examples.from_columns({"text": texts, "label": [*examples.column("label"), "rare", "rare"]})
    found = run(tmp_path / "run", "static", rare, explanations=0, draws=1, baselines=["tf-idf", "linear head"])
    assert found.results["notes"] == ["1 label with fewer than 5 examples: rare (1)"]
    assert found.results["labels"] == ["class 0", "class 1", "rare"]
    assert "inf" not in (found.folder / "results.json").read_text().lower().replace("info", "")


def test_what_cannot_be_classified_is_said(tmp_path: Path) -> None:
    one = Examples.from_columns({"text": ["a", "b", "c"], "label": ["x", "x", "x"]})
    with pytest.raises(DataError, match="one label"):
        run(tmp_path / "run", "static", one)
    with pytest.raises(DataError, match="labelled texts"):
        run(tmp_path / "run", "static", Examples.from_columns({"text": ["a", "b"]}))
    other = Examples.from_columns({"text": ["q", "r"], "label": ["class 0", "class 9"]})
    with pytest.raises(DataError, match="class 9"):
        classify(ClassifySettings(output=str(tmp_path / "run"), encoder="static"), examples=labelled(), test=other)
    with pytest.raises(UsageError, match="no place"):
        classify(ClassifySettings(), examples=labelled())
    with pytest.raises(UsageError, match="no data"):
        classify(ClassifySettings(output=str(tmp_path / "run")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists"):
        run(tmp_path / "mine", "static")
    with pytest.raises(OutputError, match="not a folder of a classification"):
        run(tmp_path / "mine", "static", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"shots": 0},
        {"draws": 0},
        {"pairs": 1},
        {"hold_out": 1.0},
        {"strategy": "all"},
        {"penalty": 0.0},
        {"learning_rate": -1.0},
        {"baselines": ["bm25"]},
        {"samples": 1},
        {"iterations": 0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ClassifySettings(**options)
