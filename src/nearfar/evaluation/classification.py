"""Are classes near each other and apart from others? Nearest neighbours and a linear probe on frozen embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Evaluation, Measure, mean_measure, weighted_measure
from nearfar.evaluation.ranking import check_finite

Embeddings = npt.NDArray[np.floating[Any]]
Labels = Sequence[str] | npt.NDArray[np.int64]

CLASSIFIERS = ("probe", "knn")


def classification(
    embeddings: Embeddings,
    labels: Labels,
    *,
    train: tuple[Embeddings, Labels] | None = None,
    neighbours: int = 5,
    folds: int = 5,
    classifiers: Sequence[str] = CLASSIFIERS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Accuracy and macro-F1 of a nearest-neighbour vote and of a linear probe on ``embeddings`` ``[n, d]``.

    With ``train`` both learn from those embeddings and labels and are asked ``embeddings``. Without, every item is
    asked once by a model that did not see it: stratified cross-validation in ``folds`` parts, shuffled with ``seed``.

    - ``knn_accuracy``, ``knn_macro_f1``: majority of the ``neighbours`` nearest by cosine similarity, the first label
      in sorted order
      where votes are equal;
    - ``probe_accuracy`` (the main one), ``probe_macro_f1``: logistic regression (scikit-learn, L2 with C = 1) on
      L2-normalised and then
      standardised embeddings, as in the linear evaluation of frozen features (Alain and Bengio, 2016).

    ``classifiers`` names those that are asked, the main one first; neighbours alone cost a fraction of a probe.
    Macro-F1 is the unweighted mean over the classes that occur among truths and predictions. All lie in [0, 1];
    intervals are over items and hold the trained classifiers fixed.

    Raises :class:`~nearfar.errors.DataError` for one class only, fewer items than can be split, and unequal numbers;
    :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
    """
    if neighbours < 1 or folds < 2:
        raise UsageError(f"{neighbours} neighbours, {folds} folds; at least 1 and 2 are needed")
    if not classifiers or set(classifiers) - set(CLASSIFIERS):
        raise UsageError(f"the classifiers {list(classifiers)} are not known", hint=", ".join(CLASSIFIERS))
    try:
        from sklearn.model_selection import StratifiedKFold
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
    points, truth = _checked(embeddings, labels, "items")
    predicted = {name: truth.copy() for name in classifiers}
    details: dict[str, Any] = {"items": len(truth), "neighbours": neighbours}
    if train is not None:
        seen, known = _checked(*train, "training items")
        if seen.shape[1] != points.shape[1]:
            raise DataError(f"training embeddings have {seen.shape[1]} dimensions, the others {points.shape[1]}")
        _require_classes(known, "the training data")
        everything = np.unique(np.concatenate([known, truth]))
        predicted = _predict(seen, np.searchsorted(everything, known), points, neighbours, classifiers)
        truth = np.searchsorted(everything, truth)
        details.update(training_items=len(known), classes=len(everything))
    else:
        classes, truth, counts = np.unique(truth, return_inverse=True, return_counts=True)
        _require_classes(classes, "the data")
        if counts.max() < 2:
            raise DataError(
                f"each of the {len(classes):,} labels occurs once, so no class can be learnt and asked",
                hint="give training data beside it, or labels that repeat",
            )
        parts = int(min(folds, counts.max()))
        splitter = StratifiedKFold(parts, shuffle=True, random_state=seed)
        predicted = {name: np.empty(len(truth), np.int64) for name in predicted}
        with warnings.catch_warnings():
            # Rare classes cannot be in every part; the figures count their items all the same.
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            for seen_rows, asked_rows in splitter.split(points, truth):
                guesses = _predict(points[seen_rows], truth[seen_rows], points[asked_rows], neighbours, classifiers)
                for name, guess in guesses.items():
                    predicted[name][asked_rows] = guess
        details.update(folds=parts, classes=len(classes), rare_classes=int((counts < parts).sum()))
    measures: dict[str, Measure] = {}
    per_item: dict[str, npt.NDArray[np.float64]] = {}
    for name in classifiers:
        right = (predicted[name] == truth).astype(np.float64)
        per_item[f"{name}_accuracy"] = right
        measures[f"{name}_accuracy"] = mean_measure(f"{name}_accuracy", right, resamples=resamples, seed=seed)
        measures[f"{name}_macro_f1"] = macro_f1(
            f"{name}_macro_f1", truth, predicted[name], resamples=resamples, seed=seed
        )
    return Evaluation(measures, f"{classifiers[0]}_accuracy", "classification", per_item, details)


def macro_f1(
    name: str,
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measure:
    """``mean_c 2 TP_c / (2 TP_c + FP_c + FN_c)`` over the classes that occur, with its bootstrap interval over
    items."""
    classes = int(max(truth.max(), predicted.max())) + 1

    def statistic(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = np.empty(len(weights))
        for number, weight in enumerate(weights):
            right = np.bincount(truth, weights=weight * (truth == predicted), minlength=classes)
            both = np.bincount(truth, weights=weight, minlength=classes)
            both += np.bincount(predicted, weights=weight, minlength=classes)
            found[number] = np.mean(2 * right[both > 0] / both[both > 0])
        return found

    return weighted_measure(name, statistic, len(truth), resamples=resamples, seed=seed)


def _predict(
    seen: npt.NDArray[np.float32],
    known: npt.NDArray[np.int64],
    asked: npt.NDArray[np.float32],
    neighbours: int,
    classifiers: Sequence[str],
) -> dict[str, npt.NDArray[np.int64]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # On unit vectors the order by Euclidean distance is the order by cosine.
    guesses: dict[str, npt.NDArray[np.int64]] = {}
    if "knn" in classifiers:
        voters = KNeighborsClassifier(min(neighbours, len(seen)), algorithm="brute")
        guesses["knn"] = voters.fit(seen, known).predict(asked)
    if "probe" not in classifiers:
        return guesses
    if len(np.unique(known)) < 2:  # a fold that lost all other classes
        return {**guesses, "probe": np.full(len(asked), known[0])}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        guesses["probe"] = probe.fit(seen, known).predict(asked)
    return guesses


def _checked(embeddings: Embeddings, labels: Labels, what: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    points = np.asarray(embeddings, np.float32)
    truth = np.asarray(labels)
    if points.ndim != 2 or truth.shape != (len(points),):
        raise DataError(f"embeddings of the shape {points.shape} and labels of the shape {truth.shape} do not fit")
    if not len(points):
        raise DataError(f"there are no {what}")
    check_finite(points, what)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0), truth


def _require_classes(labels: npt.NDArray[Any], where: str) -> None:
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"{where} has one class only ({labels[0]!s}), so there is nothing to tell apart",
            hint="classification needs at least two different labels",
        )
