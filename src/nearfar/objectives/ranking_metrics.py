"""Ranking metrics as costs: pairs weighted by what their exchange changes, and metrics of smooth ranks."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Cosine, Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective
from nearfar.objectives.graded_columns import (
    Listed,
    OrderedPairs,
    columns_above,
    descending_ranks,
    discounts,
    gain_units,
    gains,
    has_order,
    ideal_dcg,
    listed,
    ordered_pairs,
)
from nearfar.objectives.registry import register

GAINS = ("exponential", "linear")
WEIGHTINGS = ("ndcg", "ndcg-loss1", "ndcg-loss2", "ndcg-loss2++", "dcg", "gain", "discount", "none")


@register
class LambdaRank(RowObjective):
    """LambdaRank: pairwise logistic costs weighted by the change of NDCG that an exchange makes (Burges et al., 2006).

    ``L_i = sum_{y_a > y_b} w_ab log(1 + exp(-(s_a - s_b)/T))`` over the pairs of columns of a row of different grades
    (positive weights; 0 for far columns, which count by their weight), mean over rows. With r the ranks of the present
    scores, ``D = log2(1 + r)`` and ``G = (2^y - 1) / (best DCG)``, without a gradient (LambdaLoss; Wang et al., 2018):

    - "ndcg" (default, LambdaRank): ``w = |G_a - G_b| |1/D_a - 1/D_b|``;
    - "ndcg-loss2": ``w = |G_a - G_b| |1/D(|r_a - r_b|) - 1/D(|r_a - r_b| + 1)|``, a tighter bound;
    - "ndcg-loss2++": ``mu`` times that plus LambdaRank's;
    - "ndcg-loss1": ``w = G_a / D_a``, a looser bound, over all pairs of columns of the list, equal and reversed grades
      and a column with itself (a constant log 2) included;
    - "dcg": LambdaRank's with the gain ``2^y - 1`` itself (grades above 60 gain what 60 does);
    - "gain": ``w = |2^y_a - 2^y_b|`` alone, with ``gain="linear"`` the difference of the grades; "discount":
      ``w = |1/D_a - 1/D_b|`` alone (LiPO's ablations of "dcg");
    - "none": 1, RankNet.

    Ranks are found by sorting each row, pairs begin with graded columns only: with few near columns a row, tiles take
    memory and time linear in the keys. Equal scores rank in the order of their columns. A row whose order is perfect
    still has a cost; in [0, inf).

    Alias "lipo-lambda" is rax' form, which the paper names: "dcg" weights times the length of the list, mean over all
    pairs of the batch. allRank: ``logarithm="binary", reduction="sum"``, and ``cut="both"`` with a k;
    sentence-transformers' LambdaLoss: ``"ndcg-loss2++", logarithm="binary", average="pairs"``.

    Arguments:
        weighting: see above.
        gain: "exponential" (default), ``2^y - 1``, or "linear", ``y``.
        k: only pairs with a column among the first k present ranks count, and the best DCG is that of k ranks
            (equation 18 of LambdaLoss); default None: all. ``cut="both"``: only pairs with both columns among them;
            default "either".
        mu: of "ndcg-loss2++", default 10.
        logarithm: "natural" (default), or "binary", which divides costs by log 2, as the paper prints them.
        average: "rows" (default): the mean over rows of their sum; "pairs": the mean over all pairs of the batch.
        times_length: multiply weights by the number of columns of the list (default False).
        temperature: 1 / sigma, default 1; ``score``, ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "lambda-rank"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "lambda-loss": {"weighting": "ndcg-loss2++"},
        "lipo-lambda": {"weighting": "dcg", "average": "pairs", "times_length": True},
    }
    formula = "sum_{y_a > y_b} |G_a - G_b| |1/D_a - 1/D_b| log(1 + exp(-(s_a - s_b)/T))"
    paper = (
        "Burges 2006, Learning to Rank with Nonsmooth Cost Functions; Wang 2018, The LambdaLoss Framework for Ranking "
        "Metric Optimization"
    )
    default_temperature = 1.0

    def __init__(
        self,
        weighting: str = "ndcg",
        *,
        gain: str = "exponential",
        k: int | None = None,
        cut: str = "either",
        mu: float = 10.0,
        logarithm: str = "natural",
        average: str = "rows",
        times_length: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        for argument, value, allowed in (
            ("weighting", weighting, WEIGHTINGS),
            ("gain", gain, GAINS),
            ("cut", cut, ("either", "both")),
            ("logarithm", logarithm, ("natural", "binary")),
            ("average", average, ("rows", "pairs")),
        ):
            if value not in allowed:
                raise UsageError(f"lambda-rank: {argument} must be one of {', '.join(allowed)}, got {value!r}")
        _check_k("lambda-rank", k)
        if not 0 <= mu < math.inf:
            raise UsageError(f"lambda-rank: mu must be a finite number >= 0, got {mu}")
        self.weighting = weighting
        self.gain = gain
        self.k = k
        self.cut = cut
        self.mu = mu
        self.logarithm = logarithm
        self.average = average
        self.times_length = times_length

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        lists = listed(scores, positive, negative)
        pairs, ranks = self._pairs(lists)
        cost = (pairs.weight * self._change(lists, pairs, ranks) * F.softplus(-pairs.difference)).sum((1, 2))
        if self.times_length:
            cost = cost * lists.inside.sum(1)
        if self.logarithm == "binary":
            cost = cost / math.log(2)
        return cost / _at_least_tiny(self._count(lists, pairs, ranks)) if self.average == "pairs" else cost

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (positive > 0).any(1) if self.weighting == "ndcg-loss1" else has_order(positive, negative)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        lists = listed(scores, positive, negative)
        return self._count(lists, *self._pairs(lists))

    def arrays(self, positives: int) -> float:
        return 16.0 + 12.0 * positives

    def _pairs(self, lists: Listed) -> tuple[OrderedPairs, Tensor]:
        """The pairs that count and have a cost, and the ranks ``[t, c]`` of all columns."""
        ranks = descending_ranks(lists.scores, lists.inside)
        pairs = ordered_pairs(lists)
        if self.weighting == "ndcg-loss1":
            pairs = pairs._replace(weight=lists.weight[:, None, :].expand_as(pairs.weight))
        if self.k is not None:
            first = ranks <= self.k
            own, other = first.gather(1, pairs.higher)[:, :, None], first[:, None, :]
            pairs = pairs._replace(weight=pairs.weight * (own & other if self.cut == "both" else own | other))
        return pairs, ranks

    def _count(self, lists: Listed, pairs: OrderedPairs, ranks: Tensor) -> Tensor:
        """The weight ``[t]`` of all pairs of a list that count."""
        if self.weighting != "ndcg-loss1":
            return pairs.weight.sum((1, 2))
        every = lists.weight.sum(1)  # pairs that begin with a column of grade 0 count and have no cost
        first = every if self.k is None else (lists.weight * (ranks <= self.k)).sum(1)
        return first.square() if self.cut == "both" else every.square() - (every - first).square()

    def _change(self, lists: Listed, pairs: OrderedPairs, ranks: Tensor) -> Tensor | float:
        """The weight ``[t, p, c]`` of each pair, without a gradient."""
        if self.weighting == "none":
            return 1.0
        own = ranks.gather(1, pairs.higher)[:, :, None]
        exchanged = (discounts(own) - discounts(ranks)[:, None, :]).abs()
        if self.weighting == "discount":
            return exchanged
        gain = gains(lists.grade, self.gain)
        if self.weighting in ("dcg", "gain"):
            gain = gain * gain_units(lists.grade, self.gain)
        else:
            gain = gain / ideal_dcg(gain.gather(1, pairs.higher), self.k)
        own_gain = gain.gather(1, pairs.higher)[:, :, None]
        if self.weighting == "ndcg-loss1":
            return own_gain * discounts(own)
        gained = (own_gain - gain[:, None, :]).abs()
        if self.weighting in ("ndcg", "dcg"):
            return gained * exchanged
        if self.weighting == "gain":
            return gained
        apart = (own - ranks[:, None, :]).abs().clamp_min(1)  # a column makes no pair with itself
        moved = discounts(apart) - discounts(apart + 1)
        return gained * (moved if self.weighting == "ndcg-loss2" else self.mu * moved + exchanged)


class SmoothRankObjective(RowObjective):
    """Base of metrics of smooth ranks: ``rank_i = 1 + sum_{j != i} sigmoid((s_j - s_i)/T)`` among a row's columns."""

    def beats(self, lists: Listed, columns: Tensor) -> Tensor:
        """How far ``[t, p, c]`` (0 to 1, times its weight) each column of the list stands above the ``columns [t, p]``;
        0 above itself."""
        own = lists.scores.gather(1, columns)
        above = torch.sigmoid(lists.scores[:, None, :] - own[:, :, None]) * lists.weight[:, None, :]
        return above.scatter(2, columns[:, :, None], 0.0)

    def arrays(self, positives: int) -> float:
        return 12.0 + 6.0 * positives


@register
class ApproxNDCG(SmoothRankObjective):
    """ApproxNDCG: 1 - NDCG with smooth ranks (Qin et al., 2010; Bruch et al., 2019).

    ``L_i = 1 - sum_j G_ij / log2(1 + rank_ij) / (best DCG)``, ``rank_ij = 1 + sum_{k != j} sigmoid((s_ik - s_ij)/T)``,
    ``G = 2^y - 1``, over the near and far columns of a row; mean over rows. y is the positive weight, 0 for far
    columns, which count in ranks by their weight. In [0, 1); at T -> 0 it is 1 - NDCG. rax and TensorFlow Ranking give
    -NDCG.

    Only columns with a gain need their rank: with few near columns a row, tiles are linear in the keys.

    Arguments: ``gain``: "exponential" (default) or "linear", ``y`` itself; ``temperature`` default 0.1 (Bruch 2019 and
    TensorFlow Ranking; rax has 1); ``score``, ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "approx-ndcg"
    formula = "1 - sum_j G_j / log2(2 + sum_{k != j} sigmoid((s_k - s_j)/T)) / (best DCG)"
    paper = "Qin 2010, A General Approximation Framework for Direct Optimization of Information Retrieval Measures"
    default_temperature = 0.1

    def __init__(
        self,
        *,
        gain: str = "exponential",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if gain not in GAINS:
            raise UsageError(f"approx-ndcg: gain must be one of {', '.join(GAINS)}, got {gain!r}")
        self.gain = gain

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return has_order(positive, negative)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        lists = listed(scores, positive, negative)
        graded = columns_above(lists)
        gain = gains(lists.grade, self.gain).gather(1, graded)
        rank = 1 + self.beats(lists, graded).sum(2)
        return 1 - ((gain / ideal_dcg(gain, None)) * discounts(rank)).sum(1)


@register
class SmoothAP(SmoothRankObjective):
    """Smooth-AP: 1 - average precision with smooth ranks (Brown et al., 2020).

    ``L_i = 1 - 1/|P| sum_{j in P} [1 + sum_{k in P, k != j} g_kj] / [1 + sum_{k in P or N, k != j} g_kj]``,
    ``g_kj = sigmoid((s_ik - s_ij)/T)``; mean over rows. Grades do not matter beyond > 0; far columns count by their
    weight. In [0, 1). At the paper's T gradients vanish for scores far apart.

    The paper and the released code count the anchor among its own positives (``own=True``: a column of cosine 1, which
    needs the score "cosine"); the default leaves it out, as retrieval evaluates. pytorch-metric-learning's SmoothAPLoss
    is ``own=True`` where there are as many classes as items a class; elsewhere it takes wrong positives.

    Arguments: ``own``, default False; ``temperature`` default 0.01 (the paper's); ``score``, ``two_sided``,
    ``reduction`` as in InfoNCE.
    """

    name = "smooth-ap"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"ap-loss": {}}
    formula = "1 - mean_j [1 + sum_{k near} sigmoid((s_k - s_j)/T)] / [1 + sum_{k all} sigmoid((s_k - s_j)/T)]"
    paper = "Brown 2020, Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, arXiv:2007.12163"
    default_temperature = 0.01

    def __init__(
        self,
        *,
        own: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if own and not isinstance(self.score, Cosine):
            raise UsageError("smooth-ap: own=True needs the score 'cosine', by which an item's score with itself is 1")
        self.own = own

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.own:
            scores, positive, negative = self._with_itself(scores, positive, negative)
        lists = listed(scores, positive, negative)
        near = columns_above(lists)
        counts = lists.grade.gather(1, near) > 0
        beats = self.beats(lists, near)
        precision = (1 + (beats * (lists.grade > 0)[:, None, :]).sum(2)) / (1 + beats.sum(2))
        return 1 - (precision * counts).sum(1) / counts.sum(1)

    def _with_itself(self, scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.temperature is not None
        one = torch.ones_like(scores[:, :1]) * self.temperature.scale()
        return (
            torch.cat([scores, one], 1),
            torch.cat([positive, torch.ones_like(positive[:, :1])], 1),
            torch.cat([negative, torch.zeros_like(negative[:, :1])], 1),
        )


def _check_k(name: str, k: int | None) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise UsageError(f"{name}: k must be a whole number >= 1 or None, got {k!r}")


def _at_least_tiny(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)
