"""Preferences with rewards: costs that regress log-ratios on scalar rewards, margins or win rates of the responses."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.distributed import of_all_with_own_graph
from nearfar.contrast.precision import at_least_float32
from nearfar.objectives.base import PointObjective
from nearfar.objectives.preference import (
    MarginObjective,
    PreferenceObjective,
    Preferences,
    group_index,
    group_means,
    log_ratio,
    not_negative,
    one_of,
    positive,
    reduced,
)
from nearfar.objectives.registry import register


def _needed(objective: PreferenceObjective | PointObjective, extra: dict[str, Tensor], *names: str) -> list[Tensor]:
    missing = [name for name in names if name not in extra]
    if missing:
        raise ValueError(f"{objective.name} needs {' and '.join(missing)}")
    return [extra[name] for name in names]


@register
class CoPG(PreferenceObjective):
    """Contrastive policy gradient: a scalar reward, optimised from pairs drawn by anybody (Flet-Berliac et al., 2024).

    ``L = beta/2 u^2 - (R_w - R_l) u``, ``u = d_w - d_l``; mean over pairs. It is ``-[(R_b(y) - R_b(y')) d(y) + (R_b(y')
    - R_b(y)) d(y')]`` with ``R_b = R - b d`` at ``b = beta/2``, of which nothing is detached, and ``((R_w - R_l - beta
    u)^2 - (R_w - R_l)^2) / (2 beta)``: a regression of the margin on the difference of rewards. Its minimiser is
    ``p_ref exp(R/beta)`` whatever the pairs were drawn from, as long as both draws are independent (not the best and
    the worst of many). In [-(R_w - R_l)^2 / (2 beta), inf). With rewards +-1/4 it is IPO's loss, halved over beta, up
    to a constant.

    Call as :class:`PreferenceObjective`, with ``chosen_reward`` and ``rejected_reward`` (``[n]``), the rewards R of
    both responses, in any order: the loss is symmetric in them.

    Arguments: ``beta`` > 0, default 0.06 (0.03 to 0.1 in the paper); ``tokens``: "sum" (default) or "mean";
    ``reduction``. The paper says that it minimises what it defines as the quantity to maximise: this is minus it.
    ``copg-group`` takes k responses a prompt.
    """

    name = "copg"
    formula = "beta/2 (d_w - d_l)^2 - (R_w - R_l) (d_w - d_l)"
    paper = "Flet-Berliac 2024, Contrastive Policy Gradient: Aligning LLMs on Sequence-Level Scores, arXiv:2406.19185"
    extras = ("chosen_reward", "rejected_reward")
    needs = extras

    def __init__(self, beta: float = 0.06, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.beta = positive("copg", "beta", beta)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        of_chosen, of_rejected = _needed(self, extra, "chosen_reward", "rejected_reward")
        margin = pairs.chosen - pairs.rejected
        return self.beta / 2 * margin.square() - (of_chosen - of_rejected) * margin


@register
class GroupCoPG(PointObjective):
    """Contrastive policy gradient on k responses a prompt: CoPG over all their pairs (Flet-Berliac et al., 2024).

    ``L = 1/(k-1) sum_{i>j} [beta/2 (d_i - d_j)^2 - (R_i - R_j)(d_i - d_j)]`` of a prompt, mean over prompts; computed
    as ``k/(k-1) sum_i [beta/2 (d_i - mean d)^2 - (R_i - mean R)(d_i - mean d)]``, without making pairs. With k = 2 it
    is ``copg``. On responses of the policy itself its gradient is that of REINFORCE with a leave-one-out baseline on R
    - beta d, times k. A prompt with one response costs 0.

    Called with ``score [n]``: log-ratios d, or log p(y|x) beside ``reference [n]``; ``target [n]``: rewards R;
    ``group`` ``[n]`` integers, equal for the responses of one prompt (without it all are of one prompt). With
    ``reduction="none"`` the costs are of prompts, in ascending order of their ids.

    Arguments: ``beta`` > 0, default 0.06; ``reduction``: "mean" (default), "sum" or "none".
    """

    name = "copg-group"
    takes = "log-probabilities"
    formula = "1/(k-1) sum_{i>j} [beta/2 (d_i - d_j)^2 - (R_i - R_j)(d_i - d_j)]"
    paper = "Flet-Berliac 2024, Contrastive Policy Gradient: Aligning LLMs on Sequence-Level Scores, arXiv:2406.19185"
    extras = ("reference", "group")

    def __init__(self, beta: float = 0.06, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = positive("copg-group", "beta", beta)

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        ratio = log_ratio(score, extra)
        group = extra.get("group", torch.zeros_like(target, dtype=torch.long))
        reward = target.to(ratio.dtype)
        mean, size = group_means(ratio, group)
        deviation = ratio - mean
        cost = self.beta / 2 * deviation.square() - (reward - group_means(reward, group)[0]) * deviation
        index = group_index(group)
        count = int(index.max()) + 1 if index.numel() else 0
        return ratio.new_zeros(count).index_add(0, index, cost * size / (size - 1).clamp_min(1))


@register
class DROV(PointObjective):
    """Direct reward optimisation with a value: single responses with scalar rewards (Richemond et al., 2024).

    The loss ``L = (r - V(x) - tau d)^2 / 2`` has the unique minimum ``p_ref exp(r/tau)``,
    ``V(x) = tau log E_ref exp(r/tau)``, whatever the responses were drawn from. ``form="separate"`` (default) is the
    paper's algorithm: ``-d sg[r - V] + tau/2 d^2`` for the policy, whose gradient is L's over tau, plus
    ``(r - V - tau sg[d])^2 / 2`` for the value (sg: no gradient); its value can be negative. ``form="joint"`` is L.

    Called with ``score [n]``: log-ratios d, or log p(y|x) beside ``reference [n]``; ``target [n]``: rewards r;
    ``value [n]``: V(x), from a network of its own (shared weights hurt in the paper, and V is no baseline: replacing it
    by a mean of rewards moves the optimum). Raises ValueError without it.

    Arguments: ``tau`` > 0, default 1 (with rewards standardised over the data); ``form``; ``reduction``: "mean"
    (default), "sum" or "none".
    """

    name = "dro-v"
    takes = "log-probabilities"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"dro": {}}
    formula = "(r - V(x) - tau d)^2 / 2"
    paper = "Richemond 2024, Offline Regularised Reinforcement Learning for Large Language Models, arXiv:2405.19107"
    extras = ("reference", "value")
    needs = ("value",)

    def __init__(self, tau: float = 1.0, *, form: str = "separate", reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.tau = positive("dro-v", "tau", tau)
        self.form = one_of("dro-v", "form", form, ("separate", "joint"))

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        (value,) = _needed(self, extra, "value")
        ratio = log_ratio(score, extra)
        if self.form == "joint":
            return (target - value - self.tau * ratio).square() / 2
        policy = self.tau / 2 * ratio.square() - ratio * (target - value).detach()
        return policy + (target - value - self.tau * ratio.detach()).square() / 2


@register
class DROP(PointObjective):
    """Direct reward optimisation without a value network: half the variance of what it would predict (Richemond, 2024).

    ``L = Var_batch(r - tau d) / 2``, the biased variance. The paper's batch holds different prompts, so that one number
    stands for V(x) of all and the loss misleads where V differs between prompts; with ``group`` the variance is taken
    among the responses of each prompt, which is exact from two responses on (two of them: a quarter of the squared
    difference). In [0, inf); 0 for one response.

    Called with ``score [n]``: log-ratios d, or log p(y|x) beside ``reference [n]``; ``target [n]``: rewards r;
    ``group`` ``[n]`` integers (default: all are one group). ``reduction="none"`` gives each response's half squared
    deviation.

    Arguments: ``tau`` > 0, default 1; ``reduction``: "mean" (default), "sum" or "none".
    """

    name = "dro-p"
    takes = "log-probabilities"
    formula = "Var(r - tau d) / 2"
    paper = "Richemond 2024, Offline Regularised Reinforcement Learning for Large Language Models, arXiv:2405.19107"
    extras = ("reference", "group")

    def __init__(self, tau: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.tau = positive("dro-p", "tau", tau)

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        ratio = log_ratio(score, extra)
        value = target - self.tau * ratio
        return (value - group_means(value, extra.get("group"))[0]).square() / 2


@register
class DNO(MarginObjective):
    """Direct Nash optimisation: logistic regression of the margin on a difference of win rates (Rosset et al., 2024).

    ``L = q log(1 + exp(-z)) + (1-q) log(1 + exp(z))``, ``q = sigmoid(r_w - r_l)``, ``z = beta (d_w - d_l)``; mean over
    pairs. r is each response's expected win rate over the present policy, in [0, 1] (any reward will do), d the
    log-ratio to the *present iterate*, not to the first model. Its minimiser is ``p_t exp(r/beta)``. In (0, inf); log 2
    where policy and iterate agree. DNO-Prct, on hard labels, is ``dpo`` under that alias.

    Call as :class:`PreferenceObjective`, with ``chosen_reward`` and ``rejected_reward`` (``[n]``), in any order.
    Arguments: ``beta`` > 0, the paper's eta, default 0.1; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "dno"
    formula = "q log(1 + exp(-z)) + (1-q) log(1 + exp(z)), q = sigmoid(r_w - r_l), z = beta (d_w - d_l)"
    paper = "Rosset 2024, Direct Nash Optimization, arXiv:2404.03715"
    extras = ("chosen_reward", "rejected_reward")
    needs = extras
    margin_alone = False

    def __init__(self, beta: float = 0.1, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        of_chosen, of_rejected = _needed(self, extra, "chosen_reward", "rejected_reward")
        margin = self.margin_of(pairs.chosen, pairs.rejected)
        return F.softplus(-margin) + torch.sigmoid(of_rejected - of_chosen) * margin


@register
class RewardModeling(MarginObjective):
    """The loss of a reward model on noisy preferences: pairwise logistic with margins and smoothing (Wang et al.,
    2024).

    ``L = (1-a) l(z) + a l(-z)``, ``z = beta (r_w - r_l) - m``, ``l(z) = log(1 + exp(-z))``; mean over pairs. m is 0 or
    what the pair's strength asks for: the mean difference that an ensemble of reward models gives it (adaptive margin).
    The margin stands *inside* the logistic; outside, as the paper prints it once, it would have no gradient. For
    flipped pairs it is the absolute value. In [0, inf); log 2 where the model says nothing and m = 0. Without margin
    and smoothing it is ``pairwise-logistic``.

    Call as :class:`PreferenceObjective` on the rewards of both responses, with ``margin`` (``[n]`` or a scalar) and
    ``smoothing`` (``[n]``, in [0, 0.5)): a of each pair, in place of ``label_smoothing``.

    Arguments:
        beta: > 0, default 1.
        label_smoothing: a in [0, 0.5), default 0; 0.1 where labels are doubtful.
        epsilon: >= 0, default 0; with 1e-5 the official code's ``-log(sigmoid(z) + epsilon)``, which caps the cost at
            11.5 and biases the gradient.
        tokens: "sum" (default) takes rewards as they are; ``reduction``.
    """

    name = "reward-modeling"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"moss-reward": {"epsilon": 1e-5}}
    formula = "(1-a) l(r_w - r_l - m) + a l(m - r_w + r_l), l(z) = log(1 + exp(-z))"
    paper = "Wang 2024, Secrets of RLHF in Large Language Models Part II: Reward Modeling, arXiv:2401.06080"
    extras = ("margin", "smoothing")

    def __init__(
        self,
        beta: float = 1.0,
        *,
        label_smoothing: float = 0.0,
        epsilon: float = 0.0,
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.label_smoothing = not_negative("reward-modeling", "label_smoothing", label_smoothing, below=0.5)
        self.epsilon = not_negative("reward-modeling", "epsilon", epsilon)

    def link(self, margin: Tensor) -> Tensor:
        return self._smoothed(margin, self.label_smoothing)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        wanted = extra.get("margin", torch.zeros_like(pairs.chosen))
        margin = self.margin_of(pairs.chosen, pairs.rejected) - wanted
        return self._smoothed(margin, extra.get("smoothing", self.label_smoothing))

    def _smoothed(self, margin: Tensor, doubt: Tensor | float) -> Tensor:
        right, wrong = (self._logistic(sign * margin) for sign in (1, -1))
        return (1 - doubt) * right + doubt * wrong

    def _logistic(self, margin: Tensor) -> Tensor:
        return -(torch.sigmoid(margin) + self.epsilon).log() if self.epsilon else F.softplus(-margin)


@register
class MAPL(MarginObjective):
    """Multi-level aware preference learning: responses, prompts, and preference gaps compared (Sun et al., 2025).

    ``L = l(r(x, y_w) - r(x, y_l)) + l(r(x_w, y) - r(x_l, y)) + lambda l(gap_1 - gap_2)``,
    ``l(z) = log(1 + exp(-beta z))``, each the mean over its own pairs. The second holds a response fixed and compares
    prompts: x_w whose verifiable instructions y meets, x_l whose it does not. The third compares the gaps
    ``gap = r(x', y_w) - r(x', y_l)`` of one pair under two prompts, the first of which must separate it more. r is a
    reward model's output, or d with a beta of about 0.1 (alias "mapl-dpo"): then the second drops the prompts'
    partition functions, which do not cancel. In (0, inf).

    Call as :class:`PreferenceObjective` on the original pairs, with ``prompt_chosen``, ``prompt_rejected`` (``[k]``:
    rewards of the same responses under x_w and x_l) and ``gap_wide``, ``gap_narrow`` (``[g]``), each two or neither.

    Arguments: ``beta`` > 0, default 1; ``prompt_weight`` >= 0, default 1; ``gap_weight``: lambda >= 0, default 1 (not
    published); ``tokens``: "sum" (default) or "mean", of the original pairs; ``reduction``: "mean" (default) or "sum"
    of each part. The form of the third part is reconstructed from the paper's description.
    """

    name = "mapl"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"mapl-rm": {}, "mapl-dpo": {"beta": 0.1}}
    formula = "l(r(x, y_w) - r(x, y_l)) + l(r(x_w, y) - r(x_l, y)) + lambda l(gap_1 - gap_2)"
    paper = "Sun 2025, Multi-Level Aware Preference Learning, arXiv:2505.12845"
    needs = ("prompt_chosen", "prompt_rejected", "gap_wide", "gap_narrow")

    def __init__(
        self,
        beta: float = 1.0,
        *,
        prompt_weight: float = 1.0,
        gap_weight: float = 1.0,
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        one_of("mapl", "reduction", reduction, ("mean", "sum"))
        self.prompt_weight = not_negative("mapl", "prompt_weight", prompt_weight)
        self.gap_weight = not_negative("mapl", "gap_weight", gap_weight)

    def link(self, margin: Tensor) -> Tensor:
        return F.softplus(-margin)

    def forward(
        self,
        chosen: Tensor,
        rejected: Tensor,
        *,
        reference_chosen: Tensor | None = None,
        reference_rejected: Tensor | None = None,
        chosen_length: Tensor | None = None,
        rejected_length: Tensor | None = None,
        group: dist.ProcessGroup | None = None,
        **extra: Tensor,
    ) -> Tensor:
        levels = {name: extra.pop(name) for name in self.needs if name in extra}
        loss = super().forward(
            chosen,
            rejected,
            reference_chosen=reference_chosen,
            reference_rejected=reference_rejected,
            chosen_length=chosen_length,
            rejected_length=rejected_length,
            group=group,
            **extra,
        )
        for upper, lower, weight in (
            ("prompt_chosen", "prompt_rejected", self.prompt_weight),
            ("gap_wide", "gap_narrow", self.gap_weight),
        ):
            if upper not in levels and lower not in levels:
                continue
            above, below = (at_least_float32(value) for value in _needed(self, levels, upper, lower))
            if above.dim() != 1 or above.shape != below.shape:
                raise ValueError(f"mapl: {upper} and {lower} must be [k] alike, got {above.shape} and {below.shape}")
            margins = self.margin_of(*(of_all_with_own_graph(value, group) for value in (above, below)))
            loss = loss + weight * reduced(self.link(margins), self.reduction)
        return loss
