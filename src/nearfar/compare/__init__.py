"""Which objective is best on your own data, or that none is.

::

    from nearfar.compare import compare

    found = compare("pairs.jsonl", "infonce, dcl, mine=infonce(temperature=0.1)", output="cmp")
    print(found.verdict)
"""

from __future__ import annotations

from nearfar.compare.comparison import Comparison, compare
from nearfar.compare.entries import Entry, parse_entries
from nearfar.compare.settings import Budget, CompareSettings

__all__ = ["Budget", "CompareSettings", "Comparison", "Entry", "compare", "parse_entries"]
