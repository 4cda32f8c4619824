"""A small task to score preference objectives by: a policy on features, choices with turned labels, the true reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.alignment.tables import FeaturePolicy, expected
from nearfar.data.synthetic.flipped_choices import Choices, FlippedChoices
from nearfar.objectives.preference import PreferenceObjective
from nearfar.training.steps import train_steps


@dataclass(frozen=True)
class Split:
    """Choices to train on, and other prompts to judge by: their features ``[P, A, d]`` and rewards ``[P, A]``."""

    choices: Choices
    features: Tensor
    reward: Tensor


def splits(seed: int, *, count: int, prompts: int = 100, pairs: int = 300, judged: int = 1000) -> list[Split]:
    """``count`` independent splits of the world of ``seed``; a larger count begins with the same ones."""
    world = FlippedChoices(seed=seed)
    generator = torch.Generator().manual_seed(11_000_027 + seed)
    return [
        Split(world.draw(prompts, pairs, generator=generator), *world.prompts(judged, generator=generator))
        for _ in range(count)
    ]


def share_of_best(
    objective: PreferenceObjective, split: Split, *, steps: int = 40, learning_rate: float = 0.15
) -> float:
    """The true expected reward on the prompts to judge by, divided by that of the best answers; at most 1.

    Of a :class:`~nearfar.alignment.tables.FeaturePolicy` that starts at the uniform reference and that Adam trains with
    the objective on all choices, ``steps`` times. Raises :class:`~nearfar.errors.TrainingError` for a loss that is not
    finite.
    """
    choices = split.choices
    policy = FeaturePolicy(choices.features)
    both = torch.stack([choices.chosen, choices.rejected], 1)
    reference = policy.log_probability(choices.prompt, both).detach()

    def loss(_: Tensor) -> Tensor:
        chosen, rejected = policy.log_probability(choices.prompt, both).unbind(1)
        cost: Tensor = objective(chosen, rejected, reference_chosen=reference[:, 0], reference_rejected=reference[:, 1])
        return cost

    train_steps(loss, [policy], [choices.prompt] * steps, learning_rate=learning_rate)
    with torch.no_grad():
        reached = expected(policy.on(split.features), split.reward).mean()
    return float(reached / split.reward.amax(1).mean())


def fitness(
    seed: int, *, first: int = 0, count: int = 2, steps: int = 40, learning_rate: float = 0.15
) -> Callable[[PreferenceObjective], float]:
    """The mean of :func:`share_of_best` over ``count`` splits of a world, from number ``first`` on: a task for
    :class:`~nearfar.alignment.discovery.limits.LimitedProcess`."""
    held: Sequence[Split] = splits(seed, count=first + count)[first:]

    def measured(objective: PreferenceObjective) -> float:
        found = [share_of_best(objective, split, steps=steps, learning_rate=learning_rate) for split in held]
        return sum(found) / len(found)

    return measured
