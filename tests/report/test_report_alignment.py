from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nearfar.report.figures.preferences import preference_curves
from nearfar.report.run import write

LINES = [
    {
        "step": step,
        "loss": 0.7 - 0.01 * step,
        "log_p_chosen": -10.0 - step,
        "log_p_rejected": -10.0 - 3 * step,
        "margin": 2.0 * step,
        "accuracy": 0.5,
        "cut": 0.0,
    }
    for step in range(1, 31)
]


def folder(place: Path, **metrics: Any) -> Path:
    config = {
        "nearfar": "1",
        "kind": "alignment",
        "objective": "dpo",
        "settings": {"model": "models/small", "lora": True, "rank": 8},
        "data": {"train": {"path": "/data/prefs.jsonl", "rows": 1200, "shape": "pairs"}},
        "tokens": {"responses": 2400, "responses cut": 12, "rows dropped": 3},
    }
    measures = {
        "before": {"accuracy": {"value": 0.5, "low": 0.5, "high": 0.5, "n": 90}},
        "after": {"accuracy": {"value": 0.71, "low": 0.6, "high": 0.8, "n": 90}},
    }
    for name, value in (("log_p_chosen", (-20.0, -25.0)), ("log_p_rejected", (-21.0, -40.0))):
        for when, number in zip(("before", "after"), value, strict=True):
            measures[when][name] = {"value": number, "low": number - 1, "high": number + 1, "n": 90}
    found = {**measures, "main": "accuracy", "seconds": {"training": 60.0}, "steps": 30, "ended": "all steps"}
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (place / "metrics.json").write_text(json.dumps({**found, **metrics}), encoding="utf-8")
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    return place


def test_the_page_says_who_was_aligned_and_what_became_of_the_chosen(tmp_path):
    page = write(folder(tmp_path / "run", warning="The chosen <responses> fell.")).read_text(encoding="utf-8")
    for part in (
        "<code>small</code> was aligned with <code>dpo</code>, by a LoRA adapter of rank 8, on 1,200 rows of pairs",
        "The chosen &lt;responses&gt; fell.",
        "that of chosen responses went from −20.000 to −25.000",
        "12 of them lost their end to the budget, and 3 rows were dropped",
        "Chosen and rejected over the training",
        "Accuracy: of pairs with different scores",
    ):
        assert part in page, part
    assert "Embedding space" not in page
    assert "Hardest errors" not in page


def test_a_run_without_preferences_in_its_lines_says_so(tmp_path):
    place = folder(tmp_path / "run")
    (place / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    page = write(place).read_text(encoding="utf-8")
    assert "nothing of chosen and rejected" in page


def test_curves_hold_what_was_logged():
    figure = preference_curves(LINES)
    assert figure is not None
    assert [trace["name"] for trace in figure.plot.data] == [
        "log p of chosen",
        "log p of rejected",
        "margin",
        "accuracy in the batch",
    ]
    assert [column.title for column in figure.table.columns][:4] == [
        "step",
        "log p chosen",
        "log p rejected",
        "margin",
    ]
    assert len(figure.table.rows) == 30
    chosen = figure.plot.data[0]["y"]  # running means of a line are the line, but for its ends
    assert chosen[15] == pytest.approx(-26.0)


@pytest.mark.parametrize(
    ("lines", "panels"),
    [
        ([{"step": 1, "loss": 1.0}], None),
        ([{"step": 1, "log_p_chosen": -3.0}], 1),
        ([{"step": 1, "log_p_chosen": -3.0, "margin": float("nan")}, {"step": 2, "log_p_chosen": None}], 1),
    ],
)
def test_curves_of_little(lines, panels):
    figure = preference_curves(lines)
    assert (figure is None) if panels is None else (figure is not None and len(figure.plot.data) == panels)
