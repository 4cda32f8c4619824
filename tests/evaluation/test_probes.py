"""Probes of frozen embeddings: clusters and several labels an item."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.kernels import kernel_ridge_r2
from nearfar.evaluation.probes import (
    balanced_accuracy,
    kmeans_accuracy,
    knn_accuracy,
    mean_average_precision,
    ridge_error,
    ridge_r2,
)


def _blobs(classes: int = 4, items: int = 30, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), items)
    return np.eye(classes)[labels] + spread * generator.normal(size=(len(labels), classes)), labels


def test_clusters_are_matched_with_classes_whatever_their_names() -> None:
    rows, labels = _blobs()
    assert kmeans_accuracy(rows, labels) == 1
    assert kmeans_accuracy(torch.from_numpy(rows), [f"class {3 - label}" for label in labels]) == 1
    # a class and a half mixed up: 15 of 120 cannot be matched
    wrong = labels.copy()
    wrong[:15] = 1
    assert kmeans_accuracy(rows, wrong) == pytest.approx(105 / 120)


def test_the_matching_is_the_best_of_all() -> None:
    rows, _ = _blobs(3, 20)
    labels = np.random.default_rng(1).integers(3, size=60)
    clusters = np.repeat(np.arange(3), 20)
    best = max(float((np.array(order)[clusters] == labels).mean()) for order in permutations(range(3)))
    assert kmeans_accuracy(rows, labels) == pytest.approx(best)


def test_other_numbers_of_clusters() -> None:
    rows, labels = _blobs()
    assert kmeans_accuracy(rows, labels, clusters=1) == pytest.approx(0.25)
    assert kmeans_accuracy(rows, labels, clusters=2) == pytest.approx(0.5)
    assert kmeans_accuracy(rows, labels, clusters=8) < 1
    assert kmeans_accuracy(rows[:1], labels[:1]) == 1
    assert kmeans_accuracy(rows, labels, seed=1, repeats=1) > 0.7


def test_clusters_that_cannot_be_are_refused() -> None:
    rows, labels = _blobs()
    with pytest.raises(DataError, match="distinct"):
        kmeans_accuracy(np.ones((8, 2)), np.arange(8) % 2)
    with pytest.raises(UsageError):
        kmeans_accuracy(rows, labels, clusters=0)
    with pytest.raises(DataError):
        kmeans_accuracy(rows, labels[:5])
    with pytest.raises(DataError, match="one class an item"):
        kmeans_accuracy(rows, np.eye(4)[labels])
    rows[3, 1] = np.nan
    with pytest.raises(DataError):
        kmeans_accuracy(rows, labels)


def _labelled(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(n, 6))
    return rows, (rows[:, :3] > np.array([0.0, 0.5, 1.0])).astype(int)


def test_average_precision_of_labels_that_can_be_read() -> None:
    rows, labels = _labelled(0)
    test, truth = _labelled(1)
    found = mean_average_precision(rows, labels, test, truth)
    assert 0.97 < found <= 1
    assert mean_average_precision(rows, labels.astype(bool), torch.from_numpy(test), torch.from_numpy(truth)) == found
    noise = np.random.default_rng(2).normal(size=rows.shape)
    assert mean_average_precision(noise, labels, noise[::-1], truth) == pytest.approx(truth.mean(), abs=0.1)


def test_average_precision_by_a_plain_loop() -> None:
    rows, labels = _labelled(0, 60)
    test, truth = _labelled(1, 40)
    labels[:, 1] = rows[:, 5] > 0.4  # one that is hard to read off the test truth
    scale, mean = rows.std(0), rows.mean(0)
    train, points = (rows - mean) / scale, (test - mean) / scale
    precisions = []
    for label in range(3):
        weights = np.linalg.solve(train.T @ train + np.eye(6), train.T @ (labels[:, label] - labels[:, label].mean()))
        hits, precision = 0, []
        for rank, item in enumerate(np.argsort(-(points @ weights)), 1):
            if truth[item, label]:
                hits += 1
                precision.append(hits / rank)
        precisions.append(np.mean(precision))
    assert mean_average_precision(rows, labels, test, truth) == pytest.approx(np.mean(precisions))


def test_classes_that_the_test_lacks_do_not_count() -> None:
    rows, labels = _labelled(0)
    test, truth = _labelled(1)
    truth[:, 2] = 0
    expected = mean_average_precision(rows, labels[:, :2], test, truth[:, :2])
    assert mean_average_precision(rows, labels, test, truth) == pytest.approx(expected)
    assert 0 < mean_average_precision(rows, labels[:, :1], test, truth[:, :1]) <= 1
    with pytest.raises(DataError, match="no test item"):
        mean_average_precision(rows, labels, test, np.zeros_like(truth))
    with pytest.raises(DataError, match="0 or 1"):
        mean_average_precision(rows, 2 * labels, test, truth)
    with pytest.raises(DataError, match="classes"):
        mean_average_precision(rows, labels[:, 0], test, truth[:, 0])


def test_neighbours_still_vote() -> None:
    rows, labels = _blobs()
    assert knn_accuracy(rows, labels, rows + 0.01, labels, neighbours=5) == 1


def test_balanced_accuracy_counts_classes_alike() -> None:
    truth = torch.tensor([0, 0, 0, 0, 2, 2, 7])
    found = torch.tensor([0, 0, 0, 1, 2, 0, 7])
    assert balanced_accuracy(found, truth) == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert balanced_accuracy(truth.numpy(), truth) == 1
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    known, guessed = generator.integers(5, size=(2, 300))
    assert balanced_accuracy(guessed, known) == pytest.approx(metrics.balanced_accuracy_score(known, guessed))


@pytest.mark.parametrize("found", [torch.zeros(2), torch.zeros(3, 1), torch.zeros(0)])
def test_predictions_that_do_not_fit(found: torch.Tensor) -> None:
    with pytest.raises(DataError, match="predictions are"):
        balanced_accuracy(found, torch.zeros(0) if not len(found) else torch.zeros(3))


@pytest.mark.parametrize("probe", [ridge_r2, ridge_error, kernel_ridge_r2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("wide", [False, True])
def test_targets_that_are_not_finite_are_refused(probe: Any, value: float, wide: bool) -> None:
    rows, _ = _blobs()
    targets = rows[:, :2] if wide else rows[:, 0]
    assert np.isfinite(probe(rows, targets, rows, targets))
    damaged = targets.copy()
    damaged[5] = value
    with pytest.raises(DataError, match="the training targets are not finite") as refused:
        probe(rows, damaged, rows, targets)
    assert refused.value.where == "row 5"
    with pytest.raises(DataError, match="the test targets are not finite"):
        probe(rows, targets, rows, torch.from_numpy(damaged))


def test_whole_numbers_are_targets_of_a_regression() -> None:
    rows, labels = _blobs(2)
    assert ridge_r2(rows, labels, rows, labels) == ridge_r2(rows, labels.astype(float), rows, labels)
