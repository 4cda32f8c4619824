"""The training curve: loss and evaluation measure over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nearfar.report import format as fmt
from nearfar.report.figures.values import Estimate, estimate, mapping, thinned
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, FAINT, GREEN, hover_text, new_figure
from nearfar.report.table import Column, Table

_DRAWN_POINTS = 2_000
_TABLE_ROWS = 300
_SMOOTHED_FROM = 60


def training_curve(records: Sequence[Mapping[str, Any]], *, main: str | None = None) -> Figure:
    """The loss over the steps and, beneath it on the same axis, the evaluation measure with its interval.

    ``records`` are the lines of ``metrics.jsonl``: ``{"step", "loss", "learning_rate", "examples_per_second", ...}``
    for training, ``{"step", "evaluation": {measure: {"value", "low", "high"}}}`` for evaluations. A step that was
    logged twice (a resumed run) counts as it was logged last. ``main`` names the measure; None takes the first that
    was evaluated. From 60 logged steps on, the loss is drawn faint with its centred running mean over it. Losses that
    are not finite leave a gap; more than 2,000 points are thinned evenly in the drawing, more than 300 in the table.
    """
    losses = _by_step(records, "loss")
    evaluations = _by_step(records, "evaluation")
    measure = _choose_measure(evaluations, main)
    figure = new_figure(
        height=440 if losses and measure else 300, hovermode="x", margin={"l": 56, "r": 16, "t": 14, "b": 44}
    )
    if losses:
        _draw_losses(figure, losses)
    if measure:
        _draw_evaluations(figure, evaluations, measure, "y2" if losses else "y")
    figure.update_xaxes(title_text="step", rangemode="tozero", zeroline=False)
    if losses and measure:
        figure.update_layout(
            yaxis={"domain": [0.5, 1]}, yaxis2={"domain": [0, 0.4], "anchor": "x"}, xaxis={"anchor": "y2"}
        )
    table = _table(losses, evaluations, measure)
    return Figure("Loss and evaluation over the training", figure, table, _caption(losses, measure))


def _by_step(records: Sequence[Mapping[str, Any]], key: str) -> dict[float, Mapping[str, Any]]:
    rows = {}
    for record in records:
        step = fmt.as_finite(record.get("step"))
        if step is not None and key in record:
            rows[step] = record
    return dict(sorted(rows.items()))


def _choose_measure(evaluations: Mapping[float, Mapping[str, Any]], main: str | None) -> str | None:
    names = list(
        dict.fromkeys(
            name
            for record in evaluations.values()
            for name, value in mapping(record["evaluation"]).items()
            if estimate(value).value is not None
        )
    )
    return main if main in names else (names[0] if names else None)


def _draw_losses(figure: Any, losses: Mapping[float, Mapping[str, Any]]) -> None:
    steps = list(losses)
    values = [fmt.as_finite(record["loss"]) for record in losses.values()]
    smoothed = len(steps) >= _SMOOTHED_FROM
    hover = [_loss_hover(step, record) for step, record in losses.items()]
    raw = thinned(list(zip(steps, values, hover, strict=True)), _DRAWN_POINTS)
    figure.add_scatter(
        x=[row[0] for row in raw],
        y=[row[1] for row in raw],
        text=[row[2] for row in raw],
        hovertemplate="%{text}<extra></extra>",
        mode="lines" if len(raw) > 40 else "lines+markers",
        line={"color": FAINT if smoothed else BLUE, "width": 1 if smoothed else 2},
        marker={"size": 5},
        showlegend=False,
    )
    if smoothed:
        mean = thinned(list(zip(steps, running_mean(values), strict=True)), _DRAWN_POINTS)
        figure.add_scatter(
            x=[row[0] for row in mean],
            y=[row[1] for row in mean],
            mode="lines",
            line={"color": BLUE, "width": 2.5},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(yaxis={"title": {"text": "loss"}, "zeroline": False, "nticks": 6})


def running_mean(values: Sequence[float | None]) -> list[float | None]:
    """Centred mean over a fortieth of the values on either side, without the missing ones, which stay missing."""
    known = np.array([value is not None for value in values])
    filled = np.array([value if value is not None else 0.0 for value in values])
    sums, counts = np.concatenate([[0.0], filled.cumsum()]), np.concatenate([[0], known.cumsum()])
    reach = max(1, len(values) // 40)
    positions = np.arange(len(values))
    low, high = np.maximum(0, positions - reach), np.minimum(len(values), positions + reach + 1)
    total, count = sums[high] - sums[low], counts[high] - counts[low]
    return [float(total[i] / count[i]) if count[i] and known[i] else None for i in positions]


def _draw_evaluations(figure: Any, evaluations: Mapping[float, Mapping[str, Any]], measure: str, axis: str) -> None:
    points = _points(evaluations, measure)
    steps = list(points)
    if all(point.low is not None and point.high is not None for point in points.values()):
        figure.add_scatter(
            x=[*steps, *reversed(steps)],
            y=[*[point.high for point in points.values()], *[point.low for point in reversed(points.values())]],
            yaxis=axis,
            mode="lines",
            fill="toself",
            line={"color": GREEN, "width": 0},
            opacity=0.25,
            hoverinfo="skip",
            showlegend=False,
        )
    name = fmt.measure_name(measure)
    figure.add_scatter(
        x=steps,
        y=[point.value for point in points.values()],
        yaxis=axis,
        text=[
            hover_text(
                f"step {fmt.integer(step)}\n{name} {fmt.number(point.value)} ({fmt.interval(point.low, point.high)})"
            )
            for step, point in points.items()
        ],
        hovertemplate="%{text}<extra></extra>",
        mode="lines+markers",
        line={"color": GREEN, "width": 2},
        marker={"size": 7},
        showlegend=False,
    )
    figure.layout["yaxis" + axis[1:]] = {"title": {"text": hover_text(name)}, "zeroline": False, "nticks": 5}


def _points(evaluations: Mapping[float, Mapping[str, Any]], measure: str) -> dict[float, Estimate]:
    points = {step: estimate(mapping(record["evaluation"]).get(measure)) for step, record in evaluations.items()}
    return {step: point for step, point in points.items() if point.value is not None}


def _loss_hover(step: float, record: Mapping[str, Any]) -> str:
    lines = [f"step {fmt.integer(step)}", f"loss {fmt.number(record['loss'], 4)}"]
    if fmt.as_finite(record.get("learning_rate")) is not None:
        lines.append(f"learning rate {fmt.number(record['learning_rate'], 5)}")
    return "<br>".join(lines)


def _table(losses: Mapping[float, Mapping[str, Any]], evaluations: Mapping[float, Any], measure: str | None) -> Table:
    points = _points(evaluations, measure) if measure else {}
    rows: list[list[Any]] = []
    for step in sorted({*losses, *points}):
        record = losses.get(step, {})
        point = points.get(step, estimate(None))
        row = [step, *(record.get(key) for key in ("epoch", "loss", "learning_rate", "examples_per_second", "seconds"))]
        rows.append([*row, point.value, fmt.interval(point.low, point.high)])
    shown = thinned(rows, _TABLE_ROWS)
    columns = [
        Column("step", "integer"),
        Column("epoch", "number", 2),
        Column("loss", "number", 4),
        Column("learning rate", "number", 5),
        Column("examples per second", "integer"),
        Column("seconds", "number", 1),
        Column(fmt.measure_name(measure or "measure"), "number", 3),
        Column("95 % interval", "written"),
    ]
    kept = [index for index in range(len(columns)) if any(_known(row[index]) for row in rows)]
    caption = f"{len(shown):,} of {len(rows):,} logged steps, evenly spaced" if len(shown) < len(rows) else ""
    return Table([columns[index] for index in kept], [[row[index] for index in kept] for row in shown], caption)


def _known(value: Any) -> bool:
    return value is not None and value != fmt.ABSENT


def _caption(losses: Mapping[float, Any], measure: str | None) -> str:
    if losses and measure:
        caption = "Above the training loss, below the evaluation measure on held-out data with its 95 % interval."
    elif losses:
        caption = "The training loss; there was no evaluation during training."
    elif measure:
        caption = "The evaluation measure on held-out data with its 95 % interval; no training loss was logged."
    else:
        caption = "Neither a loss nor an evaluation was logged."
    if len(losses) >= _SMOOTHED_FROM:
        caption += " The thin line is every logged loss, the thick one its running mean."
    return caption
