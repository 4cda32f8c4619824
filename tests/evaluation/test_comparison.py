"""Differences over seeds and items: right figures, intervals that keep their promise, no more finds than promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.comparison import (
    LEVEL,
    against_reference,
    all_pairs,
    difference,
    holm,
    mean_over_seeds_and_items,
)
from nearfar.evaluation.influence import spearman_items

NAMES = ("a", "b", "c", "d", "e")
DRAWS = 60
"""Bootstrap resamples: the tests here are about what does not come from them."""


def world(
    random: np.random.Generator, *, seeds: int = 5, items: int = 150, of_seed: float, of_item: float, noise: float
) -> np.ndarray:
    """Five entries whose true means are equal: shared seed and item effects, entry x seed, entry x item and noise."""
    shared = random.normal(0, 0.3, (1, seeds, 1)) + random.normal(0, 1.0, (1, 1, items))
    own = random.normal(0, of_seed, (5, seeds, 1)) + random.normal(0, of_item, (5, 1, items))
    return np.asarray(shared + own + random.normal(0, noise, (5, seeds, items)))


# what a difference varies by: cells alone; seeds; items; all alike
MIXTURES = [(0.0, 0.0, 1.0), (0.2, 0.0, 0.3), (0.0, 0.6, 0.1), (0.06, 0.5, 1.0)]


@pytest.mark.parametrize(("of_seed", "of_item", "noise"), MIXTURES)
def test_a_hundred_comparisons_of_equals_find_no_more_than_promised(
    of_seed: float, of_item: float, noise: float
) -> None:
    random = np.random.default_rng(5)
    finds = 0
    for _ in range(100):
        values = world(random, of_seed=of_seed, of_item=of_item, noise=noise)
        found = against_reference(values, NAMES, "a", resamples=DRAWS)
        finds += any(each.found for each in found)
    assert finds <= stats.binom.ppf(0.999, 100, LEVEL)  # 12


def test_a_hundred_comparisons_of_equal_classifiers_find_no_more_than_promised() -> None:
    """Right or wrong, as nearest neighbours give it: the same chance of each item for all entries, flipped by seed."""
    random = np.random.default_rng(6)
    finds = 0
    for _ in range(100):
        skill = random.normal(1.2, 2.0, (1, 1, 200)) + random.normal(0, 0.1, (5, 5, 1))
        values = (random.uniform(size=(5, 5, 200)) < 1 / (1 + np.exp(-skill))).astype(float)
        pairs = all_pairs(values, NAMES, resamples=DRAWS)
        finds += any(each.found for each in pairs)
    assert finds <= stats.binom.ppf(0.999, 100, LEVEL)


def test_a_true_difference_is_found() -> None:
    random = np.random.default_rng(7)
    finds = wrong = 0
    for _ in range(40):
        values = world(random, of_seed=0.05, of_item=0.5, noise=1.0, items=300)
        values[4] += 0.35
        found = {each.first: each for each in against_reference(values, NAMES, "a", resamples=DRAWS)}
        finds += found["e"].found and found["e"].value > 0
        wrong += any(found[name].found for name in "bcd")
    assert finds >= 36
    assert wrong <= stats.binom.ppf(0.999, 40, LEVEL)


@pytest.mark.parametrize(("seeds", "items"), [(2, 100), (5, 8), (5, 200)])
@pytest.mark.parametrize(("of_seed", "of_item", "noise"), MIXTURES)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    seeds: int, items: int, of_seed: float, of_item: float, noise: float
) -> None:
    random = np.random.default_rng(8)
    missed = 0
    for _ in range(200):
        values = world(random, seeds=seeds, items=items, of_seed=of_seed, of_item=of_item, noise=noise)
        for one, other in ((0, 1), (2, 3)):
            found = difference(0.7 + values[one], values[other], resamples=1)
            missed += not found.low <= 0.7 <= found.high
    assert missed <= stats.binom.ppf(0.999, 400, LEVEL)


def test_where_seeds_alone_vary_it_is_the_paired_t_test() -> None:
    random = np.random.default_rng(0)
    means = random.normal(0.5, 1.0, 6)
    found = difference(np.repeat(means[:, None], 40, axis=1), np.zeros((6, 40)), resamples=DRAWS)
    expected = stats.ttest_1samp(means, 0.0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.p_seeds == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.p_items == pytest.approx(1 / (1 + DRAWS))  # every item says the same


def test_with_one_seed_it_is_the_paired_t_test_over_items() -> None:
    values = np.random.default_rng(1).normal(0.2, 1.0, (1, 50))
    found = difference(values, np.zeros((1, 50)), resamples=2_000)
    expected = stats.ttest_1samp(values[0], 0.0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.p_items == pytest.approx(expected.pvalue, abs=0.03)
    assert np.isnan(found.p_seeds)
    assert found.to_dict()["p_seeds"] is None


def test_p_and_interval_agree() -> None:
    random = np.random.default_rng(2)
    seen = set()
    for shift in np.linspace(0, 0.6, 40):
        values = world(random, of_seed=0.05, of_item=0.5, noise=1.0, items=60)
        found = difference(values[0] + shift, values[1], resamples=1)
        assert (found.p <= LEVEL) == (not found.low <= 0 <= found.high)
        seen.add(found.p <= LEVEL)
    assert seen == {True, False}


def test_p_and_interval_agree_where_items_alone_would_make_p_tiny() -> None:
    generator = np.random.default_rng(0)
    for seed_effect in (1e-4, 1e-3, 1e-2):
        values = 0.5 + generator.normal(size=(1, 3000)) * 0.9 + generator.normal(size=(2, 1)) * seed_effect
        found = difference(values, np.zeros_like(values), resamples=DRAWS)
        assert 0 < found.p < 1
        assert found.p_seeds <= found.p * (1 + 1e-9)  # not that of one quantile for the sum, which is far more
        assert found.p < 1.5 * found.p_seeds + 1e-9
        assert (found.low > 0) == (found.p <= LEVEL)


def test_equal_means_of_two_seeds_are_no_proof() -> None:
    """Shares of few items are easily equal in both seeds; the noise of the cells must not be forgotten then."""
    generator = np.random.default_rng(1)
    rounds, found = 400, 0
    for _ in range(rounds):
        chances = np.where(generator.random(20) < 0.5, 0.99, 0.9)
        first, second = (np.asarray(generator.random((2, 20)) < chances, float) for _ in range(2))
        found += difference(first, second, resamples=2).p <= LEVEL
    assert found <= stats.binom.ppf(0.999, rounds, LEVEL)  # it was 11 % when the noise was taken off nevertheless


def test_what_is_seen_for_sure_is_what_the_first_step_finds() -> None:
    values = world(np.random.default_rng(3), of_seed=0.05, of_item=0.5, noise=1.0)
    flat = values[:2] - values[:2].mean((1, 2), keepdims=True)
    seen = difference(flat[0], flat[1], family=4, resamples=1).visible
    for factor, found in ((1.001, True), (0.999, False)):
        assert (4 * difference(flat[0] + factor * seen, flat[1], resamples=1).p <= LEVEL) == found


def test_holm_by_hand() -> None:
    values = world(np.random.default_rng(4), of_seed=0.05, of_item=0.5, noise=1.0)
    found = against_reference(values + np.array([0, 0.1, 0.3, 0.5, 0.9])[:, None, None], NAMES, "a", resamples=1)
    ordered = sorted(found, key=lambda each: each.p)
    expected = np.minimum(1, np.maximum.accumulate([each.p * (4 - rank) for rank, each in enumerate(ordered)]))
    assert [each.corrected for each in ordered] == pytest.approx(expected.tolist())
    assert [each.first for each in found] == ["b", "c", "d", "e"]
    assert [each.second for each in found] == ["a"] * 4
    assert holm([]) == []


def test_pairs_are_a_family_of_their_own_and_antisymmetric() -> None:
    values = world(np.random.default_rng(5), of_seed=0.1, of_item=0.5, noise=1.0)
    pairs = {(each.first, each.second): each for each in all_pairs(values, NAMES, resamples=1)}
    assert len(pairs) == 10
    there, back = pairs["b", "d"], difference(values[3], values[1], resamples=1)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    against = {each.first: each for each in against_reference(values, NAMES, "a", resamples=1)}
    assert pairs["a", "b"].p == pytest.approx(against["b"].p)
    assert pairs["a", "b"].corrected >= against["b"].corrected
    assert pairs["a", "b"].visible > against["b"].visible


def test_equal_values_are_no_difference_and_a_constant_one_is_certain() -> None:
    values = np.random.default_rng(6).uniform(size=(5, 30))
    same = difference(values, values)
    assert (same.value, same.low, same.high, same.p, same.p_items, same.visible) == (0, 0, 0, 1, 1, 0)
    assert not same.found
    sure = difference(values + 0.25, values)
    assert sure.value == pytest.approx(0.25)
    assert sure.p < 1e-10


def test_the_mean_of_one_method() -> None:
    values = np.random.default_rng(7).normal(0.6, 0.2, (5, 80))
    mean = mean_over_seeds_and_items(values, name="mrr")
    alone = difference(values, np.zeros((5, 80)), resamples=1)
    assert (mean.value, mean.low, mean.high) == (alone.value, alone.low, alone.high)
    assert (mean.name, mean.n) == ("mrr", 80)


def test_what_cannot_be_compared() -> None:
    values = np.zeros((2, 3, 4))
    with pytest.raises(UsageError, match="choose one of a, b"):
        against_reference(values, "ab", "c")
    with pytest.raises(UsageError, match="different names"):
        all_pairs(values, ["a", "a"])
    with pytest.raises(DataError, match="at least 1 and 2"):
        all_pairs(np.zeros((2, 3, 1)), "ab")
    with pytest.raises(DataError, match="not finite"):
        all_pairs(np.full((2, 3, 4), np.nan), "ab")
    with pytest.raises(DataError, match="shape"):
        all_pairs(np.zeros((2, 3)), "ab")


def test_spearman_item_by_item() -> None:
    random = np.random.default_rng(9)
    found, said = [], []
    for _ in range(300):
        gold = random.integers(0, 6, 120).astype(float)  # ties, as people's scores have
        guess = gold + random.normal(0, 2.0, 120)
        items = spearman_items(guess, gold)
        assert items.mean() == pytest.approx(stats.spearmanr(guess, gold)[0], abs=1e-12)
        found.append(items.mean())
        said.append(items.std(ddof=1) / 120**0.5)
    assert np.mean(said) == pytest.approx(np.std(found), rel=0.15)


def test_spearman_by_leaving_one_out() -> None:
    random = np.random.default_rng(10)
    gold, guess = random.normal(size=400), random.normal(size=400)
    guess += 0.5 * gold
    whole = stats.spearmanr(guess, gold)[0]
    left_out = [stats.spearmanr(np.delete(guess, i), np.delete(gold, i))[0] for i in range(25)]
    expected = whole + 399 * (whole - np.array(left_out))  # jackknife pseudo-values
    assert spearman_items(guess, gold)[:25] == pytest.approx(expected, abs=0.05)


def test_spearman_without_an_order() -> None:
    assert spearman_items([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(DataError, match="no correlation"):
        spearman_items([1.0], [1.0])
    with pytest.raises(DataError, match="not finite"):
        spearman_items([1.0, float("nan")], [1.0, 2.0])
