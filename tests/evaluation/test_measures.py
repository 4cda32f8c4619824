from __future__ import annotations

import json

import numpy as np
import pytest

from nearfar.errors import DataError, UsageError
from nearfar.evaluation import Evaluation, Measure, mean_measure, paired_difference, paired_ratio
from nearfar.evaluation.measures import resampled_weights, weighted_measure


def test_the_interval_is_that_of_plain_resampling() -> None:
    values = np.random.default_rng(0).random(200)
    found = mean_measure("x", values, resamples=20_000, seed=1)
    generator = np.random.default_rng(2)
    means = [values[generator.integers(0, 200, 200)].mean() for _ in range(20_000)]
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=1e-3)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=1e-3)
    assert found.n == 200


def test_repeated_values_are_drawn_from_the_same_distribution() -> None:
    values = np.repeat([0.0, 0.5, 1.0], [50, 30, 20])
    few = mean_measure("x", values, resamples=20_000, seed=1)
    # A tiny difference makes all values distinct, so that items are drawn one by one.
    many = mean_measure("x", values + 1e-9 * np.arange(100), resamples=20_000, seed=1)
    assert few.low == pytest.approx(many.low, abs=6e-3)
    assert few.high == pytest.approx(many.high, abs=6e-3)
    assert few.value == pytest.approx(0.35)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for seed in range(300):
        found = mean_measure("x", generator.random(80), resamples=400, seed=seed)
        held += found.low <= 0.5 <= found.high
    assert 0.90 < held / 300 < 0.985


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_measure("x", values, seed=3) == mean_measure("x", values, seed=3)
    assert mean_measure("x", values, seed=3) != mean_measure("x", values, seed=4)


def test_equal_values_and_a_single_item_have_an_interval_of_no_width() -> None:
    assert mean_measure("x", [0.25] * 9) == Measure("x", 0.25, 0.25, 0.25, 9)
    assert mean_measure("x", [1.0]) == Measure("x", 1.0, 1.0, 1.0, 1)


def test_many_items_do_not_need_much_memory() -> None:
    import tracemalloc

    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    mean_measure("x", values, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # 100 resamples x 100,000 items of indices and values would be 160 MB


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")], [[1.0]]])
def test_values_without_a_mean_are_an_error(values: list[float]) -> None:
    with pytest.raises(DataError):
        mean_measure("x", values)


def test_no_resamples_are_an_error() -> None:
    with pytest.raises(UsageError):
        mean_measure("x", [0.1, 0.2], resamples=0)


def test_weights_are_counts_of_resamples() -> None:
    blocks = list(resampled_weights(7, resamples=1_000, seed=0))
    weights = np.concatenate(blocks)
    assert weights.shape == (1_000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == weights.round()).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)


def test_a_weighted_mean_has_the_interval_of_the_mean() -> None:
    values = np.random.default_rng(0).random(60)
    weighted = weighted_measure("x", lambda weights: weights @ values / 60, 60, resamples=5_000)
    plain = mean_measure("x", values, resamples=5_000)
    assert weighted.value == pytest.approx(plain.value)
    assert weighted.low == pytest.approx(plain.low, abs=0.01)
    assert weighted.high == pytest.approx(plain.high, abs=0.01)


def test_undefined_resamples_do_not_count() -> None:
    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] > 0, weights[:, 0], np.nan)

    found = weighted_measure("x", statistic, 3, resamples=500)
    assert found.value == 1.0
    assert found.low >= 1.0
    alone = weighted_measure("x", lambda weights: np.where(weights.max(axis=1) > 1, np.nan, 2.0), 50, resamples=10)
    assert alone == Measure("x", 2.0, 2.0, 2.0, 50)


def test_paired_differences_use_the_pairing() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    first, second = hard + 0.02 + 0.01 * generator.standard_normal(400), hard
    found = paired_difference(first, second, seed=1)
    assert found.value == pytest.approx((first - second).mean())
    assert 0.015 < found.low < found.value < found.high < 0.025
    assert mean_measure("first", first).low < mean_measure("second", second).high  # the two intervals overlap
    turned = paired_difference(second, first, seed=1)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=5e-4)


def test_equal_systems_do_not_differ() -> None:
    values = np.random.default_rng(0).random(30)
    assert paired_difference(values, values) == Measure("difference", 0.0, 0.0, 0.0, 30)
    assert paired_ratio(values, values).value == 1.0


def test_paired_ratio() -> None:
    generator = np.random.default_rng(0)
    second = generator.random(300)
    first = 1.2 * second
    found = paired_ratio(first, second)
    assert (found.value, found.low, found.high) == pytest.approx((1.2, 1.2, 1.2))
    noisy = paired_ratio(first + 0.1 * generator.standard_normal(300), second)
    assert noisy.low < noisy.value < noisy.high
    with pytest.raises(DataError, match="ratio"):
        paired_ratio(first, np.zeros(300))


def test_systems_on_different_items_are_not_compared() -> None:
    with pytest.raises(DataError, match="same items"):
        paired_difference([1.0, 2.0], [1.0])


def test_what_is_returned_is_ready_for_json() -> None:
    values = np.random.default_rng(0).random(20).astype(np.float32)
    evaluation = Evaluation({"mrr": mean_measure("mrr", values)}, "mrr", "retrieval", {"mrr": values.astype(float)})
    decoded = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert set(decoded["mrr"]) == {"value", "low", "high", "n"}
    assert evaluation.value == decoded["mrr"]["value"]
    assert str(evaluation).startswith("mrr 0.")
