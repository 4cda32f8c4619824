"""Lists of answers that a noisy judge has compared in pairs, and rewards that no linear policy can wholly follow."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError

_WORLDS = 14_000_029


class JudgedLists:
    """``L`` prompts with ``answers`` each, of ``features [L, A, F]``, ``N(0, 1)``, and known ``reward [L, A]``.

    With u and v the dot products of the features with two orthogonal unit vectors, the reward is
    ``u + bend v tanh(2 u)``: among good answers v is good, among bad ones it is bad. What a linear policy learns of v
    is therefore decided by where in a list it must be right. ``label [L, A]``, in [0, 1], is the share of comparisons
    that an answer won: a judge compared all pairs once, ``sigmoid(sharpness (r_i - r_j))`` being the chance of i, and
    each with itself counts a half (LiPO's aggregation). ``grade [L, A]`` is what the labels would be without the
    judge's noise. ``reference [L, A]``: logits ``N(0, 1) / 2``. All in float64.

    Arguments: ``world`` seeds the vectors, ``seed`` the lists. Raises UsageError for fewer than 2 answers or features.
    """

    def __init__(
        self,
        lists: int = 100,
        answers: int = 8,
        width: int = 10,
        *,
        bend: float = 1.0,
        sharpness: float = 1.0,
        world: int = 0,
        seed: int = 0,
    ) -> None:
        if lists < 1 or answers < 2 or width < 2:
            raise UsageError("there must be a list, 2 answers and 2 features at least")
        of_world = torch.Generator().manual_seed(world + _WORLDS)  # far from the seeds of lists
        drawn = torch.Generator().manual_seed(seed)
        both = torch.linalg.qr(torch.randn(width, 2, generator=of_world).double())[0]
        self.features: Tensor = torch.randn(lists, answers, width, generator=drawn).double()
        along = self.features @ both
        self.reward: Tensor = along[..., 0] + bend * along[..., 1] * torch.tanh(2 * along[..., 0])
        chance = torch.sigmoid(sharpness * (self.reward[:, :, None] - self.reward[:, None, :]))
        won = (torch.rand(chance.shape, generator=drawn) < chance).double().triu(1)
        lost = (1 - won).triu(1).transpose(1, 2)
        self.label: Tensor = (won + lost).mean(2) + 0.5 / answers
        self.grade: Tensor = chance.mean(2)
        self.reference: Tensor = torch.randn(lists, answers, generator=drawn).double() / 2
