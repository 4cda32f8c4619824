from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nearfar.errors import DataError, ModelError
from nearfar.evaluation import similarity
from nearfar.evaluation.similarity import _correlations, _Ranks


def pairs(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    first = generator.standard_normal((n, 6)).astype(np.float32)
    second = (first + generator.standard_normal((n, 6)) * generator.random((n, 1)) * 3).astype(np.float32)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return first, second, np.round(5 * (cosines + 0.3 * generator.standard_normal(n))) / 5  # many ties


def test_correlations_are_those_of_scipy() -> None:
    first, second, gold = pairs()
    found = similarity(first, second, gold)
    one, two = first.astype(np.float64), second.astype(np.float64)
    cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert found.measures["spearman"].value == pytest.approx(stats.spearmanr(cosines, gold).statistic, abs=1e-9)
    assert found.measures["pearson"].value == pytest.approx(stats.pearsonr(cosines, gold).statistic, abs=1e-9)
    assert found.main == "spearman"
    assert found.details["pairs"] == found.measures["spearman"].n == 120


def test_weighted_correlations_are_those_of_the_repeated_sample() -> None:
    generator = np.random.default_rng(1)
    values, gold = generator.integers(0, 6, 40).astype(float), generator.integers(0, 4, 40).astype(float)
    weights = np.stack([np.bincount(generator.integers(0, 40, 40), minlength=40) for _ in range(20)]).astype(float)
    ranks = _Ranks(values)(weights), _Ranks(gold)(weights)
    found = _correlations(*ranks, weights)
    for row, weight in enumerate(weights.astype(int)):
        expected = stats.spearmanr(np.repeat(values, weight), np.repeat(gold, weight)).statistic
        assert found[row] == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_that_of_plain_resampling() -> None:
    first, second, gold = pairs(60, seed=2)
    found = similarity(first, second, gold, resamples=3_000).measures["spearman"]
    cosines = np.einsum("nd,nd->n", first, second) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    generator = np.random.default_rng(9)
    plain = []
    for _ in range(3_000):
        rows = generator.integers(0, 60, 60)
        plain.append(stats.spearmanr(cosines[rows], gold[rows]).statistic)
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]).tolist(), abs=0.02)


def test_length_does_not_matter_and_order_is_all() -> None:
    first, second, _ = pairs()
    cosines = np.einsum("nd,nd->n", first, second) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert similarity(first * 7, second, np.exp(cosines), resamples=10).value == pytest.approx(1.0)
    assert similarity(first, second * 0.1, -cosines, resamples=10).value == pytest.approx(-1.0)


def test_a_collapsed_encoder_correlates_with_nothing() -> None:
    same = np.full((30, 5), 0.3, np.float32)
    found = similarity(same, same, np.arange(30))
    assert found.measures["spearman"].to_dict() == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 30}
    assert found.measures["pearson"].value == 0.0
    zero = np.zeros((30, 5), np.float32)
    assert similarity(zero, same, np.arange(30)).value == 0.0


def test_two_pairs_have_an_interval_although_some_resamples_have_none() -> None:
    first = np.array([[1.0, 0.0], [1.0, 0.0]])
    second = np.array([[1.0, 0.1], [0.0, 1.0]])
    found = similarity(first, second, [1.0, 0.0])
    assert found.measures["spearman"].to_dict() == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 2}


def test_what_has_no_correlation_is_an_error() -> None:
    first, second, gold = pairs(10)
    with pytest.raises(DataError, match="all scores are 3"):
        similarity(first, second, np.full(10, 3.0))
    with pytest.raises(DataError, match="at least 2"):
        similarity(first[:1], second[:1], gold[:1])
    with pytest.raises(DataError, match="no pairs"):
        similarity(first, second, gold[:5])
    with pytest.raises(DataError, match="not finite"):
        similarity(first, second, [*gold[:9], float("nan")])
    first[3, 2] = np.inf
    with pytest.raises(ModelError, match="row 3"):
        similarity(first, second, gold)
