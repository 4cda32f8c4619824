"""Whether distances between embeddings follow distances between numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.errors import DataError, MissingExtraError

Array = Any  # [n, d] or [n]: a numpy array or a tensor; gradients are not followed


def distance_order(embeddings: Array, labels: Array) -> float:
    """Spearman's rank correlation of ``|y_i - y_j|`` and ``1 - cosine(z_i, z_j)`` over all pairs ``i < j``.

    ``embeddings [n, d]``, ``labels [n]`` numbers. In [-1, 1]: 1 where the nearer of two labels is always the nearer in
    space, about 0 where they have nothing to do with each other. A zero vector has the cosine 0 with every other. Time
    and memory grow with n². Raises :class:`~nearfar.errors.DataError` for shapes that do not fit, values that are not
    finite, fewer than three items, and labels or embeddings that are all the same.
    """
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    points, numbers = (
        np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, np.float64)
        for each in (embeddings, labels)
    )
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
    return float(spearmanr(differ, apart).statistic)
