"""Preferences: what all costs of a chosen and a rejected response have in common.

A response has an *implicit reward* ``d(y) = log p(y|x) - log p_ref(y|x)``: the log-probability of its completion under
the policy less that under a frozen reference. An objective does not know where its rewards come from: without a
reference, what is given as ``chosen`` and ``rejected`` is taken for the rewards themselves, be they log-probabilities,
the output of a reward model, or cosines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows, gather_for_all
from nearfar.contrast.precision import at_least_float32
from nearfar.errors import UsageError
from nearfar.objectives.base import Objective

TOKENS = ("sum", "mean")
LIKELIHOODS = ("sum", "mean", "pooled")


@dataclass(frozen=True)
class Preferences:
    """``n`` pairs of responses to the same prompts, all tensors ``[n]``.

    ``chosen``, ``rejected``: implicit rewards, divided by the completion's length under ``tokens="mean"``.
    ``policy_chosen``, ``policy_rejected``: log-probabilities under the policy alone, as they were given.
    ``chosen_length``, ``rejected_length``: tokens of the completions, where they were given.
    """

    chosen: Tensor
    rejected: Tensor
    policy_chosen: Tensor
    policy_rejected: Tensor
    chosen_length: Tensor | None
    rejected_length: Tensor | None

    def negative_log_likelihood(self, tokens: str) -> Tensor:
        """The cost ``[n]`` of the chosen responses under the policy, ``-log p(y_w)``.

        ``tokens``: "sum" over the completion, its "mean", or "pooled": the mean over all tokens of the batch, spread
        over the pairs so that their mean is it.
        """
        if tokens == "sum":
            return -self.policy_chosen
        if self.chosen_length is None:
            raise ValueError(f"the likelihood of the chosen as {tokens!r} over tokens needs chosen_length [n]")
        if tokens == "mean":
            return -self.policy_chosen / self.chosen_length
        return -self.policy_chosen * self.chosen_length.numel() / self.chosen_length.sum()


class PreferenceObjective(Objective):
    """Costs of pairs of responses: ``objective(chosen [n], rejected [n], ...)``; a subclass writes :meth:`pairs`.

    Called with
        ``chosen``, ``rejected`` ``[n]``: summed log-probabilities of the completions under the policy (prompt and
        padding masked, end-of-sequence counted where it is part of the completion), or rewards of any kind;
        ``reference_chosen``, ``reference_rejected`` ``[n]``: the same under the reference, which gets no gradient; both
        or neither;
        ``chosen_length``, ``rejected_length`` ``[n]``: tokens of the completions, needed where log-probabilities are
        averaged; lengths below 1 count as 1;
        what ``extras`` names: ``[n]`` tensors, or scalars for all pairs;
        ``group``: a process group: the loss is then that of the pairs of all processes, so that means, and what a
        formula takes of the whole batch, are the global ones; every process sees its value and gets the gradient of its
        own pairs, which add up to that of one process. Processes may hold different numbers of pairs.

    ``tokens="sum"`` takes the values as they are given, ``"mean"`` divides each by its completion's length.
    ``reduction``: "mean" over pairs (default), "sum", or "none" for the costs ``[n]``. No pair at all costs 0. Half
    precision is computed in float32. Raises ValueError for shapes that do not fit and for missing lengths, TypeError
    for arguments the objective does not take.
    """

    kind = "preference"
    extras: ClassVar[tuple[str, ...]] = ()
    """Names of what may be given beside both responses."""
    reference_free: ClassVar[bool] = False
    """Whether the formula has no reference, so that being given one is a mistake."""

    def __init__(self, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(reduction)
        one_of(self.name, "tokens", tokens, TOKENS)
        self.tokens = tokens

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        """The cost ``[n]`` of each pair."""
        raise NotImplementedError

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
        """The reduced cost of the pairs; see the class."""
        for name in extra:
            if name not in self.extras:
                raise TypeError(f"{self.name} takes no {name!r} beside both responses, but {list(self.extras)}")
        if (reference_chosen is None) != (reference_rejected is None):
            raise ValueError(f"{self.name}: give the reference of both responses or of neither")
        if self.reference_free and reference_chosen is not None:
            raise TypeError(f"{self.name} has no reference: its rewards are the policy's log-probabilities")
        given = {
            "chosen": chosen,
            "rejected": rejected,
            "reference_chosen": reference_chosen,
            "reference_rejected": reference_rejected,
            "chosen_length": chosen_length,
            "rejected_length": rejected_length,
            **{name: value for name, value in extra.items() if value.dim()},
        }
        self._check(given)
        values = {name: at_least_float32(value) for name, value in given.items() if value is not None}
        parts = None if group is None else GatheredRows(chosen.shape[0], group, chosen.device)
        if parts is not None:
            values = {name: gather_for_all(value, parts) for name, value in values.items()}
        pairs = self._preferences(values)
        extra = {name: values.get(name, value) for name, value in extra.items()}
        costs = self.pairs(pairs, **extra)
        if parts is not None and self.reduction == "none":
            return costs[parts.start : parts.start + chosen.shape[0]]
        return reduced(costs, self.reduction)

    def _check(self, given: dict[str, Tensor | None]) -> None:
        chosen = given["chosen"]
        if chosen is None or chosen.dim() != 1 or not chosen.is_floating_point():
            shape = None if chosen is None else (tuple(chosen.shape), chosen.dtype)
            raise ValueError(f"{self.name}: chosen must be [n] floating point, got {shape}")
        for name, value in given.items():
            if value is not None and value.shape != chosen.shape:
                raise ValueError(f"{self.name}: chosen is {list(chosen.shape)} and {name} {list(value.shape)}")

    def _preferences(self, values: dict[str, Tensor]) -> Preferences:
        sides, lengths = {}, {}
        for side in ("chosen", "rejected"):
            reward = values[side]
            if f"reference_{side}" in values:
                reward = reward - values[f"reference_{side}"].detach()
            given = values.get(f"{side}_length")
            length = None if given is None else given.to(reward.dtype).clamp_min(1)
            if self.tokens == "mean":
                if length is None:
                    raise ValueError(
                        f"{self.name}: tokens='mean' averages over tokens and needs chosen_length and rejected_length "
                        "[n]; tokens='sum' takes the values as they are given"
                    )
                reward = reward / length
            sides[side], lengths[side] = reward, length
        return Preferences(
            sides["chosen"],
            sides["rejected"],
            values["chosen"],
            values["rejected"],
            lengths["chosen"],
            lengths["rejected"],
        )


class MarginObjective(PreferenceObjective):
    """Costs that are a link of the margin alone: ``link(beta * (reward(d_w) - reward(d_l)))``.

    A subclass writes :meth:`link`, and :meth:`reward` where the implicit reward is not the log-ratio itself. The same
    link costs any other pair of scores: :class:`nearfar.objectives.PairwiseLink` makes a row objective of it.
    """

    margin_alone: ClassVar[bool] = True
    """Whether a margin has a cost by itself, without the other margins of the batch and without rewards."""

    def __init__(self, beta: float, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.beta = positive(self.name, "beta", beta)

    def link(self, margin: Tensor) -> Tensor:
        """The cost of each margin, which is scaled by beta already; of any shape where ``margin_alone``."""
        raise NotImplementedError

    def reward(self, ratio: Tensor) -> Tensor:
        """The implicit reward, up to beta, of a log-ratio."""
        return ratio

    def margin_of(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """``beta * (reward(chosen) - reward(rejected))``."""
        return self.beta * (self.reward(chosen) - self.reward(rejected))

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        return self.link(self.margin_of(pairs.chosen, pairs.rejected))


def log_ratio(score: Tensor, extra: dict[str, Tensor]) -> Tensor:
    """``log p(y|x)`` less that of the ``reference`` beside it, without a gradient; the score where there is none."""
    return score - extra["reference"].detach() if "reference" in extra else score


def power_reward(ratio: Tensor, alpha: float) -> Tensor:
    """``(1 - u^-alpha) / alpha`` with ``u = exp(ratio)``; the ratio at alpha 0. Bounded as :func:`exponential`."""
    if alpha == 0:
        return ratio
    return -exponential(-alpha * ratio, minus_one=True) / alpha


def exponential(value: Tensor, *, minus_one: bool = False) -> Tensor:
    """``exp(value)`` (less 1), going on along its tangent where it would pass the root of what the type can hold.

    So that differences and products of such values, and their gradients, stay numbers.
    """
    inside = value.clamp(max=math.log(torch.finfo(value.dtype).max) / 2)
    return (torch.expm1(inside) if minus_one else inside.exp()) + inside.exp() * (value - inside)


def reduced(costs: Tensor, reduction: str) -> Tensor:
    """The costs, their sum or their mean, which is 0 for no costs."""
    if reduction == "none":
        return costs
    return costs.sum() if reduction == "sum" or not costs.numel() else costs.mean()


def one_of(name: str, argument: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, if it is allowed. Raises UsageError otherwise."""
    if value not in allowed:
        raise UsageError(f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def positive(name: str, argument: str, value: float) -> float:
    """The value, if it is a finite number > 0. Raises UsageError otherwise."""
    if not 0 < value < math.inf:
        raise UsageError(f"{name}: {argument} must be a finite number > 0, got {value}")
    return value


def not_negative(name: str, argument: str, value: float, below: float = math.inf) -> float:
    """The value, if it is a number >= 0 and below a bound. Raises UsageError otherwise."""
    if not 0 <= value < below:
        bound = "a finite number >= 0" if below == math.inf else f"in [0, {below:g})"
        raise UsageError(f"{name}: {argument} must be {bound}, got {value}")
    return value


def group_means(values: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each value ``[n]`` the mean of its group and the group's size, both ``[n]``.

    ``group [n]``: integers, equal for the responses of one prompt; None for one group of all. Raises ValueError for
    another shape.
    """
    if group is None:
        size = torch.full_like(values, values.numel())
        return (values.sum() / max(1, values.numel())).expand_as(values), size
    if group.shape != values.shape:
        raise ValueError(f"group must be {list(values.shape)}, got {list(group.shape)}")
    index = group_index(group)
    count = int(index.max()) + 1 if index.numel() else 0
    sizes = values.new_zeros(count).index_add(0, index, torch.ones_like(values))
    sums = values.new_zeros(count).index_add(0, index, values)
    return (sums / sizes)[index], sizes[index]


def group_index(group: Tensor) -> Tensor:
    """The groups numbered from 0 in ascending order of their ids."""
    index: Tensor = torch.unique(group, return_inverse=True)[1]
    return index
