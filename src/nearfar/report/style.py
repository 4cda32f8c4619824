"""Colours of pages and figures, in a light and a dark scheme, and what all figures share.

The series colours follow Okabe & Ito's colour-blind safe set (2008), the light ones darkened and the dark ones
lightened until each has a contrast of at least 3:1 against its surface; series also differ by symbol or position, never
by colour alone. A figure is made with the light colours; the page replaces each by its dark counterpart when the
reader's scheme is dark.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from markupsafe import escape

from nearfar.errors import MissingExtraError

SURFACES: dict[str, dict[str, str]] = {
    "light": {
        "paper": "#ffffff",
        "raised": "#f6f7f8",
        "ink": "#1c2126",
        "muted": "#5c6670",
        "rule": "#dfe3e7",
        "grid": "#e8ebee",
        "shade": "#00000026",
        "accent": "#00609a",
        "good": "#00735a",
        "warning": "#8a5200",
        "error": "#b3261e",
    },
    "dark": {
        "paper": "#14171a",
        "raised": "#1d2226",
        "ink": "#e4e7ea",
        "muted": "#9aa4ae",
        "rule": "#343b42",
        "grid": "#2a3036",
        "shade": "#000000a6",
        "accent": "#6db8ee",
        "good": "#4fcaa5",
        "warning": "#f0b45a",
        "error": "#ff8a80",
    },
}

BLUE, ORANGE, GREEN, PINK = "#0072b2", "#c85200", "#00855f", "#b8578f"
SKY, GOLD, INDIGO, OLIVE = "#2f8fc4", "#a87400", "#5b50b5", "#6f6a2a"
GREY, FAINT, INK = "#69737d", "#a9b1b9", "#1c2126"

SERIES = (BLUE, ORANGE, GREEN, PINK, GOLD, INDIGO, SKY, OLIVE)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon")

DARK_OF: dict[str, str] = {
    BLUE: "#56b4e9",
    ORANGE: "#ff9150",
    GREEN: "#3fcf9f",
    PINK: "#e897c3",
    SKY: "#9ad4f5",
    GOLD: "#f2c14e",
    INDIGO: "#a9a0ff",
    OLIVE: "#c9c46f",
    GREY: "#8f99a3",
    FAINT: "#5d666f",
    INK: "#e4e7ea",
}

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif'
)

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """``text`` without what neither HTML nor UTF-8 can hold: control characters and lone surrogates become U+FFFD."""
    return _CONTROLS.sub("\ufffd", _LONE_SURROGATES.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")))


def hover_text(text: str, *, width: int = 64, lines: int = 14) -> str:
    """A user's text for a hover label: wrapped, cut after ``lines`` lines, with nothing that plotly takes for markup.

    plotly's labels understand ``<b>``, ``<br>``, ``<a>`` and entities; here ``&``, ``<`` and ``>`` are escaped, so that
    the reader sees the text as it was. Line breaks and indentation (code) are kept.
    """
    wrapped: list[str] = []
    for line in clean(text).expandtabs(4).split("\n"):
        wrapped += textwrap.wrap(line, width, drop_whitespace=False, replace_whitespace=False) or [""]
        if len(wrapped) > lines:
            wrapped = [*wrapped[:lines], "…"]
            break
    return "<br>".join(str(escape(line)) for line in wrapped)


def graph_objects() -> Any:
    """plotly's ``graph_objects``, or a clear error when plotly is not installed."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    return go


def new_figure(*, height: int, **layout: Any) -> Any:
    """An empty plotly figure with what all figures share: legend above the plot, quiet axes, tight margins."""
    figure = graph_objects().Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 16, "t": 40, "b": 44},
        font={"family": FONT, "size": 13},
        legend={
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
        },
        hovermode="closest",
        hoverlabel={"align": "left"},
    )
    figure.update_layout(**layout)
    return figure
