"""What a classifier takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, hover_text, new_figure
from nearfar.report.table import Column, Table

_CELL, _NAME = 26, 28


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Figure:
    """``counts[i][j]``: how many texts of label i were taken for label j, drawn as shares of each label's texts."""
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    short = [hover_text(fmt.shorten(label, _NAME)) for label in labels]
    figure = new_figure(
        height=150 + _CELL * len(labels), hovermode="closest", margin={"l": 12, "r": 12, "t": 12, "b": 12}
    )
    figure.add_heatmap(
        z=shares,
        colorscale=[[0, "rgba(0, 0, 0, 0)"], [1, BLUE]],  # on light and on dark paper
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=1,
        ygap=1,
        text=[
            [
                hover_text(
                    f"{labels[i]}\ntaken for {labels[j]}\n{fmt.integer(counts[i][j])} times, {fmt.percent(share)}"
                )
                for j, share in enumerate(row)
            ]
            for i, row in enumerate(shares)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    places = list(range(len(labels)))
    axis: dict[str, Any] = {"tickvals": places, "ticktext": short, "showgrid": False, "zeroline": False}
    figure.update_xaxes(**axis, tickangle=-60, automargin=True, side="bottom")
    figure.update_yaxes(**axis, range=[len(labels) - 0.5, -0.5], automargin=True)
    rows: list[list[Any]] = [
        [labels[i], labels[j], counts[i][j], shares[i][j]] for i in places for j in places if counts[i][j] and i != j
    ]
    rows.sort(key=lambda row: -row[2])
    columns = [
        Column("label"),
        Column("taken for"),
        Column("times", "integer"),
        Column("share of the label", "percent"),
    ]
    caption = "A row is a label, a column what its texts were taken for; the darker, the larger the share of the row."
    return Figure("Confusions", figure, Table(columns, rows), caption)
