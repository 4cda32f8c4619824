"""How often a random batch holds items that only look like negatives: exactly, from how often things repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearfar.data.fingerprints import Hashes, combined


@dataclass(frozen=True)
class FalseNegatives:
    """What to expect of a batch of ``batch_size`` pairs, drawn without replacement.

    ``per_batch``: expected number of in-batch negatives (the positive of another row, for each anchor) that are none,
    because the two rows have the same anchor or the same positive. ``per_anchor`` = per_batch / batch_size.
    ``share``: of all batch_size (batch_size - 1) in-batch negatives.
    """

    batch_size: int
    per_batch: float
    per_anchor: float
    share: float


def expected_false_negatives(anchors: Hashes, positives: Hashes, batch_size: int) -> FalseNegatives:
    """The expectation of false negatives among in-batch negatives, in closed form.

    Of n rows let D be the number of unordered pairs of rows with the same anchor or the same positive. With
    multiplicities a of anchors, p of positives and r of whole rows, D = sum C(a, 2) + sum C(p, 2) - sum C(r, 2). Each
    pair of rows is in a batch of b with probability b (b - 1) / (n (n - 1)), and makes two false negatives there, so

        E = 2 D b (b - 1) / (n (n - 1)).

    ``batch_size`` beyond n counts as n. Fewer than two rows have no negatives.
    """
    rows = len(anchors)
    batch = min(batch_size, rows)
    if batch < 2:
        return FalseNegatives(batch, 0.0, 0.0, 0.0)
    alike = _equal_pairs(anchors) + _equal_pairs(positives) - _equal_pairs(combined(anchors, positives))
    share = 2 * alike / (rows * (rows - 1))
    return FalseNegatives(batch, share * batch * (batch - 1), share * (batch - 1), share)


def _equal_pairs(values: Hashes) -> int:
    counts = np.unique(values, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


@dataclass(frozen=True)
class ClassBatches:
    """What to expect of a batch of ``batch_size`` labelled texts, drawn without replacement.

    ``positives_per_anchor``: expected number of others of its class in the batch, averaged over anchors. ``lonely``:
    expected number of anchors in the batch without any. ``lonely_share`` = lonely / batch_size.
    """

    batch_size: int
    positives_per_anchor: float
    lonely: float
    lonely_share: float


def expected_class_batches(counts: npt.NDArray[np.int64], batch_size: int) -> ClassBatches:
    """Expected positives per anchor, and anchors without one, from the class sizes ``counts`` ``[c]``, in closed form.

    With n items, class sizes c_k and a batch of b: an anchor of class k has (b - 1)(c_k - 1)/(n - 1) others of its
    class in expectation, and none with the hypergeometric probability C(n - c_k, b - 1) / C(n - 1, b - 1).
    """
    items = int(counts.sum())
    batch = min(batch_size, items)
    if batch < 1:
        return ClassBatches(0, 0.0, 0.0, 0.0)
    positives = lonely = 0.0
    for size in counts.tolist():
        weight = size / items
        positives += weight * (batch - 1) * (size - 1) / max(items - 1, 1)
        lonely += weight * _none_drawn(items - 1, size - 1, batch - 1)
    return ClassBatches(batch, positives, lonely * batch, lonely)


def _none_drawn(population: int, marked: int, draws: int) -> float:
    """The probability that ``draws`` out of ``population``, without replacement, hold none of the ``marked``."""
    if population - marked < draws:
        return 0.0

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    return math.exp(log_choose(population - marked, draws) - log_choose(population, draws))
