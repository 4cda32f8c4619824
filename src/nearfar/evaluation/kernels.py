"""Kernels of embeddings: Gram matrices, dependence (HSIC), alike representations (CKA), a kernel ridge probe.

All in float64 on arrays or tensors ``[n, d]`` (no gradient), with memory for n x n values.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.probes import Array, checked_rows, checked_split, checked_targets, sklearn

Kernel = Literal["linear", "cosine", "polynomial", "rbf", "laplacian"]
Matrix = npt.NDArray[np.float64]


def gram(
    x: Array,
    y: Array | None = None,
    kernel: Kernel = "rbf",
    *,
    bandwidth: float | None = None,
    degree: int = 3,
    constant: float = 1.0,
) -> Matrix:
    """``K[i, j] = k(x_i, y_j)`` for ``x [n, d]`` and ``y [m, d]`` (default x itself): ``[n, m]``.

    - ``"linear"``: ``x . y``; ``"cosine"``: of unit rows (a zero row: 0); ``"polynomial"``: ``(x . y / d + constant) **
      degree``, constant 1 and degree 3 by default;
    - ``"rbf"``: ``exp( -|x - y|_2^2 / (2 bandwidth^2) )``; ``"laplacian"``: ``exp( -|x - y|_1 / bandwidth )``.

    ``bandwidth`` > 0; None (default): the median distance of ``x`` to ``y`` in the kernel's norm, pairs at distance 0
    left out (1 where all are). Raises :class:`~nearfar.errors.UsageError` for no such kernel or bandwidth and
    :class:`~nearfar.errors.DataError` for rows that do not fit.
    """
    a = checked_rows(x)
    b = a if y is None else checked_rows(y)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"rows must be of equal width, got {list(a.shape)} and {list(b.shape)}")
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise UsageError(f"bandwidth must be a finite number > 0, got {bandwidth}")
    values: Matrix
    if kernel == "linear":
        values = a @ b.T
    elif kernel == "cosine":
        values = _unit(a) @ _unit(b).T
    elif kernel == "polynomial":
        values = (a @ b.T / a.shape[1] + constant) ** degree
    elif kernel == "rbf":
        squared = _squared_distances(a, b)
        width = _median(np.sqrt(squared)) if bandwidth is None else bandwidth
        values = np.exp(-squared / (2 * width**2))
    elif kernel == "laplacian":
        distances = _block_distances(a, b)
        values = np.exp(-distances / (_median(distances) if bandwidth is None else bandwidth))
    else:
        raise UsageError(f"there is no kernel {kernel!r}", hint="choose linear, cosine, polynomial, rbf or laplacian")
    return values


def median_distance(x: Array, *, items: int = 1000, seed: int = 0) -> float:
    """The median Euclidean distance of different rows (of ``items`` random ones where there are more): a bandwidth."""
    rows = checked_rows(x)
    if len(rows) > items:
        rows = rows[np.random.default_rng(seed).permutation(len(rows))[:items]]
    return _median(np.sqrt(_squared_distances(rows, rows)))


def hsic(
    x: Array,
    y: Array,
    kernel: Kernel = "rbf",
    *,
    bandwidth: float | None = None,
    estimator: Literal["biased", "unbiased"] = "biased",
) -> float:
    """The Hilbert-Schmidt independence criterion of paired rows ``x [n, d1]``, ``y [n, d2]``; see :func:`hsic_of`.

    0 for independent x and y (in expectation where unbiased), and with ``"rbf"`` and ``"laplacian"`` only then.
    ``kernel`` and ``bandwidth`` as of :func:`gram`, for both.
    """
    a, b = _paired(x, y)
    k, m = (gram(rows, kernel=kernel, bandwidth=bandwidth) for rows in (a, b))
    return hsic_of(k, m, estimator=estimator)


def hsic_of(k: Matrix, m: Matrix, *, estimator: Literal["biased", "unbiased"] = "biased") -> float:
    """HSIC of two Gram matrices ``[n, n]`` of the same items.

    - ``"biased"``: ``tr(K H L H) / (n - 1)^2`` with the centring matrix H (Gretton et al., 2005); at least 0, n >= 2.
    - ``"unbiased"``: ``[ tr(K L) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2/(n-2) 1'KL1 ] / (n (n-3))`` with the diagonals
      set to 0 (Song et al., 2012); may be below 0, n >= 4.
    """
    n = len(k)
    if k.shape != (n, n) or m.shape != (n, n):
        raise DataError(f"Gram matrices are [n, n] of the same items, got {list(k.shape)} and {list(m.shape)}")
    if estimator not in ("biased", "unbiased"):
        raise UsageError(f"estimator must be 'biased' or 'unbiased', got {estimator!r}")
    least = 2 if estimator == "biased" else 4
    if n < least:
        raise DataError(f"the {estimator} HSIC needs at least {least} items, got {n}")
    if estimator == "biased":
        centred = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
        return float((centred * m.T).sum()) / (n - 1) ** 2
    k, m = (matrix - np.diag(matrix.diagonal()) for matrix in (k, m))
    traced = (k * m.T).sum()
    totals = k.sum() * m.sum() / ((n - 1) * (n - 2))
    crossed = 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    return float(traced + totals - crossed) / (n * (n - 3))


def cka(
    x: Array,
    y: Array,
    kernel: Kernel = "linear",
    *,
    bandwidth: float | None = None,
    estimator: Literal["biased", "unbiased"] = "biased",
) -> float:
    """Centred kernel alignment: ``HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))`` (Kornblith et al., 2019).

    1 for representations ``[n, d1]`` and ``[n, d2]`` of the same items that differ by rotation, shift and scale alone;
    in [0, 1] where biased. Biased values grow towards 1 when n is not well above the dimensions: then the unbiased
    estimator. ``"linear"`` biased takes memory d1 x d2, not n x n. A constant representation has CKA 0.
    """
    a, b = _paired(x, y)
    if kernel == "linear" and estimator == "biased":
        a, b = centred(a), centred(b)
        shared, own = np.square(a.T @ b).sum(), np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
        return float(shared / own) if own > 0 else 0.0
    k, m = (gram(rows, kernel=kernel, bandwidth=bandwidth) for rows in (a, b))
    both, one, other = (hsic_of(*pair, estimator=estimator) for pair in ((k, m), (k, k), (m, m)))
    return both / float(np.sqrt(one * other)) if one > 0 and other > 0 else 0.0


def kernel_ridge_r2(
    train: Array,
    train_targets: Array,
    test: Array,
    test_targets: Array,
    kernel: Kernel = "rbf",
    *,
    bandwidth: float | None = None,
    alpha: float = 1.0,
) -> float:
    """Share of the variance of ``test_targets`` (``[n]`` or ``[n, k]``, uniform mean) that kernel ridge explains.

    Features standardised, targets centred, ``(K + alpha I)^{-1}`` of the training rows. What :func:`ridge_r2` is for
    linear reading, this is for what an embedding holds in any smooth form. At most 1, 0 for a constant guess.
    ``bandwidth``: default the median distance of the training rows, in the kernel's norm. Raises
    :class:`~nearfar.errors.UsageError` for an alpha that is not above 0, :class:`~nearfar.errors.DataError` for
    embeddings or targets that are not finite.
    """
    if not 0 < alpha < float("inf"):
        raise UsageError(f"alpha must be a finite number > 0, got {alpha}")
    seen, known, points, truth = checked_split(train, train_targets, test, test_targets)
    scale = sklearn("preprocessing").StandardScaler().fit(seen)
    seen, points = scale.transform(seen), scale.transform(points)
    if bandwidth is None and kernel == "rbf":
        bandwidth = median_distance(seen)
    elif bandwidth is None and kernel == "laplacian":
        bandwidth = _median(_block_distances(seen, seen))  # not that of the test rows to them
    known, truth = checked_targets(known, "training"), checked_targets(truth, "test")
    mean = known.mean(0)
    inner = gram(seen, kernel=kernel, bandwidth=bandwidth)
    weights = np.linalg.solve(inner + alpha * np.eye(len(seen)), known - mean)
    guess = gram(points, seen, kernel, bandwidth=bandwidth) @ weights + mean
    return float(sklearn("metrics").r2_score(truth, guess))


def centred(rows: Matrix) -> Matrix:
    """Rows without their mean; columns that are constant become exactly 0, which rounding of the mean would prevent."""
    shifted = rows - rows[:1]
    found: Matrix = shifted - shifted.mean(0)
    return found


def _paired(x: Array, y: Array) -> tuple[Matrix, Matrix]:
    a, b = checked_rows(x), checked_rows(y)
    if len(a) != len(b):
        raise DataError(f"rows must belong together, got {len(a):,} and {len(b):,}")
    return a, b


def _squared_distances(a: Matrix, b: Matrix) -> Matrix:
    found: Matrix = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    if a is b:
        np.fill_diagonal(found, 0.0)
    return found.clip(0.0)


def _block_distances(a: Matrix, b: Matrix) -> Matrix:
    try:
        from scipy.spatial.distance import cdist
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    return np.asarray(cdist(a, b, "cityblock"), np.float64)


def _median(distances: Matrix) -> float:
    apart: npt.NDArray[Any] = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
