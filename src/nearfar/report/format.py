"""Numbers, durations and names as a reader wants to see them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

ABSENT = "–"
LOWER_IS_BETTER = frozenset({"loss", "alignment", "uniformity", "random_similarity"})

_NAMES = {
    "mrr": "MRR",
    "map": "MAP",
    "ndcg": "nDCG",
    "auc": "AUC",
    "bm25": "BM25",
    "rankme": "RankMe",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "knn": "kNN",
    "loss": "loss",
}


def as_number(value: Any) -> float | None:
    """``value`` as a float, or None when it is not a number (None, text, a container, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def as_finite(value: Any) -> float | None:
    """``value`` as a float, or None when it is not a finite number."""
    number = as_number(value)
    return number if number is not None and math.isfinite(number) else None


def decimals(values: Iterable[Any], significant: int = 3) -> int:
    """How many decimals let the largest of ``values`` show ``significant`` digits, at most three for values below 1.

    A column that shares its decimals can be compared by eye: 0.588 above 0.521, 1,204 above 36.
    """
    largest = max((abs(number) for number in map(as_finite, values) if number is not None), default=0.0)
    if largest < 1:
        return significant
    return max(0, significant - math.floor(math.log10(largest)))


def number(value: Any, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals, thousands separated, a true minus sign; "–" for what is no number."""
    figure = as_number(value)
    if figure is None or math.isnan(figure):
        return ABSENT
    if math.isinf(figure):
        return "∞" if figure > 0 else "−∞"
    if figure != 0 and (abs(figure) < 0.5 * 10.0**-digits or abs(figure) >= 1e15):
        mantissa, exponent = f"{figure:.2e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{figure:,.{digits}f}"
    return text.replace("-", "−")


def signed(value: Any, digits: int = 3) -> str:
    """Like :func:`number`, with a plus sign before positive values: for differences."""
    figure = as_number(value)
    text = number(value, digits)
    return f"+{text}" if figure is not None and figure > 0 else text


def integer(value: Any) -> str:
    """A count: no decimals, thousands separated."""
    return number(value, 0)


def count(value: Any) -> str:
    """A count that may be an expectation: 1,204 and 19, but 2.4."""
    amount = as_finite(value)
    return number(value, 1 if amount is not None and abs(amount) < 10 and not amount.is_integer() else 0)


def percent(value: Any, digits: int = 1) -> str:
    """A share between 0 and 1 as a percentage; a share too small to show is written as such, never as zero."""
    share = as_finite(value)
    if share is None:
        return ABSENT
    smallest = 10.0**-digits
    if 0 < share * 100 < smallest / 2:
        return f"< {smallest:.{digits}f} %"
    return f"{number(share * 100, digits)} %"


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """``low`` to ``high``, or :data:`ABSENT` when either is missing."""
    if as_finite(low) is None or as_finite(high) is None:
        return ABSENT
    return f"{number(low, digits)} to {number(high, digits)}"


def points(difference: float) -> str:
    """The size of a difference in hundredths of its measure: ``0.82 points``."""
    amount = 100 * abs(difference)
    return f"{amount:.{1 if amount >= 10 else 2 if amount >= 0.095 else 3}f} points"


def duration(seconds: Any) -> str:
    """Seconds in the units a person would use: ``0.8 s``, ``42 s``, ``1 min 25 s``, ``2 h 5 min``."""
    amount = as_finite(seconds)
    if amount is None or amount < 0:
        return ABSENT
    if amount < 9.95:
        return f"{amount:.1f} s"
    whole = round(amount)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(amount / 60)
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def measure_name(name: str) -> str:
    """A measure's name as the field writes it: ``nDCG@10`` for ``ndcg@10``, spaces for underscores."""
    stem, at, depth = name.partition("@")
    words = [_NAMES.get(word, word) for word in stem.replace("_", " ").split(" ")]
    return " ".join(words) + at + depth


def shorten(text: str, length: int) -> str:
    """``text`` on one line, cut with an ellipsis when it is longer than ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: max(1, length - 1)].rstrip() + "…"


def plural(count: int, singular: str, several: str | None = None) -> str:
    """``1 row``, ``36,000 rows``."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"
