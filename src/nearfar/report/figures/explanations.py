"""Which words spoke for a prediction, and which against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearfar.report import format as fmt
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, ORANGE, hover_text, new_figure
from nearfar.report.table import Column, Table


def word_weights(explanation: Mapping[str, Any]) -> Figure:
    """Bars of an explanation as :meth:`nearfar.diagnostics.Explanation.to_dict` gives it, with the true label as
    ``truth`` where it is known."""
    words = [(str(word), float(weight)) for word, weight in explanation["words"]]
    figure = new_figure(
        height=70 + 22 * len(words), margin={"l": 12, "r": 16, "t": 12, "b": 40}, showlegend=False, dragmode=False
    )
    figure.add_bar(
        x=[weight for _, weight in words],
        y=list(range(len(words))),
        orientation="h",
        marker={"color": [BLUE if weight > 0 else ORANGE for _, weight in words]},
        text=[hover_text(f"{word}: {fmt.signed(weight)}") for word, weight in words],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_yaxes(
        tickvals=list(range(len(words))),
        ticktext=[hover_text(fmt.shorten(word, 24)) for word, _ in words],
        range=[len(words) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
        automargin=True,
    )
    figure.update_xaxes(title_text="for (right) or against (left)", nticks=6)
    truth = explanation.get("truth")
    right = truth is None or truth == explanation["label"]
    said = f"{explanation['label']}, {fmt.percent(explanation['probability'], 0)}"
    caption = (
        f"“{fmt.shorten(explanation['text'], 300)}” "
        + (f"It is {truth}. " if not right else "")
        + f"The probability falls by so much where a word is left out; the words tell "
        f"{fmt.percent(max(0.0, explanation['fidelity']), 0)} of how it varies."
    )
    columns = [Column("word"), Column("weight", "difference", 3)]
    return Figure(said if right else f"{said}: wrong", figure, Table(columns, [list(each) for each in words]), caption)
