"""Margins on whole rows: all near and all far items of an anchor weighed against each other."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, compact, log_sum_exp, masked
from nearfar.objectives.margin_pairs import distances
from nearfar.objectives.registry import register


def log_one_plus(scores: Tensor, weight: Tensor) -> Tensor:
    """``log(1 + sum_j weight_ij exp(s_ij))``, ``[t]``; 0 for a row without a weight."""
    return torch.logsumexp(F.pad(masked(scores, weight), (0, 1)), dim=1)


def cosine_of_sum(cosine: Tensor, angle: float) -> Tensor:
    """``cos(theta + angle)`` of the angle theta in [0, pi] with that cosine.

    The derivative of the sine is infinite at theta 0 and pi: closer to them than the number format tells apart, the
    sine is 0, without a gradient.
    """
    square = 1 - cosine.square()
    apart = square > torch.finfo(cosine.dtype).eps
    sine = torch.where(apart, torch.where(apart, square, 1).sqrt(), 0)
    return cosine * math.cos(angle) - sine * math.sin(angle)


@register
class MultiSimilarity(RowObjective):
    """Multi-similarity loss with its mining (Wang et al., 2019).

    ``1/alpha log(1 + sum_p exp(-alpha (s_ip - base))) + 1/beta log(1 + sum_n exp(beta (s_in - base)))``, where of an
    anchor's pairs only the informative ones count: far ones with ``s_in > min_p s_ip - epsilon``, near ones with
    ``s_ip < max_n s_in + epsilon``. In [0, inf).

    Arguments:
        alpha, beta: > 0, default 2 and 50 (the paper's).
        base: lambda, default 1 (the paper's; its code and pytorch-metric-learning have 0.5, the code beta 40).
        epsilon: the margin of the mining, default 0.1 (the paper's); None: no mining, all pairs count.
        score: default "cosine"; ``two_sided`` and ``reduction`` as in :class:`InfoNCE`.

    With mining, anchors need a near and a far pair; one all of whose pairs are well placed costs 0 and counts in the
    mean. Without mining an anchor needs any pair: what lacks near ones still pushes (as in pytorch-metric-learning,
    whose mean is over all items).
    """

    name = "multi-similarity"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"ms-loss": {}}
    formula = "1/alpha log(1 + sum_p exp(-alpha (s_ip - base))) + 1/beta log(1 + sum_n exp(beta (s_in - base)))"
    paper = "Wang 2019, Multi-Similarity Loss with General Pair Weighting, arXiv:1904.06627"
    needs_negative = False

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 1.0,
        *,
        epsilon: float | None = 0.1,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        for label, value in (("alpha", alpha), ("beta", beta)):
            if not 0 < value < float("inf"):
                raise UsageError(f"multi-similarity: {label} must be a finite number > 0, got {value}")
        if epsilon is not None and not 0 <= epsilon < float("inf"):
            raise UsageError(f"multi-similarity: epsilon must be None or a finite number >= 0, got {epsilon}")
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        near, far = (positive > 0).any(1), (negative > 0).any(1)
        return near | far if self.epsilon is None else near & far

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.epsilon is not None:
            positive, negative = self._mined(scores.detach(), positive, negative, self.epsilon)
        pull = log_one_plus(-self.alpha * (scores - self.base), positive) / self.alpha
        push = log_one_plus(self.beta * (scores - self.base), negative) / self.beta
        return pull + push

    def _mined(self, scores: Tensor, positive: Tensor, negative: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        farthest = masked(-scores, positive > 0).amax(1, keepdim=True).neg()
        nearest = masked(scores, negative > 0).amax(1, keepdim=True)
        return (
            positive.masked_fill(scores >= nearest + epsilon, 0),
            negative.masked_fill(scores <= farthest - epsilon, 0),
        )


@register
class Circle(RowObjective):
    """Circle loss: each similarity is pulled the harder the farther it is from its optimum (Sun et al., 2020).

    ``softplus( LSE_n(gamma a_n (s_in - m)) + LSE_p(-gamma a_p (s_ip - (1 - m))) )`` with ``a_n = max(0, s_in + m)`` and
    ``a_p = max(0, 1 + m - s_ip)``, both without a gradient. In (0, inf).

    Arguments:
        m: the relaxation, default 0.25; gamma: the scale, > 0, default 256 (both the paper's for faces; 0.25 and 128
            for persons, 0.4 and 80 for fine-grained retrieval, which is pytorch-metric-learning's default).
        score: default "cosine", which the optima 1 and 0 are meant for; ``two_sided`` and ``reduction`` as in
            :class:`InfoNCE`.

    Anchors need a near and a far pair. Peers average over the anchors with a cost above 0; it is never 0, unless it
    lies below what the number format can tell.
    """

    name = "circle"
    formula = "softplus( LSE_n(gamma a_n (s_in - m)) + LSE_p(-gamma a_p (s_ip - 1 + m)) )"
    paper = "Sun 2020, Circle Loss: A Unified Perspective of Pair Similarity Optimization, arXiv:2002.10857"

    def __init__(
        self,
        m: float = 0.25,
        gamma: float = 256.0,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= m < float("inf"):
            raise UsageError(f"circle: m must be a finite number >= 0, got {m}")
        if not 0 < gamma < float("inf"):
            raise UsageError(f"circle: gamma must be a finite number > 0, got {gamma}")
        self.m = m
        self.gamma = gamma

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        attention_far = (scores + self.m).relu().detach()
        attention_near = (1 + self.m - scores).relu().detach()
        push = log_sum_exp(self.gamma * attention_far * (scores - self.m), negative)
        pull = log_sum_exp(-self.gamma * attention_near * (scores - (1 - self.m)), positive)
        return F.softplus(push + pull, threshold=40)


@register
class RankedList(RowObjective):
    """Ranked list loss: near items inside a sphere around the anchor, far ones outside a larger (Wang et al., 2019).

    ``(1 - lambda) L_P + lambda L_N``: L_P the mean of ``D_p - (alpha - margin)`` over near items beyond the inner
    sphere, weighed by ``exp(T_p (D_p - (alpha - margin)))``; L_N that of ``alpha - D_n`` over far items within the
    outer sphere, weighed by ``exp(T_n (alpha - D_n))``. A side without violators is 0. D by default the Euclidean
    distance of normalised vectors.

    Arguments:
        alpha: the outer radius, default 1.2; margin: default 0.4 (both the paper's).
        temperature_near: T_p >= 0, default 0 (the paper's simpler form); temperature_far: T_n >= 0, default 10.
        balance: lambda in [0, 1], default 0.5.
        detach_weights: whether weights carry no gradient, default True (the paper's derivatives treat them as
            constant). pytorch-metric-learning: False.
        smoothing: added for each column to the sum of weights, default 0; pytorch-metric-learning adds 1e-5, which
            makes its loss smaller the fewer violators there are.
        score: default "negative-normalized-euclidean"; ``two_sided`` and ``reduction`` as in :class:`InfoNCE`.

    Anchors need any pair (peers: all items count in the mean). Raises UsageError for what lies outside its range.
    """

    name = "ranked-list"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"rll": {}}
    formula = (
        "(1 - lambda) sum_p w_p max(0, D_p - alpha + margin) / sum w_p + lambda sum_n w_n max(0, alpha - D_n) / sum w_n"
    )
    paper = "Wang 2019, Ranked List Loss for Deep Metric Learning, arXiv:1903.03238"
    default_score = "negative-normalized-euclidean"
    needs_negative = False

    def __init__(
        self,
        *,
        alpha: float = 1.2,
        margin: float = 0.4,
        temperature_near: float = 0.0,
        temperature_far: float = 10.0,
        balance: float = 0.5,
        detach_weights: bool = True,
        smoothing: float = 0.0,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        at_least_0 = {
            "alpha": alpha,
            "margin": margin,
            "temperature_near": temperature_near,
            "temperature_far": temperature_far,
            "smoothing": smoothing,
        }
        for label, value in at_least_0.items():
            if not 0 <= value < float("inf"):
                raise UsageError(f"ranked-list: {label} must be a finite number >= 0, got {value}")
        if not 0 <= balance <= 1:
            raise UsageError(f"ranked-list: balance must lie in [0, 1], got {balance}")
        self.alpha = alpha
        self.margin = margin
        self.temperature_near = temperature_near
        self.temperature_far = temperature_far
        self.balance = balance
        self.detach_weights = detach_weights
        self.smoothing = smoothing

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        distance = distances(self.score, scores)
        near = self._weighed(distance - (self.alpha - self.margin), positive, self.temperature_near)
        far = self._weighed(self.alpha - distance, negative, self.temperature_far)
        return (1 - self.balance) * near + self.balance * far

    def _weighed(self, violation: Tensor, weight: Tensor, temperature: float) -> Tensor:
        """The mean ``[t]`` of the violations > 0, weighed by ``weight exp(temperature violation)``."""
        violators = (weight > 0) & (violation > 0)
        exponents = temperature * (violation.detach() if self.detach_weights else violation)
        log_weights = masked(exponents, weight.masked_fill(~violators, 0))
        if self.smoothing:
            floor = math.log(self.smoothing * weight.shape[1])
            shares = torch.softmax(F.pad(log_weights, (0, 1), value=floor), dim=1)[:, :-1]
        else:
            shares = torch.softmax(log_weights.masked_fill(~violators.any(1, keepdim=True), 0), dim=1)
        return (shares * violation.masked_fill(~violators, 0)).sum(1)


@register
class TupletMargin(RowObjective):
    """Tuplet margin loss: all far items against a near one whose angle is made harder (Yu & Tao, 2019).

    ``log(1 + sum_n exp(scale (cos theta_an - cos(theta_ap - margin))))`` for each near pair, mean over near pairs.
    Since ``theta_ap - margin`` is the smaller angle, near pairs that are already close do not have to come closer. In
    (0, inf).

    Arguments:
        margin: the slack beta in radians, >= 0, default 0.1 (5.73 degrees, the paper's).
        scale: > 0, default 64 (the paper's).
        two_sided, reduction: as in :class:`InfoNCE`; "none" gives each anchor's mean over its near pairs.

    Cosines only. Anchors need a near and a far pair. At theta 0 the gradient of the sine is taken as 0, where peers
    give NaN.
    """

    name = "tuplet-margin"
    formula = "log(1 + sum_n exp(scale (cos theta_an - cos(theta_ap - margin))))"
    paper = "Yu 2019, Deep Metric Learning with Tuplet Margin Loss (ICCV 2019)"

    def __init__(
        self,
        margin: float = math.radians(5.73),
        scale: float = 64.0,
        *,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(two_sided=two_sided, reduction=reduction)
        if not 0 <= margin < math.pi:
            raise UsageError(f"tuplet-margin: the margin must be an angle in [0, pi), got {margin}")
        if not 0 < scale < float("inf"):
            raise UsageError(f"tuplet-margin: scale must be a finite number > 0, got {scale}")
        self.margin = margin
        self.scale = scale

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near, weight = compact(scores, positive)
        far = log_sum_exp(self.scale * scores, negative)[:, None]
        costs = F.softplus(far - self.scale * cosine_of_sum(near, -self.margin), threshold=40)
        return (costs * weight).sum(1) / weight.sum(1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return positive.to(scores.dtype).sum(1)
