"""How well rewards order pairs of responses, and whether they mean the probabilities they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Measure, checked_items, mean_measure, weighted_measure

Floats = npt.NDArray[np.float64]

BINS = 10
"""Bins of the confidence between 1/2 and 1."""


def pairs_in_order(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> Floats:
    """Of each pair ``[n]`` whether the chosen response has the higher reward: 1, or 0, or 1/2 where both are equal."""
    difference = _difference(chosen, rejected)
    return np.where(difference == 0, 0.5, (difference > 0).astype(np.float64))


def preference_measures(
    chosen: npt.ArrayLike, rejected: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Measure]:
    """What the rewards ``[n]`` of chosen and rejected responses say of held-out pairs, with bootstrap intervals.

    ``accuracy``: the share of pairs in order, equal rewards counting half; ``margin``: the mean difference;
    ``log_loss``: the mean of ``-log sigmoid(r_w - r_l)``, log 2 for a model that says nothing; ``calibration_error``:
    see :func:`reliability` (its interval is of resamples, whose error is a little larger than that of all pairs).

    Raises :class:`~nearfar.errors.DataError` for no pairs, unequal numbers, or rewards that are not finite.
    """
    difference = _difference(chosen, rejected)
    bins = _binned(difference)
    return {
        "accuracy": mean_measure("accuracy", pairs_in_order(chosen, rejected), resamples=resamples, seed=seed),
        "margin": mean_measure("margin", difference, resamples=resamples, seed=seed),
        "log_loss": mean_measure("log_loss", np.logaddexp(0, -difference), resamples=resamples, seed=seed),
        "calibration_error": weighted_measure(
            "calibration_error", bins.error, len(difference), resamples=resamples, seed=seed
        ),
    }


@dataclass(frozen=True)
class Reliability:
    """Pairs by how sure a reward model is of them.

    Of each bin that holds pairs ``[b]``: the ``low`` and ``high`` ends of its confidences, the number of pairs
    (``count``), how sure the model is of them on average (``confidence``), and how often it is right (``right``).
    ``error``: the expected calibration error, ``sum_b count_b / n |right_b - confidence_b|``.
    """

    low: list[float]
    high: list[float]
    count: list[int]
    confidence: list[float]
    right: list[float]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dict(vars(self))


def reliability(chosen: npt.ArrayLike, rejected: npt.ArrayLike, *, bins: int = BINS) -> Reliability:
    """Whether ``sigmoid(r_w - r_l)`` is how often the chosen response is preferred (Naeini et al., 2015).

    A model prefers one response of a pair with the confidence ``max(p, 1 - p)``, ``p = sigmoid(r_w - r_l)``, in
    [1/2, 1], which is cut into ``bins`` of equal width (default 10). Nothing depends on which response stands first.

    Raises :class:`~nearfar.errors.DataError` as :func:`preference_measures` does, and
    :class:`~nearfar.errors.UsageError` for no bin.
    """
    difference = _difference(chosen, rejected)
    found = _binned(difference, bins)
    count = np.bincount(found.bin, minlength=bins)
    filled = np.flatnonzero(count)
    sums = [np.bincount(found.bin, values, minlength=bins)[filled] for values in (found.confidence, found.right)]
    edges = np.linspace(0.5, 1, bins + 1)
    return Reliability(
        low=edges[filled].tolist(),
        high=edges[filled + 1].tolist(),
        count=count[filled].tolist(),
        confidence=(sums[0] / count[filled]).tolist(),
        right=(sums[1] / count[filled]).tolist(),
        error=float(found.error(np.ones((1, len(difference))))[0]),
    )


@dataclass(frozen=True)
class _Binned:
    bin: npt.NDArray[np.int64]
    confidence: Floats
    right: Floats

    def error(self, weights: Floats) -> Floats:
        """The calibration error of samples ``[r]`` in which pair i stands ``weights[:, i]`` times."""
        gaps = weights * (self.right - self.confidence)
        total = np.zeros(len(weights))
        for each in np.unique(self.bin):
            total += np.abs(gaps[:, self.bin == each].sum(1))
        return np.asarray(total / weights.sum(1))


def _binned(difference: Floats, bins: int = BINS) -> _Binned:
    if bins < 1:
        raise UsageError(f"{bins} bins of confidence; at least 1 is needed")
    confidence = 1 / (1 + np.exp(-np.abs(difference)))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(np.int64), bins - 1)
    right = np.where(difference == 0, 0.5, (difference > 0).astype(np.float64))
    return _Binned(place, confidence, right)


def _difference(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> Floats:
    one, other = checked_items(chosen), checked_items(rejected)
    if len(one) != len(other):
        raise DataError(f"a pair has two rewards, but there are {len(one):,} of chosen and {len(other):,} of rejected")
    return one - other
