"""The figures of a comparison: differences with intervals, means with seeds as dots, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, SERIES, SYMBOLS, hover_text, new_figure
from nearfar.report.table import Column, Table

_NAME_WIDTH = 26


def forest(results: Mapping[str, Any]) -> Figure:
    """Each entry's difference to the reference in points, with its interval; further right is better."""
    differences: Sequence[Mapping[str, Any]] = sorted(results["differences"], key=lambda each: -each["value"])
    figure = new_figure(height=90 + 34 * len(differences), margin={"l": 56, "r": 16, "t": 34, "b": 48}, dragmode=False)
    groups = (
        ("better", GREEN, "triangle-up", lambda each: each["found"] and each["value"] > 0),
        ("worse", ORANGE, "triangle-down", lambda each: each["found"] and each["value"] < 0),
        ("not told apart", GREY, "circle", lambda each: not each["found"]),
    )
    for name, colour, symbol, belongs in groups:
        chosen = [(place, each) for place, each in enumerate(differences) if belongs(each)]
        if not chosen:
            continue
        figure.add_scatter(
            x=[100 * each["value"] for _, each in chosen],
            y=[place for place, _ in chosen],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": symbol},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [100 * (each["high"] - each["value"]) for _, each in chosen],
                "arrayminus": [100 * (each["value"] - each["low"]) for _, each in chosen],
                "color": colour,
                "thickness": 2,
                "width": 0,
            },
            text=[hover_text(_told(each)) for _, each in chosen],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    _name_rows(figure, [each["first"] for each in differences])
    measure = fmt.measure_name(results["measure"])
    figure.update_xaxes(title_text=f"points of {measure} from {results['reference']}", nticks=7, zeroline=False)
    columns = [
        Column("entry"),
        Column("points", "difference", 2),
        Column("95 % interval", "written"),
        Column("p", "written"),
        Column("p, Holm", "written"),
        Column("p over seeds", "written"),
        Column("p over items", "written"),
        Column("seen from", "number", 2),
        Column("verdict"),
    ]
    rows = [
        [
            each["first"],
            100 * each["value"],
            fmt.interval(100 * each["low"], 100 * each["high"], 2),
            *(_p(each[key]) for key in ("p", "corrected", "p_seeds", "p_items")),
            100 * each["visible"],
            ("better" if each["value"] > 0 else "worse") if each["found"] else "not told apart",
        ]
        for each in differences
    ]
    caption = (
        f"Each entry's difference to {results['reference']} with its 95 % interval over seeds and items; "
        f"one point is a hundredth of {measure}. Further right is better."
    )
    return Figure(f"Differences to {results['reference']}", figure, Table(columns, rows), caption)


