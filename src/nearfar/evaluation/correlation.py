"""Canonical correlation analysis of two representations of the same items: linear, by kernels, and as a similarity.

The objective of the same name is :class:`nearfar.objectives.DCCA`; here is the closed form, in float64 on arrays or
tensors without a gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.kernels import centred, median_distance
from nearfar.evaluation.probes import Array, checked_rows, sklearn

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CanonicalCorrelation:
    """Directions of two views that correlate most, found by :func:`cca` or :func:`kernel_cca`.

    ``correlations [k]``, the largest first, in [0, 1]; ``weights_x [d1, k]``, ``weights_y [d2, k]``: directions in the
    centred views (or their features), of variance 1 where the ridge is 0; ``mean_x``, ``mean_y``: what was taken off.
    """

    correlations: Matrix
    weights_x: Matrix
    weights_y: Matrix
    mean_x: Matrix
    mean_y: Matrix
    features_x: Callable[[Matrix], Matrix] | None = None
    features_y: Callable[[Matrix], Matrix] | None = None

    @property
    def total(self) -> float:
        """The total correlation: the sum over all directions kept."""
        return float(self.correlations.sum())

    def project_x(self, x: Array) -> Matrix:
        """The first view's rows ``[n, d1]``, also new ones, along its directions: ``[n, k]``."""
        return _projected(x, self.features_x, self.mean_x, self.weights_x)

    def project_y(self, y: Array) -> Matrix:
        """The second view's rows ``[n, d2]`` along its directions: ``[n, k]``."""
        return _projected(y, self.features_y, self.mean_y, self.weights_y)

    def measured(self, x: Array, y: Array) -> Matrix:
        """The correlation ``[k]`` of each pair of directions on other rows, such as held-out ones; constant ones: 0."""
        a, b = self.project_x(x), self.project_y(y)
        if len(a) != len(b):
            raise DataError(f"rows must belong together, got {len(a):,} and {len(b):,}")
        a, b = centred(a), centred(b)
        norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        found: Matrix = np.divide((a * b).sum(0), norms, out=np.zeros_like(norms), where=norms > 0)
        return found


def cca(
    x: Array, y: Array, *, dimensions: int | None = None, ridge: float | tuple[float, float] = 0.0
) -> CanonicalCorrelation:
    """Linear canonical correlation analysis of ``x [n, d1]`` and ``y [n, d2]`` (Hotelling, 1936).

    The singular values of ``S11^{-1/2} S12 S22^{-1/2}`` with ``S11 = X'X/(n-1) + ridge I`` of centred rows, S22
    likewise, ``S12 = X'Y/(n-1)``; by singular value decompositions of X and Y, so that more columns than rows, repeated
    columns and constant ones are no trouble: directions without variance are left out. With ``ridge`` their sum is
    minus the value of :class:`~nearfar.objectives.DCCA`.

    Arguments: ``dimensions``: how many directions, default all; ``ridge`` >= 0, one for each view or one for both,
    default 0.

    With n <= d1 + d2 + 1 and no ridge some correlations are 1 for any data; this warns. Raises
    :class:`~nearfar.errors.DataError` for fewer than 2 rows, rows that do not fit, or a view without variance, and
    :class:`~nearfar.errors.UsageError` for dimensions below 1 or a ridge below 0.
    """
    a, b = checked_rows(x), checked_rows(y)
    if len(a) != len(b) or len(a) < 2:
        raise DataError(f"views need the same rows, at least 2, got {list(a.shape)} and {list(b.shape)}")
    ridges = (float(ridge),) * 2 if isinstance(ridge, int | float) else tuple(ridge)
    if len(ridges) != 2 or not all(0 <= each < float("inf") for each in ridges):
        raise UsageError(f"ridge must be a finite number >= 0, or two, got {ridge}")
    if dimensions is not None and dimensions < 1:
        raise UsageError(f"dimensions must be at least 1, got {dimensions}")
    n = len(a)
    mean_x, mean_y = a.mean(0), b.mean(0)
    first, second = _whitened(centred(a), ridges[0]), _whitened(centred(b), ridges[1])
    if first.rows.shape[1] + second.rows.shape[1] >= n and not all(ridges):
        warnings.warn(
            f"{n} rows say nothing of correlations between {first.rows.shape[1]} and {second.rows.shape[1]} "
            "dimensions: some are 1 for any data; give more rows or a ridge",
            UserWarning,
            stacklevel=2,
        )
    left, correlations, right = np.linalg.svd(first.rows.T @ second.rows, full_matrices=False)
    kept = slice(None, dimensions)
    return CanonicalCorrelation(
        np.minimum(correlations[kept], 1.0),
        first.directions @ left[:, kept],
        second.directions @ right.T[:, kept],
        mean_x,
        mean_y,
    )


