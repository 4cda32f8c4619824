"""Every row objective of the catalogue, ready to be called: what the tests that hold for all of them run over.

A family of objectives lists its own in ``support/examples_<family>.py`` as ``EXAMPLES: dict[str, Example]``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nearfar.objectives import RowObjective


@dataclass(frozen=True)
class Example:
    """How an objective is made and on what kind of batch it is called.

    ``data``: "pairs" (queries against keys, several positives, hard negatives), "labels" (items among themselves by
    label), "views" (items among themselves, two views each with ids), "graded" (queries against keys, grades),
    "conditions" (as "views", with a number an item), "neighbours" (items among themselves in a graph), "neighbours of
    keys".
    ``detached``: a part of the formula carries no gradient by design, so that gradients are not derivatives.
    """

    make: Callable[[], RowObjective]
    data: str = "pairs"
    detached: bool = False


def all_examples() -> dict[str, Example]:
    """The examples of all families, by a name that begins with the objective's name in the catalogue."""
    found: dict[str, Example] = {}
    for path in sorted(Path(__file__).parent.glob("examples_*.py")):
        found.update(importlib.import_module(f"support.{path.stem}").EXAMPLES)
    return found
