"""Measures of several systems side by side, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.figures.values import Estimate, estimate, mapping
from nearfar.report.page import Figure
from nearfar.report.style import SERIES, SYMBOLS, hover_text, new_figure
from nearfar.report.table import Column, Table


def measure_intervals(
    systems: Mapping[str, Mapping[str, Any]], *, main: str | None = None, colours: Sequence[str] | None = None
) -> Figure:
    """Every measure of every system as a point with its 95 % interval.

    ``systems`` maps a system's name ("before training", "BM25", "after training") to ``{measure: {"value", "low",
    "high", "n"}}`` (or bare numbers). ``main`` comes first. Measures with a value outside [-1, 1] share no axis with
    the others and stand in the table only. ``colours``: one of the colours of :mod:`nearfar.report.style` a system.
    """
    values = {
        name: {key: estimate(value) for key, value in mapping(measures).items()} for name, measures in systems.items()
    }
    names = list(
        dict.fromkeys(key for measures in values.values() for key, value in measures.items() if value.value is not None)
    )
    names.sort(key=lambda name: name != main)
    drawn = [name for name in names if all(_fits(measures.get(name)) for measures in values.values())]
    figure = new_figure(
        margin={"l": 56, "r": 16, "t": 40, "b": 28},
        height=76 + max(1, len(drawn)) * (20 + 20 * max(1, len(values))),
        dragmode=False,
    )
    for index, (system, measures) in enumerate(values.items()):
        offset = (index - (len(values) - 1) / 2) * 0.68 / max(1, len(values))
        points = [
            (row + offset, name, measures[name]) for row, name in enumerate(drawn) if _has_value(measures.get(name))
        ]
        colour = colours[index] if colours else SERIES[index % len(SERIES)]
        _draw_system(figure, system, points, colour, SYMBOLS[index % len(SYMBOLS)])
    ends = [
        end
        for measures in values.values()
        for name in drawn
        if name in measures
        for end in (measures[name].value, measures[name].low, measures[name].high)
        if end is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    figure.update_xaxes(range=[low - 0.02 * (high - low), high + 0.16 * ((high - low) or 1)], nticks=6, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(drawn))),
        ticktext=[hover_text(fmt.measure_name(name)) for name in drawn],
        range=[len(drawn) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
    )
    caption = "Points are the measures, lines their 95 % intervals; further right is better."
    if len(drawn) < len(names):
        caption += " Measures on other scales are in the table only."
    return Figure("Measures with 95 % intervals", figure, _table(values, names, main), caption)


def _has_value(point: Estimate | None) -> bool:
    return point is not None and point.value is not None


def _fits(point: Estimate | None) -> bool:
    if point is None:
        return True
    return all(abs(end) <= 1 for end in (point.value, point.low, point.high) if end is not None)


def _draw_system(
    figure: Any, system: str, points: Sequence[tuple[float, str, Estimate]], colour: str, symbol: str
) -> None:
    values = [point.value for _, _, point in points]
    figure.add_scatter(
        x=values,
        y=[height for height, _, _ in points],
        name=hover_text(system),
        legendgroup=system,
        mode="markers",
        marker={"color": colour, "size": 9, "symbol": symbol},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_distance(point.value, point.high) for _, _, point in points],
            "arrayminus": [_distance(point.low, point.value) for _, _, point in points],
            "color": colour,
            "thickness": 2,
            "width": 0,
        },
        text=[
            hover_text(
                f"{system}\n{fmt.measure_name(name)} {fmt.number(point.value)} ({fmt.interval(point.low, point.high)})"
            )
            for _, name, point in points
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[point.value if point.high is None else max(point.high, point.value or 0) for _, _, point in points],
        y=[height for height, _, _ in points],
        mode="text",
        text=[f"   {fmt.number(value)}" for value in values],
        textposition="middle right",
        textfont={"color": colour, "size": 12},
        cliponaxis=False,
        hoverinfo="skip",
        legendgroup=system,
        showlegend=False,
    )


def _distance(low: float | None, high: float | None) -> float:
    return max(0.0, high - low) if low is not None and high is not None else 0.0


def _table(values: Mapping[str, Mapping[str, Estimate]], names: Sequence[str], main: str | None) -> Table:
    rows: list[list[Any]] = []
    emphasis = set()
    for name in names:
        for system, measures in values.items():
            point = measures.get(name)
            if point is None or point.value is None:
                continue
            if name == main:
                emphasis.add(len(rows))
            rows.append([fmt.measure_name(name), system, point.value, fmt.interval(point.low, point.high), point.items])
    columns = [
        Column("measure"),
        Column("system"),
        Column("value", "number", 3),
        Column("95 % interval", "written"),
        Column("measured on", "integer"),
    ]
    return Table(columns, rows, emphasis=frozenset(emphasis))
