from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from nearfar.errors import DataError
from nearfar.evaluation import pair_classification


def made(n: int = 150, seed: int = 0, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    near = random.random(n) < 0.35
    return np.round(0.4 * near + 0.4 * random.standard_normal(n), digits), near


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    similarities, near = made(seed=seed)
    found = pair_classification(similarities, near, resamples=30)
    assert found.main == "average_precision"
    assert found.value == pytest.approx(metrics.average_precision_score(near, similarities), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_every_threshold_by_plain_loops(seed: int) -> None:
    similarities, near = made(seed=seed)
    found = pair_classification(similarities, near, resamples=30)
    f1, accuracy = [], []
    for threshold in [*sorted(set(similarities.tolist())), 9.0]:
        taken = similarities >= threshold
        f1.append(metrics.f1_score(near, taken))
        accuracy.append(metrics.accuracy_score(near, taken))
    assert found.measures["best_f1"].value == pytest.approx(max(f1), abs=1e-12)
    assert found.measures["best_accuracy"].value == pytest.approx(max(accuracy), abs=1e-12)
    taken = similarities >= found.details["thresholds"]["best_f1"]
    assert metrics.f1_score(near, taken) == pytest.approx(max(f1))
    taken = similarities >= found.details["thresholds"]["best_accuracy"]
    assert metrics.accuracy_score(near, taken) == pytest.approx(max(accuracy))


def test_intervals_are_those_of_plain_resampling() -> None:
    similarities, near = made(80, seed=9, digits=6)
    found = pair_classification(similarities, near, resamples=2_000).measures["average_precision"]
    random = np.random.default_rng(3)
    plain = []
    for _ in range(1_500):
        rows = random.integers(0, 80, 80)
        plain.append(metrics.average_precision_score(near[rows], similarities[rows]))
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]).tolist(), abs=0.02)


def test_limits() -> None:
    perfect = pair_classification([0.9, 0.8, 0.1], [True, True, False], resamples=20)
    assert [each.value for each in perfect.measures.values()] == [1.0, 1.0, 1.0]
    equal = pair_classification(np.full(10, 0.5), np.arange(10) < 3, resamples=20)
    assert equal.value == pytest.approx(0.3)
    assert equal.measures["best_accuracy"].value == pytest.approx(0.7)  # taking none
    assert equal.details["thresholds"]["best_accuracy"] == 1.0
    similarities, near = made(60)
    moved = pair_classification(np.exp(3 * similarities) - 7, near, resamples=20)
    assert moved.value == pytest.approx(pair_classification(similarities, near, resamples=20).value)
    for wrong in (np.ones(60, bool), np.zeros(60, bool), near[:-1]):
        with pytest.raises(DataError):
            pair_classification(similarities, wrong)
