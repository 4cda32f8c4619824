"""Rewards of pairs judged by accuracy and calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.preference import pairs_in_order, preference_measures, reliability

RANDOM = np.random.default_rng(0)
CHOSEN, REJECTED = RANDOM.normal(0.5, 1.5, 60), RANDOM.normal(0, 1.5, 60)


def test_pairs_in_order() -> None:
    assert pairs_in_order([1, 2, 3], [0, 2, 4]).tolist() == [1, 0.5, 0]


def test_measures_by_loops() -> None:
    found = preference_measures(CHOSEN, REJECTED)
    apart = [float(c - r) for c, r in zip(CHOSEN, REJECTED, strict=True)]
    assert found["accuracy"].value == pytest.approx(sum(d > 0 for d in apart) / 60)
    assert found["margin"].value == pytest.approx(sum(apart) / 60)
    assert found["log_loss"].value == pytest.approx(sum(math.log1p(math.exp(-d)) for d in apart) / 60)
    for each in found.values():
        assert each.low <= each.high
        assert each.n == 60
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high
    nothing = preference_measures(np.zeros(5), np.zeros(5))
    assert nothing["accuracy"].value == 0.5
    assert nothing["log_loss"].value == pytest.approx(math.log(2))
    assert nothing["calibration_error"].value == 0
    assert preference_measures([3.0], [1.0])["accuracy"].value == 1
    assert math.isfinite(preference_measures([2000.0, -900.0], [-2000.0, 900.0])["log_loss"].value)


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_reliability_by_loops(bins: int) -> None:
    found = reliability(CHOSEN, REJECTED, bins=bins)
    held: dict[int, list[tuple[float, float]]] = {}
    for c, r in zip(CHOSEN, REJECTED, strict=True):
        p = 1 / (1 + math.exp(-(c - r)))
        sure = max(p, 1 - p)
        held.setdefault(min(int((sure - 0.5) * 2 * bins), bins - 1), []).append((sure, float(p > 0.5)))
    error = 0.0
    for place, number in enumerate(sorted(held)):
        inside = held[number]
        sure, right = (sum(each) / len(inside) for each in zip(*inside, strict=True))
        assert found.count[place] == len(inside)
        assert found.confidence[place] == pytest.approx(sure)
        assert found.right[place] == pytest.approx(right)
        assert found.low[place] <= sure <= found.high[place]
        error += len(inside) / 60 * abs(sure - right)
    assert found.error == pytest.approx(error)
    if bins == 10:
        assert preference_measures(CHOSEN, REJECTED)["calibration_error"].value == pytest.approx(error)
        assert found.to_dict()["error"] == found.error


def test_calibration_does_not_ask_which_response_stands_first() -> None:
    turned = RANDOM.random(60) < 0.5
    truth = RANDOM.random(60) < 1 / (1 + np.exp(-CHOSEN))  # reward CHOSEN against 0 is the probability of a win
    one = np.where(truth, CHOSEN, -CHOSEN)
    assert reliability(one, np.zeros(60)).error == pytest.approx(reliability(np.zeros(60), -one).error)
    mixed = reliability(np.where(turned, one, 0), np.where(turned, 0, -one))
    assert mixed.error == pytest.approx(reliability(one, np.zeros(60)).error)


def test_a_calibrated_model_has_a_small_error_and_a_sure_one_a_large() -> None:
    generator = np.random.default_rng(1)
    margin = generator.normal(0, 2, 20_000)
    chosen = np.where(generator.random(20_000) < 1 / (1 + np.exp(-margin)), margin, -margin)
    assert reliability(chosen, np.zeros(20_000)).error < 0.02
    assert reliability(5 * chosen, np.zeros(20_000)).error > 0.1


def test_what_cannot_be_judged() -> None:
    for chosen, rejected in (([], []), ([1.0, 2.0], [1.0]), ([math.nan], [0.0])):
        with pytest.raises(DataError):
            preference_measures(chosen, rejected)
    with pytest.raises(UsageError, match="bins"):
        reliability([1.0], [0.0], bins=0)
