"""Policies that are tables: every prompt has the same number of answers, and each answer a logit.

Small enough that expectations, divergences and optima are exact, which is what claims about objectives are tested on.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nearfar.alignment.policy import ResponseScores
from nearfar.errors import UsageError


class TabularPolicy(nn.Module):
    """``pi(a|x) = softmax_a(logits[x, a])`` over ``A`` answers to each of ``P`` prompts; all logits are trained.

    ``logits [P, A]``: where the policy starts, finite. Prompts and answers are int64 numbers.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        if logits.dim() != 2 or not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
            raise UsageError(f"logits must be finite numbers [prompts, answers], got {list(logits.shape)}")
        self.logits = nn.Parameter(logits.detach().clone())

    def table(self) -> Tensor:
        """The log-probability of every answer to every prompt ``[P, A]``."""
        return torch.log_softmax(self.logits, dim=1)

    def log_probability(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``log pi(answer|prompt)``: prompts ``[n]``, answers ``[n]`` or ``[n, K]``; the shape of the answers."""
        rows = self.table()[prompt]
        found = rows.gather(1, answer.reshape(len(prompt), -1))
        return found.reshape(answer.shape)

    def sample(self, prompts: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``count`` independent answers ``[n, count]`` to each of the prompts ``[n]``."""
        probability = self.table().detach().exp()[prompts]
        return torch.multinomial(probability, count, replacement=True, generator=generator)

    def scores(self, prompts: Tensor, responses: Tensor, *, tokens: bool = False) -> ResponseScores:
        """See :class:`nearfar.alignment.policy.Policy`; a response is one token."""
        found = self.log_probability(prompts, responses)
        return ResponseScores(found, torch.ones_like(responses), found.unsqueeze(-1) if tokens else None)

    def frozen(self) -> TabularPolicy:
        """A copy of the policy as it is now, which is not trained: a reference."""
        return copy.deepcopy(self).requires_grad_(False)


class FeaturePolicy(TabularPolicy):
    """``pi(a|x) = softmax_a(<w, features[x, a]> + offset[x, a])``: what is learned of one prompt holds for others.

    ``features [P, A, F]``; ``offset [P, A]``: logits that are not trained, such as those of a reference, default 0;
    ``w`` starts at 0. ``policy.on(features)`` is the policy on other prompts, with the same ``w``.
    """

    def __init__(self, features: Tensor, offset: Tensor | None = None, *, weight: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)
        if features.dim() != 3:
            raise UsageError(f"features must be [prompts, answers, width], got {list(features.shape)}")
        self.features: Tensor
        self.offset: Tensor
        self.register_buffer("features", features.detach().clone())
        self.register_buffer("offset", features.new_zeros(features.shape[:2]) if offset is None else offset.detach())
        self.weight = nn.Parameter(features.new_zeros(features.shape[2])) if weight is None else weight

    def table(self) -> Tensor:
        return torch.log_softmax(self.features @ self.weight + self.offset, dim=1)

    def on(self, features: Tensor, offset: Tensor | None = None) -> FeaturePolicy:
        """The policy on other prompts ``[P', A', F]``; both are trained together."""
        return FeaturePolicy(features, offset, weight=self.weight)


class LinearPolicy(TabularPolicy):
    """``pi(a|x) = softmax_a((inputs W)[x, a] + offset[x, a])``: the same ``A`` answers to every prompt, by what the
    prompt is like.

    ``inputs [P, F]``; ``offset [P, A]``: logits that are not trained; ``W [F, A]`` starts at 0. ``policy.on(inputs,
    offset)`` is the policy on other prompts, with the same ``W``.
    """

    def __init__(self, inputs: Tensor, offset: Tensor, *, weight: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)
        if inputs.dim() != 2 or offset.dim() != 2 or len(inputs) != len(offset):
            raise UsageError(
                f"inputs must be [prompts, width] and offset [prompts, answers], got {list(inputs.shape)} and "
                f"{list(offset.shape)}"
            )
        self.inputs: Tensor
        self.offset: Tensor
        self.register_buffer("inputs", inputs.detach().clone())
        self.register_buffer("offset", offset.detach().clone())
        self.weight = nn.Parameter(inputs.new_zeros(inputs.shape[1], offset.shape[1])) if weight is None else weight

    def table(self) -> Tensor:
        return torch.log_softmax(self.inputs @ self.weight + self.offset, dim=1)

    def on(self, inputs: Tensor, offset: Tensor) -> LinearPolicy:
        """The policy on other prompts ``[P', F]``; both are trained together."""
        return LinearPolicy(inputs, offset, weight=self.weight)


def expected(policy: TabularPolicy, reward: Tensor) -> Tensor:
    """``E_{a ~ pi} reward(x, a)`` of each prompt ``[P]``, for rewards ``[P, A]``; exact."""
    return (policy.table().exp() * reward).sum(1)


def divergence(policy: TabularPolicy, reference: TabularPolicy) -> Tensor:
    """``KL(policy || reference)`` of each prompt ``[P]`` in nats; exact."""
    here = policy.table()
    return (here.exp() * (here - reference.table())).sum(1)


def entropy(policy: TabularPolicy) -> Tensor:
    """``-sum_a pi log pi`` of each prompt ``[P]`` in nats."""
    here = policy.table()
    return -(here.exp() * here).sum(1)


def best_regularised(reference: TabularPolicy, reward: Tensor, beta: float) -> TabularPolicy:
    """The optimum of ``E reward - beta KL(pi || reference)``: ``pi* = softmax(log reference + reward / beta)``."""
    return TabularPolicy(reference.table().detach() + reward / beta)
