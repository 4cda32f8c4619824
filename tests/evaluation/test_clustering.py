from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from nearfar.errors import DataError, UsageError
from nearfar.evaluation import clustering
from nearfar.evaluation.clustering import agreement


def blobs(n: int = 120, classes: int = 4, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return random.standard_normal((classes, 6))[labels] + noise * random.standard_normal((n, 6)), labels


def test_agreement_is_that_of_scikit_learn_for_every_sample() -> None:
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 5, 60), random.integers(0, 3, 60)
    found[truth == 2] = 1
    weights = np.stack([np.ones(60), *(np.bincount(random.integers(0, 60, 60), minlength=60) for _ in range(8))])
    every = agreement(truth, found, weights.astype(float))
    for row, weight in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), weight)
        homogeneity, completeness, v = metrics.homogeneity_completeness_v_measure(truth[rows], found[rows])
        assert [each[row] for each in every] == pytest.approx([v, homogeneity, completeness], abs=1e-10)


def test_clear_clusters_are_found_and_length_does_not_matter() -> None:
    points, labels = blobs(noise=0.02)
    found = clustering(points, labels, resamples=50)
    assert found.main == "v_measure"
    assert found.value == pytest.approx(1.0)
    lengths = np.random.default_rng(1).uniform(0.5, 9, (len(points), 1))
    assert clustering(points * lengths, [f"l{each}" for each in labels], resamples=50).value == pytest.approx(1.0)
    noisy = clustering(*blobs(noise=1.5), resamples=200).measures["v_measure"]
    assert 0 < noisy.low < noisy.value < 1
    assert noisy.high <= 1


def test_one_label_one_cluster_and_too_few_items() -> None:
    points, labels = blobs()
    ones = agreement(np.zeros(4, int), np.array([0, 0, 1, 1]), np.ones((1, 4)))
    assert [float(each[0]) for each in ones] == pytest.approx([0.0, 1.0, 0.0])
    with pytest.raises(DataError, match="one label"):
        clustering(points, np.zeros(len(points), int))
    with pytest.raises(DataError, match="distinct"):
        clustering(np.ones((8, 3)), np.arange(8) % 4)
    with pytest.raises(DataError):
        clustering(points, labels[:-1])
    with pytest.raises(UsageError):
        clustering(points, labels, clusters=1)
    points[0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        clustering(points, labels)
