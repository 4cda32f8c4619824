"""How strong a preference is, by the vote of an ensemble, and what is done about those that are weak or wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.preference_values import preference_strength

Vote = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows of the data ``[k]`` -> the rewards of their chosen and rejected responses, ``[k]`` each."""

Fit = Callable[[Tensor, int], Vote]
"""Rows to learn from ``[k]`` and the seed of a member of the ensemble -> the member."""

INCORRECT, AMBIGUOUS, NORMAL, STRONG = range(4)
GROUPS = ("incorrect", "ambiguous", "normal", "strong")
"""The groups of :func:`strength_groups` by number."""


@dataclass(frozen=True)
class Votes:
    """What an ensemble thinks of ``n`` pairs: ``chosen``, ``rejected`` ``[m, n]``, the rewards by each of m votes."""

    chosen: Tensor
    rejected: Tensor

    @property
    def strength(self) -> Tensor:
        """The mean over the votes of how much the chosen response is preferred ``[n]``; below 0 where the label is
        probably wrong."""
        return preference_strength(self.chosen, self.rejected)[0]

    @property
    def deviation(self) -> Tensor:
        """How far the votes differ ``[n]``, a population deviation."""
        return preference_strength(self.chosen, self.rejected)[1]


def ensemble_votes(fit: Fit, pairs: int, *, votes: int = 10, folds: int = 2, seed: int = 0) -> Votes:
    """Every pair judged ``votes`` times by models that did not learn from it.

    For each vote the pairs are cut at random into ``folds`` parts of nearly equal size; a model learns from all parts
    but one and judges that one. ``folds=1`` is the ensemble of the paper (Wang et al., 2024, arXiv:2401.06080): every
    model learns from all pairs and judges all; labels that it has memorised then look strong. ``votes x folds`` models
    are trained in all.

    Arguments: ``votes``, default 10 (the paper's); ``folds``, default 2; ``seed``: of the parts, and the members'
    seeds are counted from it. Raises :class:`~nearfar.errors.UsageError` for fewer than one of either, or fewer pairs
    than folds.
    """
    if votes < 1 or folds < 1 or pairs < folds:
        raise UsageError(
            f"{votes} votes, {folds} folds and {pairs} pairs; at least one vote, one fold and a pair a fold are needed"
        )
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for vote in range(votes):
        mixed = torch.randperm(pairs, generator=generator)
        order, sides = [], []
        for number, judged in enumerate(mixed.tensor_split(folds)):
            learned = mixed[~torch.isin(mixed, judged)] if folds > 1 else mixed
            sides.append(torch.stack(fit(learned.sort().values, seed + vote * folds + number)(judged)).detach())
            order.append(judged)
        chosen, rejected = torch.cat(sides, 1)[:, torch.cat(order).argsort()]
        found.append((chosen, rejected))
    chosen, rejected = (torch.stack(side) for side in zip(*found, strict=True))
    return Votes(chosen, rejected)


def strength_groups(strength: Tensor) -> Tensor:
    """Which of :data:`GROUPS` each pair is of, int64 ``[n]``, by its place in the order of ``strength [n]``.

    The lowest 20 % are incorrect, the next 20 % ambiguous, the highest 10 % strong, the rest normal: the shares of the
    paper's data (hh-rlhf; Wang et al., 2024, section 2.2). Shares are rounded down; equal strengths keep their order.
    """
    n = strength.numel()
    place = torch.empty(n, dtype=torch.long)
    place[strength.argsort(stable=True).cpu()] = torch.arange(n)
    group = torch.full((n,), NORMAL)
    group[place < n * 4 // 10] = AMBIGUOUS
    group[place < n * 2 // 10] = INCORRECT
    group[place >= n - n // 10] = STRONG
    return group.to(strength.device)


FLIPS = ("none", "negative", "lowest")
SMOOTHED = ("negative", "strong", "all")


@dataclass(frozen=True)
class Treatment:
    """What is done to each of ``n`` pairs before a reward model learns from them.

    ``flipped [n]`` (bool): whether chosen and rejected change places; ``margin [n]``: the difference of rewards that is
    asked for; ``smoothing [n]``: how much the label is doubted.
    """

    flipped: Tensor
    margin: Tensor
    smoothing: Tensor

    def __getitem__(self, rows: Tensor) -> Treatment:
        """Of these rows."""
        return Treatment(self.flipped[rows], self.margin[rows], self.smoothing[rows])

    @property
    def asked(self) -> dict[str, Tensor]:
        """What the objective ``reward-modeling`` is given beside the rewards of both responses."""
        return {"margin": self.margin, "smoothing": self.smoothing}

    def sides(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be preferred and what not, of anything ``[n, ...]`` that belongs to the two responses."""
        flipped = self.flipped.reshape(-1, *[1] * (chosen.dim() - 1))
        return torch.where(flipped, rejected, chosen), torch.where(flipped, chosen, rejected)


def treatment(
    strength: Tensor,
    *,
    flip: str = "none",
    margin: bool = False,
    smoothing: float = 0.0,
    smoothed: str = "negative",
    margin_scale: float = 1.0,
) -> Treatment:
    """What the paper does about the strength of preferences ``[n]`` (Wang et al., 2024, section 2.3).

    - ``flip``: turn the labels whose strength is below 0 ("negative"), or the "lowest" 20 % (their group is
      "incorrect"); default "none".
    - ``margin``: the reward model is asked for the difference that the ensemble found, ``margin_scale`` times the
      strength; of a flipped pair for minus that, so that it speaks for the label as it is then.
    - ``smoothing``: the share of doubt in [0, 0.5), 0.1 a good start, given to pairs that are "negative" (default) and
      not flipped, to the "strong" group (against over-fitting), or to "all".

    The paper compares flip; margin; flip and margin; smoothing below 0 and margin. Raises
    :class:`~nearfar.errors.UsageError` for another choice or share.
    """
    if flip not in FLIPS or smoothed not in SMOOTHED:
        raise UsageError(f"flip is {flip!r} and smoothed {smoothed!r}; they may be {FLIPS} and {SMOOTHED}")
    if not 0 <= smoothing < 0.5:
        raise UsageError(f"a smoothing of {smoothing} is none; it lies in [0, 0.5)")
    strength = strength.detach()
    group = strength_groups(strength)
    wrong = {
        "none": torch.zeros_like(strength, dtype=torch.bool),
        "negative": strength < 0,
        "lowest": group == INCORRECT,
    }[flip]
    doubted = {"negative": (strength < 0) & ~wrong, "strong": group == STRONG, "all": torch.ones_like(wrong)}[smoothed]
    wanted = torch.where(wrong, -strength, strength) if margin else torch.zeros_like(strength)
    return Treatment(wrong, margin_scale * wanted, smoothing * doubted.to(strength.dtype))
