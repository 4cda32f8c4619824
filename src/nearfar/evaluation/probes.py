"""What can be read off frozen embeddings: neighbours, linear models, clusters. One number each.

Where a model is to be judged with intervals use :func:`nearfar.evaluation.classification`; these are for experiments
that take their intervals over seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.errors import DataError, MissingExtraError, UsageError

Array = Any  # [n, d] or [n]: a numpy array or a tensor; gradients are not followed


def knn_accuracy(train: Array, train_labels: Array, test: Array, test_labels: Array, *, neighbours: int = 15) -> float:
    """Share of ``test [n, d]`` whose class is that of most of its ``neighbours`` nearest training rows by cosine.

    Equal votes go to the lowest class. In [0, 1]. Raises :class:`~nearfar.errors.DataError` for shapes that do not fit
    and :class:`~nearfar.errors.UsageError` for fewer than one neighbour.
    """
    if neighbours < 1:
        raise UsageError(f"neighbours is {neighbours}; at least 1 is needed")
    seen, known, points, truth = checked_split(train, train_labels, test, test_labels)
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


def linear_accuracy(
    train: Array, train_labels: Array, test: Array, test_labels: Array, *, C: float = 1.0, standardize: bool = True
) -> float:
    """Accuracy on ``test [n, d]`` of logistic regression (scikit-learn, L2 with ``C``).

    On standardised features, so that what varies little counts as much as what varies a lot; with ``standardize`` False
    on features as they are, where the penalty hides directions that an embedding has shrunk, as its distances do.
    """
    seen, known, points, truth = checked_split(train, train_labels, test, test_labels)
    if len(np.unique(known)) < 2:
        raise DataError("the training labels hold one class only, so there is nothing to classify")
    linear = sklearn("linear_model")
    if standardize:
        scale = sklearn("preprocessing").StandardScaler().fit(seen)
        seen, points = scale.transform(seen), scale.transform(points)
    model = linear.LogisticRegression(C=C, max_iter=1000).fit(seen, known)
    return float((model.predict(points) == truth).mean())


def balanced_accuracy(predicted: Array, truth: Array) -> float:
    """Mean over the classes in ``truth [n]`` of the share of their items that ``predicted [n]`` tells right.

    Classes are integers. Where all have as many items it is the accuracy. In [0, 1]. Raises
    :class:`~nearfar.errors.DataError` for unequal numbers or no item.
    """
    guesses, known = torch.as_tensor(predicted), torch.as_tensor(truth)
    if guesses.shape != known.shape or known.dim() != 1 or not len(known):
        raise DataError(f"predictions are {list(guesses.shape)}, the truth {list(known.shape)}; twice [n] is needed")
    _, place, counts = torch.unique(known, return_inverse=True, return_counts=True)
    return float((torch.bincount(place, (guesses == known).double()) / counts).mean())


def ridge_r2(train: Array, train_targets: Array, test: Array, test_targets: Array, *, alpha: float = 1.0) -> float:
    """Share of the variance of ``test_targets`` (``[n]`` or ``[n, k]``, uniform mean) that ridge regression explains.

    At most 1, 0 for a constant guess, below 0 for worse than that. Raises :class:`~nearfar.errors.DataError` for shapes
    that do not fit, and embeddings or targets that are not finite.
    """
    return _ridge(train, train_targets, test, test_targets, alpha, "r2_score")


def ridge_error(train: Array, train_targets: Array, test: Array, test_targets: Array, *, alpha: float = 1.0) -> float:
    """Mean absolute error of ridge regression on ``test``, in the targets' unit; raises as :func:`ridge_r2`."""
    return _ridge(train, train_targets, test, test_targets, alpha, "mean_absolute_error")


def mean_average_precision(
    train: Array, train_labels: Array, test: Array, test_labels: Array, *, alpha: float = 1.0
) -> float:
    """Macro mean average precision on ``test`` of several labels an item, ranked by a ridge regression of each label.

    Labels are ``[n, classes]`` of 0 and 1 (or bool). The average precision of a class is that of scikit-learn, over the
    test items by the regression's value (``alpha``, standardised features); the mean is over the classes that the test
    labels hold. In [0, 1]; a random order has about the mean share of positives.

    Raises :class:`~nearfar.errors.DataError` for labels of another form or test labels without a positive.
    """
    seen, known, points, truth = checked_split(train, train_labels, test, test_labels)
    if known.ndim != 2 or truth.ndim != 2 or known.shape[1] != truth.shape[1]:
        raise DataError(f"labels of several classes are [n, classes], got {list(known.shape)} and {list(truth.shape)}")
    if not np.isin(known, (0, 1)).all() or not np.isin(truth, (0, 1)).all():
        raise DataError("labels of several classes must be 0 or 1")
    present = truth.sum(0) > 0
    if not present.any():
        raise DataError("no test item has a label, so there is no precision")
    linear, scaling, metrics = sklearn("linear_model"), sklearn("preprocessing"), sklearn("metrics")
    scale = scaling.StandardScaler().fit(seen)
    scores = (
        linear.Ridge(alpha=alpha).fit(scale.transform(seen), known.astype(np.float64)).predict(scale.transform(points))
    )
    scores = scores.reshape(truth.shape)
    return float(metrics.average_precision_score(truth[:, present], scores[:, present], average="macro"))


