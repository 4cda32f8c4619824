"""Classifiers learnt from several draws of a few examples, asked the same texts: figures over draws and texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError
from nearfar.evaluation.comparison import mean_over_seeds_and_items
from nearfar.evaluation.measures import RESAMPLES, Measure, resampled_weights

Codes = npt.NDArray[np.integer[Any]]


def accuracy_over_draws(truth: Codes, predicted: Codes, *, name: str = "accuracy") -> Measure:
    """The share of ``predicted [draws, n]`` that is ``truth [n]``, with its interval over draws and texts (as
    :func:`~nearfar.evaluation.comparison.difference` makes it, within [0, 1])."""
    right, answers = _checked(truth, predicted)
    found = mean_over_seeds_and_items((answers == right).astype(np.float64), name=name)
    return Measure(name, found.value, max(0.0, found.low), min(1.0, found.high), found.n)


def macro_f1_over_draws(
    truth: Codes, predicted: Codes, *, name: str = "macro_f1", resamples: int = RESAMPLES, seed: int = 0
) -> Measure:
    """The mean over draws of ``mean_c 2 TP_c / (2 TP_c + FP_c + FN_c)`` over the classes among the truths.

    The interval is ``mean ± sqrt(t(S-1)² A + z² B)``: A the variance of the mean over the S draws, B that over texts
    (of ``resamples`` bootstrap samples, the draws held fixed), t and z the two-sided 95 % quantiles of Student and of
    the normal distribution; within [0, 1]. One draw: over texts alone.

    Raises :class:`~nearfar.errors.DataError` for shapes that do not fit.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    right, answers = _checked(truth, predicted)
    classes, right = np.unique(right, return_inverse=True)
    # an answer that is none of the classes asked for is wrong whichever it is
    known = np.isin(answers, classes)
    answers = np.where(known, np.searchsorted(classes, np.where(known, answers, classes[0])), len(classes))
    whole = _mean_f1(right, answers, np.ones((1, len(right))))[:, 0]
    draws = len(whole)
    over_draws = float(whole.var(ddof=1)) / draws if draws > 1 else 0.0
    means = [
        _mean_f1(right, answers, weights).mean(0)
        for weights in resampled_weights(len(right), resamples=resamples, seed=seed)
    ]
    over_texts = float(np.nanvar(np.concatenate(means)))
    t = float(stats.t.ppf(0.975, draws - 1)) if draws > 1 else 0.0
    half = float(np.sqrt(t**2 * over_draws + float(stats.norm.ppf(0.975)) ** 2 * over_texts))
    value = float(whole.mean())
    return Measure(name, value, max(0.0, value - half), min(1.0, value + half), len(right))


def per_class(truth: Codes, predicted: Codes, classes: int) -> dict[str, npt.NDArray[np.float64]]:
    """``precision``, ``recall``, ``f1`` and ``asked`` (texts) of each of ``classes`` classes, all draws together,
    ``[classes]``; NaN where there is nothing to divide by."""
    right, answers = _checked(truth, predicted)
    table = confusion(right, answers, classes).astype(np.float64)
    hits, asked, said = table.diagonal(), table.sum(1), table.sum(0)
    with np.errstate(invalid="ignore"):
        found = {"precision": hits / said, "recall": hits / asked, "f1": 2 * hits / (asked + said)}
    return {**found, "asked": asked / len(answers)}


def confusion(truth: Codes, predicted: Codes, classes: int) -> npt.NDArray[np.int64]:
    """How often class i (row) was taken for class j (column), all draws together, ``[classes, classes]``."""
    right, answers = _checked(truth, predicted)
    pairs = np.broadcast_to(right, answers.shape) * classes + answers
    return np.bincount(pairs.reshape(-1), minlength=classes * classes).reshape(classes, classes)


def _mean_f1(
    truth: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Macro-F1 ``[draws, r]`` of samples in which text i stands ``weights[r, i]`` times."""
    classes = int(truth.max()) + 1
    rows = np.zeros((len(truth), classes))
    rows[np.arange(len(truth)), truth] = 1.0
    asked = weights @ rows
    found = []
    for each in answers:
        said = np.zeros((len(truth), classes + 1))
        said[np.arange(len(truth)), each] = 1.0
        taken = said[:, :classes]
        both = asked + weights @ taken
        hits = weights @ (rows * taken)
        with np.errstate(invalid="ignore"):
            scores = 2 * hits / both
        found.append(np.nanmean(np.where(asked > 0, scores, np.nan), axis=1))
    return np.stack(found)


def _checked(truth: Codes, predicted: Codes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    right, answers = np.asarray(truth), np.asarray(predicted)
    if right.ndim != 1 or answers.ndim != 2 or answers.shape[1] != len(right) or not answers.size:
        raise DataError(f"truths are {list(right.shape)}, predictions {list(answers.shape)}; [n] and [draws, n] fit")
    return right.astype(np.int64), answers.astype(np.int64)
