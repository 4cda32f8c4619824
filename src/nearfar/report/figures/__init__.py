"""The figures of nearfar's pages: each function returns a plotly figure with its caption and its numbers as a table."""

from __future__ import annotations

from nearfar.report.figures.curves import training_curve
from nearfar.report.figures.maps import embedding_map, geometry_plane
from nearfar.report.figures.measures import measure_intervals
from nearfar.report.figures.similarities import auc_of, overlap_of, similarity_histograms

__all__ = [
    "auc_of",
    "embedding_map",
    "geometry_plane",
    "measure_intervals",
    "overlap_of",
    "similarity_histograms",
    "training_curve",
]
