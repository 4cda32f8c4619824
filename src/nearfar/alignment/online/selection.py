"""Which of the sampled responses are contrasted: pairs of them, or a group of good ones against a group of bad ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.preference import one_of
from nearfar.objectives.preference_selection import bottom_k, coreset, opt_select

STRATEGIES = ("bottom-k", "coreset", "opt-select", "random", "all")


class Pairs(NamedTuple):
    """Pairs of responses to the same prompt: the prompt's ``row [p]``, and the columns ``[p]`` of winner and loser."""

    row: Tensor
    winner: Tensor
    loser: Tensor

    def of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """``values [n, K]`` of winners and of losers, both ``[p]``."""
        return values[self.row, self.winner], values[self.row, self.loser]


def all_pairs(rewards: Tensor, margin: float = 0.0) -> Pairs:
    """Every pair of responses ``[n, K]`` whose rewards differ, by at least ``margin`` (the margin filter)."""
    _check(rewards, margin)
    gap = rewards[:, :, None] - rewards[:, None, :]
    return Pairs(*((gap > 0) & (gap >= margin)).nonzero().unbind(1))


def best_and_worst(rewards: Tensor, margin: float = 0.0) -> Pairs:
    """The best and the worst response to each prompt, the first of those alike, where they differ as in
    :func:`all_pairs`."""
    _check(rewards, margin)
    best, worst = rewards.argmax(1), rewards.argmin(1)
    gap = rewards.amax(1) - rewards.amin(1)
    row = ((gap > 0) & (gap >= margin)).nonzero()[:, 0]
    return Pairs(row, best[row], worst[row])


def widest_pairs(rewards: Tensor, share: float = 0.5) -> Pairs:
    """The ``share`` (in (0, 1]) of all pairs whose rewards differ most (the quantile filter), at least one where there
    is any."""
    if not 0 < share <= 1:
        raise UsageError(f"the share of pairs must be in (0, 1], got {share}")
    pairs = all_pairs(rewards)
    of_winner, of_loser = pairs.of(rewards)
    count = min(len(pairs.row), max(1, round(share * len(pairs.row))))
    kept = (of_winner - of_loser).argsort(descending=True, stable=True)[:count].sort().values
    return Pairs(*(part[kept] for part in pairs))


def select_group(
    rewards: Tensor,
    k: int,
    strategy: str = "bottom-k",
    *,
    embeddings: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """AMPO's groups: the best response to each prompt, and ``k`` of the rest; both bool ``[n, K]``.

    ``strategy``: "bottom-k", "coreset", "opt-select" (see :mod:`nearfar.objectives.preference_selection`; the latter
    two need ``embeddings [n, K, d]``), "random" of the rest, or "all" of it, whatever ``k``. A prompt whose rewards are
    all alike has neither: there is nothing to tell apart.
    """
    one_of("select_group", "strategy", strategy, STRATEGIES)
    _check(rewards)
    n, count = rewards.shape
    if strategy in ("coreset", "opt-select") and (embeddings is None or embeddings.shape[:2] != rewards.shape):
        raise UsageError(f"{strategy} needs embeddings [{n}, {count}, d] of the responses")
    chosen, rejected = torch.zeros_like(rewards, dtype=torch.bool), torch.zeros_like(rewards, dtype=torch.bool)
    for row, values in enumerate(rewards):
        if not bool(values.max() > values.min()):
            continue
        best = int(values.argmax())
        chosen[row, best] = True
        if strategy == "bottom-k":
            taken = bottom_k(values, k)
        elif strategy == "coreset" and embeddings is not None:
            taken = coreset(values, embeddings[row], k)
        elif strategy == "opt-select" and embeddings is not None:
            taken = opt_select(values, embeddings[row], k)
        else:
            order = torch.randperm(count, generator=generator).to(rewards.device)
            taken = order[order != best][: count if strategy == "all" else k]
        rejected[row, taken] = True
    return chosen, rejected


def _check(rewards: Tensor, margin: float = 0.0) -> None:
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [n, K], got {list(rewards.shape)}")
    if not margin >= 0:
        raise UsageError(f"the margin must be >= 0, got {margin}")
