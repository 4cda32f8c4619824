"""InfoNCE whose negatives are corrected for those that are none, and weighed by how hard they are."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, weighted_mean
from nearfar.objectives.registry import register


@register
class Debiased(RowObjective):
    """Debiased contrastive loss: the share of false negatives is taken off the negatives' mass (Chuang et al., 2020).

    ``L_i = -1/|P| sum_{p in P} log( exp(s_ip/T) / (exp(s_ip/T) + N g_i) )`` with N the (weighted) number of negatives,
    ``g_i = max( (mean_n exp(s_in/T) - tau_plus mean_p exp(s_ip/T)) / (1 - tau_plus), exp(lowest/T) )``,
    mean over the rows with a positive and a negative. The paper's loss is this on ``torch.cat([z1, z2])`` under
    ``Views(2)``. With tau_plus 0 it is NT-Xent, save that each of several positives competes with the negatives alone.

    Arguments:
        tau_plus: in [0, 1), default 0.1: how probable it is that a negative is of the anchor's own class; 1/C for C
            balanced classes. Large values with easy positives leave every row at the bound, where negatives have no
            gradient.
        lowest: the least that a score can be, default -1, that of the cosine; give another for another score.
        temperature: default 0.5 (the paper's); and those of :class:`~nearfar.objectives.InfoNCE` up to ``reduction``.

    The gradient flows through the positives in g, as in the official code. Not :class:`~nearfar.objectives.DCL`, whose
    name this loss shares in some repositories. Raises UsageError for a tau_plus outside [0, 1).
    """

    name = "debiased"
    formula = (
        "-log( exp(s_ip/T) / (exp(s_ip/T) + N max((mean_n exp(s_in/T) - tau+ exp(s_ip/T))/(1 - tau+), e^(-1/T))) )"
    )
    paper = "Chuang 2020, Debiased Contrastive Learning, arXiv:2007.00224"
    default_temperature = 0.5

    def __init__(
        self,
        tau_plus: float = 0.1,
        *,
        lowest: float = -1.0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= tau_plus < 1:
            raise UsageError(f"{self.name}: tau_plus must lie in [0, 1), got {tau_plus}")
        self.tau_plus = tau_plus
        self.lowest = lowest

    def log_mean_negative(self, scores: Tensor, negative: Tensor) -> Tensor:
        """``log`` of the mean of ``exp(s_in)`` over a row's negatives, ``[t]``."""
        return log_sum_exp(scores, negative) - negative.to(scores.dtype).sum(1).log()

    def of_true_negatives(self, far: Tensor, near: Tensor) -> Tensor:
        """The mean of ``exp(s)`` over the true negatives ``[t]``, by those over all negatives and over positives."""
        return (far - self.tau_plus * near) / (1 - self.tau_plus)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        far = self.log_mean_negative(scores, negative)
        near = log_sum_exp(scores, positive) - positive.to(scores.dtype).sum(1).log()
        lowest = torch.as_tensor(self.lowest * self._scale(), dtype=scores.dtype, device=scores.device)
        peak = torch.maximum(torch.maximum(far, near), lowest).detach()
        true_negative = self.of_true_negatives((far - peak).exp(), (near - peak).exp())
        above = true_negative > (lowest - peak).exp()  # which may underflow to 0, and the logarithm of it may not
        mass = torch.where(above, torch.where(above, true_negative, 1).log(), lowest - peak) + peak
        mass = mass + negative.to(scores.dtype).sum(1).log()
        return weighted_mean(torch.logaddexp(scores, mass[:, None]) - scores, positive)

    def _scale(self) -> Tensor | float:
        return 1.0 if self.temperature is None else self.temperature.scale()


@register
class HardNegative(Debiased):
    """Contrastive learning with hard negatives: negatives weigh ``exp(beta s/T)`` (Robinson et al., 2021).

    :class:`Debiased` with the mean over negatives replaced by ``sum_n w_n exp(s_in/T) / sum_n w_n``,
    ``w_n = exp(beta s_in/T)``. With beta 0 it is the debiased loss; with tau_plus 0 as well it is NT-Xent.

    Arguments:
        beta: >= 0, default 1 (the paper tries 0.5 to 2): how much more a near negative counts.
        detach_weight: whether w carries no gradient. In the official code it does (default False).
        tau_plus, lowest, temperature and the rest: as :class:`Debiased`.
    """

    name = "hcl"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"hard-negative-contrastive": {}}
    formula = "debiased, with negatives weighed by exp(beta s_in/T)"
    paper = "Robinson 2021, Contrastive Learning with Hard Negative Samples, arXiv:2010.04592"

    def __init__(
        self,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        *,
        detach_weight: bool = False,
        lowest: float = -1.0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            tau_plus, lowest=lowest, temperature=temperature, score=score, two_sided=two_sided, reduction=reduction
        )
        if not 0 <= beta < float("inf"):
            raise UsageError(f"hcl: beta must be a finite number >= 0, got {beta}")
        self.beta = beta
        self.detach_weight = detach_weight

    def log_mean_negative(self, scores: Tensor, negative: Tensor) -> Tensor:
        log_weight = self.beta * (scores.detach() if self.detach_weight else scores)
        return log_sum_exp(scores + log_weight, negative) - log_sum_exp(log_weight, negative)
