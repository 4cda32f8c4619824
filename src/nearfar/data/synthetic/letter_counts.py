"""Short sequences of letters with two rewards that pull against each other: how many of two letters they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.data.preferences.rows import MULTI_REWARD_LISTS, PreferenceRow, PreferenceSet
from nearfar.errors import UsageError

LETTERS = "ABCDE"
PROMPTS = ("tell", "say", "write")
NAMES = ("first", "second")


class LetterCounts:
    """``length`` letters a response, separated by spaces; rewards ``#A`` and ``#B - coupling #A``.

    Sequences draw their letters independently, each by frequencies of its own, softmax of ``spread N(0, 1)``; what they
    answer is one of three prompts, which says nothing. Arguments: ``length``, default 12; ``coupling``, default 0.5;
    ``spread``, default 0.7. Raises UsageError for a length below 1 or a spread below 0.
    """

    def __init__(self, length: int = 12, coupling: float = 0.5, spread: float = 0.7) -> None:
        if length < 1 or spread < 0:
            raise UsageError(f"the length is at least 1 and the spread at least 0, got {length} and {spread}")
        self.length, self.coupling, self.spread = length, coupling, spread

    def symbols(self, lowest: float = -6.0, highest: float = 6.0) -> list[str]:
        """The words of prompts with rewards and of responses: prompts, letters, names, and numbers by 0.1."""
        numbers = [f"{round(lowest + 0.1 * step, 1) + 0.0:.1f}" for step in range(round(10 * (highest - lowest)) + 1)]
        return [*PROMPTS, *LETTERS, *(f"<{name}>" for name in NAMES), *numbers]

    def prompts(self, count: int, *, generator: torch.Generator) -> list[str]:
        """``count`` prompts, evenly drawn."""
        return [PROMPTS[each] for each in torch.randint(len(PROMPTS), (count,), generator=generator).tolist()]

    def rewards(self, prompts: Sequence[Any], responses: Sequence[Sequence[str]]) -> Tensor:
        """Both rewards ``[n, K, 2]`` of texts; of what is no letter none."""
        words = [[text.split() for text in texts] for texts in responses]
        first = torch.tensor([[float(each.count("A")) for each in texts] for texts in words])
        second = torch.tensor([[float(each.count("B")) for each in texts] for texts in words])
        return torch.stack([first, second - self.coupling * first], dim=2)

    def draw(self, count: int, *, generator: torch.Generator) -> PreferenceSet:
        """``count`` lists of one response with its two rewards."""
        frequency = torch.softmax(self.spread * torch.randn(count, len(LETTERS), generator=generator), dim=1)
        drawn = torch.multinomial(frequency, self.length, replacement=True, generator=generator)
        texts = [" ".join(LETTERS[letter] for letter in row) for row in drawn.tolist()]
        prompts = self.prompts(count, generator=generator)
        rewards = self.rewards(prompts, [[text] for text in texts])[:, 0].tolist()
        rows = (
            PreferenceRow(prompt, (text,), rewards=(tuple(each),))
            for prompt, text, each in zip(prompts, texts, rewards, strict=True)
        )
        return PreferenceSet.from_rows(MULTI_REWARD_LISTS, rows, reward_names=NAMES)
