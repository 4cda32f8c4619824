"""The protocol of set queries by plain loops, and classes that nothing or everything tells apart."""

from __future__ import annotations

import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.set_queries import precision_at, set_discrimination
from support.scenarios import embeddings

LABELS = torch.tensor([4, 7, 9]).repeat(20)


def test_by_loops() -> None:
    points = embeddings(0, 60, 6) + 0.7 * torch.nn.functional.one_hot(LABELS % 3, 6)
    generator = torch.Generator().manual_seed(3)
    right, near, far = [], [], []
    for _ in range(2):
        drawn = torch.randperm(60, generator=generator).tolist()
        examples = {label: [row for row in drawn if LABELS[row] == label][:4] for label in (4, 7, 9)}
        rest = [row for row in range(60) if not any(row in rows for rows in examples.values())]
        for label, rows in examples.items():
            similar = {
                row: sum(float(torch.cosine_similarity(points[row], points[s], dim=0)) for s in rows) / 4
                for row in rest
            }
            own = sum(bool(LABELS[row] == label) for row in rest)
            named = sorted(rest, key=lambda row: -similar[row])[:own]
            hits = sum(bool(LABELS[row] == label) for row in named)
            told = sum((row in named) == bool(LABELS[row] == label) for row in rest)
            right.append(told / len(rest))
            near.append(hits / own)
            left = [row for row in rest if row not in named]
            far.append(sum(bool(LABELS[row] != label) for row in left) / len(left))
    found = set_discrimination(points, LABELS, sample=4, draws=2, seed=3)
    assert found["accuracy"] == pytest.approx(sum(right) / 6)
    assert found["intersection F1"] == pytest.approx(sum(near) / 6)
    assert found["difference F1"] == pytest.approx(sum(far) / 6)


def test_perfect_and_what_tuning_gives() -> None:
    apart = torch.nn.functional.one_hot(LABELS % 4, 4).double()
    assert set(set_discrimination(apart, LABELS, sample=3).values()) == {1.0}
    given = []

    def tune(sets):
        given.append([len(each) for each in sets])
        return lambda x: torch.ones_like(x)

    blind = set_discrimination(apart, LABELS, sample=3, draws=2, tune=tune)
    assert given == [[3, 3, 3]] * 2
    assert blind["intersection F1"] < 0.5


def test_what_does_not_fit() -> None:
    points = embeddings(1, 60, 3)
    with pytest.raises(DataError, match="label 4 has 20 items, and 20 are drawn"):
        set_discrimination(points, LABELS)
    with pytest.raises(DataError, match="all labels are the same"):
        set_discrimination(points, torch.zeros(60, dtype=torch.long))
    with pytest.raises(UsageError, match="at least 1"):
        set_discrimination(points, LABELS, draws=0)


def test_precision() -> None:
    relevant = torch.tensor([True, False, True, False])
    assert precision_at(torch.tensor([0.1, 0.9, 0.5, 0.0]), relevant, 2) == 0.5
    assert precision_at(torch.zeros(4), relevant, 1) == 1
    with pytest.raises(UsageError, match="of 4 items"):
        precision_at(torch.zeros(4), relevant, 5)
