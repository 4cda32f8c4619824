"""Figures of the geometry: the map of embeddings and the plane of alignment and uniformity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.figures.values import mapping
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, GREY, INK, SERIES, SYMBOLS, clean, hover_text, new_figure
from nearfar.report.table import Column, Table

_TEXT_IN_TABLE = 160


def embedding_map(
    x: Sequence[float],
    y: Sequence[float],
    text: Sequence[str],
    group: Sequence[Any] | None = None,
    *,
    method: str = "t-SNE",
) -> Figure:
    """A two-dimensional map of embeddings whose points show their text under the pointer.

    ``x``, ``y`` [n] and ``text`` [n]; ``group`` [n] colours the points: the eight largest groups get a colour and a
    symbol each, the others are grey. Items whose place is not finite are left out and counted in the caption.
    Raises ``ValueError`` when the lengths differ.
    """
    groups = [None] * len(text) if group is None else [None if item is None else str(item) for item in group]
    if not len(x) == len(y) == len(text) == len(groups):
        raise ValueError(f"x, y, text and group have {len(x)}, {len(y)}, {len(text)} and {len(groups)} items")
    items = [
        (left, up, name, str(label))
        for left, up, name, label in zip(map(fmt.as_finite, x), map(fmt.as_finite, y), groups, text, strict=True)
        if left is not None and up is not None
    ]
    sizes = Counter(name for _, _, name, _ in items if name is not None)
    named = [name for name, _ in sizes.most_common(len(SERIES))]
    figure = new_figure(height=620, margin={"l": 8, "r": 8, "t": 56, "b": 8})
    rest = [item for item in items if item[2] not in named]
    if rest:
        others = len(sizes) - len(named)
        label = f"{others:,} other groups" if others else ("texts" if not named else "no group")
        _draw_group(figure, label, rest, GREY if named else BLUE, "circle", legendrank=2_000)
    for index, name in enumerate(named):
        members = [item for item in items if item[2] == name]
        _draw_group(figure, fmt.shorten(name, 28), members, SERIES[index], SYMBOLS[index])
    hidden = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(**hidden)
    figure.update_yaxes(**hidden, scaleanchor="x", scaleratio=1)
    figure.update_layout(showlegend=bool(named), dragmode="pan")
    caption = (
        f"{fmt.plural(len(items), 'text')}, placed by {method}: "
        "neighbours here are neighbours in the embedding space; the axes have no unit and distances between far "
        "clusters mean little. Point at a dot (or tap it) to read its text."
    )
    if len(items) < len(text):
        caption += f" {fmt.plural(len(text) - len(items), 'text')} without a finite place left out."
    columns = [Column("x", "number", 2), Column("y", "number", 2), Column("group"), Column("text", "text")]
    rows = [[left, up, name, fmt.shorten(clean(label), _TEXT_IN_TABLE)] for left, up, name, label in items]
    if not named:
        columns, rows = [*columns[:2], columns[3]], [[*row[:2], row[3]] for row in rows]
    return Figure("Map of the embeddings", figure, Table(columns, rows), caption, searchable=True)


def _draw_group(
    figure: Any,
    name: str,
    items: Sequence[tuple[float, float, str | None, str]],
    colour: str,
    symbol: str,
    **options: Any,
) -> None:
    figure.add_scatter(
        x=[item[0] for item in items],
        y=[item[1] for item in items],
        name=hover_text(name),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
        selected={"marker": {"opacity": 1, "size": 10}},
        unselected={"marker": {"opacity": 0.08}},
        text=[_map_hover(item[3], item[2]) for item in items],
        hovertemplate="%{text}<extra></extra>",
        **options,
    )


def _map_hover(text: str, group: str | None) -> str:
    shown = hover_text(text)
    return f"{shown}<br><i>{hover_text(fmt.shorten(group, 60))}</i>" if group is not None else shown


def geometry_plane(states: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The plane of uniformity (x) and alignment (y) of Wang & Isola (2020), an arrow from each state to the next.

    ``states`` maps a name ("before training", "after training") to ``{"alignment", "uniformity", "effective_rank",
    "random_similarity"}``. Alignment: mean squared distance of the two items of a positive pair, in [0, 4]. Uniformity:
    log mean exp(-2 squared distance) over pairs of items, from 0 (all in one place) to about -4 (evenly on the sphere).
    On both, lower is better. States without the two are in the table only.
    """
    figure = new_figure(height=380, margin={"l": 64, "r": 24, "t": 14, "b": 44}, showlegend=False)
    placed = []
    for name, geometry in states.items():
        uniformity, alignment = (fmt.as_finite(mapping(geometry).get(key)) for key in ("uniformity", "alignment"))
        if uniformity is not None and alignment is not None:
            placed.append((name, uniformity, alignment))
    for index, (name, uniformity, alignment) in enumerate(placed):
        last = index == len(placed) - 1
        figure.add_scatter(
            x=[uniformity],
            y=[alignment],
            mode="markers+text",
            marker={"color": BLUE if last else GREY, "size": 12, "symbol": "diamond" if last else "circle"},
            text=[hover_text(name)],
            textposition=_away_from_arrow([point[2] for point in placed], index),
            textfont={"color": BLUE if last else GREY},
            cliponaxis=False,
            hovertemplate=f"{hover_text(name)}<br>uniformity %{{x:.3f}}<br>alignment %{{y:.3f}}<extra></extra>",
        )
    for (_, from_x, from_y), (_, to_x, to_y) in pairwise(placed):
        figure.add_annotation(
            x=to_x, y=to_y, ax=from_x, ay=from_y, xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True,
            arrowhead=2, arrowsize=1.1, arrowwidth=1.75, arrowcolor=INK, standoff=10, startstandoff=9,
        )  # fmt: skip
    figure.add_annotation(
        text="↙ better", xref="paper", x=0, xanchor="left", yref="paper", y=0, yanchor="bottom",
        xshift=8, yshift=6, showarrow=False, font={"color": GREY},
    )  # fmt: skip
    if placed:
        figure.update_xaxes(range=_padded([point[1] for point in placed]))
        figure.update_yaxes(range=_padded([point[2] for point in placed]))
    figure.update_xaxes(title_text="uniformity (← spread more evenly)", zeroline=False, nticks=7)
    figure.update_yaxes(title_text="alignment (↓ positives closer)", zeroline=False, nticks=6)
    measures = list(
        dict.fromkeys(
            key
            for geometry in states.values()
            for key, value in mapping(geometry).items()
            if fmt.as_number(value) is not None
        )
    )
    rows = [[fmt.measure_name(key), *(mapping(geometry).get(key) for geometry in states.values())] for key in measures]
    columns = [Column("measure"), *(Column(name, "number", 3) for name in states)]
    caption = (
        "Alignment: how far apart the two items of a positive pair are (mean squared distance, 0 to 4). Uniformity: "
        "how evenly all items cover the sphere (0: all in one place; about −4: spread evenly in many dimensions). "
        "Lower is better on both; low alignment with uniformity near 0 is collapse."
    )
    return Figure("Alignment and uniformity", figure, Table(columns, rows), caption)


def _away_from_arrow(heights: Sequence[float], index: int) -> str:
    """Above a point when the arrow that meets it comes from below or leaves downwards, else below."""
    upwards = heights[index] > heights[index - 1] if index else len(heights) < 2 or heights[0] >= heights[1]
    return "top center" if upwards else "bottom center"


def _padded(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    padding = max(0.35 * (high - low), 0.05)
    return [low - padding, high + padding]
