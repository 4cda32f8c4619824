"""What can be read off frozen embeddings: neighbours, a linear classifier, a linear regression. One number each.

Where a model is to be judged with intervals use :func:`nearfar.evaluation.classification`; these are for experiments
that take their intervals over seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.ranking import check_finite

Array = Any  # [n, d] or [n]: a numpy array or a tensor; gradients are not followed


def knn_accuracy(train: Array, train_labels: Array, test: Array, test_labels: Array, *, neighbours: int = 15) -> float:
    """Share of ``test [n, d]`` whose class is that of most of its ``neighbours`` nearest training rows by cosine.

    Equal votes go to the lowest class. In [0, 1]. Raises :class:`~nearfar.errors.DataError` for shapes that do not fit
    and :class:`~nearfar.errors.UsageError` for fewer than one neighbour.
    """
    if neighbours < 1:
        raise UsageError(f"neighbours is {neighbours}; at least 1 is needed")
    seen, known, points, truth = _checked(train, train_labels, test, test_labels)
    seen, points = _unit(seen), _unit(points)
    classes, known_class = np.unique(known, return_inverse=True)
    k = min(neighbours, len(seen))
    right = 0
    block = max(1, (1 << 24) // len(seen))
    for start in range(0, len(points), block):
        scores = points[start : start + block] @ seen.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(nearest), len(classes)), dtype=np.int64)
        np.add.at(votes, (np.arange(len(nearest))[:, None], known_class[nearest]), 1)
        right += int((classes[votes.argmax(1)] == truth[start : start + block]).sum())
    return right / len(points)


def linear_accuracy(train: Array, train_labels: Array, test: Array, test_labels: Array, *, C: float = 1.0) -> float:
    """Accuracy on ``test [n, d]`` of logistic regression (scikit-learn, L2 with ``C``) on standardised features."""
    seen, known, points, truth = _checked(train, train_labels, test, test_labels)
    if len(np.unique(known)) < 2:
        raise DataError("the training labels hold one class only, so there is nothing to classify")
    linear, scaling = _sklearn("linear_model"), _sklearn("preprocessing")
    scale = scaling.StandardScaler().fit(seen)
    model = linear.LogisticRegression(C=C, max_iter=1000).fit(scale.transform(seen), known)
    return float((model.predict(scale.transform(points)) == truth).mean())


def ridge_r2(train: Array, train_targets: Array, test: Array, test_targets: Array, *, alpha: float = 1.0) -> float:
    """Share of the variance of ``test_targets`` (``[n]`` or ``[n, k]``, uniform mean) that ridge regression explains.

    At most 1, 0 for a constant guess, below 0 for worse than that.
    """
    return _ridge(train, train_targets, test, test_targets, alpha, "r2_score")


def ridge_error(train: Array, train_targets: Array, test: Array, test_targets: Array, *, alpha: float = 1.0) -> float:
    """Mean absolute error of ridge regression on ``test``, in the targets' unit."""
    return _ridge(train, train_targets, test, test_targets, alpha, "mean_absolute_error")


def _ridge(train: Array, targets: Array, test: Array, truth: Array, alpha: float, measure: str) -> float:
    seen, known, points, true = _checked(train, targets, test, truth)
    linear, scaling = _sklearn("linear_model"), _sklearn("preprocessing")
    scale = scaling.StandardScaler().fit(seen)
    model = linear.Ridge(alpha=alpha).fit(scale.transform(seen), known)
    return float(getattr(_sklearn("metrics"), measure)(true, model.predict(scale.transform(points))))


def _checked(train: Array, known: Array, test: Array, truth: Array) -> tuple[npt.NDArray[Any], ...]:
    seen, points = _rows(train), _rows(test)
    known_values, true_values = _array(known), _array(truth)
    if len(seen) != len(known_values) or len(points) != len(true_values):
        raise DataError(
            f"{len(seen):,} training rows with {len(known_values):,} targets, {len(points):,} test rows with "
            f"{len(true_values):,}; every row needs one"
        )
    if not len(seen) or not len(points) or seen.shape[1] != points.shape[1]:
        raise DataError(f"training rows are {list(seen.shape)}, test rows {list(points.shape)}")
    return seen, known_values, points, true_values


def _rows(values: Array) -> npt.NDArray[np.float64]:
    rows = _array(values).astype(np.float64)
    if rows.ndim != 2:
        raise DataError(f"embeddings are rows [n, d], not {list(rows.shape)}")
    check_finite(rows, "embeddings")
    return rows


def _array(values: Array) -> npt.NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
