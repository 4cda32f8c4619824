"""Which of several methods differ, when each was trained with several seeds and asked the same items?

The values are ``[methods, seeds, items]``: every method was run with the same seeds, every run asked the same items. A
difference between two methods varies for two reasons, other seeds and other items, and an interval that forgets one of
them promises too much. :func:`difference` accounts for both, whatever share each has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Measure, resampled_weights

Values = npt.NDArray[np.float64]

LEVEL = 0.05
"""A difference counts as found when its corrected p value is at most this."""

_LEAST_P = 1e-290
"""Where p values end: Student's quantiles of smaller ones are no floating numbers."""


@dataclass(frozen=True)
class Difference:
    """``first - second`` between two methods over seeds and items.

    Attributes:
        value, low, high: the mean difference with its 95 % interval (of this pair alone).
        p: of no difference, over seeds and items together; ``p_seeds``, ``p_items``: over one of them, the other held
            fixed (NaN where there is a single seed or item).
        corrected: ``p`` by Holm's method within the family of differences it was computed with.
        visible: how large a difference with these variances must be to be found for sure (Holm's first step).
        seeds, items: how many.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    p_seeds: float
    p_items: float
    corrected: float
    visible: float
    seeds: int
    items: int

    @property
    def found(self) -> bool:
        """Whether the two methods can be told apart."""
        return self.corrected <= LEVEL

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON (None for what is not known)."""
        known = {name: None if value != value else value for name, value in self.__dict__.items()}
        return {**known, "found": self.found}


@dataclass(frozen=True)
class _Spread:
    """What a mean varies by: over ``seeds`` with ``seeds - 1`` degrees of freedom, over ``items`` likewise."""

    mean: float
    seeds: float
    items: float
    seed_count: int
    item_count: int

    def half_width(self, tail: float) -> float:
        """Half the interval that leaves out ``tail`` in all."""
        return float(np.sqrt(_quantile(tail, self.seed_count) * self.seeds + self._items(tail)))

    def p(self) -> float:
        """The smallest ``tail`` whose interval leaves out 0."""
        if self.mean == 0.0:
            return 1.0
        if self.seeds + self.items == 0.0:
            return 0.0
        spread = self.seeds + self.items
        sizes = [count for count, part in ((self.seed_count, self.seeds), (self.item_count, self.items)) if part]
        # with one quantile for the sum, that of the more and of the fewer degrees of freedom: p lies between
        tails = [2 * float(_special().stdtr(max(1, n - 1), -abs(self.mean) / spread**0.5)) for n in sizes]
        low, high = max(min(tails), _LEAST_P), max(*tails, _LEAST_P)
        if high - low <= 1e-12 * high:
            return high
        if self.half_width(low) <= abs(self.mean):
            return low
        logarithm = _optimize().brentq(
            lambda place: self.half_width(10.0**place) - abs(self.mean), np.log10(low) - 1e-6, np.log10(high) + 1e-6
        )
        return float(10.0**logarithm)

    def _items(self, tail: float) -> float:
        return _quantile(tail, self.item_count) * self.items


def _quantile(tail: float, count: int) -> float:
    """The square of Student's two-sided quantile with ``count - 1`` degrees of freedom; 0 for a single one."""
    # at most 1e150, whose square is a floating number still
    return min(abs(float(_special().stdtrit(count - 1, tail / 2))), 1e150) ** 2 if count > 1 else 0.0


