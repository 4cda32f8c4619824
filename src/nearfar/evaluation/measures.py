"""A number never stands alone: measures with their bootstrap intervals, and what an evaluation returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError

FloatArray = npt.NDArray[np.floating[Any]]

RESAMPLES = 1_000
"""Bootstrap resamples; enough for a 95 % percentile interval (Efron and Tibshirani, 1993, ask for 1,000)."""

_BLOCK = 1 << 22  # numbers drawn at once, so that memory does not grow with resamples x items


@dataclass(frozen=True)
class Measure:
    """One figure: ``value`` with its 95 % interval ``[low, high]`` over ``n`` items (queries, pairs or texts)."""

    name: str
    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """``{"value", "low", "high", "n"}``, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n:,})"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    ``measures`` by name, ``main`` the name of the one to compare models by, ``kind`` one of ``"similarity"``,
    ``"retrieval"``, ``"classification"``, ``"pair classification"``, ``"clustering"``, ``"few-shot"``. ``per_item``
    holds, for measures that are means over items, each item's value in the order of the data (``[n]`` float64): what
    :func:`~nearfar.evaluation.paired_difference` takes; for Spearman's correlation values whose mean it is
    (:func:`nearfar.evaluation.influence.spearman_items`). ``details`` says what was evaluated (counts, settings).
    """

    measures: dict[str, Measure]
    main: str
    kind: str
    per_item: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The value of the main measure."""
        return self.measures[self.main].value

    def to_dict(self) -> dict[str, dict[str, float | int]]:
        """Every measure's dictionary by name, ready for JSON."""
        return {name: measure.to_dict() for name, measure in self.measures.items()}

    def __str__(self) -> str:
        return "\n".join(str(measure) for measure in self.measures.values())


def mean_measure(name: str, values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Measure:
    """The mean of ``values`` ``[n]`` with its percentile bootstrap interval over the items.

    Items are drawn n times with replacement, ``resamples`` times over, and the interval reaches from the 2.5th to the
    97.5th percentile of the means. Where values repeat (reciprocal ranks, hits) the draws are made by distinct value,
    which has the same distribution and costs less. Raises :class:`~nearfar.errors.DataError` for no items or a value
    that is not finite.
    """
    items = checked_items(values)
    distinct, counts = np.unique(items, return_counts=True)
    generator = np.random.default_rng(seed)
    if len(distinct) == 1:
        means = np.full(1, distinct[0])
    elif len(distinct) * 4 <= len(items):
        means = np.concatenate(
            [
                generator.multinomial(len(items), counts / len(items), size=size) @ distinct / len(items)
                for size in _blocks(resamples, len(distinct))
            ]
        )
    else:
        means = np.concatenate(
            [
                items[generator.integers(0, len(items), (size, len(items)))].mean(axis=1)
                for size in _blocks(resamples, len(items))
            ]
        )
    return measure(name, float(items.mean()), means, len(items))


def resampled_weights(n: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[npt.NDArray[np.float64]]:
    """How often each of ``n`` items is in a resample: blocks ``[resamples in this block, n]`` that make up all
    resamples."""
    generator = np.random.default_rng(seed)
    for size in _blocks(resamples, n):
        drawn = generator.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def weighted_measure(
    name: str,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    n: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measure:
    """A statistic of ``n`` items with its percentile bootstrap interval.

    ``statistic(weights [r, n]) -> [r]`` computes it for r samples in which item i stands ``weights[:, i]`` times; the
    value is that of all-one weights. Resamples for which it is NaN (undefined) do not count.
    """
    value = float(statistic(np.ones((1, n)))[0])
    found = np.concatenate([statistic(weights) for weights in resampled_weights(n, resamples=resamples, seed=seed)])
    return measure(name, value, found[~np.isnan(found)], n)


def measure(name: str, value: float, resampled: FloatArray, n: int) -> Measure:
    """A :class:`Measure` whose interval is the 95 % percentile interval of the ``resampled`` values."""
    if not len(resampled):
        return Measure(name, value, value, value, n)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Measure(name, value, float(low), float(high), n)


def checked_items(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``values`` as float64 ``[n]``; raises :class:`~nearfar.errors.DataError` when there are none or one is not
    finite."""
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1:
        raise DataError(f"the values of a measure are one a item, but have the shape {items.shape}")
    if not len(items):
        raise DataError("there is nothing to evaluate: no items")
    if not np.isfinite(items).all():
        raise DataError("a value is not finite, so there is no mean")
    return items


def _blocks(resamples: int, width: int) -> list[int]:
    if resamples < 1:
        raise UsageError(f"{resamples} bootstrap resamples; at least 1 is needed")
    size = max(1, min(resamples, _BLOCK // max(width, 1)))
    return [min(size, resamples - start) for start in range(0, resamples, size)]
