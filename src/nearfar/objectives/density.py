"""Densities by contrast with noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import UsageError
from nearfar.objectives.base import PointObjective
from nearfar.objectives.registry import register


@register
class BinaryNCE(PointObjective):
    """Binary noise-contrastive estimation: data or noise? (Gutmann & Hyvarinen, 2010).

    ``h = score + c - log_noise - log(ratio)``; cost ``log(1 + exp(-h))`` of a data point (target 1),
    ``log(1 + exp(h))`` of a noise point (target 0). With ``score`` the unnormalised log-density of the model,
    ``log_noise`` the log-density of the noise and ``ratio`` noise points for each data point, the optimum is the data's
    density and c the model's negative log-normaliser.
    Without ``log_noise`` and with ratio 1 it is the logistic loss (negative sampling). Costs are in [0, inf).

    Called with ``score [n]``, ``target [n]`` in {0, 1} (bool, integer or float; soft targets in [0, 1] are allowed) and
    optionally ``log_noise [n]``. Raises ValueError for targets outside [0, 1].

    Arguments: ``ratio`` > 0, default 1; ``learn_normalizer``: whether c is a parameter (default False: c = 0);
    ``reduction``: "none" (default), "mean" or "sum".
    """

    name = "binary-nce"
    aliases = {"nce": {}}  # noqa: RUF012
    formula = "log(1 + exp(-h)) for data, log(1 + exp(h)) for noise; h = score + c - log_noise - log(ratio)"
    paper = "Gutmann 2010, Noise-contrastive estimation"
    extras = ("log_noise",)

    def __init__(self, ratio: float = 1.0, *, learn_normalizer: bool = False, reduction: str = "none") -> None:
        super().__init__(reduction=reduction)
        if not 0 < ratio < math.inf:
            raise UsageError(f"binary-nce: ratio must be a finite number > 0, got {ratio}")
        self.ratio = ratio
        self.normalizer = nn.Parameter(torch.zeros(())) if learn_normalizer else None

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        h = score - math.log(self.ratio)
        if "log_noise" in extra:
            h = h - extra["log_noise"]
        if self.normalizer is not None:
            h = h + self.normalizer
        target = target.to(h.dtype)
        if not bool(((target >= 0) & (target <= 1)).all()):
            raise ValueError("binary-nce: targets must lie in [0, 1]: 1 for data, 0 for noise")
        return target * F.softplus(-h) + (1 - target) * F.softplus(h)
