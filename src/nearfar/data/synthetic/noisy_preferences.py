"""Pairs of responses with a known true reward, and labels that are wrong where it is close, and elsewhere too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError


@dataclass(frozen=True)
class NoisyPairs:
    """``n`` labelled pairs: features ``chosen``, ``rejected`` ``[n, d]``, and whether the label is ``right [n]``."""

    chosen: Tensor
    rejected: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.right)


class NoisyPreferences:
    """Responses are points ``x ~ N(0, I)`` in ``dimension`` features; the true reward is ``<w, x>``, w of length 1.

    Of a pair the response with the higher reward is preferred, but for two kinds of wrong labels, which do not look
    different: a share ``flips`` where it is close, with a probability that falls as ``exp(-gap / closeness)`` with the
    gap of the rewards (at most 1/2, a coin's toss), and a share ``adversarial`` anywhere, drawn evenly from the others.

    Arguments: ``dimension``, default 20; ``flips``, default 0.25; ``adversarial``, default 0.08; ``closeness`` > 0,
    default 1 (the gap's standard deviation is 1.41); ``seed`` of w. Raises :class:`~nearfar.errors.UsageError` for
    shares outside [0, 0.5).
    """

    def __init__(
        self,
        dimension: int = 20,
        *,
        flips: float = 0.25,
        adversarial: float = 0.08,
        closeness: float = 1.0,
        seed: int = 0,
    ) -> None:
        if dimension < 1 or not 0 <= flips < 0.5 or not 0 <= adversarial < 0.5 or not closeness > 0:
            raise UsageError(
                f"dimension {dimension}, flips {flips}, adversarial {adversarial}, closeness {closeness}: the shares "
                "lie in [0, 0.5), the others are above 0"
            )
        weight = torch.randn(dimension, generator=torch.Generator().manual_seed(seed))
        self.weight = weight / weight.norm()
        self.flips, self.adversarial, self.closeness = flips, adversarial, closeness

    def reward(self, x: Tensor) -> Tensor:
        """The true reward of responses ``[..., d]``."""
        rewards: Tensor = x @ self.weight
        return rewards

    def clean(self, n: int, *, generator: torch.Generator) -> NoisyPairs:
        """``n`` pairs whose labels are all right."""
        one, other = torch.randn(2, n, len(self.weight), generator=generator)
        better = (self.reward(one) >= self.reward(other))[:, None]
        right = torch.ones(n, dtype=torch.bool)
        return NoisyPairs(torch.where(better, one, other), torch.where(better, other, one), right)

    def pairs(self, n: int, *, generator: torch.Generator) -> NoisyPairs:
        """``n`` pairs with wrong labels among them."""
        clean = self.clean(n, generator=generator)
        gap = self.reward(clean.chosen) - self.reward(clean.rejected)
        near = _scaled(torch.exp(-gap / self.closeness), self.flips)
        wrong = torch.rand(n, generator=generator) < near
        spared = float((~wrong).float().mean())
        wrong |= ~wrong & (torch.rand(n, generator=generator) < self.adversarial / max(spared, self.adversarial))
        turned = wrong[:, None]
        chosen = torch.where(turned, clean.rejected, clean.chosen)
        return NoisyPairs(chosen, torch.where(turned, clean.chosen, clean.rejected), ~wrong)

    def shifted(self, n: int, responses: int, *, shift: float, shrink: float, generator: torch.Generator) -> Tensor:
        """Responses ``[n, responses, d]`` as a policy that has moved would give them, without labels.

        Their mean is moved by ``shift`` in a direction that the reward does not depend on, which a policy is free to
        drift along, and they differ ``shrink`` times as much as the others.
        """
        aside = torch.randn(len(self.weight), generator=generator)
        aside = aside - (aside @ self.weight) * self.weight
        noise = torch.randn(n, responses, len(self.weight), generator=generator)
        moved: Tensor = shift * aside / aside.norm().clamp_min(1e-12) + shrink * noise
        return moved


def _scaled(chance: Tensor, mean: float) -> Tensor:
    """``chance`` times a factor, at most 1/2, so that the mean is ``mean`` (by bisection)."""
    low, high = 0.0, 1.0
    while high < 1e12 and float((high * chance).clamp(max=0.5).mean()) < mean:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if float((middle * chance).clamp(max=0.5).mean()) < mean:
            low = middle
        else:
            high = middle
    return (high * chance).clamp(max=0.5)