def kmeans_accuracy(
    embeddings: Array, labels: Array, *, clusters: int | None = None, repeats: int = 10, seed: int = 0
) -> float:
    """Clustering accuracy: the share of items whose k-means cluster is matched with their class.

    k-means by scikit-learn (the best of ``repeats`` starts) with as many ``clusters`` as there are classes by default;
    clusters and classes are matched one to one so that most items fit (Hungarian method, scipy). In (0, 1].

    ``embeddings [n, d]`` are taken as they are: normalise them first where directions count. ``labels [n]``.
    Raises :class:`~nearfar.errors.DataError` for shapes that do not fit or fewer distinct items than clusters, and
    :class:`~nearfar.errors.UsageError` for fewer than one cluster or repeat.
    """
    points, truth, _, _ = checked_split(embeddings, labels, embeddings, labels)
    if truth.ndim != 1:
        raise DataError(f"labels are one class an item, [n], not {list(truth.shape)}")
    classes, truth = np.unique(truth, return_inverse=True)
    clusters = len(classes) if clusters is None else clusters
    if clusters < 1 or repeats < 1:
        raise UsageError(f"clusters and repeats must be at least 1, got {clusters} and {repeats}")
    if clusters > 1 and len(np.unique(points, axis=0)) < clusters:
        raise DataError(f"there are fewer distinct embeddings than the {clusters} clusters asked for")
    found = sklearn("cluster").KMeans(clusters, n_init=repeats, random_state=seed).fit_predict(points)
    together = np.zeros((clusters, len(classes)), dtype=np.int64)
    np.add.at(together, (found, truth), 1)
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    rows, columns = linear_sum_assignment(together, maximize=True)
    return float(together[rows, columns].sum()) / len(points)


def _ridge(train: Array, targets: Array, test: Array, truth: Array, alpha: float, measure: str) -> float:
    seen, known, points, true = checked_split(train, targets, test, truth)
    known, true = checked_targets(known, "training"), checked_targets(true, "test")
    linear, scaling = sklearn("linear_model"), sklearn("preprocessing")
    scale = scaling.StandardScaler().fit(seen)
    model = linear.Ridge(alpha=alpha).fit(scale.transform(seen), known)
    return float(getattr(sklearn("metrics"), measure)(true, model.predict(scale.transform(points))))


def checked_split(train: Array, known: Array, test: Array, truth: Array) -> tuple[npt.NDArray[Any], ...]:
    """Training rows, their targets, test rows, theirs; DataError where they do not fit."""
    seen, points = checked_rows(train), checked_rows(test)
    known_values, true_values = as_array(known), as_array(truth)
    if len(seen) != len(known_values) or len(points) != len(true_values):
        raise DataError(
            f"{len(seen):,} training rows with {len(known_values):,} targets, {len(points):,} test rows with "
            f"{len(true_values):,}; every row needs one"
        )
    if not len(seen) or not len(points) or seen.shape[1] != points.shape[1]:
        raise DataError(f"training rows are {list(seen.shape)}, test rows {list(points.shape)}")
    return seen, known_values, points, true_values


def checked_targets(values: npt.NDArray[Any], part: str) -> npt.NDArray[np.float64]:
    """Targets of a regression, ``[n]`` or ``[n, k]``, in float64; DataError for values that are not finite."""
    targets = values.astype(np.float64)
    damaged = np.flatnonzero(~np.isfinite(targets.reshape(len(targets), -1)).all(1))
    if len(damaged):
        row = int(damaged[0])
        raise DataError(
            f"the {part} targets are not finite: {targets[row].tolist()}",
            where=f"row {row}",
            hint="leave out rows without a target",
        )
    return targets


def checked_rows(values: Array) -> npt.NDArray[np.float64]:
    """Embeddings ``[n, d]`` in float64; DataError for another shape or values that are not finite."""
    rows = as_array(values).astype(np.float64)
    if rows.ndim != 2:
        raise DataError(f"embeddings are rows [n, d], not {list(rows.shape)}")
    damaged = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(damaged):
        raise DataError("the embeddings are not finite", where=f"row {damaged[0]}", hint="has the model diverged?")
    return rows


def as_array(values: Array) -> npt.NDArray[Any]:
    """An array or a tensor as an array, without its gradient."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def sklearn(module: str) -> Any:
    """The module of scikit-learn, or MissingExtraError."""
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
