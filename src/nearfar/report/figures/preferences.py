"""How chosen and rejected responses fare over a run: their log-probabilities, their margin, their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.figures.curves import running_mean
from nearfar.report.figures.values import thinned
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, GREEN, GREY, ORANGE, hover_text, new_figure
from nearfar.report.table import Column, Table

_DRAWN_POINTS = 1_000
_TABLE_ROWS = 300
_SMOOTHED_FROM = 20

_CHOSEN = (("log_p_chosen", "log p of chosen", BLUE), ("log_p_rejected", "log p of rejected", ORANGE))
_MARGIN = (("margin", "margin", GREEN),)
_ORDER = (("accuracy", "accuracy in the batch", GREY),)
_COLUMNS = (
    ("log_p_chosen", 3),
    ("log_p_rejected", 3),
    ("margin", 3),
    ("accuracy", 3),
    ("log_ratio", 3),
    ("length_chosen", 1),
    ("length_rejected", 1),
    ("cut", 3),
)


def preference_curves(records: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Three plots on one axis of steps: log-probabilities of chosen and of rejected responses, the margin of their
    implicit rewards, and in how many pairs of a batch the chosen has the larger one. ``records`` are the lines of
    ``metrics.jsonl``; None where they hold none of it. From 20 logged steps on lines are running means.
    """
    steps = {
        step: record
        for record in records
        if (step := fmt.as_finite(record.get("step"))) is not None and "log_p_chosen" in record
    }
    steps = dict(sorted(steps.items()))
    panels = [panel for panel in (_CHOSEN, _MARGIN, _ORDER) if any(panel[0][0] in record for record in steps.values())]
    if not panels:
        return None
    figure = new_figure(height=180 * len(panels) + 90, hovermode="x", margin={"l": 64, "r": 16, "t": 40, "b": 44})
    gap = 0.06
    height = (1 - gap * (len(panels) - 1)) / len(panels)
    for number, panel in enumerate(panels):
        axis = "" if number == 0 else str(number + 1)
        for key, name, colour in panel:
            _draw(figure, steps, key, name, colour, f"y{axis}")
        top = 1 - number * (height + gap)
        title = "log p (nats)" if panel is _CHOSEN else panel[0][1]
        figure.layout[f"yaxis{axis}"] = {
            "title": {"text": hover_text(title)},
            "domain": [max(0.0, top - height), top],
            "zeroline": panel is _MARGIN,
            "nticks": 5,
        }
    figure.update_xaxes(title_text="step", rangemode="tozero", zeroline=False)
    figure.update_layout(xaxis={"anchor": f"y{len(panels)}" if len(panels) > 1 else "y"}, showlegend=True)
    return Figure("Chosen and rejected over the training", figure, _table(steps), _caption(steps))


def _draw(figure: Any, steps: Mapping[float, Mapping[str, Any]], key: str, name: str, colour: str, axis: str) -> None:
    values = [fmt.as_finite(record.get(key)) for record in steps.values()]
    shown = running_mean(values) if len(values) >= _SMOOTHED_FROM else values
    drawn = thinned(list(zip(steps, shown, values, strict=True)), _DRAWN_POINTS)
    if not any(value is not None for _, value, _ in drawn):
        return
    figure.add_scatter(
        x=[step for step, _, _ in drawn],
        y=[value for _, value, _ in drawn],
        yaxis=axis,
        text=[hover_text(f"step {fmt.integer(step)}\n{name} {fmt.number(value, 3)}") for step, _, value in drawn],
        hovertemplate="%{text}<extra></extra>",
        mode="lines" if len(drawn) > 40 else "lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5, "symbol": "circle" if key != "log_p_rejected" else "diamond"},
        name=name,
    )


def _table(steps: Mapping[float, Mapping[str, Any]]) -> Table:
    kept = [(key, digits) for key, digits in _COLUMNS if any(key in record for record in steps.values())]
    rows = thinned([[step, *(record.get(key) for key, _ in kept)] for step, record in steps.items()], _TABLE_ROWS)
    columns = [Column("step", "integer"), *(Column(key.replace("_", " "), "number", digits) for key, digits in kept)]
    caption = f"{len(rows):,} of {len(steps):,} logged steps, evenly spaced" if len(rows) < len(steps) else ""
    return Table(columns, rows, caption)


def _caption(steps: Mapping[float, Any]) -> str:
    text = (
        "Means over the batch of each logged step. Training is to widen the margin; it may do so while chosen "
        "responses become less likely too, when rejected ones only fall faster."
    )
    return text + (" Lines are running means." if len(steps) >= _SMOOTHED_FROM else "")
