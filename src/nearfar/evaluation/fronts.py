"""Several rewards at once: how much of the space of outcomes a set of points dominates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """The volume that is above ``reference [R]`` and below at least one of ``points [n, R]``, in each of R rewards.

    Larger is better (Zitzler and Thiele, 1998). Points that are not above the reference in every reward add nothing.
    Exact, by slices along one reward after the other: for a few dozen points and a few rewards. Raises
    :class:`~nearfar.errors.DataError` for shapes that do not fit or values that are not finite.
    """
    values, corner = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    if values.ndim != 2 or corner.shape != values.shape[1:] or not corner.size:
        raise DataError(f"points must be [n, R] and the reference [R], got {values.shape} and {corner.shape}")
    if not (np.isfinite(values).all() and np.isfinite(corner).all()):
        raise DataError("points and reference must be finite")
    return _volume(values[(values > corner).all(1)] - corner)


def _volume(above: npt.NDArray[np.float64]) -> float:
    """Of points above 0."""
    if not len(above):
        return 0.0
    if above.shape[1] == 1:
        return float(above.max())
    found, height = 0.0, 0.0
    for level in np.unique(above[:, -1]):
        found += (level - height) * _volume(above[above[:, -1] >= level, :-1])
        height = level
    return float(found)
