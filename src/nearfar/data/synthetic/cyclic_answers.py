"""Answers of which none is best: rock, paper and scissors, and one answer that all of them beat."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class CyclicAnswers:
    """``P`` prompts with four answers each: every one of the first three beats the next, all beat the last.

    ``preference [P, 4, 4]``: how probably the row's answer beats the column's. The chances along the cycle are drawn
    from ``[low, high]`` (default 0.7 to 0.95) for each pair, those over the last answer are ``dominance`` (0.9).
    ``reference [P, 4]``: logits of a reference policy, ``bias N(0, 1)`` (default 1.5). The equilibrium mixes the first
    three. Drawn from ``seed``, in float64.
    """

    def __init__(
        self,
        prompts: int = 16,
        *,
        low: float = 0.7,
        high: float = 0.95,
        dominance: float = 0.9,
        bias: float = 1.5,
        seed: int = 0,
    ) -> None:
        if not 0.5 < low <= high <= 1 or not 0.5 < dominance <= 1:
            raise UsageError(f"chances must lie in (0.5, 1], got {low} to {high} and {dominance}")
        generator = torch.Generator().manual_seed(seed)
        chance = low + (high - low) * torch.rand(prompts, 3, dtype=torch.float64, generator=generator)
        self.preference: Tensor = torch.full((prompts, 4, 4), 0.5, dtype=torch.float64)
        for winner in range(3):
            loser = (winner + 1) % 3
            self.preference[:, winner, loser] = chance[:, winner]
            self.preference[:, loser, winner] = 1 - chance[:, winner]
        self.preference[:, :3, 3] = dominance
        self.preference[:, 3, :3] = 1 - dominance
        self.reference: Tensor = bias * torch.randn(prompts, 4, dtype=torch.float64, generator=generator)
