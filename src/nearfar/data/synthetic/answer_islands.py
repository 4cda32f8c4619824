"""Answers in islands of likeness, one of them good, the others bad in degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class AnswerIslands:
    """``P`` prompts with ``islands x size`` answers each (default 6 islands of 10), which lie in clusters.

    ``embeddings [P, A, d]``: a centre ``N(0, 1)`` of the island, the same for all prompts, plus ``spread N(0, 1)``
    (default 0.2). ``island [A]``: int64, whose answers are next to each other. ``reward [P, A]``: ``levels`` of the
    island plus ``noise N(0, 1)`` (default 0.05); answers of the first island are good (1), all others bad (-0.7 to -1
    by default). ``judged [P, A]``: what a reward model says that knows ``reward`` but takes the island ``overrated``
    (default 1) for a middling one and rates it by ``by`` too high (default 1.2; 0 for a model that is right).
    ``reference [P, A]``: logits ``N(0, 1)``, so that every island has mass. Drawn from ``seed``, in float64.
    """

    def __init__(
        self,
        prompts: int = 32,
        *,
        size: int = 10,
        dimension: int = 4,
        levels: tuple[float, ...] = (1.0, -1.0, -0.7, -0.8, -0.9, -1.0),
        spread: float = 0.2,
        noise: float = 0.05,
        overrated: int = 1,
        by: float = 1.2,
        seed: int = 0,
    ) -> None:
        if prompts < 1 or size < 1 or len(levels) < 2:
            raise UsageError(f"there must be prompts, answers and two islands, got {prompts}, {size}, {len(levels)}")
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        count = len(levels) * size
        self.island: Tensor = torch.arange(len(levels)).repeat_interleave(size)
        centres = normal(len(levels), dimension)
        self.embeddings: Tensor = centres[self.island] + spread * normal(prompts, count, dimension)
        self.reward: Tensor = torch.tensor(levels, dtype=torch.float64)[self.island] + noise * normal(prompts, count)
        self.judged: Tensor = self.reward + by * (self.island == overrated)
        self.reference: Tensor = normal(prompts, count)

    def mass(self, probability: Tensor) -> Tensor:
        """The probability ``[P, islands]`` that a policy ``[P, A]`` gives each island."""
        found = torch.zeros(len(probability), int(self.island.max()) + 1, dtype=probability.dtype)
        return found.index_add(1, self.island, probability)
