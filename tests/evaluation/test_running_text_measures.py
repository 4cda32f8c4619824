from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.evaluation.running_text import neighbour_accuracy


@pytest.mark.parametrize("among", [2, 7, 16])
def test_neighbours_by_plain_loops(among: int) -> None:
    rng = np.random.default_rng(among)
    first, second = rng.normal(size=(2, 50, 3))
    right = total = 0
    for start in range(0, 50 - among + 1, among):
        for i in range(start, start + among):
            best = max((j for j in range(start, start + among) if j != i), key=lambda j: first[i] @ second[j])
            right += abs(best - i) == 1
            total += 1
    assert neighbour_accuracy(first, second, among=among) == pytest.approx(right / total)


def test_a_chain_finds_its_neighbours() -> None:
    place = np.eye(40)
    assert neighbour_accuracy(place, np.roll(place, -1, axis=0), among=20) == 1
    # two places on: but for the first two of a piece, whose scores are all equal, the best is no neighbour
    assert neighbour_accuracy(place, np.roll(place, -2, axis=0), among=20) == pytest.approx(2 / 20)
    rng = np.random.default_rng(0)
    chance = neighbour_accuracy(rng.normal(size=(10_000, 4)), rng.normal(size=(10_000, 4)), among=100)
    assert chance == pytest.approx(2 / 99, abs=0.005)


def test_what_cannot_be_measured() -> None:
    for shapes, among in ((((4, 2), (4, 3)), 2), (((4, 2), (4, 2)), 5), (((4, 2), (4, 2)), 1)):
        with pytest.raises(DataError, match="is needed"):
            neighbour_accuracy(*(np.zeros(shape) for shape in shapes), among=among)
    with pytest.raises(DataError, match="not finite"):
        neighbour_accuracy(np.full((4, 2), np.nan), np.zeros((4, 2)), among=2)
