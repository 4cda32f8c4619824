"""Do clusters of embeddings agree with labels, when nobody says where one ends?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Evaluation, weighted_measure
from nearfar.evaluation.probes import checked_rows, sklearn


def clustering(
    embeddings: npt.NDArray[np.floating[Any]],
    labels: Sequence[str] | npt.NDArray[np.integer[Any]],
    *,
    clusters: int | None = None,
    repeats: int = 4,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """V-measure (main), homogeneity and completeness of k-means clusters of ``embeddings [n, d]`` against ``labels``.

    k-means by scikit-learn on embeddings of length 1 (the best of ``repeats`` starts), with as many ``clusters`` as
    there are labels by default. With entropies H of labels L and clusters C, homogeneity is ``1 - H(L|C) / H(L)``,
    completeness ``1 - H(C|L) / H(C)`` (1 where H is 0), the V-measure their harmonic mean (Rosenberg and Hirschberg,
    2007). All lie in [0, 1]. Random clusters have more than 0, the more of them the more. Intervals are over items and
    hold the clusters fixed.

    Raises :class:`~nearfar.errors.DataError` for one label only, fewer distinct embeddings than clusters and unequal
    numbers, :class:`~nearfar.errors.UsageError` for fewer than two clusters or one repeat.
    """
    points = checked_rows(embeddings)
    names, truth = np.unique(np.asarray(labels), return_inverse=True)
    if truth.shape != (len(points),):
        raise DataError(f"embeddings {list(points.shape)} and labels {list(truth.shape)} do not fit")
    if len(names) < 2:
        raise DataError("there is one label only, so there is nothing to tell apart")
    count = len(names) if clusters is None else clusters
    if count < 2 or repeats < 1:
        raise UsageError(f"{count} clusters, {repeats} repeats; at least 2 and 1 are needed")
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    if len(np.unique(unit, axis=0)) < count:
        raise DataError(f"there are fewer distinct embeddings than the {count} clusters asked for")
    found = sklearn("cluster").KMeans(count, n_init=repeats, random_state=seed).fit_predict(unit)

    def statistic(which: int) -> Any:
        return lambda weights: agreement(truth, found, weights)[which]

    measures = {
        name: weighted_measure(name, statistic(which), len(points), resamples=resamples, seed=seed)
        for which, name in enumerate(("v_measure", "homogeneity", "completeness"))
    }
    details = {"items": len(points), "labels": len(names), "clusters": count}
    return Evaluation(measures, "v_measure", "clustering", {}, details)


def agreement(
    truth: npt.NDArray[np.integer[Any]], found: npt.NDArray[np.integer[Any]], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """V-measure, homogeneity and completeness ``[r]`` of samples in which item i stands ``weights[r, i]`` times."""
    labels, clusters = int(truth.max()) + 1, int(found.max()) + 1
    cell = truth * clusters + found
    order = np.argsort(cell, kind="stable")
    filled, starts = np.unique(cell[order], return_index=True)
    together = np.add.reduceat(weights[:, order], starts, axis=1) / weights.sum(1, keepdims=True)
    of_labels, of_clusters = np.zeros((len(weights), labels)), np.zeros((len(weights), clusters))
    np.add.at(of_labels.T, filled // clusters, together.T)
    np.add.at(of_clusters.T, filled % clusters, together.T)
    joint, label, cluster = _entropy(together), _entropy(of_labels), _entropy(of_clusters)
    with np.errstate(invalid="ignore", divide="ignore"):
        homogeneity = np.where(label > 0, 1 - (joint - cluster) / label, 1.0)
        completeness = np.where(cluster > 0, 1 - (joint - label) / cluster, 1.0)
        both = homogeneity + completeness
        v = np.where(both > 0, 2 * homogeneity * completeness / both, 0.0)
    return v, homogeneity, completeness


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: npt.NDArray[np.float64] = -(shares * logs).sum(1)
    return np.where(found < 1e-12, 0.0, found)
