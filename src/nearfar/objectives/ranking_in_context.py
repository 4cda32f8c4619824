"""Preference for a list within one response: each item against all others of its list."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, masked
from nearfar.objectives.graded_columns import Listed, descending_ranks, discounts, gain_units, gains, listed
from nearfar.objectives.registry import register


@register
class IRPO(RowObjective):
    """In-context ranking preference optimisation: each item of a list above all others, by its gain (Wu et al., 2025).

    ``L_i = 1/n sum_j w_j log(1 + mean_{k != j} exp((r_k - r_j)/T))`` over the n near and far columns of a row, r their
    implicit rewards (mean log-ratios of an item's tokens), mean over rows. ``w_j`` is, with y the grade (positive
    weight, 0 for far columns) and t the target rank, by ``weighting``,

    - "dcg" (default, the paper's): ``(2^y - 1) / log2(1 + t)`` (grades above 60 gain what 60 does);
    - "discount": ``1 / log2(1 + t)``; "gain-over-rank": ``(2^y - 1) / t`` (its ablations).

    Target ranks follow the grades, columns of equal grade sharing the mean of the weights of their ranks;
    ``targets="columns"``: the columns stand in their target order, as in the official code.

    The paper sums over k, the official code takes the mean of the others, which is what is written here, since with the
    sum the cost has no bound as lists grow; they differ by log(n - 1) within the log. The code hides k = j by taking
    100 off its difference before dividing by T, which leaks at large T; here it is left out, unless ``own="lowered"``.
    The code sums over lists: ``reduction="sum"``. A list of one column leaves the mean, and so does one without a
    grade, except under "discount" with ``targets="columns"``, which weighs its columns all the same. In [0, inf).

    Arguments: ``weighting``; ``targets``: "grades" (default) or "columns"; ``own``: "left-out" (default) or "lowered",
    the code's; ``temperature``: 1 / beta, default 1 (the paper's); ``score``, ``two_sided``, ``reduction`` as in
    InfoNCE. A far column counts by its weight.
    """

    name = "irpo"
    formula = "1/n sum_j (2^y_j - 1)/log2(1 + t_j) log(1 + mean_{k != j} exp((r_k - r_j)/T))"
    paper = "Wu 2025, In-context Ranking Preference Optimization, arXiv:2504.15477"
    default_temperature = 1.0
    weightings: ClassVar[tuple[str, ...]] = ("dcg", "discount", "gain-over-rank")

    def __init__(
        self,
        weighting: str = "dcg",
        *,
        targets: str = "grades",
        own: str = "left-out",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if weighting not in self.weightings:
            raise UsageError(f"irpo: weighting must be one of {', '.join(self.weightings)}, got {weighting!r}")
        if targets not in ("grades", "columns"):
            raise UsageError(f"irpo: targets must be 'grades' or 'columns', got {targets!r}")
        if own not in ("left-out", "lowered"):
            raise UsageError(f"irpo: own must be 'left-out' or 'lowered', got {own!r}")
        if own == "lowered" and self.temperature is not None and self.temperature.individual:
            raise UsageError("irpo: own='lowered' needs one temperature for all items")
        self.weighting = weighting
        self.targets = targets
        self.own = own

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        lists = listed(scores, positive, negative)
        others, count = _other_columns(lists)
        if self.own == "lowered":
            assert self.temperature is not None
            others = torch.logaddexp(others, lists.scores - 100 * self.temperature.scale())
        margin = others - count.clamp_min(torch.finfo(count.dtype).tiny).log() - lists.scores
        cost = F.softplus(margin).masked_fill(~lists.inside | (count <= 0), 0)
        return (lists.weight * self._weight(lists) * cost).sum(1) / lists.weight.sum(1)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        near = positive > 0
        several = (near | (negative > 0)).sum(1) > 1
        return several if self.weighting == "discount" and self.targets == "columns" else several & near.any(1)

    def arrays(self, positives: int) -> float:
        return 32.0

    def _weight(self, lists: Listed) -> Tensor:
        """``w [t, c]``, without a gradient."""
        by = lists.grade if self.targets == "grades" else torch.zeros_like(lists.grade)
        rank = descending_ranks(by, lists.inside)
        position = rank.reciprocal() if self.weighting == "gain-over-rank" else discounts(rank)
        if self.targets == "grades":
            position = _mean_of_ties(position, by, lists.inside)
        if self.weighting == "discount":
            return position
        return position * gains(lists.grade, "exponential") * gain_units(lists.grade, "exponential")


def _other_columns(lists: Listed) -> tuple[Tensor, Tensor]:
    """``log sum_{k != j} w_k exp(s_k)`` and ``sum_{k != j} w_k``, ``[t, c]``, over the columns before and after j."""
    nothing = torch.finfo(lists.scores.dtype).min / 4  # a cumulative log-sum-exp that begins with -inf has no gradient
    weighted = masked(lists.scores, lists.weight).masked_fill(~lists.inside, nothing)
    edge = torch.full_like(weighted[:, :1], nothing)
    before = torch.cat([edge, torch.logcumsumexp(weighted, 1)[:, :-1]], 1)
    after = torch.cat([torch.logcumsumexp(weighted.flip(1), 1).flip(1)[:, 1:], edge], 1)
    count = F.pad(lists.weight.cumsum(1)[:, :-1], (1, 0)) + F.pad(lists.weight.flip(1).cumsum(1).flip(1)[:, 1:], (0, 1))
    return torch.logaddexp(before, after), count


def _mean_of_ties(values: Tensor, by: Tensor, inside: Tensor) -> Tensor:
    """``values [t, c]``, those of columns of a list that are equal in ``by`` replaced by their mean."""
    ordered, order = by.masked_fill(~inside, -torch.inf).sort(dim=1, stable=True)
    total = F.pad(values.gather(1, order).cumsum(1), (1, 0))
    first = torch.searchsorted(ordered, ordered)
    last = torch.searchsorted(ordered, ordered, right=True)
    mean = (total.gather(1, last) - total.gather(1, first)) / (last - first)
    return torch.empty_like(values).scatter_(1, order, mean)
