"""The columns of a row as a ranked list: graded, some of them above others.

A column with a positive weight is in the list with that weight as its grade and counts once; a column with a negative
weight alone is in the list with grade 0 and counts by that weight; all other columns are not in the list.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.contrast.relation import candidates


class Listed(NamedTuple):
    """The lists of ``t`` rows, moved to the left where that saves columns."""

    scores: Tensor
    """``[t, c]``."""
    grade: Tensor
    """``[t, c]``, >= 0."""
    weight: Tensor
    """``[t, c]``, how often a column counts; 0 outside the list."""

    @property
    def inside(self) -> Tensor:
        return self.weight > 0

    def take(self, columns: Tensor) -> Listed:
        """The columns ``[t, k]`` of each row."""
        return Listed(*(values.gather(1, columns) for values in self))


def listed(scores: Tensor, positive: Tensor, negative: Tensor) -> Listed:
    """The list of each row, at most as wide as the longest of them needs."""
    weight = candidates(positive, negative)
    whole = Listed(scores, positive.to(scores.dtype), weight.to(scores.dtype))
    columns = columns_with(weight)
    return whole if columns is None else whole.take(columns)


def columns_with(weight: Tensor) -> Tensor | None:
    """The columns ``[t, k]`` that have a weight, and some that have none; None where that saves little."""
    chosen = weight > 0
    count = int(chosen.sum(1).max())
    if 2 * count > weight.shape[1]:
        return None
    return chosen.to(torch.uint8).topk(count, dim=1).indices.sort(1).values  # in the order they had


class OrderedPairs(NamedTuple):
    """All pairs of columns of a row of which the first is graded above the second."""

    higher: Tensor
    """``[t, p]``, columns of the list that may stand above others: those with a grade > 0."""
    difference: Tensor
    """``[t, p, c]``, the first score less the second."""
    weight: Tensor
    """``[t, p, c]``, the weight of the second column; 0 where the first is not graded above it."""


def ordered_pairs(lists: Listed) -> OrderedPairs:
    """The pairs in order; memory for those that begin with a graded column alone."""
    higher = columns_above(lists)
    scores, grade = lists.scores.gather(1, higher), lists.grade.gather(1, higher)
    difference = scores[:, :, None] - lists.scores[:, None, :]
    above = grade[:, :, None] > lists.grade[:, None, :]
    return OrderedPairs(higher, difference, above * lists.weight[:, None, :])


def columns_above(lists: Listed) -> Tensor:
    """The columns ``[t, p]`` with a grade > 0, before others; p is at least 1."""
    graded = lists.grade > 0
    count = max(1, int(graded.sum(1).max()))
    return graded.to(torch.uint8).topk(count, dim=1).indices


def has_order(positive: Tensor, negative: Tensor) -> Tensor:
    """Which lists ``[t]`` hold two columns of different grades."""
    inside = (positive > 0) | (negative > 0)
    grade = positive if positive.is_floating_point() else positive.to(torch.float32)
    highest = grade.masked_fill(~inside, -torch.inf).amax(1)
    lowest = grade.masked_fill(~inside, torch.inf).amin(1)
    return highest > lowest


def descending_ranks(values: Tensor, inside: Tensor) -> Tensor:
    """The rank ``[t, c]`` (1 the highest, as a float) of each value among those of its list, equal ones in the order of
    their columns; columns outside the list come last. Without a gradient."""
    with torch.no_grad():
        order = values.masked_fill(~inside, -torch.inf).sort(dim=1, descending=True, stable=True).indices
        place = torch.arange(1, values.shape[1] + 1, dtype=values.dtype, device=values.device)
        return torch.empty_like(values).scatter_(1, order, place.expand_as(values))


def gains(grade: Tensor, form: str) -> Tensor:
    """``2^y - 1`` ("exponential") or ``y`` ("linear"), divided by ``2^max`` and by the row's highest grade so that
    nothing overflows: gains up to a factor a row, see :func:`gain_units`."""
    highest = _highest(grade)
    if form == "linear":
        return grade / highest
    return -torch.expm1(-math.log(2) * grade) * torch.exp2(grade - highest)


def gain_units(grade: Tensor, form: str) -> Tensor:
    """The factor ``[t, 1]`` that :func:`gains` leaves out, held at 2^60."""
    highest = _highest(grade)
    return highest if form == "linear" else torch.exp2(highest.clamp_max(60.0))


def discounts(ranks: Tensor) -> Tensor:
    """``1 / log2(1 + rank)``."""
    return torch.log2(1 + ranks).reciprocal()


def ideal_dcg(gain: Tensor, k: int | None) -> Tensor:
    """The highest DCG ``[t, 1]`` (of the first ``k`` ranks) that the gains ``[t, p]`` allow; > 0."""
    best = gain.sort(1, descending=True).values[:, :k]
    places = torch.arange(1, best.shape[1] + 1, dtype=gain.dtype, device=gain.device)
    return (best * discounts(places)).sum(1, keepdim=True).clamp_min(torch.finfo(gain.dtype).tiny)


def _highest(grade: Tensor) -> Tensor:
    return grade.amax(1, keepdim=True).clamp_min(torch.finfo(grade.dtype).tiny)
