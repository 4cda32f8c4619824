"""How similar positives and negatives are, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nearfar.report import format as fmt
from nearfar.report.figures.values import finite_array, mapping, sequence
from nearfar.report.page import Figure
from nearfar.report.style import BLUE, ORANGE, hover_text, new_figure
from nearfar.report.table import Column, Table

_BINS = 50
_GAP = 0.12
_SIDES = ("positive", "negative")


def similarity_histograms(similarities: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Histograms of the similarities of positives and negatives, one panel a state (before, after), on common bins.

    ``similarities`` maps a state to ``{"positive": [...], "negative": [...]}``. Every histogram shows shares of its own
    pairs over 50 equal bins from the smallest to the largest similarity of all. Each panel names :func:`overlap_of` and
    :func:`auc_of`. Values that are not finite are left out, and the caption says how many.
    """
    states = {name: [finite_array(mapping(pair).get(side)) for side in _SIDES] for name, pair in similarities.items()}
    given = sum(len(sequence(mapping(pair).get(side))) for pair in similarities.values() for side in _SIDES)
    every = np.concatenate([values for pair in states.values() for values in pair] or [np.zeros(0)])
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    edges = np.linspace(low, high, _BINS + 1) if high - low > 1e-9 else np.linspace(low - 0.01, high + 0.01, _BINS + 1)
    figure = new_figure(
        height=100 + 190 * max(1, len(states)), hovermode="x", margin={"l": 56, "r": 16, "t": 64, "b": 44}
    )
    height = (1 - _GAP * (len(states) - 1)) / max(1, len(states))
    rows: list[list[Any]] = []
    for panel, (name, (positive, negative)) in enumerate(states.items()):
        shares = [_shares(values, edges) for values in (positive, negative)]
        top = 1 - panel * (height + _GAP)
        axis = f"y{panel + 1}" if panel else "y"
        for share, label, colour in zip(shares, ("positives", "negatives"), (BLUE, ORANGE), strict=True):
            _draw_shares(figure, edges, share, label, colour, axis, showlegend=panel == 0)
        summary = f"overlap {fmt.percent(overlap_of(*shares), 0)}, AUC {fmt.number(auc_of(positive, negative))}"
        figure.add_annotation(
            text=f"<b>{hover_text(name)}</b>: {summary}",
            xref="paper", x=0, xanchor="left", yref="paper", y=top, yanchor="bottom", showarrow=False,
        )  # fmt: skip
        figure.layout["yaxis" + axis[1:]] = {
            "domain": [max(0.0, top - height), top], "tickformat": ".0%", "rangemode": "tozero", "nticks": 4,
            "zeroline": False,
        }  # fmt: skip
        rows += [[name, edges[i], edges[i + 1], shares[0][i], shares[1][i]] for i in range(_BINS)]
    pad = 0.02 * (edges[-1] - edges[0])
    figure.update_xaxes(
        range=[edges[0] - pad, edges[-1] + pad],
        title_text="similarity",
        automargin=False,
        anchor=f"y{len(states)}" if len(states) > 1 else "y",
        zeroline=False,
    )
    columns = [
        Column("state"),
        Column("from", "number", 3),
        Column("to", "number", 3),
        Column("positives", "percent", 2),
        Column("negatives", "percent", 2),
    ]
    caption = (
        "Share of pairs at each similarity. The further the two hills are apart, the smaller their overlap, and the "
        "nearer to 1 the probability that a positive pair is more similar than a negative one (AUC)."
    )
    if given > every.size:
        caption += f" {fmt.plural(given - every.size, 'similarity was', 'similarities were')} not finite and left out."
    return Figure("Similarity of positives and negatives", figure, Table(columns, rows), caption)


def _draw_shares(
    figure: Any, edges: np.ndarray, share: np.ndarray, label: str, colour: str, axis: str, *, showlegend: bool
) -> None:
    figure.add_scatter(
        x=edges.repeat(2).tolist(),
        y=[0.0, *share.repeat(2).tolist(), 0.0],
        yaxis=axis,
        name=label,
        legendgroup=label,
        showlegend=showlegend,
        mode="lines",
        line={"color": colour, "width": 1.75},
        fill="tozeroy",
        hovertemplate=f"{label} at %{{x:.2f}}: %{{y:.1%}}<extra></extra>",
    )


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(values, bins=edges)[0]
    return counts / counts.sum() if counts.sum() else counts.astype(np.float64)


def overlap_of(first: np.ndarray, second: np.ndarray) -> float | None:
    """Overlap coefficient of two histograms of shares on the same bins: sum of min(first, second), in [0, 1].

    0: no bin holds both; 1: the same histogram. It depends on the bins. None when a histogram is empty.
    """
    return float(np.minimum(first, second).sum()) if first.sum() > 0 and second.sum() > 0 else None


def auc_of(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """P(positive > negative) + P(positive = negative) / 2 over all pairs, in [0, 1]; None when one is empty."""
    if not positive.size or not negative.size:
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    tied = np.searchsorted(ordered, positive, side="right") - below
    return float((below + tied / 2).mean() / ordered.size)
