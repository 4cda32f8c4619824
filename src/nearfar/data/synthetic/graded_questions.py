"""Questions with right and wrong answers, from nearly always to nearly never answered rightly."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class GradedQuestions:
    """``P`` questions with ``A`` answers each, ``right_answers`` of which are right (default 4).

    ``right [P, A]``: 1.0 for the right answers, 0.0 for the wrong ones, in random places. ``reference [P, A]``: logits
    of a reference policy, whose rate of right answers rises from ``hardest`` (default 0.02) to ``easiest`` (0.98) in
    equal steps from question to question, ``rate [P]``; among the right answers, and among the wrong ones, it differs
    by ``N(0, spread^2)`` in logits (default 1). Drawn from ``seed``, in float64.
    """

    def __init__(
        self,
        questions: int = 96,
        answers: int = 32,
        *,
        right_answers: int = 4,
        hardest: float = 0.02,
        easiest: float = 0.98,
        spread: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 0 < right_answers < answers or questions < 2 or not 0 < hardest <= easiest < 1:
            raise UsageError(
                f"right answers must be fewer than answers and rates in (0, 1), got {right_answers} of {answers}, "
                f"{hardest} to {easiest}"
            )
        generator = torch.Generator().manual_seed(seed)
        place = torch.rand(questions, answers, generator=generator).argsort(1)
        self.right: Tensor = (place < right_answers).double()
        self.rate: Tensor = torch.linspace(hardest, easiest, questions, dtype=torch.float64)
        logits = spread * torch.randn(questions, answers, dtype=torch.float64, generator=generator)
        of_right = torch.logsumexp(logits.masked_fill(self.right == 0, -torch.inf), 1)
        of_wrong = torch.logsumexp(logits.masked_fill(self.right == 1, -torch.inf), 1)
        lift = torch.logit(self.rate) - (of_right - of_wrong)
        self.reference: Tensor = logits + self.right * lift[:, None]
