"""Pages that show what was done: one self-contained HTML file, to be read on a screen, a phone or paper.

``write(run_folder)`` makes a training run's report. :class:`Page`, :class:`Table` and the functions of
:mod:`nearfar.report.figures` are what every other page (comparisons, claims, diagnostics) is made of.
"""

from __future__ import annotations

from nearfar.report.page import Case, Fact, Figure, Page, Section, code, strong
from nearfar.report.run import write
from nearfar.report.table import Column, Table

__all__ = ["Case", "Column", "Fact", "Figure", "Page", "Section", "Table", "code", "strong", "write"]