def _spread(values: Values) -> _Spread:
    """The variances of the mean of ``values [s, n]``: that over seeds holds the noise of single cells too, that over
    items holds it no more where several seeds tell the two apart."""
    seeds, items = values.shape
    mean = float(values.mean())
    by_seed, by_item = values.mean(1), values.mean(0)
    over_seeds = float(by_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    over_items = float(by_item.var(ddof=1)) / items if items > 1 else 0.0
    # what rounding leaves of no variance at all
    tiny = (1e-14 * float(np.abs(values).max(initial=0.0))) ** 2
    # seeds whose means are equal, as a few correct items more or less easily are, hold no noise that could be left out
    if over_seeds > tiny and items > 1:
        rest = values - by_seed[:, None] - by_item[None, :] + mean
        cells = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
        over_items = max(0.0, over_items - cells)
    over_seeds, over_items = (0.0 if part <= tiny else part for part in (over_seeds, over_items))
    return _Spread(mean, over_seeds, over_items, seeds, items)


def mean_over_seeds_and_items(values: npt.ArrayLike, *, name: str = "mean") -> Measure:
    """The mean of ``values [s, n]`` of one method with its 95 % interval over seeds and items, as :func:`difference`
    makes it; ``n`` of the measure counts items."""
    spread = _spread(_checked(np.asarray(values, np.float64)[None])[0])
    half = spread.half_width(LEVEL)
    return Measure(name, spread.mean, spread.mean - half, spread.mean + half, spread.item_count)


def difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    names: tuple[str, str] = ("first", "second"),
    family: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The mean of ``D = first - second``, both ``[s, n]`` by seed and item, with an interval over seeds and items.

    The model is ``D[s, i] = difference + seed effect + item effect + noise of the cell``. With A the variance of the
    mean by the seeds' means (seed effects and noise), ``A = var_s(mean_i D) / S``, and B that by the items' means
    without the noise, ``B = max(0, var_i(mean_s D) / N - residual mean square / (S N))``, the interval is

        ``mean ± sqrt(t(S-1)² A + t(N-1)² B)``

    with Student's quantiles (Banerjee, 1960: the coverage of such an interval is never below what it says, while a
    bootstrap of both, or one quantile for the sum, promises too much with a handful of seeds). It is exact where seed
    effects or noise dominate and where item effects do. Where the seeds' means are equal (by chance, as shares of few
    items may be) A is 0 and says nothing of the noise: then B keeps it. ``p`` is the smallest level whose interval
    leaves out 0.

    ``p_seeds`` is the paired t test over the S means; ``p_items`` the bootstrap test over items, seeds averaged: the
    share of resamples whose mean differs from the mean by as much as it differs from 0. With one seed the interval is
    over items alone and says nothing about other seeds. ``corrected`` is ``p`` until :func:`holm` makes it one of a
    family; ``visible`` is the half-width at the level ``0.05 / family``.

    Raises :class:`~nearfar.errors.DataError` for unequal shapes, fewer than two items and values that are not finite.
    """
    values = _checked(np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)]))
    spread = _spread(values[0] - values[1])
    return _difference(values[0] - values[1], spread, names, family, resamples, seed)


def _difference(
    values: Values, spread: _Spread, names: tuple[str, str], family: int, resamples: int, seed: int
) -> Difference:
    half = spread.half_width(LEVEL)
    p = spread.p()
    seeds, items = values.shape
    only_seeds = replace(spread, items=0.0)
    return Difference(
        *names,
        spread.mean,
        spread.mean - half,
        spread.mean + half,
        p,
        only_seeds.p() if seeds > 1 else float("nan"),
        _p_items(values.mean(0), resamples, seed),
        p,
        spread.half_width(LEVEL / family),
        seeds,
        items,
    )


def _p_items(values: Values, resamples: int, seed: int) -> float:
    mean = values.mean()
    if mean == 0.0:
        return 1.0
    means = [
        weights @ values / len(values) for weights in resampled_weights(len(values), resamples=resamples, seed=seed)
    ]
    # as far from the mean as the mean is from 0; the sample itself is one of the resamples, so p is never 0
    extreme = int((np.abs(np.concatenate(means) - mean) >= abs(mean) * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + resamples)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences as one family: ``corrected`` holds p values by Holm's step-down method (1979), so that
    the chance of finding any difference where there is none stays at 5 %."""
    count = len(differences)
    order = sorted(range(count), key=lambda index: differences[index].p)
    corrected, so_far = [0.0] * count, 0.0
    for rank, index in enumerate(order):
        so_far = max(so_far, min(1.0, (count - rank) * differences[index].p))
        corrected[index] = so_far
    return [replace(each, corrected=value) for each, value in zip(differences, corrected, strict=True)]


def against_reference(
    values: npt.ArrayLike,
    names: Sequence[str],
    reference: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Every method of ``values [m, s, n]`` against ``reference`` (one of ``names``), corrected together.

    Raises :class:`~nearfar.errors.UsageError` for a reference that is not there, and as :func:`difference` does.
    """
    found = _named(values, names)
    if reference not in found:
        raise UsageError(f"there is no {reference!r} to compare with", hint=f"choose one of {', '.join(names)}")
    others = [name for name in names if name != reference]
    return holm(
        [
            difference(
                found[name],
                found[reference],
                names=(name, reference),
                family=len(others),
                resamples=resamples,
                seed=seed,
            )
            for name in others
        ]
    )


def all_pairs(
    values: npt.ArrayLike, names: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Every two methods of ``values [m, s, n]``, earlier name first, corrected together (a family of its own)."""
    found = _named(values, names)
    pairs = [(one, other) for index, one in enumerate(names) for other in names[index + 1 :]]
    return holm(
        [
            difference(found[a], found[b], names=(a, b), family=len(pairs), resamples=resamples, seed=seed)
            for a, b in pairs
        ]
    )


def _named(values: npt.ArrayLike, names: Sequence[str]) -> dict[str, Values]:
    checked = _checked(np.asarray(values, np.float64))
    if len(names) != len(checked) or len(set(names)) != len(names):
        raise UsageError(f"{len(checked)} methods need as many different names, not {', '.join(names)}")
    return dict(zip(names, checked, strict=True))


def _checked(values: Values) -> Values:
    if values.ndim != 3:
        raise DataError(f"values by method, seed and item are needed, not an array of shape {values.shape}")
    if values.shape[1] < 1 or values.shape[2] < 2:
        raise DataError(f"{values.shape[1]} seeds and {values.shape[2]} items: at least 1 and 2 are needed")
    if not np.isfinite(values).all():
        raise DataError("a value is not finite, so there is no difference")
    return values


def _optimize() -> Any:
    from scipy import optimize

    return optimize


def _special() -> Any:
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    return special
