"""The one page style of nearfar: sections of text, tables and figures, rendered to a single self-contained HTML file.

A page needs no network and asks for none: styles, scripts, figures and plotly.js are inside, and a content security
policy forbids every request as well as every script that the page was not rendered with. Texts are escaped by default;
what is trusted HTML must say so by being a ``markupsafe.Markup``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup, escape

from nearfar.errors import MissingExtraError
from nearfar.files import write_text
from nearfar.report.style import DARK_OF, FONT, SURFACES, clean
from nearfar.report.table import Table, long_text

Text = str | Markup
NoteKind = Literal["info", "good", "warning", "error", "absent"]

_HERE = Path(__file__).parent
_PRINTED_ROWS = 40


@dataclass(frozen=True)
class Fact:
    """One figure worth seeing first: a label, the value as it is to be read, and a line of detail."""

    label: Text
    value: Text
    detail: Text = ""


@dataclass(frozen=True)
class Figure:
    """A plotly figure with its title, a caption that says how to read it, and its numbers as a table.

    ``plot`` is a ``plotly.graph_objects.Figure`` or the equal dict, made with the light colours of
    :mod:`nearfar.report.style`. ``searchable``: readers get a box that highlights the points whose hover text has the
    words they type.
    """

    title: str
    plot: Any
    table: Table
    caption: Text = ""
    searchable: bool = False

    @property
    def height(self) -> int:
        """The figure's height in CSS pixels (plotly's own default is 450)."""
        layout = self.plot["layout"]
        return int(layout["height"] or 450) if "height" in layout else 450

    @property
    def data(self) -> Markup:
        """The figure as JSON that can stand inside a ``script`` element."""
        from plotly.io import to_json

        plot = json.loads(to_json(self.plot, validate=False, engine="json"))
        plot.get("layout", {}).pop("template", None)
        return script_json(plot)


@dataclass(frozen=True)
class Case:
    """One example to be read: a text, a line of detail, and the texts set side by side beneath it.

    ``parts``: (label, text, detail) each, such as what was expected and what was found instead.
    """

    text: str
    detail: str
    parts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Block:
    """One piece of a section: what kind it is (the template's macro of that name draws it) and its content."""

    kind: Literal["text", "note", "table", "figure", "cases", "code"]
    content: Any
    style: str = ""


@dataclass
class Section:
    """A part of a page under its own heading. Its methods append in reading order and return the section."""

    title: str
    anchor: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, text: Text) -> Section:
        """A paragraph."""
        return self._add(Block("text", _inline(text)))

    def note(self, text: Text, kind: NoteKind = "info") -> Section:
        """A paragraph that stands out; ``"absent"``: a quiet line that says why something is not here."""
        return self._add(Block("note", _inline(text), kind))

    def table(self, table: Table, *, limited: bool = False) -> Section:
        """A table, in a box that scrolls when it is wider than the page and, if ``limited``, longer than a screen."""
        return self._add(Block("table", table, "limited" if limited else ""))

    def figure(self, figure: Figure) -> Section:
        """A figure with its numbers folded away beneath it."""
        return self._add(Block("figure", figure))

    def cases(self, cases: Sequence[Case], *, shown: int = 8) -> Section:
        """Examples one under the other, those after the first ``shown`` folded away."""
        return self._add(Block("cases", (cases[:shown], cases[shown:])))

    def code(self, text: str) -> Section:
        """A command or code, to be copied."""
        return self._add(Block("code", clean(text)))

    def _add(self, block: Block) -> Section:
        self.blocks.append(block)
        return self


@dataclass
class Page:
    """A page: title, a line above it (``kicker``), a summary in plain words (``lead``), key facts, and sections.

    >>> page = Page("Learning code search", kicker="nearfar")
    >>> page.section("Result").text("MRR went from 0.42 to 0.59.") and page.write("report.html")  # doctest: +SKIP
    """

    title: str
    kicker: Text = ""
    lead: Sequence[Text] = ()
    facts: Sequence[Fact] = ()
    foot: Text = ""
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str) -> Section:
        """Append a section and return it."""
        taken = {section.anchor for section in self.sections}
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        anchor, count = stem, 1
        while anchor in taken:
            count += 1
            anchor = f"{stem}-{count}"
        section = Section(title, anchor)
        self.sections.append(section)
        return section

    def render(self) -> str:
        """The page as HTML. plotly.js is inside once, and only when there is a figure.

        Raises :class:`~nearfar.errors.MissingExtraError` when jinja2 or, for a page with figures, plotly is missing.
        """
        figures = any(block.kind == "figure" for section in self.sections for block in section.blocks)
        scripts = [_plotly_js()] if figures else []
        scripts.append(_script((_HERE / "page.js").read_text(encoding="utf-8")))
        hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
        html: str = _template().render(
            page=self,
            title=clean(self.title),
            kicker=_inline(self.kicker),
            lead=[_inline(paragraph) for paragraph in self.lead],
            facts=[Fact(_inline(fact.label), _inline(fact.value), _inline(fact.detail)) for fact in self.facts],
            foot=_inline(self.foot),
            style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
            surfaces=SURFACES,
            font=Markup(FONT),
            scripts=[Markup(script) for script in scripts],
            scheme=script_json({"surfaces": SURFACES, "darkOf": DARK_OF, "font": FONT}),
            policy=Markup(
                "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
                f"base-uri 'none'; form-action 'none'; script-src {hashes}"
            ),
            long_text=long_text,
            printed_rows=_PRINTED_ROWS,
        )
        return html

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Render to ``path``, all of it or nothing. Raises :class:`~nearfar.errors.OutputError` when that cannot be."""
        write_text(path, self.render())
        return Path(path)


def script_json(value: Any) -> Markup:
    """``value`` as JSON that cannot end the ``script`` element it stands in. NaN and infinity become null."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def strong(text: Text) -> Markup:
    """``text`` in bold, escaped unless it is Markup."""
    return Markup("<strong>{}</strong>").format(_inline(text))


def code(text: str) -> Markup:
    """``text`` in a monospaced face, escaped."""
    return Markup("<code>{}</code>").format(clean(text))


def _inline(text: Text) -> Markup:
    return text if isinstance(text, Markup) else escape(clean(str(text)))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    return _script(get_plotlyjs())


def _script(source: str) -> str:
    """JavaScript as it must stand in HTML: nothing ends the element, and lines end as the browser hashes them."""
    safe = re.sub(r"</(script)", r"<\\/\1", source, flags=re.IGNORECASE).replace("<!--", "<\\!--")
    return safe.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\\0")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
