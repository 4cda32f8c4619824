"""Answers that say something in more or less of a manner that is good up to a point, their writers and revisions."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError


class Revisions:
    """``P`` prompts, each with ``contents`` things to say at ``levels`` of a manner (length, politeness): A answers.

    Answer ``a`` has content ``a // levels`` and level ``a % levels``. ``quality [P, A]`` is ``worth [P, contents]``
    (``N(0, 1)``) of the content less ``(level - peak)^2 / 2``: the manner helps up to ``peak`` and hurts beyond.
    ``features [P, A, 1 + width]``: the level less the peak, and a vector of the content, ``N(0, 1)`` in each of
    ``width`` dimensions. All in float64.

    Raises UsageError for fewer than 2 contents or 3 levels, and a peak that is not a level between the outermost.
    """

    def __init__(
        self, prompts: int = 40, contents: int = 4, levels: int = 7, *, peak: int = 3, width: int = 8, seed: int = 0
    ) -> None:
        if prompts < 1 or contents < 2 or levels < 3 or not 0 < peak < levels - 1:
            raise UsageError(
                "revisions need a prompt, 2 contents and 3 levels at least, and a peak between the outermost"
            )
        generator = torch.Generator().manual_seed(seed)
        self.levels, self.peak = levels, peak
        self.worth = torch.randn(prompts, contents, generator=generator).double()
        vectors = torch.randn(prompts, contents, width, generator=generator).double()
        answer = torch.arange(contents * levels)
        self.content, self.level = answer // levels, answer % levels
        self.quality = self.worth[:, self.content] - (self.level - peak).double().square() / 2
        manner = (self.level - peak).double().expand(prompts, -1)[:, :, None]
        self.features = torch.cat([manner, vectors[:, self.content]], dim=2)

    def writer(self, centre: float) -> Tensor:
        """The logits ``[P, A]`` of one who writes any content, at levels around ``centre``:
        ``-(level - centre)^2 / 2``."""
        return (-(self.level.double() - centre).square() / 2).expand_as(self.quality).clone()

    def revised(self, answer: Tensor) -> Tensor:
        """What answers become by the smallest change for the better: the same content, a level nearer to the peak."""
        return answer + torch.sign(self.peak - answer % self.levels)

    def text(self, answer: int) -> str:
        """An answer in words: six that say its content, and of a list of manners as many as its level."""
        content, level = answer // self.levels, answer % self.levels
        said = [f"point{content}{letter}" for letter in "abcdef"]
        return " ".join(said + [f"manner{number}" for number in range(level)])

    def number(self, text: str) -> int:
        """Which answer a :meth:`text` is. Raises DataError for another."""
        for answer in range(len(self.content)):
            if self.text(answer) == text:
                return answer
        raise DataError(f"{text!r} is no answer of this world")

    @property
    def best(self) -> Tensor:
        """The best answer to each prompt ``[P]``."""
        return self.quality.argmax(1)
