"""Policy gradients with a group for the baseline: GRPO and what differs from it in the reduction or the advantage."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import UsageError
from nearfar.objectives.base import PointObjective
from nearfar.objectives.preference import exponential, group_means, not_negative, one_of
from nearfar.objectives.registry import register

ADVANTAGES = ("standardized", "centered", "leave-one-out")
ALONE = ("zero", "reward")
AVERAGES = ("sequences", "tokens", "length")


def group_advantages(
    rewards: Tensor,
    group: Tensor | None = None,
    *,
    form: str = "standardized",
    epsilon: float = 1e-6,
    alone: str = "zero",
) -> Tensor:
    """How much better each response ``[n]`` is than those to the same prompt; without a gradient.

    ``group [n]``: integers, equal for the responses of one prompt (default: all are of one). ``form``: "standardized"
    ``(r - mean) / (std + epsilon)`` with the unbiased deviation; "centered" ``r - mean``; "leave-one-out" ``r - mean of
    the others``. A prompt whose responses are alike, or that has one, has advantage 0.
    """
    one_of("group_advantages", "form", form, ADVANTAGES)
    values = at_least_float32(rewards.detach())
    mean, size = group_means(values, group)
    apart = values - mean
    if form == "centered":
        found = apart
    elif form == "leave-one-out":
        found = apart * size / (size - 1).clamp_min(1)
    else:
        variance = group_means(apart.square(), group)[0] * size / (size - 1).clamp_min(1)
        found = apart / (variance.sqrt() + epsilon)
    if alone == "zero":
        return found
    return torch.where(size > 1, found, values / (1 + epsilon) if form == "standardized" else values)


@register
class GRPO(PointObjective):
    """Group relative policy optimisation (Shao et al., 2024), and its variants.

    Of each token ``-min(rho A, clip(rho, 1-clip, 1+clip_high) A) + kl_weight (exp(q) - q - 1)``, ``rho = p /
    p_sampled``, ``q = log p_ref - log p``, A the response's advantage over its group (:func:`group_advantages`). On the
    policy that sampled, rho is 1 and the gradient REINFORCE's with a group baseline. With rewards of 0 and 1 a question
    weighs ``sqrt(p (1 - p))`` by its rate p of right answers, which ``disco`` avoids.

    Called with ``score [n, t]``: log-probabilities of the responses' tokens; ``target [n]``: rewards; ``mask [n, t]``:
    1 for tokens of the response (default all); ``sampled [n, t]``: log-probabilities when sampled (default: the present
    ones); ``group [n]``: integers, equal for the responses of one prompt; ``reference [n, t]`` where ``kl_weight`` > 0.

    Arguments:
        clip: >= 0, default 0.2; inf for none. ``clip_high``: default as ``clip`` (DAPO 0.28).
        advantage: "standardized" (default), "centered" (Dr. GRPO), "leave-one-out" (RLOO).
        average: "sequences" (default, the paper): mean over responses of the mean over their tokens; "tokens": mean
            over all tokens (DAPO, and the default of some peers); "length": sum over ``n x length`` (Dr. GRPO).
        length: of "length"; default the width t of the batch.
        epsilon: >= 0, default 1e-6, added to the deviation; ``kl_weight`` >= 0, default 0 (0.04 in the paper).
        alone: the advantage of a prompt's only response: "zero" (default), or its "reward" (verl).
        reduction: "mean" (default; the averages above), "sum" of the responses' costs, or "none": ``[n]``, whose mean
            the loss is.
    """

    name = "grpo"
    takes = "log-probabilities"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "dapo": {"average": "tokens", "clip_high": 0.28},
        "bnpo": {"average": "tokens"},
        "dr-grpo": {"average": "length", "advantage": "centered"},
        "rloo": {"advantage": "leave-one-out", "clip": math.inf},
    }
    formula = "-min(rho A, clip(rho, 1-e, 1+e) A), rho = p / p_sampled, A = (r - mean) / (std + eps)"
    paper = "Shao 2024, DeepSeekMath, arXiv:2402.03300"
    needs = ("mask", "sampled", "group")

    def __init__(
        self,
        clip: float = 0.2,
        *,
        clip_high: float | None = None,
        advantage: str = "standardized",
        average: str = "sequences",
        length: int | None = None,
        epsilon: float = 1e-6,
        kl_weight: float = 0.0,
        alone: str = "zero",
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        clip_high = clip if clip_high is None else clip_high
        if not (clip >= 0 and clip_high >= 0):
            raise UsageError(f"grpo: clip and clip_high must be >= 0, got {clip} and {clip_high}")
        if length is not None and length < 1:
            raise UsageError(f"grpo: length must be at least 1, got {length}")
        self.clip = clip
        self.clip_high = clip_high
        self.advantage = one_of("grpo", "advantage", advantage, ADVANTAGES)
        self.average = one_of("grpo", "average", average, AVERAGES)
        self.length = length
        self.epsilon = not_negative("grpo", "epsilon", epsilon)
        self.kl_weight = not_negative("grpo", "kl_weight", kl_weight)
        self.alone = one_of("grpo", "alone", alone, ALONE)

    def forward(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        for name, value in extra.items():
            if name not in ("mask", "sampled", "group", "reference"):
                raise TypeError(f"grpo takes no {name!r} beside score and target")
            expected = score.shape[:1] if name == "group" else score.shape
            if value.shape != expected:
                raise ValueError(f"grpo: {name} must be {list(expected)}, got {list(value.shape)}")
        if score.dim() != 2 or not score.is_floating_point() or target.shape != score.shape[:1]:
            shapes = f"{list(score.shape)} and {list(target.shape)}"
            raise ValueError(f"grpo: score must be [n, t] floating point and target [n], got {shapes}")
        costs = self._responses(at_least_float32(score), target, **extra)
        if self.reduction == "none":
            return costs
        return costs.sum() / (max(1, costs.numel()) if self.reduction == "mean" else 1)

    def _responses(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        """The cost ``[n]`` of each response; the mean of them is the loss."""
        kept = extra["mask"] > 0 if "mask" in extra else torch.ones_like(score, dtype=torch.bool)
        advantage = group_advantages(
            target, extra.get("group"), form=self.advantage, epsilon=self.epsilon, alone=self.alone
        )
        advantage = advantage.to(score.dtype)[:, None]
        ratio = exponential(torch.where(kept, score - extra.get("sampled", score).detach(), 0))
        cost = -torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip_high) * advantage)
        if self.kl_weight:
            if "reference" not in extra:
                raise ValueError("grpo: kl_weight needs reference [n, t]")
            apart = torch.where(kept, extra["reference"].detach() - score, 0)
            cost = cost + self.kl_weight * (exponential(apart) - apart - 1)
        total = torch.where(kept, cost, 0).sum(1)
        if self.average == "sequences":
            return total / kept.sum(1).clamp_min(1)
        if self.average == "tokens":
            return total * total.numel() / kept.sum().clamp_min(1)
        return total / (self.length or score.shape[1])
