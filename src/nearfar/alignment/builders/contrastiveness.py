"""How much the two responses of a pair have in common: CLAIR's diagnostics (D'Oosterlinck et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nearfar.alignment.builders.pairs import BuiltPairs
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.measures import Measure, mean_measure

OVERLAP, DISTANCE, LONGER = "Jaccard overlap", "edit distance", "length ratio"


def token_overlap(first: str, second: str) -> float:
    """Jaccard's overlap of the sets of words, ``|A and B| / |A or B|``, case kept; in [0, 1], 1 for two empty texts."""
    one, other = set(first.split()), set(second.split())
    return len(one & other) / len(one | other) if one | other else 1.0


def edit_distance(first: str, second: str, *, unit: str = "characters") -> float:
    """Levenshtein's distance over the length of the longer text: in [0, 1], 0 for equal texts.

    The fewest insertions, deletions and substitutions of a ``unit``: "characters" (default) or "words". Takes time in
    proportion to the product of the lengths and memory to their sum.
    """
    if unit not in ("characters", "words"):
        raise UsageError(f"unit must be 'characters' or 'words', got {unit!r}")
    one, other = (first.split(), second.split()) if unit == "words" else (list(first), list(second))
    longer = max(len(one), len(other))
    if not longer:
        return 0.0
    numbers = {each: number for number, each in enumerate(dict.fromkeys(one + other))}
    return _levenshtein(*(np.array([numbers[each] for each in text], np.int64) for text in (one, other))) / longer


def _levenshtein(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    places = np.arange(len(other) + 1)
    costs = places.copy()
    for number, unit in enumerate(one, 1):
        best = np.empty_like(costs)
        best[0] = number
        best[1:] = np.minimum(costs[1:] + 1, costs[:-1] + (other != unit))
        # then insertions, one after another: the least of best[k] + (j - k) over all k <= j
        costs = np.minimum.accumulate(best - places) + places
    return int(costs[-1])


def contrastiveness(pairs: BuiltPairs, *, unit: str = "characters") -> dict[str, Measure]:
    """Means over pairs with bootstrap intervals: "Jaccard overlap", "edit distance" and "length ratio".

    The last is the chosen's length over the rejected's, in characters: above 1 length tells which is chosen. Pairs of
    minimal revisions have the highest overlap and the smallest distance. Raises :class:`~nearfar.errors.DataError` for
    no pairs.
    """
    if not len(pairs):
        raise DataError("there are no pairs to measure")
    values: dict[str, Sequence[float]] = {
        OVERLAP: [token_overlap(pair.chosen, pair.rejected) for pair in pairs],
        DISTANCE: [edit_distance(pair.chosen, pair.rejected, unit=unit) for pair in pairs],
        LONGER: [len(pair.chosen) / len(pair.rejected) for pair in pairs],
    }
    return {name: mean_measure(name, each) for name, each in values.items()}
