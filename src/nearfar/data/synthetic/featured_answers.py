"""Prompts with answers whose rewards a few features explain, beside what is the prompt's own doing."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class FeaturedAnswers:
    """``P`` prompts with ``A`` answers each, and what they are worth.

    ``features [P, A, F]``: standard normal. ``reward [P, A]``: ``<w, features>`` with a random unit vector w, so that
    rewards have a variance of 1 within a prompt; what is learned of one prompt holds for all. ``offset [P]``: what all
    answers to a prompt have in common, ``N(0, offset^2)`` (default 0), of which no policy can be the cause. Drawn from
    ``seed``, in float64.
    """

    def __init__(
        self, prompts: int = 200, answers: int = 10, *, width: int = 8, offset: float = 0.0, seed: int = 0
    ) -> None:
        if min(prompts, answers, width) < 1 or not offset >= 0:
            raise UsageError(f"sizes must be at least 1 and offset >= 0, got {prompts}, {answers}, {width}, {offset}")
        generator = torch.Generator().manual_seed(seed)
        self.features: Tensor = torch.randn(prompts, answers, width, dtype=torch.float64, generator=generator)
        direction = torch.randn(width, dtype=torch.float64, generator=generator)
        self.reward: Tensor = self.features @ (direction / direction.norm())
        self.offset: Tensor = offset * torch.randn(prompts, dtype=torch.float64, generator=generator)
