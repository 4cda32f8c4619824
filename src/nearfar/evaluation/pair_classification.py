"""Are near pairs more similar than far ones, by whatever threshold?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfar.evaluation.cuts import Cuts, Floats, checked_pairs
from nearfar.evaluation.measures import RESAMPLES, Evaluation, weighted_measure


def pair_classification(
    similarities: npt.ArrayLike, near: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
    """Average precision (main), best F1 and best accuracy of pairs of known ``similarities [n]`` and ``near [n]``.

    Pairs are taken as near from a threshold on; equal similarities are taken together. With precision P and recall R
    at each threshold, from the highest down:

    - ``average_precision``: ``sum_t (R_t - R_{t-1}) P_t``; random similarities have the share of near pairs;
    - ``best_f1``: the largest ``2 TP / (taken + near)``; ``best_accuracy``: the largest share of pairs that are right
      (taking none is a threshold as well). Both are found on these pairs, so new ones will show a little less; for a
      threshold to use see :func:`~nearfar.evaluation.calibrate`.

    All lie in [0, 1]; intervals are over pairs, the best threshold found anew in each resample. The thresholds of
    ``best_f1`` and ``best_accuracy`` are in ``details``.

    Raises :class:`~nearfar.errors.DataError` for pairs that are all near or all far, and values that are not finite.
    """
    values, is_near = checked_pairs(similarities, near)
    cuts = Cuts(values, is_near)

    def average_precision(weights: Floats) -> Floats:
        rates = cuts.rates(weights)
        gained = np.diff(rates["recall"], axis=1, prepend=0.0)
        # before anything is taken nothing is gained, and precision is not defined
        found: Floats = np.where(gained > 0, gained * np.nan_to_num(rates["precision"]), 0.0 * gained).sum(1)
        return found

    def f1(weights: Floats) -> Floats:
        true, taken, every = cuts.counts(weights)
        with np.errstate(invalid="ignore"):
            return 2 * true / (taken + every)

    def accuracy(weights: Floats) -> Floats:
        true, taken, every = cuts.counts(weights)
        total = weights.sum(1, keepdims=True)
        right = (true + (total - every) - (taken - true)) / total
        return np.concatenate([right, (total - every) / total], axis=1)

    statistics = {
        "average_precision": average_precision,
        "best_f1": lambda weights: f1(weights).max(1),
        "best_accuracy": lambda weights: accuracy(weights).max(1),
    }
    measures = {
        name: weighted_measure(name, statistic, len(values), resamples=resamples, seed=seed)
        for name, statistic in statistics.items()
    }
    whole = np.ones((1, len(values)))
    places = {"best_f1": f1(whole)[0].argmax(), "best_accuracy": accuracy(whole)[0].argmax()}
    thresholds = {
        name: float(cuts.thresholds[place]) if place < len(cuts.thresholds) else 1.0 for name, place in places.items()
    }
    details = {"pairs": len(values), "near": int(is_near.sum()), "thresholds": thresholds}
    return Evaluation(measures, "average_precision", "pair classification", {}, details)
