"""How far apart an encoder puts two domains."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.errors import DataError
from nearfar.evaluation.probes import checked_rows

Array = Any  # [n, d]: a numpy array or a tensor; gradients are not followed


def domain_distance(first: Array, second: Array) -> float:
    """``|mean(a) - mean(b)| / s`` of the embeddings ``first [n, d]`` and ``second [m, d]`` of two domains, s the
    standard deviation of a dimension within a domain, averaged over both domains and all dimensions. At least 0.

    Raises :class:`~nearfar.errors.DataError` for shapes that do not fit, values that are not finite, fewer than two
    items of a domain, and embeddings that are all the same.
    """
    one, other = checked_rows(first), checked_rows(second)
    if one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise DataError(f"embeddings are {list(one.shape)} and {list(other.shape)}; [n, d] of 2 or more each is needed")
    spread = float(np.mean([one.std(0, ddof=1), other.std(0, ddof=1)]))
    if spread == 0:
        raise DataError("all embeddings of a domain are the same, so there is no unit of distance")
    return float(np.linalg.norm(one.mean(0) - other.mean(0))) / spread
