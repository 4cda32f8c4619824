"""The scoreboard's report in a real browser: light and dark, on a phone, on paper."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from support.browser import NEEDED, Reader

pytestmark = NEEDED


def test_it_opens_and_shows_each_seed(reader: Reader, board_report: Path) -> None:
    reader.open(board_report)
    assert reader.complaints() == []
    assert reader.run("window.broken") is None
    assert reader.run("performance.getEntriesByType('resource').length") == 0
    # five of the six have statements to draw; the one that broke has none
    assert reader.run("document.querySelectorAll('.plot .main-svg:first-child').length") == 5
    dots = "document.querySelectorAll('#it-holds .scatterlayer path.point').length"
    assert reader.run(dots) == 3 * 2 * (5 + 3)
    reader.run("document.querySelector('#it-fails .scatterlayer .trace:nth-child(2) path.point').id = 'first'")
    # the dots lie so close that the pointer may meet the neighbour
    assert re.search(r"honest, seed \d: −(0\.9[89]|1\.0[012])0", reader.hover("#first"))
    assert reader.run("document.querySelector('#all-claims a[href=\"#it-fails\"]').textContent") == "it-fails"
    assert reader.complaints() == []


def test_dark_rooms(reader: Reader, board_report: Path) -> None:
    reader.open(board_report, scheme="dark")
    assert reader.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    margin = "getComputedStyle(document.querySelector('#it-holds .shapelayer path[data-index=\"2\"]')).stroke"
    dark = reader.run(margin)
    reader.open(board_report, scheme="light")
    assert reader.run(margin) != dark
    assert reader.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [360, 820])
def test_nothing_is_wider_than_the_screen(reader: Reader, board_report: Path, width: int) -> None:
    reader.open(board_report, width=width)
    reader.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    assert reader.run("document.documentElement.scrollWidth") <= width
    assert reader.wider_than(width) == []
    # a statement is written above its dots, in as many lines as it takes
    cut = (
        "[...document.querySelectorAll('.plot')].flatMap((plot) => [...plot.querySelectorAll('.annotation-text')]"
        ".filter((text) => text.getBoundingClientRect().right > plot.getBoundingClientRect().right)).length"
    )
    assert reader.run(cut) == 0
    assert reader.complaints() == []


def test_it_prints_with_the_numbers_open(reader: Reader, board_report: Path) -> None:
    reader.open(board_report, scheme="dark")
    reader.run(
        "addEventListener('beforeprint', () => { window.opened = document.querySelectorAll('.numbers[open]').length })"
    )
    assert base64.b64decode(reader.command("Page.printToPDF")["data"]).startswith(b"%PDF")
    assert reader.run("window.opened") == 5
