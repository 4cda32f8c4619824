"""The rule, on measurements whose intervals are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from scipy import stats

from nearfar.claims import judge, merged
from nearfar.claims.judge import caught, summary
from nearfar.errors import DataError
from nearfar.recipes import Arms, Statement

from .conftest import arms, recipe

ABOVE = Statement("accuracy", "method", "baseline")


def by_seed(methods: Sequence[float], baseline: float = 0.0) -> dict[int, Arms]:
    return {seed: arms(value + baseline, baseline) for seed, value in enumerate(methods)}


def spread(mean: float, half: float, seeds: int = 5) -> list[float]:
    """Values whose 95 % t interval is ``mean - half`` to ``mean + half``."""
    shape = [(seed - (seeds - 1) / 2) for seed in range(seeds)]
    deviation = math.sqrt(sum(x * x for x in shape) / (seeds - 1))
    scale = half * math.sqrt(seeds) / (stats.t.ppf(0.975, seeds - 1) * deviation)
    return [mean + scale * x for x in shape]


@pytest.mark.parametrize(
    ("margin", "mean", "half", "expected"),
    [
        (0.0, 1.0, 0.999, "holds"),
        (0.0, 1.0, 1.001, "inconclusive"),
        (0.0, -1.0, 0.999, "fails"),
        (0.0, -1.0, 1.001, "inconclusive"),
        (0.5, 1.0, 0.499, "holds"),
        (0.5, 1.0, 0.501, "inconclusive"),
        (0.5, 0.25, 0.1, "inconclusive"),  # wholly between zero and the margin: it neither holds nor fails
        (0.5, -0.25, 0.249, "fails"),
        (-0.5, -0.25, 0.249, "holds"),  # worse, and surely so, but by no more than the margin
        (-0.5, -0.25, 0.251, "inconclusive"),
        (-0.5, -0.75, 0.249, "fails"),
        (-0.5, -0.75, 0.251, "inconclusive"),
    ],
)
def test_the_rule(margin: float, mean: float, half: float, expected: str) -> None:
    statement = Statement("accuracy", "method", "baseline", margin=margin)
    judged = judge(recipe(statement), by_seed(spread(mean, half)))
    finding = judged.findings[0]
    assert (finding.effect.low, finding.effect.high) == pytest.approx((mean - half, mean + half), abs=1e-9)
    assert finding.verdict == judged.verdict == expected


@pytest.mark.parametrize(
    ("margin", "value", "expected"),
    [
        (0.25, 0.25, "inconclusive"),
        (0.0, 0.0, "inconclusive"),
        (-0.25, -0.25, "inconclusive"),
        (0.25, math.nextafter(0.25, 1), "holds"),
        (0.0, -5e-324, "fails"),
    ],
)
def test_ends_that_touch_do_not_lie_beyond(margin: float, value: float, expected: str) -> None:
    # every seed the same, so that both ends of the interval are that value exactly
    statement = Statement("accuracy", "method", 0.0, margin=margin)
    assert judge(recipe(statement), by_seed([value] * 5)).verdict == expected


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_few_seeds_judge_nothing(seeds: int) -> None:
    for value in (100.0, -100.0):
        judged = judge(recipe(ABOVE), by_seed([value] * seeds))
        assert judged.verdict == "inconclusive"
        assert caught(judged, seeds) is None
    assert judge(recipe(ABOVE), by_seed([100.0] * 5)).verdict == "holds"


def test_seeds_are_paired() -> None:
    # the seeds differ by far more than the arms
    measured = {seed: arms(10 * seed + 1 + 0.01 * seed, 10 * seed) for seed in range(5)}
    judged = judge(recipe(ABOVE), measured)
    assert judged.verdict == "holds"
    assert judged.findings[0].differences == pytest.approx([1 + 0.01 * seed for seed in range(5)])


def test_lower_and_a_number_as_baseline() -> None:
    lower = Statement("accuracy", "method", "baseline", direction="lower")
    assert judge(recipe(lower), by_seed(spread(-1, 0.5))).verdict == "holds"
    assert judge(recipe(lower), by_seed(spread(1, 0.5))).verdict == "fails"
    number = Statement("accuracy", "method", 0.9, direction="lower")
    assert judge(recipe(number), by_seed(spread(0.5, 0.3))).findings[0].effect.value == pytest.approx(0.4)


def test_all_statements_must_hold() -> None:
    holds, fails = Statement("accuracy", "method", -1.0), Statement("accuracy", "method", 1.0)
    unclear = Statement("accuracy", "method", 0.0)
    measured = by_seed(spread(0, 0.5))
    for statements, expected in [
        ((holds, holds), "holds"),
        ((holds, unclear), "inconclusive"),
        ((holds, fails), "fails"),
        ((unclear, fails), "fails"),
    ]:
        assert judge(recipe(*statements), measured).verdict == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error_in_either_arm(value: float) -> None:
    for spoilt in (arms(value), arms(1.0, value)):
        with pytest.raises(DataError, match="cannot be judged"):
            judge(recipe(ABOVE), {**by_seed([1.0] * 5), 2: spoilt})


def test_what_is_missing_is_named() -> None:
    measured = by_seed([1.0] * 5)
    with pytest.raises(DataError, match=r"(?s)no 'accuracy' of 'other'.*method: accuracy; baseline: accuracy"):
        judge(recipe(Statement("accuracy", "other", "baseline")), measured)
    with pytest.raises(DataError, match="no 'rank' of 'method'"):
        judge(recipe(Statement("rank", "method", "baseline")), measured)
    with pytest.raises(DataError, match="nothing to judge"):
        judge(recipe(), measured)
    with pytest.raises(DataError, match="nothing to judge"):
        judge(recipe(ABOVE), {})


def test_sabotaged_arms_take_the_place_of_honest_ones_of_the_same_seed() -> None:
    honest = {seed: arms(1.0 + seed, seed) for seed in range(5)}
    spoilt: dict[int, Arms] = {seed: {"method": {"accuracy": -1.0}} for seed in range(5)}
    whole = merged(honest, spoilt)
    assert whole[3] == {"method": {"accuracy": -1.0}, "baseline": {"accuracy": 3}}
    assert honest[3]["method"]["accuracy"] == 4.0
    assert judge(recipe(ABOVE), whole).findings[0].differences == [-1.0 - seed for seed in range(5)]


def test_an_honest_measure_does_not_stand_in_for_a_sabotaged_one() -> None:
    whole = merged(by_seed([1.0] * 5), {seed: {"method": {"rank": 1.0}} for seed in range(5)})
    with pytest.raises(DataError, match="no 'accuracy' of 'method'"):
        judge(recipe(ABOVE), whole)


def test_arms_that_do_not_match_are_named() -> None:
    with pytest.raises(DataError, match="measured metod, which"):
        merged(by_seed([1.0]), {0: {"metod": {"accuracy": 1.0}}})
    with pytest.raises(DataError, match=r"honest seeds are \[0, 1\], sabotaged ones \[0\]"):
        merged(by_seed([1.0, 1.0]), by_seed([1.0]))


def test_the_sabotage_is_caught_unless_the_claim_still_holds() -> None:
    for value, expected in [(1.0, False), (0.0, True), (-1.0, True)]:
        assert caught(judge(recipe(ABOVE), by_seed(spread(value, 0.5))), 5) is expected


def test_the_summary_has_every_arm_and_measure() -> None:
    found = summary({seed: arms(float(seed), 7.0, rank=2.0) for seed in range(3)})
    assert found["method"]["accuracy"]["values"] == [0.0, 1.0, 2.0]
    assert found["method"]["accuracy"]["mean"] == 1.0
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert found["method"]["accuracy"]["low"] == pytest.approx(1 - half)
    assert found["baseline"]["rank"] == {"values": [2.0] * 3, "mean": 2.0, "low": 2.0, "high": 2.0}
    assert summary({0: arms(1.0)})["method"]["accuracy"]["low"] is None
