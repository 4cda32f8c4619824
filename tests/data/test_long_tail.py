"""Sizes of the classes of a long tail."""

from __future__ import annotations

import pytest

from nearfar.data.synthetic import long_tail
from nearfar.errors import UsageError


def test_sizes_fall_as_a_power_of_the_rank() -> None:
    sizes = long_tail(20, 100_000, power=0.8)
    assert sum(sizes) == 100_000
    assert sizes == sorted(sizes, reverse=True)
    for rank in (2, 5, 20):
        assert sizes[rank - 1] / sizes[0] == pytest.approx(rank**-0.8, rel=0.01)


def test_no_class_is_empty_however_steep() -> None:
    assert long_tail(10, 30, power=6.0) == [21, *[1] * 9]
    assert long_tail(3, 3) == [1, 1, 1]


def test_without_a_power_all_are_alike() -> None:
    sizes = long_tail(7, 100, power=0.0)
    assert sum(sizes) == 100
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("arguments", [(0, 5, 1.0), (5, 4, 1.0), (5, 50, -1.0), (5, 50, float("nan"))])
def test_tails_that_cannot_be(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(UsageError):
        long_tail(*arguments[:2], power=arguments[2])
