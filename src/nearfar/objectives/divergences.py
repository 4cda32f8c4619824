"""Contrast by moments and divergences: no softmax over a row, but means over near and over far pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Dot, Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, weighted_mean
from nearfar.objectives.registry import register


class DotWithin(Dot):
    """The dot product of vectors drawn back to length ``radius`` where they are longer."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def embed(self, items: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(items, dim=-1, keepdim=True)
        longer = length > self.radius
        return torch.where(longer, items * (self.radius / torch.where(longer, length, 1)), items)


@register
class SpectralContrastive(RowObjective):
    """Spectral contrastive loss: far features are at right angles (HaoChen et al., 2021).

    ``L = -2 mean_i a_i.b_i + mean_{i != j} (a_i.b_j)^2``, on features as they are, not normalised. A low-rank
    factorisation of the normalised co-occurrence matrix of views: its optimum spans the top eigenvectors. Mean over the
    rows with a positive and a negative; over a row's positives, their mean. No lower bound of 0.

    Arguments:
        mu: None (default), or a number > 0: features longer than sqrt(mu) are drawn back to that length, as the
            official code does.
        score: default "dot"; ``two_sided`` and ``reduction`` as in :class:`~nearfar.objectives.InfoNCE`.
    """

    name = "spectral-contrastive"
    formula = "-2 mean_i a_i.b_i + mean_{i!=j} (a_i.b_j)^2"
    paper = "HaoChen 2021, Provable Guarantees for Self-Supervised Deep Learning, arXiv:2106.04156"
    default_score = "dot"

    def __init__(
        self,
        mu: float | None = None,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        if mu is not None and not 0 < mu < float("inf"):
            raise UsageError(f"spectral-contrastive: mu must be a finite number > 0, got {mu}")
        if mu is not None and score is not None:
            raise UsageError("spectral-contrastive: mu bounds the features of the dot product; give no other score")
        super().__init__(
            score=DotWithin(math.sqrt(mu)) if mu is not None else score, two_sided=two_sided, reduction=reduction
        )

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return weighted_mean(scores.square(), negative) - 2 * weighted_mean(scores, positive)


Slope = Callable[[Tensor], Tensor]
"""Of ``log t``: ``f'(t)`` or ``f*(f'(t)) = t f'(t) - f(t)``."""


def _tsallis(order: float) -> tuple[Slope, Slope]:
    def slope(log_t: Tensor) -> Tensor:
        return order / (order - 1) * ((order - 1) * log_t).exp()

    def conjugate(log_t: Tensor) -> Tensor:
        return (order * log_t).exp() + 1 / (order - 1)

    return slope, conjugate


DIVERGENCES: dict[str, tuple[Slope, Slope]] = {
    "kl": (lambda log_t: log_t + 1, torch.exp),  # f = t log t
    "js": (  # f = t log t - (t + 1) log((t + 1)/2)
        lambda log_t: math.log(2) - F.softplus(-log_t),
        lambda log_t: F.softplus(log_t) - math.log(2),
    ),
    "pearson": (lambda log_t: 2 * torch.expm1(log_t), lambda log_t: torch.expm1(2 * log_t)),  # f = (t - 1)^2
    "squared-hellinger": (  # f = (sqrt(t) - 1)^2
        lambda log_t: -torch.expm1(-log_t / 2),
        lambda log_t: torch.expm1(log_t / 2),
    ),
    "vincze-le-cam": (  # f = (t - 1)^2/(t + 1)
        lambda log_t: 1 - 4 * (2 * F.logsigmoid(-log_t)).exp(),
        lambda log_t: 3 - 8 * torch.sigmoid(-log_t) + 4 * torch.sigmoid(-log_t).square(),
    ),
}
"""``f'`` and ``f* of f'`` of each divergence, as functions of ``log t``; "tsallis" has an order."""


@register
class FMICL(RowObjective):
    """f-MICL: an f-divergence between near and far pairs, with a Gaussian kernel as the ratio (Lu et al., 2023).

    ``L_i = -mean_{p near i} f'(G_ip) + alpha mean_{n far from i} f*(f'(G_in))``,
    ``G_ij = mu exp(-|u_i - u_j|^2 / (2 sigma^2))`` on unit vectors, which is ``mu exp((cos_ij - 1)/sigma^2)``. At
    alpha 1 minus the loss bounds the f-mutual information of the views from below. Mean over the rows with a positive
    and a negative.

    Arguments:
        divergence: "kl" (default), "js", "pearson", "squared-hellinger", "tsallis" or "vincze-le-cam".
        sigma, mu: of the kernel, > 0, default 1.
        alpha: >= 0, the weight of the far pairs, default 1, the bound itself; the paper's runs weigh them up, KL by
            about 40.
        order: of the Tsallis divergence, f = (t^order - 1)/(order - 1); > 0 and not 1, default 3.
        score: default "cosine", which the kernel is written for; ``two_sided`` and ``reduction`` as in
            :class:`~nearfar.objectives.InfoNCE`.

    With "kl", sigma^2 = T and mu = 1 near pairs pull as in InfoNCE of temperature T, while far pairs push by
    ``mean exp(s/T)`` without a logarithm.
    """

    name = "f-micl"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {}
    formula = "-mean_p f'(G_ip) + alpha mean_n f*(f'(G_in)), G = mu exp(-|u - v|^2/(2 sigma^2))"
    paper = "Lu 2023, f-MICL: Understanding and Generalizing InfoNCE-based Contrastive Learning, arXiv:2402.10150"

    def __init__(
        self,
        divergence: str = "kl",
        *,
        sigma: float = 1.0,
        mu: float = 1.0,
        alpha: float = 1.0,
        order: float = 3.0,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if divergence not in (*DIVERGENCES, "tsallis"):
            raise UsageError(
                f"f-micl: there is no divergence {divergence!r}", hint=f"choose {', '.join(DIVERGENCES)} or tsallis"
            )
        if not (0 < sigma < float("inf") and 0 < mu < float("inf") and 0 <= alpha < float("inf")):
            raise UsageError(f"f-micl: sigma and mu must be > 0 and alpha >= 0, got {sigma}, {mu} and {alpha}")
        if not 0 < order < float("inf") or order == 1:
            raise UsageError(f"f-micl: order must be a finite number > 0 and not 1, got {order}")
        self.divergence = divergence
        self.sigma, self.mu, self.alpha, self.order = sigma, mu, alpha, order

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        slope, conjugate = _tsallis(self.order) if self.divergence == "tsallis" else DIVERGENCES[self.divergence]
        log_kernel = math.log(self.mu) + (scores - 1) / self.sigma**2
        near, far = (torch.where(weight > 0, log_kernel, 0) for weight in (positive, negative))  # others may overflow
        return self.alpha * weighted_mean(conjugate(far), negative) - weighted_mean(slope(near), positive)
