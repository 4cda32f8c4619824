"""Preferences that need not come from a reward, as games: win rates, exploitability, and soft policy iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.alignment.tables import TabularPolicy, best_regularised
from nearfar.errors import UsageError


class PreferenceGame:
    """``preference[x, a, b] = P(a beats b | x)``: two policies answer the same prompt, and one of them is preferred.

    ``preference [P, A, A]`` in [0, 1], ``P(a beats b) + P(b beats a) = 1``, itself 1/2. It may be cyclic; then no
    reward explains it, and the best policy is the Nash equilibrium. Raises :class:`~nearfar.errors.UsageError` for
    other tables.
    """

    def __init__(self, preference: Tensor) -> None:
        if preference.dim() != 3 or preference.shape[1] != preference.shape[2]:
            raise UsageError(f"preference must be [prompts, answers, answers], got {list(preference.shape)}")
        whole = preference + preference.transpose(1, 2)
        if not bool(((preference >= 0) & (preference <= 1)).all()) or not bool(((whole - 1).abs() < 1e-6).all()):
            raise UsageError("preference must lie in [0, 1], and P(a beats b) + P(b beats a) be 1, P(a beats a) 1/2")
        self.preference = preference

    @classmethod
    def of_rewards(cls, reward: Tensor) -> PreferenceGame:
        """Bradley-Terry's: ``sigmoid(r_a - r_b)`` for rewards ``[P, A]``; transitive."""
        return cls(torch.sigmoid(reward[:, :, None] - reward[:, None, :]))

    def win_rates(self, probability: Tensor) -> Tensor:
        """``E_{b ~ probability} P(a beats b)`` of every answer ``[P, A]`` over a policy ``[P, A]``; exact."""
        return (self.preference @ probability.unsqueeze(2)).squeeze(2)

    def win_rate(self, first: Tensor, second: Tensor) -> Tensor:
        """How often the policy ``first [P, A]`` (probabilities) beats ``second``, ``[P]``; exact."""
        return (first * self.win_rates(second)).sum(1)

    def exploitability(self, probability: Tensor) -> Tensor:
        """``max_a P(a beats policy) - 1/2`` of each prompt ``[P]``: 0 at the Nash equilibrium, above it elsewhere."""
        return self.win_rates(probability).amax(1) - 0.5

    def judge(self, prompts: Tensor, responses: Tensor) -> Tensor:
        """The probabilities ``[n, K, K]`` that one response beats another: an exact
        :data:`~nearfar.alignment.online.rewards.Judge`."""
        table = self.preference[prompts]
        rows = table.gather(1, responses.unsqueeze(2).expand(-1, -1, table.shape[2]))
        return rows.gather(2, responses.unsqueeze(1).expand(-1, responses.shape[1], -1))


class ExpectedWinRates:
    """The reward DNO regresses on: the exact win rate of an answer over the policy as it is when answers are drawn."""

    def __init__(self, game: PreferenceGame, policy: TabularPolicy) -> None:
        self.game = game
        self.policy = policy

    def __call__(self, prompts: Tensor, responses: Tensor) -> Tensor:
        rates = self.game.win_rates(self.policy.table().detach().exp())
        return rates[prompts].gather(1, responses)


def soft_policy_iteration(start: TabularPolicy, game: PreferenceGame, *, eta: float, iterations: int) -> list[Tensor]:
    """``pi_{t+1} = pi_t exp(r_t / eta) / Z``, ``r_t`` the win rates over ``pi_t`` (Rosset et al., 2024): what DNO's
    regression aims at, exactly.

    Returns the probabilities ``[P, A]`` of all iterates, the start first. Their mean is a Nash equilibrium in the limit
    of many small steps (large ``eta``); the last may circle around it.
    """
    policy, found = start, [start.table().detach().exp()]
    for _ in range(iterations):
        policy = best_regularised(policy, game.win_rates(found[-1]), eta)
        found.append(policy.table().detach().exp())
    return found


def bradley_terry(game: PreferenceGame) -> Tensor:
    """The rewards ``[P, A]``, of mean 0, whose ``sigmoid(r_a - r_b)`` is nearest to a game in likelihood, every pair
    compared equally often: what a reward model learns of preferences that no reward explains."""
    preference = game.preference.detach()
    first, second = torch.triu_indices(preference.shape[1], preference.shape[2], offset=1)
    reward = torch.zeros_like(preference[:, 0]).requires_grad_()
    optimizer = torch.optim.LBFGS([reward], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        gap = reward[:, first] - reward[:, second]
        # a pinch of the squares keeps rewards of certain outcomes finite
        value = F.binary_cross_entropy_with_logits(gap, preference[:, first, second]) + 1e-6 * reward.square().mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = reward.detach()
    return found - found.mean(1, keepdim=True)


def mixture(iterates: Sequence[Tensor]) -> Tensor:
    """The uniform mixture ``[P, A]`` of policies given by their probabilities: one of them is drawn, then answers."""
    return torch.stack(list(iterates)).mean(0)
