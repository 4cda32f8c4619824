from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nearfar.errors import DataError
from nearfar.evaluation.draws import accuracy_over_draws, confusion, macro_f1_over_draws, per_class


def answers(draws: int = 4, n: int = 80, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    wrong = random.random((draws, n)) < 0.3
    return truth, np.where(wrong, random.integers(0, classes, (draws, n)), truth)


def plain_f1(truth: np.ndarray, said: np.ndarray) -> float:
    scores = []
    for label in sorted(set(truth.tolist())):
        hits = sum(1 for t, s in zip(truth, said, strict=True) if t == s == label)
        asked = sum(1 for t in truth if t == label)
        taken = sum(1 for s in said if s == label)
        scores.append(2 * hits / (asked + taken))
    return sum(scores) / len(scores)


def test_macro_f1_is_that_of_plain_loops() -> None:
    truth, said = answers()
    found = macro_f1_over_draws(truth, said)
    assert found.value == pytest.approx(np.mean([plain_f1(truth, each) for each in said]), abs=1e-12)
    assert 0 <= found.low < found.value < found.high <= 1
    assert found.n == len(truth)


def test_the_interval_joins_draws_and_texts() -> None:
    truth, said = answers(draws=5, n=60, seed=3)
    found = macro_f1_over_draws(truth, said, resamples=2_000)
    whole = np.array([plain_f1(truth, each) for each in said])
    random = np.random.default_rng(11)
    resampled = []
    for _ in range(600):
        rows = random.integers(0, 60, 60)
        resampled.append(np.mean([plain_f1(truth[rows], each[rows]) for each in said]))
    half = np.sqrt(stats.t.ppf(0.975, 4) ** 2 * whole.var(ddof=1) / 5 + stats.norm.ppf(0.975) ** 2 * np.var(resampled))
    assert found.high - found.value == pytest.approx(half, rel=0.08)
    one = macro_f1_over_draws(truth, said[:1])
    assert one.low < one.value < one.high


def test_labels_that_no_text_has_count_as_wrong() -> None:
    truth = np.array([0, 0, 2, 2])
    assert macro_f1_over_draws(truth, np.array([[0, 9, 2, 2]])).value == pytest.approx((2 / 3 + 1) / 2)
    assert accuracy_over_draws(truth, np.array([[0, 9, 2, 2]])).value == 0.75


def test_accuracy_is_the_share_within_its_bounds() -> None:
    truth, said = answers()
    found = accuracy_over_draws(truth, said)
    assert found.value == pytest.approx((said == truth).mean())
    perfect = accuracy_over_draws(truth, np.stack([truth, truth]))
    assert (perfect.low, perfect.value, perfect.high) == (1.0, 1.0, 1.0)


def test_classes_and_confusions_by_plain_counts() -> None:
    truth, said = answers(classes=4)
    table = confusion(truth, said, 5)
    found = per_class(truth, said, 5)
    for i in range(5):
        for j in range(5):
            count = sum(1 for each in said for t, s in zip(truth, each, strict=True) if t == i and s == j)
            assert table[i, j] == count
    for i in range(4):
        assert found["precision"][i] == pytest.approx(table[i, i] / table[:, i].sum())
        assert found["recall"][i] == pytest.approx(table[i, i] / table[i].sum())
        assert found["asked"][i] == (truth == i).sum()
    assert np.isnan([found[name][4] for name in ("precision", "recall", "f1")]).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    truth, said = answers()
    for wrong in (said[0], said[:, :-1], said[:0]):
        with pytest.raises(DataError):
            macro_f1_over_draws(truth, wrong)
        with pytest.raises(DataError):
            confusion(truth, wrong, 3)
