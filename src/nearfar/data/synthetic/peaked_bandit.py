"""Answers in a row, with a peak of reward that the reference policy stands on, or far from."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class PeakedBandit:
    """One prompt with ``answers`` answers 0, 1, ... (default 100), as in Tajwar et al. (2024, arXiv:2404.14367).

    ``reward [1, A]``: ``exp(-((a - peak) / width)^2)``, ``width`` default 10 (20 and 30 in the paper too); ``peak`` 70
    lies in the reference's tail, 20 on its mode. ``reference [1, A]``: logits of a normal with ``mode`` 20 and
    ``deviation`` 15, which fall no lower than 12 below the mode. In float64.
    """

    def __init__(
        self, peak: float, *, answers: int = 100, width: float = 10.0, mode: float = 20.0, deviation: float = 15.0
    ) -> None:
        if answers < 2 or not width > 0 or not deviation > 0:
            raise UsageError(f"answers, width and deviation must be positive, got {answers}, {width}, {deviation}")
        place = torch.arange(answers, dtype=torch.float64)[None]
        self.reward: Tensor = (-((place - peak) / width).square()).exp()
        self.reference: Tensor = (-((place - mode) / deviation).square() / 2).clamp_min(-12)
