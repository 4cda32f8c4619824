"""Running the experiments of recipes, judging their claims, and the scoreboard::

from nearfar import claims, recipes

outcomes = claims.reproduce([recipes.find("supcon")], "claims-run", seeds=5)
print(outcomes[0].sentence())
"""

from __future__ import annotations

from nearfar.claims.fingerprint import fingerprint
from nearfar.claims.judge import Finding, Judgement, judge, merged
from nearfar.claims.reproduce import Outcome, reproduce
from nearfar.claims.store import Record, Store, Task

__all__ = [
    "Finding",
    "Judgement",
    "Outcome",
    "Record",
    "Store",
    "Task",
    "fingerprint",
    "judge",
    "merged",
    "reproduce",
]
