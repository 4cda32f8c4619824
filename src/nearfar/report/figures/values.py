"""Reading values that may be missing, not finite, or of another type than expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nearfar.report.format import as_finite


class Estimate(NamedTuple):
    """A measured value with its 95 % interval and the number of items it was measured on; None where unknown."""

    value: float | None
    low: float | None
    high: float | None
    items: float | None


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` when it is a mapping, an empty one otherwise."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """``value`` when it is a list or tuple, an empty one otherwise."""
    return value if isinstance(value, list | tuple) else ()


def estimate(value: Any) -> Estimate:
    """An :class:`Estimate` from ``{"value", "low", "high", "n"}`` or from a bare number."""
    if isinstance(value, Mapping):
        return Estimate(*(as_finite(value.get(key)) for key in ("value", "low", "high", "n")))
    return Estimate(as_finite(value), None, None, None)


def finite_array(values: Any) -> np.ndarray:
    """The numbers among ``values`` that can be reckoned with (finite, below 1e100) as a float64 vector."""
    numbers = np.asarray([as_finite(item) for item in sequence(values)], dtype=np.float64)
    return numbers[np.abs(numbers) < 1e100]


def thinned(rows: Sequence[Any], limit: int) -> Sequence[Any]:
    """At most ``limit`` of ``rows``, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return rows
    return [rows[index] for index in np.unique(np.linspace(0, len(rows) - 1, limit).round().astype(int))]
