"""The scoreboard's JSON, its page, and its HTML report as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nearfar.claims import scoreboard
from nearfar.errors import DataError
from nearfar.report.claims import page

from .conftest import HOSTILE


def test_all_three_files_are_written_and_read_back(tmp_path: Path, board: dict[str, Any]) -> None:
    written = scoreboard.write(board, tmp_path)
    assert [path.name for path in written] == ["scoreboard.json", "scoreboard.md", "report.html"]
    assert scoreboard.read(tmp_path / "scoreboard.json") == json.loads(json.dumps(board))
    assert (tmp_path / "scoreboard.md").read_text() == scoreboard.markdown(scoreboard.read(written[0]))
    assert len(scoreboard.write(board, tmp_path / "docs", report=False)) == 2
    assert not (tmp_path / "docs" / "report.html").exists()


def test_failures_errors_and_blind_experiments_are_counted(board: dict[str, Any]) -> None:
    assert board["counts"] == {"holds": 2, "inconclusive": 2, "fails": 1, "error": 1}
    assert board["sabotage"] == {"caught": 2, "passed": ["blind"]}
    said = scoreboard.summary_line(board)
    assert "Of 6 claims 2 hold, 2 are inconclusive, 1 fails, 1 could not be judged." in said
    assert "The sabotage of blind passes" in said
    assert {"python", "torch", "numpy", "scikit-learn", "cores", "nearfar", "processor"} <= board["machine"].keys()
    assert board["cpu_seconds"] == pytest.approx(1.5 * (10 + 5 + 10 + 2 + 10 + 2))


def test_the_page_shows_every_outcome_for_what_it_is(board: dict[str, Any]) -> None:
    text = scoreboard.markdown(board)
    rows = {row.split("](#")[0].strip("| ["): row for row in text.splitlines() if re.match(r"\| \[", row)}
    assert list(rows) == [claim["id"] for claim in board["claims"]]
    assert "(weak) | holds |" in rows["it-holds"]
    assert "| **fails** |" in rows["it-fails"]
    assert "caught (says little)" in rows["it-fails"]
    assert "| **error** | seed 1: ValueError" in rows["it-errs"]
    assert "| holds |" in rows["blind"]
    assert "| passes |" in rows["blind"]
    assert "not judged" in rows["undecided"]
    assert "accuracy: +0.500 [+0.480, +0.520]<br>" in rows["it-holds"]
    assert "0.1: a third of what was seen | elsewhere." in text
    assert "code `0123456789abcdef`" in text
    widths = {row.replace("\\|", "").count("|") for row in rows.values()}
    assert widths == {7}


def test_texts_are_no_markup(board: dict[str, Any]) -> None:
    assert "<script" not in scoreboard.markdown(board)
    html = page(board).render()
    assert HOSTILE not in html
    assert html.count("window.broken = 1") >= 2


def test_the_report_shows_every_outcome(board: dict[str, Any]) -> None:
    html = page(board).render()
    for claim in board["claims"]:
        assert f'<section id="{claim["id"]}"' in html
    assert html.count('<span class="tag error">passes</span>') == 1
    assert '<span class="tag error">fails</span>' in html
    assert html.count("<figure") == 5
    quiet = {**board, "sabotage": {"caught": 3, "passed": []}}
    assert "none passes" in page(quiet).render()
    assert "none passes" in scoreboard.summary_line(quiet)


def test_an_empty_scoreboard_has_pages_too(tmp_path: Path) -> None:
    board = scoreboard.of([])
    assert len(scoreboard.write(board, tmp_path)) == 3


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}'])
def test_what_is_no_scoreboard_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scoreboard.json").write_text(text)
    with pytest.raises(DataError, match=r"scoreboard\.json"):
        scoreboard.read(tmp_path / "scoreboard.json")


def test_figures_are_written_with_about_four_digits() -> None:
    written = {0.0: "0.000", 0.12345: "0.123", 12.345: "12.35", 123.45: "123.5", 1e-5: "1.00e-05", -0.5: "-0.500"}
    assert {value: scoreboard.number(value) for value in written} == written
    assert scoreboard.signed(0.5) == "+0.500"
    assert scoreboard.signed(None) == "…"
