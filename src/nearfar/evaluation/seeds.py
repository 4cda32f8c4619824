"""Is a difference between two methods more than chance of the seed? Both are run with each seed, and paired by it."""

from __future__ import annotations

from typing import Literal

import numpy.typing as npt

from nearfar.errors import MissingExtraError
from nearfar.evaluation.measures import Measure, checked_items

Verdict = Literal["holds", "inconclusive", "fails"]

MINIMUM_SEEDS = 5
"""Seeds below which nothing is judged."""


def seed_interval(differences: npt.ArrayLike, *, name: str = "difference", level: float = 0.95) -> Measure:
    """The mean of ``differences`` ``[seeds]`` with its Student t interval (``seeds - 1`` degrees of freedom).

    With a handful of seeds the t interval keeps what it promises where a percentile bootstrap is too narrow. Raises
    :class:`~nearfar.errors.DataError` for no seeds or values that are not finite. One seed: the interval is the whole
    line.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    values = checked_items(differences)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Measure(name, mean, float("-inf"), float("inf"), 1)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * float(values.std(ddof=1)) / count**0.5
    return Measure(name, mean, mean - half, mean + half, count)


def verdict(difference: Measure, margin: float = 0.0) -> Verdict:
    """The rule of every verdict: what a difference over seeds says of the claim that it lies above ``margin``.

    - ``"holds"``: the whole interval lies above ``margin``, with at least :data:`MINIMUM_SEEDS` seeds;
    - ``"fails"``: the whole interval lies below 0 (below ``margin`` where that is negative), with as many seeds;
    - ``"inconclusive"``: anything else.
    """
    if difference.n < MINIMUM_SEEDS:
        return "inconclusive"
    if difference.low > margin:
        return "holds"
    if difference.high < min(0.0, margin):
        return "fails"
    return "inconclusive"


def joint_verdict(verdicts: list[Verdict]) -> Verdict:
    """Of a claim of several statements: it holds when all do, fails when one does, and is inconclusive otherwise."""
    if verdicts and all(each == "holds" for each in verdicts):
        return "holds"
    return "fails" if "fails" in verdicts else "inconclusive"
