"""What recipes on policies that are tables share: pairs of answers, their costs, training, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment.tables import TabularPolicy, best_regularised, divergence, expected
from nearfar.evaluation.ranking import Judged, measure_ranks
from nearfar.objectives.graded_columns import descending_ranks
from nearfar.objectives.preference import PreferenceObjective
from nearfar.training.steps import random_batches, seeded, train_steps

# data, batches and held-out draws of a seed have streams of their own: a generator that starts where another did would
# make one a function of the other
_DATA, _BATCHES, _TRAINING, _HELD_OUT = 7_000_003, 8_000_009, 9_000_011, 10_000_019


def stream(seed: int) -> torch.Generator:
    """For the training data of ``seed``."""
    return torch.Generator().manual_seed(_DATA + seed)


def held_out(seed: int) -> torch.Generator:
    """For what is only measured on."""
    return torch.Generator().manual_seed(_HELD_OUT + seed)


@dataclass(frozen=True)
class Pairs:
    """``n`` pairs of answers: ``prompt``, ``chosen`` and ``rejected``, all int64 ``[n]``."""

    prompt: Tensor
    chosen: Tensor
    rejected: Tensor

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, index: Tensor) -> Pairs:
        return Pairs(self.prompt[index], self.chosen[index], self.rejected[index])


def preferred(prompt: Tensor, answer: Tensor, reward: Tensor, *, generator: torch.Generator) -> Pairs:
    """Which of two answers ``[n, 2]`` a judge prefers that follows Bradley and Terry: the first with the probability
    ``sigmoid(r_1 - r_2)`` of their rewards ``[n, 2]``."""
    chance = torch.sigmoid(reward[:, 0] - reward[:, 1])
    first = torch.rand(len(prompt), generator=generator, dtype=chance.dtype) < chance
    place = torch.where(first, 0, 1)[:, None]
    return Pairs(prompt, answer.gather(1, place)[:, 0], answer.gather(1, 1 - place)[:, 0])


def start(reference: Tensor) -> TabularPolicy:
    """A policy that begins where the reference with these logits ``[P, A]`` is."""
    return TabularPolicy(torch.log_softmax(reference, 1))


def cost(
    objective: PreferenceObjective,
    policy: TabularPolicy,
    pairs: Pairs,
    reference: TabularPolicy | None = None,
    **extra: Tensor,
) -> Tensor:
    """An objective's cost of pairs under a policy; beside a reference where the formula has one. An answer is one
    token, which is what lengths say where the objective asks for them. ``extra`` goes to the objective."""
    both = torch.stack([pairs.chosen, pairs.rejected], 1)
    given = dict(zip(("chosen", "rejected"), policy.log_probability(pairs.prompt, both).unbind(1), strict=True))
    if reference is not None:
        frozen = reference.log_probability(pairs.prompt, both).detach().unbind(1)
        given |= dict(zip(("reference_chosen", "reference_rejected"), frozen, strict=True))
    found: Tensor = objective(**given, **extra)
    return found


def train(
    loss: Callable[[Tensor], Tensor],
    parts: Sequence[nn.Module],
    *,
    items: int,
    seed: int,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    **options: Any,
) -> list[float]:
    """Minimise ``loss(index [b])`` over batches of ``items`` in the parameters of ``parts`` by Adam; the losses.

    Batches are drawn from ``seed`` alone, so that all arms see the same. ``options`` go to
    :func:`~nearfar.training.steps.train_steps`.
    """
    batches = random_batches(items, batch_size, steps, torch.Generator().manual_seed(_BATCHES + seed))
    with seeded(_TRAINING + seed):
        return train_steps(loss, parts, batches, learning_rate=learning_rate, **options)


def tuned(run: Callable[[float], tuple[float, dict[str, float]]], settings: Iterable[float]) -> dict[str, float]:
    """What an arm measures at the best of some settings: ``run(setting)`` gives a value on data set aside for the
    choice, the higher the better, and what is measured elsewhere."""
    return max((run(setting) for setting in settings), key=lambda found: found[0])[1]


@torch.no_grad()
def regret(policy: TabularPolicy, reference: TabularPolicy, reward: Tensor, beta: float) -> float:
    """How much less ``E reward - beta KL(policy || reference)`` is than it could be, mean over prompts; exact, >= 0 up
    to rounding. ``reward [P, A]``."""

    def value(of: TabularPolicy) -> Tensor:
        return (expected(of, reward) - beta * divergence(of, reference)).mean()

    return float(value(best_regularised(reference, reward, beta)) - value(policy))


@torch.no_grad()
def moved(policy: TabularPolicy, reference: TabularPolicy, prompt: Tensor, answer: Tensor) -> float:
    """By how many nats the log-probability of the answers ``[n]`` to ``prompt [n]`` has risen; their mean."""
    change = policy.log_probability(prompt, answer) - reference.log_probability(prompt, answer)
    return float(change.mean())


@torch.no_grad()
def ranking(scores: Tensor, grade: Tensor, measure: str) -> float:
    """How well the scores ``[n, k]`` order lists with grades ``[n, k]`` >= 0; the mean of a measure of
    :func:`~nearfar.evaluation.ranking.measure_ranks` with exponential gain over lists that have a grade above 0."""
    ranks = descending_ranks(scores, torch.ones_like(scores, dtype=torch.bool))
    row, column = (grade > 0).nonzero(as_tuple=True)
    queries, query = torch.unique(row, return_inverse=True)
    judged = Judged(
        query.numpy(),
        column.numpy(),
        grade[row, column].double().numpy(),
        queries.numpy(),
        excluded=len(grade) - len(queries),
    )
    found = measure_ranks(measure, judged, ranks[row, column].double().numpy(), gain="exponential")
    return float(np.mean(found))
