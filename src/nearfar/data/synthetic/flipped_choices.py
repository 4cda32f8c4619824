"""Prompts with a few answers that have features, choices between two answers by a reward, and some labels turned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError


@dataclass(frozen=True)
class Choices:
    """``features [P, A, d]`` and true ``reward [P, A]`` of answers; ``prompt``, ``chosen``, ``rejected`` of pairs
    (int64 ``[n]``)."""

    features: Tensor
    reward: Tensor
    prompt: Tensor
    chosen: Tensor
    rejected: Tensor


class FlippedChoices:
    """The reward of an answer is ``<w, x>`` of its features x, w of length 1; the higher one of two is chosen, and a
    share of the labels is turned, whatever the gap.

    Features follow Student's t with ``tails`` degrees of freedom: some answers lie far out, where a turned label pulls
    hard on a loss that grows with the margin. w, and nothing else, is what prompts have in common.

    Arguments: ``answers`` of a prompt, default 6; ``dimension`` d, default 12; ``flips`` in [0, 0.5), default 0.2;
    ``tails`` >= 1, default 3; ``seed`` of w. Raises UsageError for values out of range.
    """

    def __init__(
        self, answers: int = 6, dimension: int = 12, *, flips: float = 0.2, tails: int = 3, seed: int = 0
    ) -> None:
        if answers < 2 or dimension < 1 or tails < 1 or not 0 <= flips < 0.5:
            raise UsageError(
                f"answers {answers} >= 2, dimension {dimension} >= 1, tails {tails} >= 1, flips {flips} in [0, 0.5)"
            )
        weight = torch.randn(dimension, generator=torch.Generator().manual_seed(seed))
        self.weight = weight / weight.norm()
        self.answers, self.flips, self.tails = answers, flips, tails

    def prompts(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """New prompts: the answers' features ``[count, A, d]`` and rewards ``[count, A]``."""
        shape = (count, self.answers, len(self.weight))
        spread = torch.randn(count, 1, 1, self.tails, generator=generator).square().mean(3).sqrt()
        features = torch.randn(shape, generator=generator) / spread
        return features, features @ self.weight

    def draw(self, prompts: int, pairs: int, *, generator: torch.Generator) -> Choices:
        """New prompts, and pairs of two different answers to one of them."""
        features, reward = self.prompts(prompts, generator=generator)
        prompt = torch.randint(prompts, (pairs,), generator=generator)
        two = torch.rand(pairs, self.answers, generator=generator).argsort(1)[:, :2]
        gap = reward[prompt].gather(1, two).diff(dim=1)[:, 0]
        turned = torch.rand(pairs, generator=generator) < self.flips
        place = ((gap > 0) ^ turned).long()[:, None]
        return Choices(features, reward, prompt, two.gather(1, place)[:, 0], two.gather(1, 1 - place)[:, 0])
