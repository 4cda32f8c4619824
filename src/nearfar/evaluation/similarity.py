"""Semantic textual similarity: do cosine similarities order pairs as people's scores do?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.evaluation.influence import spearman_items
from nearfar.evaluation.measures import RESAMPLES, Evaluation, weighted_measure
from nearfar.evaluation.ranking import check_finite


def similarity(
    first: npt.NDArray[np.floating[Any]],
    second: npt.NDArray[np.floating[Any]],
    scores: npt.ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Spearman's and Pearson's correlation of the cosine similarities of pairs with their gold ``scores`` ``[n]``.

    ``first`` and ``second`` ``[n, d]`` are the embeddings of the two texts of each pair; a zero vector has the
    similarity 0. Spearman's (the main one, as Reimers et al., 2016, recommend) compares orders only, ties by mean
    rank. Both lie in [-1, 1]. Intervals are over pairs, ranks computed anew in each resample. Where all similarities
    are equal no order is given and both are 0.

    Raises :class:`~nearfar.errors.DataError` for fewer than two pairs, unequal numbers, or scores that are all equal
    or not finite; :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
    """
    gold = np.asarray(scores, np.float64)
    if first.shape != second.shape or first.ndim != 2 or gold.shape != (len(first),):
        raise DataError(
            f"embeddings of the shapes {first.shape} and {second.shape} and scores of shape {gold.shape} are no pairs"
        )
    if len(gold) < 2:
        raise DataError(f"{len(gold)} pairs have no correlation; at least 2 are needed")
    if not np.isfinite(gold).all():
        raise DataError("a score is not finite", where=f"row {int(np.flatnonzero(~np.isfinite(gold))[0])}")
    if (gold == gold[0]).all():
        raise DataError(f"all scores are {gold[0]:g}, so nothing can correlate with them")
    cosines = cosine_of_rows(first, second)

    def pearson(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        shape = weights.shape
        return _correlations(np.broadcast_to(cosines, shape), np.broadcast_to(gold, shape), weights)

    order_of_cosines, order_of_gold = _Ranks(cosines), _Ranks(gold)

    def spearman(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _correlations(order_of_cosines(weights), order_of_gold(weights), weights)

    measures = {
        name: weighted_measure(name, statistic, len(gold), resamples=resamples, seed=seed)
        for name, statistic in (("spearman", spearman), ("pearson", pearson))
    }
    return Evaluation(
        measures, "spearman", "similarity", {"spearman": spearman_items(cosines, gold)}, {"pairs": len(gold)}
    )


def cosine_of_rows(
    first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """The cosine of each row of ``first`` with the same row of ``second``, ``[n]`` float64 in [-1, 1]; 0 for a zero
    vector."""
    check_finite(first, "first texts")
    check_finite(second, "second texts")
    found = np.empty(len(first))
    for start in range(0, len(first), 65_536):
        one = np.asarray(first[start : start + 65_536], np.float64)
        two = np.asarray(second[start : start + 65_536], np.float64)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        products = np.einsum("nd,nd->n", one, two)
        found[start : start + len(one)] = np.divide(products, lengths, out=np.zeros(len(one)), where=lengths > 0)
    return np.clip(found, -1.0, 1.0)


class _Ranks:
    """Mean ranks of the items of a weighted sample, without sorting each sample."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        _, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = np.searchsorted(self.group[self.order], np.arange(self.group.max() + 1))

    def __call__(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sizes = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2)[:, self.group]


def _correlations(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weighted Pearson correlations of the rows ``[r, n]``: NaN where ``second`` is constant, 0 where only ``first``
    is."""
    total = weights.sum(axis=1, keepdims=True)
    one = first - (weights * first).sum(axis=1, keepdims=True) / total
    two = second - (weights * second).sum(axis=1, keepdims=True) / total
    variances = [(weights * part**2).sum(axis=1) for part in (one, two)]
    # What is left of a constant after subtracting its mean is rounding, not variance.
    spreads = [(weights * part**2).sum(axis=1) for part in (first, second)]
    flat = [variance <= 1e-24 * spread for variance, spread in zip(variances, spreads, strict=True)]
    product = (weights * one * two).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = product / np.sqrt(variances[0] * variances[1])
    return np.where(flat[1], np.nan, np.where(flat[0], 0.0, np.clip(found, -1.0, 1.0)))