def means(results: Mapping[str, Any]) -> Figure:
    """Each entry's mean with its interval, and the mean of every seed as a dot."""
    entries = sorted(results["entries"], key=lambda entry: -entry["mean"])
    figure = new_figure(height=90 + 38 * len(entries), margin={"l": 56, "r": 16, "t": 34, "b": 48}, dragmode=False)
    figure.add_scatter(
        x=[value for entry in entries for value in entry["by_seed"]],
        y=[place + 0.22 for place, entry in enumerate(entries) for _ in entry["by_seed"]],
        name="one seed",
        mode="markers",
        marker={"color": FAINT, "size": 7, "symbol": "circle"},
        text=[
            hover_text(f"{entry['name']}, seed {seed}: {fmt.number(value, 4)}")
            for entry in entries
            for seed, value in zip(results["seeds"], entry["by_seed"], strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[entry["mean"] for entry in entries],
        y=[place - 0.05 for place in range(len(entries))],
        name="mean, 95 % interval",
        mode="markers",
        marker={"color": BLUE, "size": 10, "symbol": "diamond"},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [entry["high"] - entry["mean"] for entry in entries],
            "arrayminus": [entry["mean"] - entry["low"] for entry in entries],
            "color": BLUE,
            "thickness": 2,
            "width": 0,
        },
        text=[
            hover_text(
                f"{entry['name']}: {fmt.number(entry['mean'], 4)} ({fmt.interval(entry['low'], entry['high'], 4)})"
            )
            for entry in entries
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    _name_rows(figure, [entry["name"] for entry in entries])
    figure.update_xaxes(title_text=fmt.measure_name(results["measure"]), nticks=6, zeroline=False)
    columns = [
        Column("entry"),
        Column("mean", "number", 4),
        Column("95 % interval", "written"),
        *(Column(f"seed {seed}", "number", 4) for seed in results["seeds"]),
        Column("setting", "text"),
        Column("steps", "integer"),
        Column("seconds a run", "number", 1),
    ]
    rows = [
        [
            entry["name"],
            entry["mean"],
            fmt.interval(entry["low"], entry["high"], 4),
            *entry["by_seed"],
            ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in entry["chosen"].items()) or "defaults",
            entry["steps"],
            entry["seconds"],
        ]
        for entry in entries
    ]
    caption = (
        "The mean of each entry on the test part with its interval over seeds and items, and each seed's own. The "
        "items are the same for all: intervals here may overlap where a difference is certain."
    )
    return Figure("Means and seeds", figure, Table(columns, rows), caption)


def curves(results: Mapping[str, Any]) -> Figure | None:
    """Each entry's mean curve on the validation part; None where runs were judged at their end only."""
    points = {
        entry["name"]: _mean_curve([run["curve"] for run in results["runs"] if run["entry"] == entry["name"]])
        for entry in results["entries"]
    }
    if all(len(curve) < 2 for curve in points.values()):
        return None
    figure = new_figure(height=380, margin={"l": 56, "r": 16, "t": 64 if len(points) > 4 else 40, "b": 48})
    begin = fmt.as_finite(results["untrained"]["validation"])
    for place, (name, curve) in enumerate(points.items()):
        whole = ([(0.0, begin)] if begin is not None else []) + curve
        figure.add_scatter(
            x=[step for step, _ in whole],
            y=[value for _, value in whole],
            name=hover_text(name, width=_NAME_WIDTH, lines=1),
            mode="lines+markers",
            line={"color": SERIES[place % len(SERIES)], "width": 2},
            marker={"size": 7, "symbol": SYMBOLS[place % len(SYMBOLS)]},
            text=[hover_text(f"{name}, step {step:,.0f}: {fmt.number(value, 4)}") for step, value in whole],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(title_text="step", rangemode="tozero", zeroline=False)
    figure.update_yaxes(title_text=f"{fmt.measure_name(results['measure'])}, validation", zeroline=False, nticks=6)
    rows = [[name, step, value] for name, curve in points.items() for step, value in curve]
    columns = [
        Column("entry"),
        Column("step", "integer"),
        Column(f"{fmt.measure_name(results['measure'])}, validation", "number", 4),
    ]
    caption = (
        "The measure on the validation part during the final runs, mean over the seeds. A curve that still rises at "
        "its end says that the budget was too small for this entry."
    )
    return Figure("Learning", figure, Table(columns, rows), caption)


def _mean_curve(runs: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    by_step: dict[float, list[float]] = {}
    for run in runs:
        for step, value in run:
            by_step.setdefault(step, []).append(value)
    return [(step, sum(values) / len(values)) for step, values in sorted(by_step.items()) if len(values) == len(runs)]


def _name_rows(figure: Any, names: Sequence[str]) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[hover_text(fmt.shorten(name, _NAME_WIDTH)) for name in names],
        range=[len(names) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
    )


def _told(each: Mapping[str, Any]) -> str:
    interval = fmt.interval(100 * each["low"], 100 * each["high"], 2)
    return (
        f"{each['first']}\n{fmt.signed(100 * each['value'], 2)} points ({interval})\np {_p(each['corrected'])} (Holm)"
    )


def _p(value: float | None) -> str:
    if value is None:
        return fmt.ABSENT
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
