"""Hypervolume, against counting points of a grid and its invariances."""

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.evaluation.fronts import hypervolume


@pytest.mark.parametrize("rewards", [1, 2, 3, 4])
def test_it_is_the_share_of_random_points_that_are_dominated(rewards):
    draw = np.random.default_rng(rewards)
    points = draw.random((7, rewards))
    inside = draw.random((100_000, rewards))
    dominated = (inside[:, None, :] <= points[None]).all(2).any(1).mean()
    assert hypervolume(points, np.zeros(rewards)) == pytest.approx(dominated, abs=0.01)


def test_by_hand():
    assert hypervolume([[2, 1], [1, 2]], [0, 0]) == 3
    assert hypervolume([[2, 1], [1, 2], [1, 1], [2, 1]], [0, 0]) == 3
    assert hypervolume([[2, 1, 1], [1, 2, 1], [1, 1, 2]], [0, 0, 0]) == 4
    assert hypervolume([[3, -1]], [0, 0]) == hypervolume(np.zeros((0, 2)), [0, 0]) == 0


def test_it_moves_and_stretches_with_the_points():
    points = np.random.default_rng(0).random((6, 3))
    found = hypervolume(points, np.zeros(3))
    assert hypervolume(points[::-1] + 5, np.full(3, 5.0)) == pytest.approx(found)
    assert hypervolume(points * [1, 2, 3], np.zeros(3)) == pytest.approx(6 * found)
    more = np.concatenate([points, [[0.9, 0.9, 0.9]]])
    assert hypervolume(more, np.zeros(3)) > found


def test_shapes_and_values_that_do_not_fit():
    for points, reference in (([1, 2], [0, 0]), ([[1, 2]], [0]), ([[1, np.nan]], [0, 0]), ([[1, 2]], [0, np.inf])):
        with pytest.raises(DataError):
            hypervolume(points, reference)
