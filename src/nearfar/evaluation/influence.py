"""A value an item for a measure that is no mean over items, so that it can be compared item by item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError

Values = npt.NDArray[np.float64]


def spearman_items(first: npt.ArrayLike, second: npt.ArrayLike) -> Values:
    """``[n]`` values whose mean is Spearman's correlation of ``first`` and ``second`` ``[n]`` and whose variance over n
    is its own: the correlation plus its empirical influence function.

    The correlation is ``C(u, v) / sqrt(C(u, u) C(v, v))`` of the centred mid-ranks u, v. One more item moves ``C`` by
    its own product and by shifting the ranks of the items above it, ties by halves; both are counted. Where all of
    ``first`` or of ``second`` are equal there is no order and all values are 0.

    Raises :class:`~nearfar.errors.DataError` for unequal lengths, fewer than two items and values that are not finite.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 2:
        raise DataError(f"values of the shapes {one.shape} and {two.shape} have no correlation")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise DataError("a value is not finite, so there is no correlation")
    u, v = _Order(one), _Order(two)
    both, first_alone, second_alone = u.moves(v), u.moves(u), v.moves(v)
    of_first, of_second = float((u.rank**2).mean()), float((v.rank**2).mean())
    if of_first <= 0 or of_second <= 0:
        return np.zeros(len(one))
    scale = np.sqrt(of_first * of_second)
    correlation = float((u.rank * v.rank).mean()) / scale
    return np.asarray(
        correlation + both / scale - correlation / 2 * (first_alone / of_first + second_alone / of_second), np.float64
    )


class _Order:
    """The centred mid-ranks of values, as shares of their number."""

    def __init__(self, values: Values) -> None:
        self._group, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
        self.rank = ((np.cumsum(counts) - counts / 2) / len(values) - 0.5)[self._group]

    def moves(self, other: _Order) -> Values:
        """``[n]``: by how much each item moves the mean product of the ranks, plus 3 times that mean."""
        return self.rank * other.rank + self._above(other.rank) + other._above(self.rank)

    def _above(self, values: Values) -> Values:
        """The sum of ``values`` over the items that stand higher, and half of it over equal ones, over n."""
        sums = np.bincount(self._group, weights=values)
        return np.asarray((sums.sum() - np.cumsum(sums) + sums / 2)[self._group] / len(values), np.float64)
