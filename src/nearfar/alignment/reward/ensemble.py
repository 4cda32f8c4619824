"""The strength of preferences by language models: many small heads on the states of one, or several reward models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.alignment.reward.strength import Vote, Votes, ensemble_votes
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import UsageError
from nearfar.objectives import RewardModeling
from nearfar.training.steps import random_batches, seeded, train_steps


def votes_of_heads(
    states: Tensor,
    *,
    votes: int = 10,
    folds: int = 2,
    width: int = 0,
    steps: int = 200,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> Votes:
    """Votes of an ensemble of heads on frozen states ``[n, 2, d]`` of the chosen and the rejected response of n pairs.

    The members of the paper are whole models (Wang et al., 2024, arXiv:2401.06080: ten of seven billion parameters);
    heads on the states of one model cost seconds, and know only what it already tells apart. States are standardised
    over all responses; a head is linear, or has a hidden layer of ``width``, and is trained by ``reward-modeling`` for
    ``steps`` of ``batch_size`` pairs with AdamW. ``votes``, ``folds``: see
    :func:`~nearfar.alignment.reward.strength.ensemble_votes`. The same seed gives the same votes.

    Raises :class:`~nearfar.errors.UsageError` for states of another shape.
    """
    if states.dim() != 3 or states.shape[1] != 2:
        raise UsageError(f"states of the two responses of pairs are [n, 2, d], got {list(states.shape)}")
    flat = states.detach().float().reshape(-1, states.shape[2])
    spread = flat.std(0, correction=0).clamp_min(1e-6)
    known = ((flat - flat.mean(0)) / spread).reshape(states.shape)
    objective = RewardModeling()

    def fit(rows: Tensor, member: int) -> Vote:
        own = known[rows]
        with seeded(member) as generator:
            head = Perceptron((states.shape[2], *([width] if width else []), 1))

            def loss(index: Tensor) -> Tensor:
                given = head(own[index]).squeeze(-1)
                cost: Tensor = objective(given[:, 0], given[:, 1])
                return cost

            batches = random_batches(len(own), batch_size, steps, generator)
            train_steps(
                loss, [head], batches, optimizer="adamw", learning_rate=learning_rate, weight_decay=weight_decay
            )

        def vote(judged: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                given = head(known[judged]).squeeze(-1)
            return given[:, 0], given[:, 1]

        return vote

    return ensemble_votes(fit, len(states), votes=votes, folds=folds, seed=seed)


def votes_of_models(rewards: Sequence[Tensor]) -> Votes:
    """Votes of reward models that gave ``[2 n]`` rewards each, chosen and rejected in turn.

    Models that learned from these pairs find the labels that they memorised strong.
    """
    given = torch.stack([each.reshape(-1, 2) for each in rewards])
    return Votes(given[..., 0], given[..., 1])
