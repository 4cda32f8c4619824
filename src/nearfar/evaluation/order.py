"""Whether two kinds of numbers are in the same order; whether distances between embeddings follow those of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.errors import DataError, MissingExtraError
from nearfar.evaluation.probes import as_array

Array = Any  # [n, d] or [n]: a numpy array or a tensor; gradients are not followed


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's correlation of ``first [n]`` and ``second [n]``: Pearson's of their ranks, equal values by mean rank.

    In [-1, 1]: 1 where both are in the same order, -1 in opposite order. Raises :class:`~nearfar.errors.DataError` for
    shapes that do not fit, fewer than two values, values that are not finite, and values that are all the same.
    """
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    one, other = (as_array(each).astype(np.float64) for each in (first, second))
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise DataError(f"values are {list(one.shape)} and {list(other.shape)}; twice [n] of 2 or more is needed")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("a value is not finite, so there is no order")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        raise DataError("all values are the same, so there is no order")
    return float(spearmanr(one, other).statistic)


def partial_rank_correlation(first: Array, second: Array, given: Array) -> float:
    """Spearman's correlation of ``first [n]`` and ``second [n]`` beyond what ``given [n]`` explains of both.

    ``(r_12 - r_13 r_23) / sqrt((1 - r_13^2) (1 - r_23^2))`` of rank correlations, in [-1, 1]; 0 where ``given``
    explains one of them wholly. Raises :class:`~nearfar.errors.DataError` as :func:`rank_correlation` does.
    """
    both = rank_correlation(first, second)
    one, other = rank_correlation(first, given), rank_correlation(second, given)
    left = max((1 - one**2) * (1 - other**2), 0.0) ** 0.5
    return 0.0 if left < 1e-12 else float(np.clip((both - one * other) / left, -1, 1))


def distance_order(embeddings: Array, labels: Array) -> float:
    """Spearman's rank correlation of ``|y_i - y_j|`` and ``1 - cosine(z_i, z_j)`` over all pairs ``i < j``.

    ``embeddings [n, d]``, ``labels [n]`` numbers. In [-1, 1]: 1 where the nearer of two labels is always the nearer in
    space, about 0 where they have nothing to do with each other. A zero vector has the cosine 0 with every other. Time
    and memory grow with n². Raises :class:`~nearfar.errors.DataError` for shapes that do not fit, values that are not
    finite, fewer than three items, and labels or embeddings that are all the same.
    """
    points, numbers = (as_array(each).astype(np.float64) for each in (embeddings, labels))
    if points.ndim != 2 or numbers.shape != (len(points),) or len(points) < 3:
        raise DataError(f"embeddings are {points.shape}, labels {numbers.shape}; [n, d] and [n] of 3 items are needed")
    if not (np.isfinite(points).all() and np.isfinite(numbers).all()):
        raise DataError("embeddings or labels are not finite, so there is no order")
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    pairs = np.triu_indices(len(points), 1)
    apart = (1 - unit @ unit.T)[pairs]
    differ = np.abs(numbers[:, None] - numbers[None, :])[pairs]
    if np.ptp(differ) == 0 or np.ptp(apart) < 1e-12:
        raise DataError("all pairs of items are equally far apart, so there is no order")
    return rank_correlation(differ, apart)
