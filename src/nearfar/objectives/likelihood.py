"""Likelihoods of sequences and tokens: what preference objectives are fed with, and costs that replace ``-log p``."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import UsageError
from nearfar.objectives.base import PointObjective
from nearfar.objectives.preference import exponential, not_negative, one_of, positive, reduced
from nearfar.objectives.registry import register


def sequence_log_probability(log_probability: Tensor, mask: Tensor, tokens: str = "sum") -> Tensor:
    """The log-probability ``[n]`` of completions from their tokens' ``[n, t]``.

    ``mask [n, t]``: 1 or True for the tokens of the completion (not prompt, not padding). ``tokens``: "sum" or "mean";
    a completion without tokens has 0. What is masked out may be anything, -inf too.
    """
    one_of("sequence_log_probability", "tokens", tokens, ("sum", "mean"))
    values, kept = _tokens(log_probability, mask)
    total = values.sum(1)
    return total if tokens == "sum" else total / kept.sum(1).clamp_min(1)


def sequence_scores(
    log_probability: Tensor, mask: Tensor, *, sampled: Tensor | None = None, form: str = "log-likelihood"
) -> Tensor:
    """DisCO's scores ``[n]`` of answers from their tokens' log-probabilities ``[n, t]`` (Li et al., 2025).

    ``form="log-likelihood"``: ``mean_t log p(o_t)``; "likelihood-ratio": ``mean_t p(o_t) / p_sampled(o_t)``, ``sampled
    [n, t]`` the log-probabilities when the answers were sampled.
    """
    one_of("sequence_scores", "form", form, ("log-likelihood", "likelihood-ratio"))
    if form == "log-likelihood":
        return sequence_log_probability(log_probability, mask, "mean")
    if sampled is None:
        raise ValueError("sequence_scores: the likelihood ratio needs sampled, the log-probabilities at sampling")
    _, kept = _tokens(log_probability, mask)
    return (exponential(_ratio(log_probability, sampled, mask)) * kept).sum(1) / kept.sum(1).clamp_min(1)


def divergence_estimate(log_probability: Tensor, sampled: Tensor, mask: Tensor, form: str = "plain") -> Tensor:
    """An estimate of KL(sampler || policy) over all tokens of a batch, from samples.

    ``form="plain"``: the mean of ``log p_sampled - log p``, which can be negative; "low-variance": that of
    ``p/p_sampled - 1 - log(p/p_sampled)``, which cannot.
    """
    one_of("divergence_estimate", "form", form, ("plain", "low-variance"))
    ratio = _ratio(log_probability, sampled, mask)
    kept = _tokens(log_probability, mask)[1]
    value = -ratio if form == "plain" else exponential(ratio, minus_one=True) - ratio
    return value.sum() / kept.sum().clamp_min(1)


def divergence_penalty(
    divergence: Tensor,
    *,
    limit: float = 1e-4,
    weight: float = 1e3,
    form: str = "squared-hinge",
    surrogate: bool = False,
) -> Tensor:
    """What DisCO adds to keep the divergence from the sampler below a limit.

    ``form="squared-hinge"``: ``weight/2 max(0, k - limit)^2``; "linear": ``weight k``, plain regularisation.
    ``surrogate`` gives the squared hinge the *value* that official code shows, ``sg[weight max(0, k - limit)] k``; the
    gradient is the same.
    """
    one_of("divergence_penalty", "form", form, ("squared-hinge", "linear"))
    if form == "linear":
        return weight * divergence
    excess = (divergence - limit).relu()
    return (weight * excess).detach() * divergence if surrogate else weight / 2 * excess.square()


class TokenObjective(PointObjective):
    """Base of costs of single tokens: ``objective(score, target)`` with tensors ``[n]`` or ``[n, t]`` alike.

    ``score``: log-probabilities of the tokens; ``target``: what the objective says. The mean is over the tokens that
    count, 0 where none does.
    """

    epsilon = 0.0

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def tokens(self, score: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``(costs, kept)`` of the tokens: 0 and False where a token does not count."""
        raise NotImplementedError

    def forward(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        if extra:
            raise TypeError(f"{self.name} takes no {sorted(extra)} beside score and target")
        if score.dim() not in (1, 2) or score.shape != target.shape or not score.is_floating_point():
            raise ValueError(
                f"{self.name}: score and target must be [n] or [n, t] alike, got {tuple(score.shape)} of {score.dtype} "
                f"and {tuple(target.shape)}"
            )
        costs, kept = self.tokens(at_least_float32(score), target)
        if self.reduction != "mean":
            return reduced(costs, self.reduction)
        return costs.sum() / (kept.sum().clamp_min(1).to(costs.dtype) + self.epsilon)


@register
class ProbabilitySFT(TokenObjective):
    """Supervised fine-tuning on functions of the probability instead of its logarithm (Li et al., 2025).

    ``f(p) = (1 - p^alpha) / alpha`` of each target token's probability p; ``alpha=0`` is ``-log p``, 1 is ``1 - p``.
    The gradient by the token's logit is ``-p^alpha (1 - p)``: the larger alpha, the more it trusts what the model
    already finds likely (largest at p = alpha/(1 + alpha)), which helps a strong prior and hurts a weak one. From a
    random start 1 - p teaches nothing. In [0, 1/alpha] for alpha > 0.

    Called with ``score`` (``[n]`` or ``[n, t]``): log p of the target tokens, ``target`` alike: 1 or True for tokens of
    the response, 0 for others, whose score may be anything. A batch without a kept token costs 0.

    Arguments:
        alpha: default 1; 0 (likelihood) and 10 are the paper's others; below 0 it leans on unlikely tokens more than
            the likelihood does. Computed as ``-expm1(alpha log p) / alpha``.
        keep: "all" (default), "top": only tokens with p >= threshold, "bottom": p <= threshold. The threshold looks at
            the present p, without a gradient.
        threshold: q in [0, 1], default 0.1.
        detach: ``-sg[p^alpha] log p`` in place of f (dynamic fine-tuning, Wu et al., 2025, at alpha 1): the same
            gradient, another value; needs alpha > 0.
        epsilon: >= 0, default 0: added to the number of kept tokens; official code's is 1e-8.
        reduction: "mean" (default) over the tokens that are kept *after* thresholding, "sum" or "none".
    """

    name = "probability-sft"
    takes = "log-probabilities"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "sft": {"alpha": 0.0},
        "dft": {"alpha": 1.0, "detach": True},
    }
    formula = "(1 - p^alpha) / alpha"
    paper = "Li 2025, Beyond Log Likelihood: Probability-Based Objectives for Supervised Fine-Tuning, arXiv:2510.00526"

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        keep: str = "all",
        threshold: float = 0.1,
        detach: bool = False,
        epsilon: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.epsilon = not_negative("probability-sft", "epsilon", epsilon)
        if not math.isfinite(alpha) or (detach and alpha <= 0):
            raise UsageError(f"probability-sft: alpha must be finite, and > 0 with detach, got {alpha}")
        if not 0 <= threshold <= 1:
            raise UsageError(f"probability-sft: threshold must lie in [0, 1], got {threshold}")
        self.alpha = alpha
        self.keep = one_of("probability-sft", "keep", keep, ("all", "top", "bottom"))
        self.threshold = threshold
        self.detach = detach

    def gradient_weight(self, score: Tensor) -> Tensor:
        """How hard a token pulls at its logit, ``p^alpha (1 - p)`` by its log p of any shape; 0 beyond the threshold.

        What a model gives to the tokens of a data set says beforehand which of them would teach it.
        """
        value = at_least_float32(score.detach())
        weight = -exponential(self.alpha * value) * exponential(value, minus_one=True)
        return torch.where(self._within(value.exp()), weight, 0)

    def _within(self, probability: Tensor) -> Tensor:
        """Which tokens count, by their probabilities."""
        if self.keep == "all":
            return torch.ones_like(probability, dtype=torch.bool)
        return probability >= self.threshold if self.keep == "top" else probability <= self.threshold

    def tokens(self, score: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        kept = target > 0
        # an ignored token's score is replaced before the formula, which may not be a number there
        value = torch.where(kept, score, -1.0)
        if self.keep != "all":
            kept = kept & self._within(value.detach().exp())
        if self.detach:
            cost = -(self.alpha * value).detach().exp() * value
        elif self.alpha == 0:
            cost = -value
        else:
            cost = -exponential(self.alpha * value, minus_one=True) / self.alpha
        return torch.where(kept, cost, 0), kept


@register
class ImplicitRewardSFT(TokenObjective):
    """Supervised fine-tuning that keeps its reference: imitation under other divergences (Wang et al., 2025).

    ``L = -phi(u)``, ``u = beta (log p - log p_ref)`` the implicit reward of a demonstration (a whole completion
    ``[n]``, or each token ``[n, t]``); mean over all. ``divergence``:
        "total-variation": ``phi(u) = u``: the likelihood's gradient times beta; the reference is a constant.
        "pearson" (default): ``u - u^2/4``: a leash with its minimum at u = 2.
        "squared-hellinger": ``u/(1+u)`` for u > -1. "jensen-shannon": ``log(2 - exp(-u))`` for u > -log 2.
        "forward-kl": ``1 + log u`` for u > 0. "reverse-kl": ``-exp(-(u+1))``.
    At policy = reference (u = 0) all but "forward-kl", which has no value there, are finite. Where u leaves a domain
    phi goes on along its tangent at ``margin`` inside the bound: no infinite cost, no zero gradient.

    Called with ``score`` (``[n]`` or ``[n, t]``): log p of the demonstrations, ``target`` alike: log p_ref. Mask tokens
    by leaving them out. The scale matters: u = 2 is little for the sum over 200 tokens and much for one.

    Arguments: ``beta`` > 0, default 0.1; ``divergence``; ``margin`` > 0, default 0.01; ``reduction``: "mean" (default),
    "sum" or "none".
    """

    name = "sft-implicit-reward"
    takes = "log-probabilities"
    formula = "-phi(beta (log p - log p_ref)), e.g. phi(u) = u - u^2/4"
    paper = "Wang 2025, Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections, arXiv:2507.00018"

    FORMS: ClassVar[tuple[str, ...]] = (
        "total-variation",
        "pearson",
        "squared-hellinger",
        "jensen-shannon",
        "forward-kl",
        "reverse-kl",
    )

    def __init__(
        self, beta: float = 0.1, *, divergence: str = "pearson", margin: float = 0.01, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.beta = positive("sft-implicit-reward", "beta", beta)
        self.divergence = one_of("sft-implicit-reward", "divergence", divergence, self.FORMS)
        self.margin = positive("sft-implicit-reward", "margin", margin)

    def tokens(self, score: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        reward = self.beta * (score - target.detach())
        bound = {"squared-hellinger": -1.0, "jensen-shannon": -math.log(2), "forward-kl": 0.0}.get(self.divergence)
        if bound is None:
            return -self._phi(reward), torch.ones_like(reward, dtype=torch.bool)
        edge = bound + self.margin
        inside = torch.where(reward > edge, reward, edge)
        slope = self._slope(edge)
        return -self._phi(inside) - slope * (reward - inside), torch.ones_like(reward, dtype=torch.bool)

    def _phi(self, reward: Tensor) -> Tensor:
        if self.divergence == "total-variation":
            return reward
        if self.divergence == "pearson":
            return reward - reward.square() / 4
        if self.divergence == "squared-hellinger":
            return reward / (1 + reward)
        if self.divergence == "jensen-shannon":
            return torch.log1p(-torch.expm1(-reward))
        if self.divergence == "forward-kl":
            return 1 + reward.log()
        return -exponential(-(reward + 1))

    def _slope(self, reward: float) -> float:
        if self.divergence == "squared-hellinger":
            return 1 / (1 + reward) ** 2
        if self.divergence == "jensen-shannon":
            return math.exp(-reward) / (2 - math.exp(-reward))
        return 1 / reward


def _tokens(log_probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The values with 0 where they do not count, and 1 or 0 for whether they do."""
    if log_probability.dim() != 2 or mask.shape != log_probability.shape:
        raise ValueError(
            f"log-probabilities and mask must be [n, t] alike, got {list(log_probability.shape)}, {list(mask.shape)}"
        )
    values = at_least_float32(log_probability)
    return torch.where(mask > 0, values, 0), (mask > 0).to(values.dtype)


def _ratio(log_probability: Tensor, sampled: Tensor, mask: Tensor) -> Tensor:
    """``log p - log p_sampled`` of the tokens that count, 0 for the others; no gradient for the sampler."""
    return _tokens(log_probability, mask)[0] - _tokens(sampled.detach(), mask)[0]
