from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from nearfar.errors import DataError
from nearfar.report import classification, comparison
from nearfar.report.figures.confusion import confusion_matrix
from nearfar.report.figures.explanations import word_weights

HOSTILE = "</script><script>window.broken = 1</script> & %{x}"


def measure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 90}


def results(**changes: Any) -> dict[str, Any]:
    methods = ["setfit", "tf-idf"]
    gain = {"first": "setfit", "second": "tf-idf", "value": 0.2, "low": 0.1, "high": 0.3, "corrected": 0.004}
    explanation = {
        "text": f"my card {HOSTILE}",
        "label": "card",
        "truth": "other",
        "probability": 0.91,
        "words": [["card", 0.4], [HOSTILE, -0.1]],
        "fidelity": 0.8,
        "samples": 100,
    }
    return {
        "methods": methods,
        "main": "accuracy",
        "measures": {name: {"accuracy": measure(0.8), "macro_f1": measure(0.75)} for name in methods},
        "gains": [{**gain, "found": True}],
        "by_draw": [{"setfit": 0.81, "tf-idf": 0.6}, {"setfit": 0.79, "tf-idf": 0.6}],
        "classes": [
            {"label": HOSTILE, "precision": 0.9, "recall": 0.8, "f1": 0.85, "asked": 45.0},
            {"label": "never said", "precision": None, "recall": 0.0, "f1": 0.0, "asked": 45.0},
        ],
        "confusions": [{"label": HOSTILE, "taken_for": "other", "count": 9, "share": 0.1}],
        "table": None,
        "explanations": [explanation],
        "shots": 8,
        "draws": 2,
        "examples": 16,
        "asked": 90,
        "labels": [HOSTILE, "never said"],
        "notes": ["1 label with fewer than 8 examples: x (3)"],
        "steps": 12,
        "seconds": {"setfit": 3.0, "total": 8.0},
        **changes,
    }


def written(folder: Path, found: dict[str, Any]) -> str:
    (folder / "results.json").write_text(json.dumps(found))
    (folder / "config.json").write_text(
        json.dumps({"command": ["nearfar", "classify"], "classification": {"shots": 8}})
    )
    (folder / "versions.json").write_text(json.dumps({"nearfar": "0"}))
    return classification.write(folder).read_text()


def test_a_page_says_it_all_and_lets_nothing_through(tmp_path: Path) -> None:
    page = written(tmp_path, results())
    assert HOSTILE not in page
    assert str(escape(HOSTILE)) in page
    for text in (
        "80.0 % right from 8 examples a label",
        "better than TF-IDF (+20.0 points)",
        "never said",
        "91 %: wrong",
    ):
        assert text in page
    assert classification.is_classification(tmp_path)
    assert not comparison.is_comparison(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    page = written(tmp_path, results(explanations=[], confusions=[], gains=[], shots=None, by_draw=[{"setfit": 0.8}]))
    for text in ("No prediction was explained", "taken for what it is", "Nothing was compared", "from all examples"):
        assert text in page
    same = {**results()["gains"][0], "found": False}
    worse = {**results()["gains"][0], "second": "untuned", "value": -0.1}
    page = written(tmp_path, results(gains=[same, worse]))
    assert "worse than untuned encoder (−10.0 points); not told apart from TF-IDF" in page


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        classification.write(tmp_path)
    assert not classification.is_classification(tmp_path)
    broken = results()
    del broken["measures"]
    with pytest.raises(DataError, match="not that of a classification"):
        written(tmp_path, broken)


def test_figures_carry_their_numbers() -> None:
    figure = confusion_matrix([[8, 2], [0, 0]], ["a", "b"])
    assert list(figure.plot.data[0].z[0]) == [0.8, 0.2]
    assert list(figure.plot.data[0].z[1]) == [0.0, 0.0]
    assert figure.table.rows == [["a", "b", 2, 0.2]]
    bars = word_weights({"text": "x y", "label": "a", "probability": 0.7, "words": [["x", 0.2], ["y", -0.1]],
                         "fidelity": -0.3})  # fmt: skip
    assert list(bars.plot.data[0].x) == [0.2, -0.1]
    assert bars.title == "a, 70 %"
    assert "0 %" in str(bars.caption)
