"""Margins on pairs: near pairs nearer than one boundary, far pairs farther than another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nearfar.contrast.engine import Report
from nearfar.contrast.score import Cosine, Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, weighted_mean
from nearfar.objectives.composed import ComposedObjective, Embedded, Side, Way, with_gradient_of_all
from nearfar.objectives.registry import register

LEAST = 1e-20
"""Weight of a row without a counted far pair: nothing beside a pair, yet enough to keep what all rows share."""


def distances(score: Score, scores: Tensor) -> Tensor:
    """The distances that scores stand for: 1 - cosine, or minus the score."""
    return 1 - scores if isinstance(score, Cosine) else -scores


class PairObjective(RowObjective):
    """Base of objectives with a cost of each near and of each far pair by itself.

    ``average``: "all" is the mean over near and far pairs together; "sides" the mean over near pairs plus the mean over
    far pairs; "active" that over pairs with a cost. In the last two, weights of near pairs count as 1.
    """

    needs_negative = False

    def __init__(
        self,
        average: str = "all",
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if average not in ("all", "sides", "active"):
            raise UsageError(f"{self.name}: average must be 'all', 'sides' or 'active', got {average!r}")
        self.average = average
        self.needs_positive_scores = average != "all"

    def near(self, scores: Tensor) -> Tensor:
        """The costs of near pairs with these scores."""
        raise NotImplementedError

    def far(self, scores: Tensor) -> Tensor:
        """The costs of far pairs with these scores."""
        raise NotImplementedError

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        costs = self.near(scores)
        return {"pull": costs.sum() / self._counted(costs).sum().clamp_min(1)}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        pushed = _total(self.far, scores, negative)
        if self.average == "all":
            return (_total(self.near, scores, positive) + pushed) / (_sum(positive, scores) + _sum(negative, scores))
        return state["pull"] + pushed / self.weights(scores.detach(), positive, negative)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "all":
            return _sum(positive, scores) + _sum(negative, scores)
        return _sum(negative * self._counted(self.far(scores)), scores).clamp_min(LEAST)

    def _counted(self, costs: Tensor) -> Tensor:
        return costs.detach() > 0 if self.average == "active" else torch.ones_like(costs, dtype=torch.bool)


def _total(cost: Callable[[Tensor], Tensor], scores: Tensor, weight: Tensor) -> Tensor:
    """``sum_j weight_ij cost(s_ij)``, ``[t]``."""
    return (cost(scores) * weight.to(scores.dtype)).sum(1)


def _sum(weight: Tensor, like: Tensor) -> Tensor:
    return weight.to(like.dtype).sum(1)


@register
class Contrastive(PairObjective):
    """Contrastive loss on single pairs (Hadsell et al., 2006; Chopra et al., 2005).

    ``form="hadsell"`` (default): ``D^2 / 2`` of a near pair, ``max(0, margin - D)^2 / 2`` of a far one.
    ``form="linear"``: ``max(0, D - positive_margin)`` and ``max(0, margin - D)`` (pytorch-metric-learning).
    ``form="chopra"``: ``(2/Q) D^2`` and ``2 Q exp(-2.77 D / Q)``, Q the largest distance there can be.
    D is minus the score, by default the Euclidean distance; with score "cosine" 1 - cos. In [0, inf).

    Arguments:
        form: see above.
        margin: >= 0, default 1 (a unit in the paper; on normalised vectors, where D <= 2, the usual value). Far pairs
            beyond it cost nothing. Distances of unnormalised embeddings grow with their dimension: normalise them
            (score "negative-normalized-euclidean") or raise the margin.
        positive_margin: >= 0, default 0: near pairs below it cost nothing (not in the paper).
        largest: Q of "chopra", > 0, default 2 (normalised vectors; Chopra takes the L1 distance).
        average: "all" (default): mean over all pairs; many easy far pairs then wash out the signal of the rest.
            "sides": mean over near plus mean over far pairs. "active": the same over pairs that have a cost
            (pytorch-metric-learning with form="linear" and normalised embeddings).
        score: default "negative-euclidean"; and ``two_sided`` and ``reduction`` as in :class:`InfoNCE`.

    Rows need a near or a far pair, not both. sentence-transformers' ContrastiveLoss is score="cosine", margin=0.5 on
    the pairs it is given. Among themselves, items meet twice, once as the anchor each, which changes no mean. The
    gradient of D at distance 0 is 0. With "sides" and "active", ``reduction="none"`` gives each row's far pairs plus
    the mean over all near pairs. Raises UsageError for margins below 0 and unknown names.
    """

    name = "contrastive"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "contrastive-hadsell": {},
        "contrastive-chopra": {"form": "chopra"},
    }
    formula = "D_p^2 / 2 of near, max(0, margin - D_n)^2 / 2 of far pairs"
    paper = (
        "Hadsell 2006, Dimensionality Reduction by Learning an Invariant Mapping; Chopra 2005, Learning a Similarity "
        "Metric Discriminatively"
    )
    default_score = "negative-euclidean"

    def __init__(
        self,
        form: str = "hadsell",
        *,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        largest: float = 2.0,
        average: str = "all",
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(average, score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("hadsell", "linear", "chopra"):
            raise UsageError(f"{self.name}: form must be 'hadsell', 'linear' or 'chopra', got {form!r}")
        for label, value in (("margin", margin), ("positive_margin", positive_margin)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{self.name}: {label} must be a finite number >= 0, got {value}")
        if not 0 < largest < float("inf"):
            raise UsageError(f"{self.name}: largest must be a finite number > 0, got {largest}")
        self.form = form
        self.margin = margin
        self.positive_margin = positive_margin
        self.largest = largest

    def near(self, scores: Tensor) -> Tensor:
        distance = distances(self.score, scores)
        if self.form == "chopra":
            return 2 / self.largest * distance.square()
        beyond = (distance - self.positive_margin).relu()
        return beyond if self.form == "linear" else beyond.square() / 2

    def far(self, scores: Tensor) -> Tensor:
        distance = distances(self.score, scores)
        if self.form == "chopra":
            return 2 * self.largest * (-2.77 / self.largest * distance).exp()
        within = (self.margin - distance).relu()
        return within if self.form == "linear" else within.square() / 2


@register
class SNR(Contrastive):
    """Contrastive loss on the noise-to-signal ratio of a pair (Yuan et al., 2019).

    ``max(0, D_p - positive_margin)`` of near, ``max(0, margin - D_n)`` of far pairs, with
    ``D_ij = Var(x_i - x_j) / Var(x_i)`` of normalised x, variances over the coordinates. Not symmetric: the anchor is
    the signal. Near pairs must be alike in what varies, far pairs differ by more than the anchor's own variance.

    Arguments:
        average: default "sides", the mean over near plus the mean over far pairs; "active" is that of
            pytorch-metric-learning. See :class:`Contrastive`.
        margin: >= 0, default 1; positive_margin: >= 0, default 0 (pytorch-metric-learning's; the paper tunes it).
        two_sided, reduction: as in :class:`InfoNCE`.

    An anchor whose coordinates are all alike (a zero vector) has no signal: its distances are 0, without a gradient.
    The paper's penalty on the mean of the features is left out, as in peers.
    """

    name = "snr"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"snr-contrastive": {}, "signal-to-noise-ratio-contrastive": {}}
    formula = "max(0, D_p - positive_margin) + max(0, margin - D_n), D_ij = Var(x_i - x_j) / Var(x_i)"
    paper = "Yuan 2019, Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, arXiv:1904.02616"
    default_score = "negative-snr"

    def __init__(
        self,
        average: str = "sides",
        *,
        margin: float = 1.0,
        positive_margin: float = 0.0,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            "linear",
            margin=margin,
            positive_margin=positive_margin,
            average=average,
            two_sided=two_sided,
            reduction=reduction,
        )


@register
class Margin(RowObjective):
    """Margin loss: near pairs inside, far pairs outside a boundary that may be learned (Wu et al., 2017).

    ``max(0, D_p - beta + margin)`` of near and ``max(0, beta - D_n + margin)`` of far pairs, over the number of pairs
    that have a cost; plus ``nu * beta`` when beta is learned. D by default the Euclidean distance of normalised
    vectors, in [0, 2].

    Arguments:
        margin: >= 0, default 0.2; beta: the boundary, default 1.2 (both the paper's).
        learned: whether beta is a parameter. One beta for all; the paper also lets it vary by class and by item.
        nu: >= 0, default 0: its weight in the loss, so that beta does not grow for the far pairs' sake.
        average: "pairs" (default): each pair counts once, as in the paper. "triplets": each pair counts as often as
            there are triplets (anchor, near, far) that hold it (pytorch-metric-learning over all triplets).
        score: default "negative-normalized-euclidean"; ``two_sided`` and ``reduction`` as in :class:`InfoNCE`.

    The paper draws far pairs by distance; here all of the batch count. Anchors need a near and a far pair.
    """

    name = "margin"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"margin-loss": {}}
    formula = "max(0, D_p - beta + margin) + max(0, beta - D_n + margin)"
    paper = "Wu 2017, Sampling Matters in Deep Embedding Learning, arXiv:1706.07567"
    default_score = "negative-normalized-euclidean"

    def __init__(
        self,
        average: str = "pairs",
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        learned: bool = False,
        nu: float = 0.0,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if average not in ("pairs", "triplets"):
            raise UsageError(f"margin: average must be 'pairs' or 'triplets', got {average!r}")
        for label, value in (("margin", margin), ("nu", nu)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"margin: {label} must be a finite number >= 0, got {value}")
        self.average = average
        self.margin = margin
        self.nu = nu
        self.learned = learned
        self.beta: Tensor | float = nn.Parameter(torch.tensor(float(beta))) if learned else float(beta)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near, far, pairs = self._costs(scores, positive, negative)
        regularizer = self.nu * self.beta if self.learned else 0.0
        return (near + far).sum(1) / pairs.clamp_min(torch.finfo(scores.dtype).tiny) + regularizer

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self._costs(scores, positive, negative)[2].detach()

    def _costs(self, scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted costs ``[t, m]`` of near and of far pairs, and how many of a row ``[t]`` have one."""
        distance = distances(self.score, scores)
        positive, negative = positive.to(scores.dtype), negative.to(scores.dtype)
        if self.average == "triplets":
            near_count, far_count = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)
            positive, negative = positive * far_count, negative * near_count
        near = (distance - self.beta + self.margin).relu()
        far = (self.beta - distance + self.margin).relu()
        return near * positive, far * negative, (positive * (near > 0) + negative * (far > 0)).sum(1)


@register
class IntraPairVariance(ComposedObjective):
    """Intra-pair variance: near pairs alike in their similarity, and far pairs too (Yu & Tao, 2019).

    ``max(0, (1 - eps) M_p - s_p)^2`` of near and ``max(0, s_n - (1 + eps) M_n)^2`` of far pairs, mean over near plus
    mean over far pairs, with M the mean similarity of all near, of all far pairs of the batch. A regulariser beside a
    margin loss (the paper adds it to the tuplet margin loss): alone it does not pull near and far apart.

    Arguments:
        positive_eps, negative_eps: >= 0, default 0.01 (the paper's).
        score: default "cosine"; ``two_sided`` and ``reduction`` as in :class:`InfoNCE`.

    Weights of the relation count for the far pairs, not for the near ones. The means carry a gradient, as in peers.
    Where all far pairs are on average opposite (M_n < 0), the factor 1 + eps lowers the boundary, as printed.
    """

    name = "intra-pair-variance"
    formula = (
        "max(0, (1 - eps) M_p - s_p)^2 + max(0, s_n - (1 + eps) M_n)^2, M the mean scores of near and of far pairs"
    )
    paper = "Yu 2019, Deep Metric Learning with Tuplet Margin Loss (ICCV 2019)"
    needs_negative = False

    def __init__(
        self,
        positive_eps: float = 0.01,
        negative_eps: float = 0.01,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        for label, value in (("positive_eps", positive_eps), ("negative_eps", negative_eps)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"intra-pair-variance: {label} must be a finite number >= 0, got {value}")
        self.positive_eps = positive_eps
        self.negative_eps = negative_eps

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        key = None if side.self_contrast else side.key
        mean_far, _ = way.evaluate(_MeanFar(self.score), side.query, key, side.relation)
        part = _Variance(self, with_gradient_of_all(mean_far, way.group))
        return way.evaluate(part, side.query, key, side.relation)


class _MeanFar(RowObjective):
    """The mean score of all far pairs, of embeddings that ``score`` has embedded."""

    def __init__(self, score: Score) -> None:
        super().__init__(score=Embedded(score))

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (negative > 0).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return weighted_mean(scores, negative)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return _sum(negative, scores)


class _Variance(PairObjective):
    name = "intra-pair-variance"

    def __init__(self, whole: IntraPairVariance, mean_far: Tensor) -> None:
        super().__init__("sides", score=Embedded(whole.score), reduction=whole.reduction)
        self.positive_eps, self.negative_eps, self.mean_far = whole.positive_eps, whole.negative_eps, mean_far

    def near(self, scores: Tensor) -> Tensor:
        mean = scores.sum() / max(scores.numel(), 1)
        return ((1 - self.positive_eps) * mean - scores).relu().square()

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        return {**super().prepare(scores, rows, count), "mean_far": self.mean_far}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        pushed = (scores - (1 + self.negative_eps) * state["mean_far"]).relu().square()
        weight = negative.to(scores.dtype)
        return state["pull"] + (pushed * weight).sum(1) / weight.sum(1).clamp_min(LEAST)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return _sum(negative, scores).clamp_min(LEAST)
