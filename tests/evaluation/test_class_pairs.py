"""Measurements of every pair of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.errors import DataError
from nearfar.evaluation.class_pairs import of_class_pairs


def test_every_pair_is_measured_on_the_rows_of_its_first_class() -> None:
    labels = torch.tensor([2, 0, 1, 2, 0])
    seen: list[tuple[list[int], list[int]]] = []

    def measure(rows: Tensor, partners: Tensor) -> float:
        seen.append((rows.tolist(), partners.tolist()))
        return float(10 * labels[rows].sum() / len(rows) + partners[0])

    found = of_class_pairs(measure, labels, 3)
    assert found.tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert seen[:4] == [([1, 4], [0, 0]), ([1, 4], [1, 1]), ([1, 4], [2, 2]), ([2], [0])]


@pytest.mark.parametrize(
    ("labels", "what"),
    [([0, 1, 1], "no item is of class 2"), ([0, 1, 2, 3], "there are 3"), ([-1, 1, 2], "there are 3"), ([], "class 0")],
)
def test_classes_without_items_and_items_without_classes(labels: list[int], what: str) -> None:
    with pytest.raises(DataError, match=what):
        of_class_pairs(lambda rows, partners: 0.0, torch.tensor(labels, dtype=torch.long), 3)
