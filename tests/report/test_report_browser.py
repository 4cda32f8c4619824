"""The report in a real browser: it opens without an error, answers the pointer, fits dark rooms, phones and paper."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from support.browser import NEEDED, Reader

pytestmark = NEEDED


def test_it_opens_and_answers_the_pointer(reader: Reader, finished_report: Path) -> None:
    reader.open(finished_report)
    assert reader.complaints() == []
    assert reader.run("window.broken") is None
    assert reader.run("document.querySelectorAll('.plot .main-svg').length") >= 5
    assert reader.run("performance.getEntriesByType('resource').length") == 0
    points = ".scatterlayer path.point"
    assert reader.run(f"document.querySelectorAll('figure:has(.find) {points}').length") == 60

    # The first text of the map would be markup, a template and a script, were it not escaped.
    reader.run(
        "[...document.querySelectorAll('figure:has(.find) .trace')]"
        ".find((trace) => trace.querySelector('path.point').__data__.tx.includes('broken'))"
        ".querySelector('path.point').setAttribute('id', 'hostile')"
    )
    label = reader.hover("#hostile")
    for part in ("<script>window.broken = 1</script>", "<b>bold</b>", "%{x} $1$"):
        assert part in label.replace("\u200b", "")
    assert reader.run("window.broken") is None
    assert reader.complaints() == []


def test_words_typed_are_found_in_the_map(reader: Reader, finished_report: Path) -> None:
    reader.open(finished_report)
    box = reader.driver.find_element("css selector", ".find input")
    box.send_keys("number 5")  # 5 and 50 to 59
    reader.until("document.querySelector('.find output').value === '11 of 60'")
    dim = "[...document.querySelectorAll('figure:has(.find) path.point')].filter((p) => p.style.opacity < 0.2).length"
    reader.until(f"{dim} === 49")
    box.clear()
    box.send_keys("x\b")
    reader.until(f"{dim} === 0")
    assert reader.complaints() == []


def test_dark_rooms_and_a_change_of_light(reader: Reader, finished_report: Path) -> None:
    reader.open(finished_report, scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    points = "getComputedStyle(document.querySelector('figure path.point')).fill"
    dark = [reader.run(script) for script in (paper, ink, points)]
    assert dark[0] == "rgb(20, 23, 26)"
    reader.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    reader.until(f"{ink} !== {dark[1]!r} && {points} !== {dark[2]!r}")
    assert reader.run(paper) == "rgb(255, 255, 255)"
    assert reader.complaints() == []


@pytest.mark.parametrize("width", [390, 820])
def test_nothing_is_wider_than_the_screen(reader: Reader, finished_report: Path, width: int) -> None:
    reader.open(finished_report, width=width)
    reader.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    assert reader.run("document.documentElement.scrollWidth") <= width
    assert reader.wider_than(width) == []
    assert reader.complaints() == []


def test_it_prints_light_with_its_small_tables_open(reader: Reader, finished_report: Path) -> None:
    reader.open(finished_report, scheme="dark")
    reader.run(
        "addEventListener('beforeprint', () => { window.printed = ["
        "document.querySelectorAll('.numbers[open]').length,"
        "Math.max(...[...document.querySelectorAll('.plot .main-svg')].map((svg) => svg.clientWidth)),"
        "getComputedStyle(document.querySelector('.plot .legendtext')).fill] })"
    )
    pdf = base64.b64decode(reader.command("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    opened, width, ink = reader.run("window.printed")
    assert opened == 2  # the measures and the geometry; steps, bins and places are too many to print
    assert width <= 680
    assert ink == "rgb(28, 33, 38)"
    reader.until("document.querySelectorAll('.numbers[open]').length === 0")
    assert reader.run("getComputedStyle(document.querySelector('.plot .legendtext')).fill") == "rgb(228, 231, 234)"


def test_a_figure_has_no_button_that_sends_it_away(reader: Reader, finished_report: Path) -> None:
    reader.open(finished_report)
    config = "document.querySelector('.plot')._context"
    assert reader.run(f"{config}.plotlyServerURL") == ""
    assert reader.run(f"{config}.showSendToCloud") is False
    buttons = {name for group in reader.run(f"{config}.modeBarButtons") for name in group}
    assert buttons == {"zoom2d", "pan2d", "resetScale2d", "toImage"}
