"""The shape of an embedding space in a few numbers, and whether it has collapsed, in plain words.

All take numpy arrays or torch tensors (gradients are not followed) and need memory linear in the number of items.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.ranking import check_finite

Embeddings: TypeAlias = "npt.NDArray[np.floating[Any]] | torch.Tensor"

_AT_ONCE = 1 << 22  # numbers of a block of distances

COLLAPSED_SIMILARITY = 0.95
"""Mean cosine of random pairs from which on a space counts as collapsed to a point."""

NARROW_SIMILARITY = 0.7
"""Mean cosine of random pairs from which on a space counts as a narrow cone."""

COLLAPSED_RANK = 0.05
"""Effective rank, as a share of the rank that is possible, up to which a space counts as collapsed to few
dimensions."""


def alignment(first: Embeddings, second: Embeddings, *, alpha: float = 2.0) -> float:
    """``mean_i ||a_i - b_i||^alpha`` over positive pairs of L2-normalised rows ``[n, d]`` (Wang and Isola, 2020).

    In [0, 2^alpha]; 0 where both items of every pair coincide. The default ``alpha = 2`` is the paper's and gives
    ``2 - 2 mean cosine``. Raises :class:`~nearfar.errors.DataError` for no pairs or unequal shapes.
    """
    if alpha <= 0:
        raise UsageError(f"alpha is {alpha}; it must be above 0")
    one, two = _unit(first), _unit(second)
    if one.shape != two.shape:
        raise DataError(f"pairs need embeddings of equal shape, not {one.shape} and {two.shape}")
    if not len(one):
        raise DataError("there are no pairs, so there is no alignment")
    return float(np.mean(np.linalg.norm(one - two, axis=1) ** alpha))


def uniformity(embeddings: Embeddings, *, t: float = 2.0) -> float:
    """``log mean_{i<j} exp(-t ||z_i - z_j||^2)`` over L2-normalised rows ``[n, d]`` (Wang and Isola, 2020).

    In [-4t, 0]: 0 where all items are one point, :func:`uniformity_floor` where they are spread evenly over the
    sphere. The default ``t = 2`` is the paper's. Exact over all pairs; time grows with n², memory with n. Duplicates
    among the items push it towards 0. Raises :class:`~nearfar.errors.DataError` for fewer than two items.
    """
    if t <= 0:
        raise UsageError(f"t is {t}; it must be above 0")
    points = _unit(embeddings)
    count = len(points)
    if count < 2:
        raise DataError(f"{count} items have no pair, so there is no uniformity")
    squares = np.einsum("nd,nd->n", points, points)
    largest, total = -math.inf, 0.0
    size = max(1, _AT_ONCE // count)
    for start in range(0, count, size):
        block = points[start : start + size]
        exponents = block @ points[start:].T
        exponents *= 2.0 * t
        exponents -= t * squares[start : start + size, None]
        exponents -= t * squares[None, start:]
        np.minimum(exponents, 0.0, out=exponents)  # rounding must not make a distance negative
        exponents[np.tril_indices(len(block), 0, exponents.shape[1])] = -np.inf  # each pair once, no item with itself
        peak = float(exponents.max())
        if peak == -math.inf:
            continue
        if peak > largest:
            total *= math.exp(largest - peak) if total else 0.0
            largest = peak
        total += float(np.exp(exponents - largest).sum())
    return largest + math.log(total) - math.log(count * (count - 1) / 2)


def uniformity_floor(dimension: int, *, t: float = 2.0) -> float:
    """The uniformity of an even spread over the unit sphere in ``dimension`` >= 2 dimensions, the lowest there is.

    ``-2t + log Γ(d/2) - (d/2 - 1) log t + log I_{d/2-1}(2t)`` with the modified Bessel function I, which is ``-2t +
    log sum_k t^{2k} / (k! (d/2) (d/2 + 1) ... (d/2 + k - 1))``; it falls to ``-2t`` as d grows. (A few points that
    repel each other can lie lower than this limit of many.)
    """
    from scipy.special import gammaln, logsumexp

    if dimension < 2 or not 0 < t < math.inf:
        raise UsageError(f"dimension {dimension}, t {t}; a sphere needs at least 2 and t must be above 0")
    k = np.arange(int(4 * t) + 100)  # the largest term is before k = t
    terms = 2 * k * math.log(t) - gammaln(k + 1) - (gammaln(dimension / 2 + k) - gammaln(dimension / 2))
    return float(logsumexp(terms)) - 2 * t


def effective_rank(embeddings: Embeddings, *, epsilon: float = 1e-7) -> float:
    """RankMe: ``exp(-sum_k p_k log p_k)`` with ``p_k = σ_k / sum σ + ε`` of the singular values of ``[n, d]``
    (Garrido et al., 2023).

    How many dimensions are used: from 1 (all on a line through the origin) to min(n, d) (all directions alike).
    Embeddings are taken as they are, neither centred nor normalised, as in the paper. 0 where all are zero. Raises
    :class:`~nearfar.errors.DataError` for no items.
    """
    points = _rows(embeddings)
    if not len(points):
        raise DataError("there are no items, so there is no rank")
    values = _singular_values(points)
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum() + epsilon
    return float(np.exp(-np.sum(shares * np.log(shares))))


def random_similarity(embeddings: Embeddings) -> float:
    """The mean cosine of all pairs of different rows of ``[n, d]``, in [-1, 1]; exact, in one pass over the items.

    About 0 in a well-spread space, near 1 where all point the same way (a narrow cone: Ethayarajh, 2019). Zero
    vectors have the cosine 0. Raises :class:`~nearfar.errors.DataError` for fewer than two items.
    """
    points = _unit(embeddings)
    count = len(points)
    if count < 2:
        raise DataError(f"{count} items have no pair, so there is no similarity of pairs")
    total = points.sum(axis=0)
    own = float(np.einsum("nd,nd->", points, points))
    return float(np.clip((float(total @ total) - own) / (count * (count - 1)), -1.0, 1.0))


def isotropy(embeddings: Embeddings) -> float:
    """``min_c Z(c) / max_c Z(c)`` with ``Z(c) = sum_i exp(c . z_i)`` over the eigenvectors c of ``ZᵀZ`` (Mu and
    Viswanath, 2018).

    In (0, 1]: 1 where no direction is preferred. Rows of ``[n, d]`` are L2-normalised first, so that it does not
    depend on their scale. An eigenvector counts with both signs. Raises :class:`~nearfar.errors.DataError` for no
    items.
    """
    points = _unit(embeddings)
    if not len(points):
        raise DataError("there are no items, so there is no isotropy")
    _, vectors = np.linalg.eigh(points.T @ points)
    sums = [np.zeros(vectors.shape[1]) for _ in range(2)]
    size = max(1, _AT_ONCE // vectors.shape[1])
    for start in range(0, len(points), size):
        products = points[start : start + size] @ vectors
        sums[0] += np.exp(products).sum(axis=0)
        sums[1] += np.exp(-products).sum(axis=0)
    both = np.concatenate(sums)
    return float(both.min() / both.max())


def geometry_of(
    embeddings: Embeddings, first: Embeddings | None = None, second: Embeddings | None = None
) -> dict[str, float | str]:
    """All figures of a space, ready for JSON: those of ``embeddings`` ``[n, d]``, and the alignment of the pairs
    ``first``, ``second``.

    ``{"alignment", "uniformity", "effective_rank", "random_similarity", "isotropy"}``, without alignment when no
    pairs are given, and ``"verdict"`` when the space has collapsed. Uniformity, rank and similarity are to be taken
    over distinct items.
    """
    found: dict[str, float | str] = {}
    if first is not None and second is not None:
        found["alignment"] = alignment(first, second)
    spread, rank, similarity = uniformity(embeddings), effective_rank(embeddings), random_similarity(embeddings)
    found.update(uniformity=spread, effective_rank=rank, random_similarity=similarity, isotropy=isotropy(embeddings))
    verdict = collapse_verdict(
        random_similarity=similarity,
        effective_rank=rank,
        uniformity=spread,
        shape=(len(embeddings), embeddings.shape[1]),
    )
    if verdict is not None:
        found["verdict"] = verdict
    return found


def collapse_verdict(
    *, random_similarity: float, effective_rank: float, shape: tuple[int, int], uniformity: float | None = None
) -> str | None:
    """Whether a space of ``shape`` (items, dimensions) has collapsed, in plain words; None when it has not.

    - to a point: mean cosine of random pairs at least 0.95 (:data:`COLLAPSED_SIMILARITY`), or a uniformity of at
      least -0.2,
      the value at which all squared distances are 0.1 and all cosines 0.95;
    - to few dimensions: an effective rank of at most 5 % of min(items, dimensions) (:data:`COLLAPSED_RANK`) or below
      1.5, where it could
      be more (Jing et al., 2022, "dimensional collapse");
    - to a narrow cone: mean cosine of random pairs at least 0.7 (:data:`NARROW_SIMILARITY`).

    The thresholds are rules of thumb that leave trained encoders on varied texts alone; data whose items are all
    alike can reach them without a fault of the model. Values that are not finite are said to be so.
    """
    if not all(math.isfinite(value) for value in (random_similarity, effective_rank, uniformity or 0.0)):
        return "The embeddings are not finite: training has diverged."
    if random_similarity >= COLLAPSED_SIMILARITY or (uniformity is not None and uniformity >= -0.2):
        return (
            f"The space has collapsed: any two items are almost the same point (mean cosine of random pairs "
            f"{random_similarity:.2f}). The objective lacks what keeps items apart: negatives, a lower temperature, "
            f"or a smaller learning rate."
        )
    possible = min(shape)
    if possible >= 4 and effective_rank <= max(COLLAPSED_RANK * possible, 1.5):
        return (
            f"The space uses few of its dimensions: effective rank {effective_rank:.1f} of {possible} possible. "
            f"Items differ along a handful of directions only."
        )
    if random_similarity >= NARROW_SIMILARITY:
        return (
            f"The space is a narrow cone: random items have a mean cosine of {random_similarity:.2f}. Orders can still "
            f"be right, but similarities say little in absolute terms."
        )
    return None


def _rows(embeddings: Embeddings) -> npt.NDArray[np.float64]:
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().to("cpu", torch.float64).numpy()
    points = np.asarray(embeddings, np.float64)
    if points.ndim != 2:
        raise DataError(f"embeddings have two dimensions, items and coordinates, not the shape {points.shape}")
    check_finite(points, "items")
    return points


def _unit(embeddings: Embeddings) -> npt.NDArray[np.float64]:
    points = _rows(embeddings)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0)
    return unit


def _singular_values(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Singular values of a tall matrix by the triangular factors of its blocks, which keeps small ones that a Gram
    matrix would lose."""
    size = max(4_096, 2 * points.shape[1])
    triangle = points[:size]
    for start in range(size, len(points), size):
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, points[start : start + size]]), mode="r"))
    return np.asarray(np.linalg.svd(triangle, compute_uv=False), np.float64)
