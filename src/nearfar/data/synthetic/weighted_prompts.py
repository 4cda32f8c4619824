"""Prompts that say which of several rewards matter, answers that trade rewards off, and which answer was preferred."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError


@dataclass(frozen=True)
class WeighedAnswers:
    """``features [n, d]`` of prompts; ``rewards [n, K, R]`` of answers, each reward on a scale of its own; the true
    ``weights [n, R]``; ``utility [n, K]``; ``chosen [n]``, the best answer by it."""

    features: Tensor
    rewards: Tensor
    weights: Tensor
    utility: Tensor
    chosen: Tensor


class WeightedPrompts:
    """``weights = softmax(sharpness U z)`` of a prompt with features ``z ~ N(0, I)``, U fixed; an answer's utility is
    the weighted sum of its rewards, which are ``N(0, 1)`` less their mean over the R of the answer, so that one costs
    the others. Observed rewards are these times ``units`` plus ``offsets``: what one model calls 100 another calls 1.

    Arguments: ``rewards`` R, default 3; ``answers`` K, default 8; ``dimension`` d, default 8; ``sharpness``, default 2;
    ``units [R]``, default 1, 10, 100, ...; ``seed`` of U. Raises UsageError for fewer than two rewards or answers.
    """

    def __init__(
        self,
        rewards: int = 3,
        answers: int = 8,
        dimension: int = 8,
        *,
        sharpness: float = 2.0,
        units: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        if min(rewards, answers) < 2 or dimension < 1:
            raise UsageError(f"two rewards and two answers at least, got {rewards} and {answers}")
        generator = torch.Generator().manual_seed(seed)
        self.directions = torch.randn(rewards, dimension, generator=generator) / dimension**0.5
        self.units = 10.0 ** torch.arange(rewards) if units is None else units
        self.offsets = self.units * torch.randn(rewards, generator=generator)
        self.answers, self.sharpness = answers, sharpness

    def draw(self, count: int, *, generator: torch.Generator) -> WeighedAnswers:
        """``count`` prompts with their answers."""
        rewards, dimension = self.directions.shape
        features = torch.randn(count, dimension, generator=generator)
        weights = torch.softmax(self.sharpness * features @ self.directions.T, dim=1)
        raw = torch.randn(count, self.answers, rewards, generator=generator)
        raw = raw - raw.mean(2, keepdim=True)
        utility = (raw @ weights[:, :, None])[:, :, 0]
        return WeighedAnswers(features, raw * self.units + self.offsets, weights, utility, utility.argmax(1))
