"""Rollouts: sampled responses with their rewards and what policy, sampler and reference say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nearfar.alignment.policy import Policy, Prompts, Responses, ResponseScores
from nearfar.errors import DataError

Rewarder = Callable[[Prompts, Responses], Tensor]
"""``reward(prompts, responses)``: a number for each of the ``K`` responses to each of ``n`` prompts, ``[n, K]``."""

Embedder = Callable[[Prompts, Responses], Tensor]
"""``embed(prompts, responses)``: a vector for each response, ``[n, K, d]``."""


def pick(values: Sequence[Any] | Tensor, index: Tensor) -> Any:
    """``values[index]`` of a tensor or of any other sequence, for int64 ``index [m]``."""
    if isinstance(values, Tensor):
        return values[index]
    return [values[i] for i in index.tolist()]


def pick_scores(scores: ResponseScores, index: Tensor) -> ResponseScores:
    """The scores of the prompts ``index [m]``."""
    tokens = None if scores.tokens is None else scores.tokens[index]
    return ResponseScores(scores.log_probability[index], scores.length[index], tokens)


@dataclass(frozen=True)
class Rollouts:
    """``K`` responses to each of ``n`` prompts.

    ``rewards [n, K]``: finite, higher is better. ``sampled``: how probable the responses were under the policy when
    they were drawn (or observed). ``reference``: the same under the reference; None where the procedure has none.
    ``embeddings [n, K, d]``: a vector for each response; None where nobody asked for them. ``chosen``, ``rejected``:
    bool ``[n, K]``, the groups that were selected; None where all are contrasted. Nothing carries a gradient.
    """

    prompts: Prompts
    responses: Responses
    rewards: Tensor
    sampled: ResponseScores
    reference: ResponseScores | None = None
    embeddings: Tensor | None = None
    chosen: Tensor | None = None
    rejected: Tensor | None = None

    def __len__(self) -> int:
        return self.rewards.shape[0]

    @property
    def group(self) -> Tensor:
        """The number of the prompt of each response, prompt by prompt: int64 ``[n K]``."""
        n, count = self.rewards.shape
        return torch.arange(n, device=self.rewards.device).repeat_interleave(count)

    def rows(self, index: Tensor) -> Rollouts:
        """The rollouts of the prompts ``index [m]``."""
        return replace(
            self,
            prompts=pick(self.prompts, index),
            responses=pick(self.responses, index),
            rewards=self.rewards[index],
            sampled=pick_scores(self.sampled, index),
            reference=None if self.reference is None else pick_scores(self.reference, index),
            embeddings=None if self.embeddings is None else self.embeddings[index],
            chosen=None if self.chosen is None else self.chosen[index],
            rejected=None if self.rejected is None else self.rejected[index],
        )


@torch.no_grad()
def observe(
    policy: Policy,
    prompts: Prompts,
    responses: Responses,
    rewards: Tensor,
    *,
    reference: Policy | None = None,
    embed: Embedder | None = None,
    tokens: bool = False,
) -> Rollouts:
    """Responses of any origin as rollouts: what ``policy`` and ``reference`` say of them now.

    ``reference`` may be ``policy`` itself, whose scores are then taken once. ``tokens``: keep the single tokens'
    log-probabilities. Raises :class:`~nearfar.errors.DataError` for rewards that are not finite or do not fit.
    """
    sampled = policy.scores(prompts, responses, tokens=tokens).detach()
    if rewards.shape != sampled.log_probability.shape:
        shapes = f"{list(rewards.shape)} rewards for {list(sampled.log_probability.shape)} responses"
        raise DataError(shapes, hint="a reward function gives one number a response: [prompts, responses a prompt]")
    bad = (~torch.isfinite(rewards)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"the reward of response {column} is {float(rewards[row, column])}",
            where=f"prompt {_shown(pick(prompts, bad[0, :1])[0])}",
            hint="a reward must be a finite number",
        )
    before = None
    if reference is policy:
        before = sampled
    elif reference is not None:
        before = reference.scores(prompts, responses, tokens=tokens).detach()
    embeddings = None if embed is None else embed(prompts, responses).detach()
    return Rollouts(prompts, responses, rewards.detach(), sampled, before, embeddings)


@torch.no_grad()
def roll_out(
    policy: Policy,
    prompts: Prompts,
    reward: Rewarder,
    count: int,
    *,
    sampler: Policy | None = None,
    reference: Policy | None = None,
    embed: Embedder | None = None,
    tokens: bool = False,
    generator: torch.Generator | None = None,
) -> Rollouts:
    """``count`` responses to each prompt drawn from ``sampler`` (default: the policy), rewarded and observed.

    With another sampler ``sampled`` still holds what the *policy* says: importance ratios are not taken against a
    sampler of other support.
    """
    responses = (policy if sampler is None else sampler).sample(prompts, count, generator=generator)
    rewards = reward(prompts, responses)
    return observe(policy, prompts, responses, rewards, reference=reference, embed=embed, tokens=tokens)


def _shown(prompt: Any) -> str:
    text = str(prompt.item() if isinstance(prompt, Tensor) and prompt.dim() == 0 else prompt)
    return text if len(text) <= 80 else text[:77] + "..."
