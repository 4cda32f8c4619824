"""Likelihoods of sampled responses weighted by their rewards: best-of-n and reward-weighted regression."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.objectives.base import PointObjective, RowObjective
from nearfar.objectives.preference import exponential, not_negative, one_of, positive
from nearfar.objectives.preference_groups import best_share, grades_of
from nearfar.objectives.registry import register


@register
class BestOfN(RowObjective):
    """Likelihood of the best of n responses, with or without a negative gradient (Tajwar et al., 2024).

    ``L = -log p(y_best) + weight * N``, mean over prompts. ``negative``: what N is: "none" (default) nothing; "worst"
    ``log p(y_worst)``; "mean" or "sum" of ``log p(y_i)`` over all but the best. The negative gradient is unbounded:
    it can drive a probability to 0 and needs clipping, early stopping or a margin. Equally best (or worst) responses
    share; where all are alike nothing is pushed down.

    Called as a row objective with ``scores [n, k]``: log-probabilities (less the reference's in the "constrained" form,
    whose gradient is the same), and a relation of grades (:func:`~nearfar.objectives.preference_groups.ranked`).

    Arguments: ``weight`` >= 0, default 1; ``negative``; ``score``: default "dot", for calls on embeddings;
    ``reduction`` over prompts; ``two_sided`` has no use here.
    """

    name = "best-of-n"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"pref-ft": {}, "best-of-n-worst": {"negative": "worst"}}
    formula = "-log p(y_best) + weight (log p(y_worst), or the mean or sum of the others)"
    paper = "Tajwar 2024, Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data, arXiv:2404.14367"
    default_score = "dot"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        negative: str = "none",
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        self.weight = not_negative("best-of-n", "weight", weight)
        self.negative = one_of("best-of-n", "negative", negative, ("none", "worst", "mean", "sum"))

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        grades = grades_of(scores, positive, negative)
        best = best_share(grades)
        cost = -(best * scores).sum(1)
        if self.negative == "none":
            return cost
        rest = grades.isfinite() & (grades < grades.amax(1, keepdim=True))
        if self.negative == "worst":
            pushed = best_share(torch.where(grades.isfinite(), -grades, -torch.inf)) * rest
        else:
            pushed = rest.to(scores.dtype)
            if self.negative == "mean":
                pushed = pushed / pushed.sum(1, keepdim=True).clamp_min(1)
        return cost + self.weight * (pushed * scores).sum(1)


@register
class RewardWeighted(PointObjective):
    """Reward-weighted regression: likelihood weighted by the exponential of the reward (Peters & Schaal, 2007).

    ``L = -exp(r / beta) log p(y|x)``, mean over responses; no baseline. All responses are pushed up, the good ones
    more. Advantage-weighted regression (Peng et al., 2019) is this on rewards less their value.

    Called with ``score [n]``: log-probabilities, ``target [n]``: rewards r, which carry no gradient.
    Arguments: ``beta`` > 0, default 1; ``largest``: > 0, default inf: weights are clipped there (20 in usual code);
    ``reduction``: "mean" (default), "sum" or "none".
    """

    name = "reward-weighted"
    takes = "log-probabilities"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"rwr": {}, "awr": {"largest": 20.0}}
    formula = "-exp(r / beta) log p(y|x)"
    paper = "Peters 2007, Reinforcement Learning by Reward-Weighted Regression for Operational Space Control"

    def __init__(self, beta: float = 1.0, *, largest: float = float("inf"), reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = positive("reward-weighted", "beta", beta)
        self.largest = largest if largest == float("inf") else positive("reward-weighted", "largest", largest)

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        weight = exponential(target.detach().to(score.dtype) / self.beta).clamp(max=self.largest)
        return -weight * score
