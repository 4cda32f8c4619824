"""Answers that are good in some ways and bad in others, by writers whom a prompt can steer in some of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError

AXES = ("kind", "right", "clear")
"""The ways in which an answer is good."""

_NUMBER = re.compile(r"question (\d+)")


class SteeredAnswers:
    """``P`` prompts "question 0", "question 1", ... whose answers have a level 0 .. ``levels - 1`` on three axes.

    An answer is a text like "2 0 3": its levels on :data:`AXES`. There are ``A = levels^3`` of them, the same for every
    prompt. ``quality [A, 3]``: the levels over ``levels - 1``, in [0, 1]. ``habit [P, A]``: logits N(0, ``habit``^2) of
    what everybody tends to write to a prompt, good or bad.

    Arguments: ``prompts``: default 10; ``levels``: default 4; ``habit``: default 1; ``seed``.
    """

    def __init__(self, prompts: int = 10, *, levels: int = 4, habit: float = 1.0, seed: int = 0) -> None:
        if prompts < 1 or levels < 2 or not habit >= 0:
            raise UsageError(f"at least 1 prompt, 2 levels and a habit >= 0, got {prompts}, {levels} and {habit}")
        self.prompts = [f"question {number}" for number in range(prompts)]
        found = list(itertools.product(range(levels), repeat=len(AXES)))
        self.texts = [" ".join(map(str, each)) for each in found]
        self.quality = torch.tensor(found, dtype=torch.float32) / (levels - 1)
        generator = torch.Generator().manual_seed(seed)
        self.habit = habit * torch.randn(prompts, len(found), generator=generator)
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def number(self, answer: str) -> int:
        """The number of an answer among ``texts``. Raises :class:`~nearfar.errors.DataError` for any other text."""
        try:
            return self._numbers[answer]
        except KeyError:
            raise DataError(f"{answer[:80]!r} is no answer: three levels are one") from None

    def logits(self, shift: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
        """``[P, A]``: the habit plus ``shift_a (levels - 1) quality_a`` of each axis a."""
        levels = self.quality * (len(self.texts) ** (1 / len(AXES)) - 1)
        found: Tensor = self.habit + levels @ torch.tensor(list(shift), dtype=torch.float32)
        return found


@dataclass
class SteeredWriter:
    """Writes answers of a world: ``p(answer) = softmax(world.logits(skill + the shifts of all cues in the prompt))``.

    ``skill``: on each axis. ``cues``: texts and the shift of each axis where the prompt holds the text. ``opening``:
    written before every answer where the prompt holds it, as models think first where they are asked to.
    """

    world: SteeredAnswers
    generator: torch.Generator
    cues: Mapping[str, Sequence[float]]
    skill: Sequence[float] = (0.0, 0.0, 0.0)
    opening: str = "Answer:"

    def __call__(self, prompt: object) -> str:
        asked = str(prompt)
        found = _NUMBER.search(asked)
        if found is None:
            raise DataError(f"{asked[:80]!r} asks no question of this world")
        shift = torch.tensor([list(self.skill), *(list(by) for cue, by in self.cues.items() if cue in asked)]).sum(0)
        logits = self.world.logits(shift.tolist())[int(found[1])]
        drawn = int(torch.multinomial(logits.softmax(0), 1, generator=self.generator))
        thought = f"Let me think. {self.opening} " if self.opening in asked else ""
        return thought + self.world.texts[drawn]
