"""Is one system better than another? Both are asked the same items, so their differences are resampled in pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.evaluation.measures import RESAMPLES, Measure, checked_items, mean_measure, measure, resampled_weights


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, name: str = "difference"
) -> Measure:
    """Mean of ``first - second`` ``[n]`` over the items both systems were asked, with its paired bootstrap interval.

    The interval of a difference is much narrower than those of the two means suggest, as hard items are hard for
    both. ``first`` is better (at the 5 % level, two-sided) where ``low > 0``. Raises
    :class:`~nearfar.errors.DataError` for unequal lengths, no items or values that are not finite.
    """
    one, two = _pair(first, second)
    return mean_measure(name, one - two, resamples=resamples, seed=seed)


def paired_ratio(
    first: npt.ArrayLike, second: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, name: str = "ratio"
) -> Measure:
    """``mean(first) / mean(second)`` over the same items, with its paired bootstrap interval.

    Raises :class:`~nearfar.errors.DataError` as :func:`paired_difference` does, and when the mean of ``second`` is 0.
    """
    one, two = _pair(first, second)
    if two.mean() == 0:
        raise DataError("the mean of the second system is 0, so there is no ratio to it")
    ratios = []
    for weights in resampled_weights(len(one), resamples=resamples, seed=seed):
        below = weights @ two
        ratios.append((weights @ one)[below != 0] / below[below != 0])
    return measure(name, float(one.mean() / two.mean()), np.concatenate(ratios), len(one))


def _pair(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    one, two = checked_items(first), checked_items(second)
    if len(one) != len(two):
        raise DataError(
            f"two systems are compared on the same items, but one has {len(one):,} and the other {len(two):,}"
        )
    return one, two
