from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar.compare import Comparison, compare
from nearfar.data import Examples

WORDS = [f"{first}{second}" for first in ("ka", "lo", "mi", "ne", "po", "ru", "sa", "to") for second in "bdfgklmnprst"]


def labelled(rows: int = 300, *, seed: int = 0) -> Examples:
    """Texts whose words are often those of their class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, rows)
    texts = [
        " ".join([*random.choice(WORDS[8 * label : 8 * label + 8], 2), *random.choice(WORDS, 3)]) for label in labels
    ]
    return Examples.from_columns({"text": texts, "label": [f"class {label}" for label in labels]})


def pairs(rows: int = 200, *, negatives: int = 0, seed: int = 0) -> Examples:
    """Anchors of a few words; the positive holds most of them among others."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    columns.update({f"negative_{number + 1}": [] for number in range(negatives)})
    for _ in range(rows):
        key = random.choice(WORDS, 4, replace=False)
        columns["anchor"].append(" ".join(key))
        columns["positive"].append(" ".join([*random.permutation(key)[:2], *random.choice(WORDS, 4)]))
        for number in range(negatives):
            columns[f"negative_{number + 1}"].append(" ".join(random.choice(WORDS, 5)))
    return Examples.from_columns(columns)


def scored(rows: int = 200, *, seed: int = 0) -> Examples:
    """Pairs that share a number of words, which is their score."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {"sentence1": [], "sentence2": [], "score": []}
    for _ in range(rows):
        words = random.choice(WORDS, 8, replace=False)
        shared = int(random.integers(0, 5))
        columns["sentence1"].append(" ".join(words[:4]))
        columns["sentence2"].append(" ".join([*words[:shared], *words[4 : 8 - shared]]))
        columns["score"].append(shared / 4)
    return Examples.from_columns(columns)


SMALL: dict[str, Any] = {"dimension": 8, "vocabulary_size": 400, "batch_size": 64, "seeds": 2, "budget": 4}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Comparison]:
    """A comparison of a tiny encoder over a few steps, into ``tmp_path / "cmp"``."""

    def run(data: Any, objectives: Any, **options: Any) -> Comparison:
        return compare(data, objectives, **{"output": tmp_path / "cmp", **SMALL, **options})

    return run
