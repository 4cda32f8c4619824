from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from nearfar.errors import MissingExtraError, OutputError
from nearfar.report import Case, Column, Fact, Figure, Page, Table, code, strong
from nearfar.report.figures import training_curve
from nearfar.report.page import script_json
from nearfar.report.style import DARK_OF, SERIES, SURFACES, hover_text
from nearfar.report.table import long_text

HOSTILE = '</script><script>window.broken = 1</script><b>bold</b><img src=x onerror="window.broken = 1"> & %{x}'
VOID = {"meta", "input", "img", "br", "hr", "link"}


class Tree(HTMLParser):
    """Elements, their attributes and the texts of an HTML page; complains about ends that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def figure(**options: object) -> Figure:
    plot = {
        "data": [{"type": "scatter", "x": [1, 2], "y": [3, None], "text": [HOSTILE, "b"]}],
        "layout": {"height": 333},
    }
    table = Table([Column("name"), Column("value", "number")], [[HOSTILE, 0.25], ["b", math.nan]])
    return Figure("A figure " + HOSTILE, plot, table, "How to read it " + HOSTILE, **options)  # type: ignore[arg-type]


def full_page() -> Page:
    page = Page(
        "Title " + HOSTILE,
        kicker="kicker " + HOSTILE,
        lead=["lead " + HOSTILE, Markup("trusted {}").format(strong(HOSTILE))],
        facts=[Fact("label " + HOSTILE, "0.5", "detail " + HOSTILE)],
        foot="foot " + HOSTILE,
    )
    section = page.section("Section " + HOSTILE)
    section.text("text " + HOSTILE).note("note " + HOSTILE, "warning").code("code " + HOSTILE)
    section.table(Table([Column(HOSTILE, "long text")], [[HOSTILE * 9]], caption="caption " + HOSTILE), limited=True)
    section.cases([Case(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE, HOSTILE)])] * 3, shown=1)
    section.figure(figure(searchable=True))
    return page


def test_every_text_is_escaped_wherever_it_stands() -> None:
    html = full_page().render()
    tree = Tree(html)
    own = {"application/json", None}
    scripts = [attributes for tag, attributes in tree.elements if tag == "script"]
    assert len(scripts) == 4  # the figure, the colours, plotly.js, the page's own
    assert {attributes.get("type") for attributes in scripts} == own
    assert not [tag for tag, _ in tree.elements if tag in ("b", "img")]
    assert not [name for _, attributes in tree.elements for name in attributes if name.startswith("on")]
    assert "".join(tree.text).count("<b>bold</b>") > 20


def test_a_page_refers_to_nothing_outside_itself() -> None:
    tree = Tree(full_page().render())
    for _, attributes in tree.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "background", "formaction"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not [tag for tag, _ in tree.elements if tag in ("link", "iframe", "object", "embed", "base")]
    styles = re.findall(r"<style>(.*?)</style>", full_page().render(), re.DOTALL)
    assert styles
    assert not re.search(r"@import|url\(|//", "".join(styles))


def test_the_policy_allows_only_the_scripts_that_are_there() -> None:
    html = full_page().render()
    policy = next(a["content"] for tag, a in Tree(html).elements if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert len(hashes) == 2
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_plotly_is_inside_once_and_only_where_there_is_a_figure() -> None:
    page = Page("Two figures")
    page.section("One").figure(figure())
    page.section("Two").figure(figure())
    assert page.render().count("plotly.js v") == 1
    without = Page("None")
    without.section("One").text("words")
    assert "plotly.js v" not in without.render()
    assert len(without.render()) < 40_000


def test_the_table_beneath_a_figure_carries_its_numbers() -> None:
    page = Page("A figure")
    page.section("One").figure(figure())
    html = page.render()
    beneath = html[html.index('<details class="numbers"') : html.index("</details>")]
    assert '<td class="number">0.250</td>' in beneath
    assert '<td class="number">–</td>' in beneath
    assert "data-print" in beneath


def test_a_long_table_beneath_a_figure_is_not_printed() -> None:
    table = Table([Column("n", "integer")], [[index] for index in range(41)])
    page = Page("A figure")
    page.section("One").figure(Figure("f", figure().plot, table))
    assert '<details class="numbers">' in page.render()


def test_figures_keep_what_json_cannot_say_out_of_it() -> None:
    plot = {"data": [{"x": [1.0, math.nan, math.inf], "y": np.array([1.5, math.nan])}], "layout": {}}
    made = Figure("f", plot, Table([Column("n")], []))
    data = json.loads(str(made.data))
    assert data["data"][0]["x"] == [1.0, None, None]
    assert "NaN" not in str(made.data)
    assert made.height == 450
    assert figure().height == 333


def test_script_json_ends_no_script_and_stays_the_same_value() -> None:
    value = {HOSTILE: [HOSTILE, "\u2028 <!-- ", math.nan, (1, 2), math.inf]}
    written = str(script_json(value))
    assert not set("<>&") & set(written)
    assert json.loads(written) == {HOSTILE: [HOSTILE, "\u2028 <!-- ", None, [1, 2], None]}


def test_without_plotly_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [module for module in sys.modules if module.split(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    page = Page("A figure")
    page.section("One").figure(figure())
    with pytest.raises(MissingExtraError, match=r"pip install 'nearfar\[report\]'"):
        page.render()
    with pytest.raises(MissingExtraError, match="plotly"):
        training_curve([{"step": 1, "loss": 1.0}])


def test_anchors_are_unique_and_the_contents_lead_to_them() -> None:
    page = Page("Anchors")
    titles = ["Same", "same", "Same!", "日本", "文字", "same 2"]
    anchors = [page.section(title).anchor for title in titles]
    assert len(set(anchors)) == len(titles)
    tree = Tree(page.render())
    identities = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(set(identities)) == len(identities)
    links = [attributes["href"] for tag, attributes in tree.elements if tag == "a"]
    assert [f"#{anchor}" for anchor in anchors] == links[1:]
    assert links[0] == "#content"
    assert "content" in identities


def test_what_utf8_cannot_hold_does_not_stop_the_page(tmp_path: Path) -> None:
    page = Page("lone \ud800 surrogate \x00 nul")
    page.section("s").text("\x1b[31m red \udfff").code("a\rb\r\nc").table(Table([Column("x")], [["\ud83d"]]))
    written = page.write(tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert "lone \ufffd surrogate \ufffd nul" in written
    assert "a\nb\nc" in written
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", written)


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        Page("p").write(tmp_path / "file" / "page.html")


def test_cases_after_the_first_are_folded() -> None:
    page = Page("Cases")
    page.section("s").cases([Case(f"case {index}", "", [("found", "text", "")]) for index in range(5)], shown=2)
    html = page.render()
    assert "<summary>3 more</summary>" in html
    assert html.index("case 1") < html.index("3 more") < html.index("case 2")


def test_numeric_columns_are_set_right_and_share_their_decimals() -> None:
    table = Table([Column("a"), Column("b", "number"), Column("c", "difference", 1)], [["x", 88.4, 1], ["y", 0.5, -2]])
    assert [[str(cell) for cell in row] for row in table.cells()] == [["x", "88.40", "+1.0"], ["y", "0.50", "−2.0"]]
    assert [column.numeric for column in table.columns] == [False, True, True]


def test_a_row_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells, the table has 2 columns"):
        Table([Column("a"), Column("b")], [[1, 2], [3]])


def test_long_texts_fold_and_lose_nothing() -> None:
    words = " ".join(f"word{index}" for index in range(200))
    folded = str(long_text(words))
    assert folded.startswith('<details class="long prose">')
    shown, rest = re.fullmatch(r"<details.*?><summary>(.*?)<span.*?</span></summary>(.*)</details>", folded).groups()  # type: ignore[union-attr]
    assert shown + rest == words
    assert len(shown) <= 240
    assert str(long_text("short")) == '<div class="long prose">short</div>'


def test_code_is_recognised_and_folds_at_a_line() -> None:
    text = "def f():\n" + "\n".join(f"    line{index} = {index}" for index in range(30))
    folded = str(long_text(text))
    assert 'class="long code"' in folded
    shown = folded.split("<summary>")[1].split("<span")[0]
    assert shown == "\n".join(text.split("\n")[:6])


def test_hover_texts_are_wrapped_cut_and_escaped() -> None:
    text = hover_text("<b>x</b> & y\n    indented\n" + "word " * 400, width=40, lines=5)
    lines = text.split("<br>")
    assert lines[0] == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert lines[1] == "    indented"
    assert lines[-1] == "…"
    assert len(lines) == 6
    assert max(map(len, lines[2:])) <= 40


def test_inline_helpers_escape() -> None:
    assert str(code("<i>")) == "<code>&lt;i&gt;</code>"
    assert str(strong("<i>")) == "<strong>&lt;i&gt;</strong>"


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_from_their_surface(scheme: str) -> None:
    surface = SURFACES[scheme]
    for name in ("ink", "muted", "accent", "good", "warning", "error"):
        assert contrast(surface[name], surface["paper"]) >= 4.5, name
    for colour in SERIES:
        drawn = colour if scheme == "light" else DARK_OF[colour]
        assert contrast(drawn, surface["paper"]) >= 3, colour
    assert SURFACES["light"].keys() == SURFACES["dark"].keys()
