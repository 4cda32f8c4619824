"""Rank correlation beyond what a third quantity explains."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.evaluation.order import partial_rank_correlation, rank_correlation


def test_by_what_is_left_of_ranks() -> None:
    """The correlation of what linear regression on the third's ranks leaves of the ranks of both."""
    generator = np.random.default_rng(0)
    given = generator.normal(size=300)
    one, other = given + generator.normal(size=300), given**3 + generator.normal(size=300)
    ranks = [np.argsort(np.argsort(each)).astype(float) for each in (one, other, given)]
    design = np.stack([np.ones(300), ranks[2]], 1)
    left = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in ranks[:2]]
    expected = float(np.corrcoef(*left)[0, 1])
    assert partial_rank_correlation(one, other, given) == pytest.approx(expected, abs=1e-9)
    assert rank_correlation(one, other) > 0.4 > abs(partial_rank_correlation(one, other, given))


def test_wholly_explained_and_unrelated() -> None:
    generator = np.random.default_rng(1)
    one, other, noise = generator.normal(size=(3, 2000))
    assert partial_rank_correlation(one, other, np.exp(one)) == 0
    assert partial_rank_correlation(one, one, noise) == pytest.approx(1)
    assert partial_rank_correlation(one, -one, noise) == pytest.approx(-1)
    assert partial_rank_correlation(one, one + other, noise) == pytest.approx(
        rank_correlation(one, one + other), abs=0.01
    )
    with pytest.raises(DataError, match="all values are the same"):
        partial_rank_correlation(one, other, np.ones(2000))