def kernel_cca(
    x: Array,
    y: Array,
    *,
    features: int = 500,
    approximation: Literal["fourier", "nystroem"] = "fourier",
    bandwidth: float | tuple[float, float] | None = None,
    ridge: float | tuple[float, float] = 1e-3,
    dimensions: int | None = None,
    seed: int = 0,
) -> CanonicalCorrelation:
    """Kernel CCA with Gaussian kernels, approximated: linear CCA of random features of each view.

    ``"fourier"``: random Fourier features (FKCCA, Lopez-Paz et al., 2014, scikit-learn's ``RBFSampler``);
    ``"nystroem"``: the kernel against random training rows, whitened (NKCCA, Williams & Seeger, 2001, ``Nystroem``).

    Arguments:
        features: how many, default 500 (at most n for Nystroem).
        bandwidth: of ``exp( -|u - v|^2 / (2 bandwidth^2) )``, one for each view or one for both; default the median
            distance in each.
        ridge, dimensions: as of :func:`cca`; default ridge 1e-3 (0 overfits: there are many features).
        seed: of the features.
    """
    a, b = checked_rows(x), checked_rows(y)
    if features < 1 or approximation not in ("fourier", "nystroem"):
        raise UsageError(
            f"features must be at least 1 and approximation 'fourier' or 'nystroem', got {features}, {approximation!r}"
        )
    widths = bandwidth if isinstance(bandwidth, tuple) else (bandwidth, bandwidth)
    maps = [
        _feature_map(rows, features, approximation, width, seed + i)
        for i, (rows, width) in enumerate(zip((a, b), widths, strict=True))
    ]
    found = cca(maps[0](a), maps[1](b), dimensions=dimensions, ridge=ridge)
    return CanonicalCorrelation(
        found.correlations, found.weights_x, found.weights_y, found.mean_x, found.mean_y, maps[0], maps[1]
    )


def svcca(x: Array, y: Array, *, share: float = 0.99) -> float:
    """Mean canonical correlation of two representations after each lost its least principal components (SVCCA).

    As many leading components are kept as hold ``share`` of the variance (Raghu et al., 2017: 0.99). In [0, 1]; 1 for
    representations that are invertible linear maps of one another on what is kept.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share must lie in (0, 1], got {share}")
    return float(cca(_leading(checked_rows(x), share), _leading(checked_rows(y), share)).correlations.mean())


def pwcca(x: Array, y: Array) -> float:
    """Canonical correlations averaged by how much of ``x`` each direction accounts for (Morcos et al., 2018).

    The weight of direction i is ``sum_j |h_i . x_j|`` over the centred columns x_j of ``x``, h_i the projection of x on
    it. In [0, 1]; not symmetric in x and y.
    """
    rows = checked_rows(x)
    found = cca(rows, y)
    weights = np.abs(found.project_x(rows).T @ centred(rows)).sum(1)
    return float(found.correlations @ weights / weights.sum())


@dataclass(frozen=True)
class _White:
    rows: Matrix
    directions: Matrix


def _whitened(rows: Matrix, ridge: float) -> _White:
    """Of centred rows X ``X S^{-1/2} / sqrt(n - 1)`` and the map ``S^{-1/2}``, in the basis of X's principal
    directions."""
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    kept = values > values.max(initial=0.0) * max(rows.shape) * np.finfo(np.float64).eps
    if not kept.any() or values.max() <= 1e-150:
        raise DataError("a view has no variance, so nothing correlates with it")
    left, values, right = left[:, kept], values[kept], right[kept]
    variance = values**2 / (len(rows) - 1)
    scale = 1 / np.sqrt(variance + ridge)
    return _White(left * (np.sqrt(variance) * scale), right.T * scale)


def _projected(values: Array, features: Callable[[Matrix], Matrix] | None, mean: Matrix, weights: Matrix) -> Matrix:
    rows = checked_rows(values)
    if features is not None:
        rows = features(rows)
    if rows.shape[1] != len(mean):
        raise DataError(f"the view had {len(mean)} columns, got {list(rows.shape)}")
    return (rows - mean) @ weights


def _feature_map(
    rows: Matrix, features: int, approximation: str, bandwidth: float | None, seed: int
) -> Callable[[Matrix], Matrix]:
    width = median_distance(rows) if bandwidth is None else bandwidth
    if not 0 < width < float("inf"):
        raise UsageError(f"bandwidth must be a finite number > 0, got {bandwidth}")
    module = sklearn("kernel_approximation")
    gamma = 1 / (2 * width**2)
    made: Any
    if approximation == "fourier":
        made = module.RBFSampler(gamma=gamma, n_components=features, random_state=seed)
    else:
        made = module.Nystroem(gamma=gamma, n_components=min(features, len(rows)), random_state=seed)
    fitted = made.fit(rows)

    def apply(values: Matrix) -> Matrix:
        return np.asarray(fitted.transform(values), dtype=np.float64)

    return apply


def _leading(rows: Matrix, share: float) -> Matrix:
    left, values, _ = np.linalg.svd(centred(rows), full_matrices=False)
    if not values.max(initial=0.0) > 0:
        raise DataError("a representation has no variance, so nothing correlates with it")
    held = np.cumsum(values**2) / np.square(values).sum()
    count = int(np.searchsorted(held, share - 1e-12)) + 1
    components: Matrix = left[:, :count] * values[:count]
    return components
