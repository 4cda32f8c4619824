"""The page that advises: every objective it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from nearfar import objectives

PAGE = Path(__file__).parents[2] / "docs" / "which-objective.md"


def _advice() -> list[str]:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [row[2] for row in rows[1:]]


def test_every_objective_that_is_advised_exists() -> None:
    named = [name for cell in _advice() for name in re.findall(r"`([^`]+)`", cell)]
    wanted = [name for name in named if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)]
    assert len(wanted) > 50
    for name in wanted:
        objectives.find(name)
    for name in {name.removesuffix("(...)") for name in named if name.endswith("(...)")}:
        objectives.get(f"{name}(info-nce)")
