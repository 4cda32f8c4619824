"""Tables: columns that know how their values are written, so that numbers line up and read alike everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup, escape

from nearfar.report import format as fmt
from nearfar.report.style import clean

Kind = Literal["text", "long text", "number", "difference", "integer", "percent", "duration", "written"]

SHOWN_AT_ONCE = 240
LINES_AT_ONCE = 6


@dataclass(frozen=True)
class Column:
    """A column: its heading, what kind of values it holds, and how many decimals they get.

    ``kind``: ``"text"`` (left), ``"long text"`` (left, at least 16 characters wide, folded after 240 characters, line
    breaks kept, code in a monospaced face); ``"number"``, ``"difference"`` (signed), ``"integer"``, ``"percent"``
    (a share in [0, 1]), ``"duration"`` (seconds) and ``"written"`` (already written out) are set right.
    ``digits`` None: as many decimals as the column's largest value needs for three or four digits.
    """

    title: str
    kind: Kind = "text"
    digits: int | None = None

    @property
    def numeric(self) -> bool:
        """Whether the column is set right."""
        return self.kind not in ("text", "long text")


@dataclass(frozen=True)
class Table:
    """Rows under :class:`Column` s. Cells are plain values (escaped) or ``markupsafe.Markup`` (trusted).

    ``caption`` is shown above; ``emphasis`` holds indices of rows to be set bold.
    Raises ``ValueError`` when a row has another number of cells than there are columns.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    emphasis: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index} has {len(row)} cells, the table has {len(self.columns)} columns")

    def cells(self) -> list[list[Markup]]:
        """Every cell as HTML, row by row."""
        writers = [_writer(column, [row[index] for row in self.rows]) for index, column in enumerate(self.columns)]
        return [[_cell(value, writer) for value, writer in zip(row, writers, strict=True)] for row in self.rows]


def _cell(value: Any, writer: Callable[[Any], str]) -> Markup:
    return value if isinstance(value, Markup) else escape(writer(value))


def _writer(column: Column, values: list[Any]) -> Callable[[Any], str]:
    digits = fmt.decimals(values) if column.digits is None else column.digits
    writers: dict[Kind, Callable[[Any], str]] = {
        "text": _plain,
        "long text": long_text,
        "number": lambda value: fmt.number(value, digits),
        "difference": lambda value: fmt.signed(value, digits),
        "integer": fmt.integer,
        "percent": lambda value: fmt.percent(value, 1 if column.digits is None else column.digits),
        "duration": fmt.duration,
        "written": _plain,
    }
    return writers[column.kind]


def _plain(value: Any) -> str:
    return fmt.ABSENT if value is None or value == "" else clean(str(value))


def long_text(value: Any) -> Markup:
    """A text of any length: its first 240 characters or six lines, the rest folded; code is monospaced."""
    text = _plain(value)
    face = "code" if _looks_like_code(text) else "prose"
    lines = text.split("\n")
    short = "\n".join(lines[:LINES_AT_ONCE])
    if len(text) <= SHOWN_AT_ONCE * 1.2 and len(lines) <= LINES_AT_ONCE + 1:
        return Markup('<div class="long {}">{}</div>').format(face, text)
    cut = len(short)
    if cut > SHOWN_AT_ONCE:
        ends = [text.rfind(end, SHOWN_AT_ONCE // 2, SHOWN_AT_ONCE) for end in ("\n", " ")]
        cut = next((end for end in ends if end > 0), SHOWN_AT_ONCE)
    return Markup('<details class="long {}"><summary>{}<span class="more"> … more</span></summary>{}</details>').format(
        face, text[:cut], text[cut:].lstrip("\n")
    )


def _looks_like_code(text: str) -> bool:
    return any(line[:1] in (" ", "\t") and line.strip() for line in text.split("\n")[1:])
