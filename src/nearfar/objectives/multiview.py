"""View objectives: costs on batch statistics of two views of the same items."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast.engine import evaluate
from nearfar.contrast.precision import without_autocast
from nearfar.contrast.relation import Labels
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, ViewObjective, log_sum_exp
from nearfar.objectives.registry import register


@register
class Alignment(ViewObjective):
    """How far apart the views of an item lie (Wang & Isola, 2020).

    ``mean_i |z1_i - z2_i|^alpha`` of normalised rows. In [0, 2^alpha]; 0 when the views coincide. The power applies to
    the distance, not to its square.

    Arguments: ``alpha`` > 0, default 2 (the paper's); ``normalize``: rows are normalised first (default True).
    """

    name = "alignment"
    formula = "mean_i |z1_i - z2_i|^alpha"
    paper = "Wang 2020, Alignment and Uniformity on the Hypersphere, arXiv:2005.10242"

    def __init__(self, alpha: float = 2.0, *, normalize: bool = True) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise UsageError(f"alignment: alpha must be a finite number > 0, got {alpha}")
        self.alpha = alpha
        self.normalize = normalize

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        if self.normalize:
            z1, z2 = normalize(z1), normalize(z2)
        squared = (z1 - z2).square().sum(1)
        if self.alpha == 2:
            return squared.mean()
        apart = squared > 0  # the power's gradient at distance 0 is taken as 0 instead of NaN or infinity
        return torch.where(apart, torch.where(apart, squared, 1) ** (self.alpha / 2), 0).mean()


@register
class Uniformity(ViewObjective):
    """How evenly items spread over the sphere (Wang & Isola, 2020).

    ``log( 2/(n(n-1)) sum_{i<j} exp(-t |z_i - z_j|^2) )`` of normalised rows, averaged over the views given (one or
    more), not taken over their union. In [-4t, 0]; 0 is total collapse. Memory is linear in n. Needs at least 2 rows.

    Arguments: ``t`` > 0, default 2 (the paper's); ``normalize``: rows are normalised first (default True; without it
    there is no lower bound).
    """

    name = "uniformity"
    formula = "log mean_{i<j} exp(-t |z_i - z_j|^2)"
    paper = "Wang 2020, Alignment and Uniformity on the Hypersphere, arXiv:2005.10242"

    def __init__(self, t: float = 2.0, *, normalize: bool = True) -> None:
        super().__init__()
        if not 0 < t < math.inf:
            raise UsageError(f"uniformity: t must be a finite number > 0, got {t}")
        self.mass = _LogMass(temperature=1 / t, score="negative-squared-euclidean", reduction="none")
        self.normalize = normalize

    def forward(self, *views: Tensor) -> Tensor:
        return torch.stack([self._of(view) for view in self.views(*views)]).mean()

    def _of(self, view: Tensor) -> Tensor:
        n = view.shape[0]
        view = normalize(view) if self.normalize else view
        log_masses = evaluate(self.mass, view, relation=Labels(torch.arange(n)))
        return torch.logsumexp(log_masses, 0) - math.log(n * (n - 1))


class _LogMass(RowObjective):
    """``log sum_{j != i} exp(s_ij / T)`` of each row: the inner sum of :class:`Uniformity`."""

    name = "log-mass"
    default_temperature = 1.0

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return negative.any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, negative)


@register
class BarlowTwins(ViewObjective):
    """Barlow Twins: the cross-correlation of the views should be the identity (Zbontar et al., 2021).

    Each dimension is standardised over the batch (biased variance + eps); ``C = z1^T z2 / n``;
    ``sum_d (1 - C_dd)^2 + weight sum_{d != e} C_de^2``. The official code multiplies the whole by 0.024, which is not
    part of the formula. Needs at least 2 rows; a constant dimension counts as uncorrelated.

    Arguments: ``weight`` >= 0, default 0.005 (the paper's lambda); ``eps`` default 1e-5 (batch normalisation's).
    """

    name = "barlow-twins"
    formula = "sum_d (1 - C_dd)^2 + weight sum_{d != e} C_de^2"
    paper = "Zbontar 2021, Barlow Twins, arXiv:2103.03230"

    def __init__(self, weight: float = 5e-3, *, eps: float = 1e-5) -> None:
        super().__init__()
        if not 0 <= weight < math.inf or not 0 < eps < math.inf:
            raise UsageError(f"barlow-twins: weight must be >= 0 and eps > 0, got {weight} and {eps}")
        self.weight = weight
        self.eps = eps

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = (self._standardized(view) for view in self.views(z1, z2))
        with without_autocast(z1.device):
            correlation = z1.T @ z2 / z1.shape[0]
        on = correlation.diagonal()
        off = correlation - torch.diag(on)
        return (1 - on).square().sum() + self.weight * off.square().sum()

    def _standardized(self, view: Tensor) -> Tensor:
        centred = view - view.mean(0)
        return centred / (centred.square().mean(0) + self.eps).sqrt()


@register
class VICReg(ViewObjective):
    """VICReg: variance, invariance and covariance (Bardes et al., 2022).

    ``invariance * mean (z1 - z2)^2 + variance * 1/2 sum_views mean_d max(0, 1 - sqrt(var_d + eps)) +
    covariance * sum_views 1/d sum_{d != e} cov_de^2``; variances and covariances unbiased. Needs at least 2 rows.

    Arguments: ``invariance`` 25, ``variance`` 25, ``covariance`` 1, ``eps`` 1e-4 (the paper's).
    """

    name = "vicreg"
    formula = "25 mean (z1 - z2)^2 + 25 mean_d max(0, 1 - std_d) + 1/d sum_{d != e} cov_de^2"
    paper = "Bardes 2022, VICReg, arXiv:2105.04906"

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, *, eps: float = 1e-4
    ) -> None:
        super().__init__()
        if min(invariance, variance, covariance) < 0 or not 0 < eps < math.inf:
            raise UsageError("vicreg: weights must be >= 0 and eps > 0")
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance
        self.eps = eps

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2)
        variance = (self._variance(z1) + self._variance(z2)) / 2
        covariance = self._covariance(z1) + self._covariance(z2)
        return self.invariance * (z1 - z2).square().mean() + self.variance * variance + self.covariance * covariance

    def _variance(self, view: Tensor) -> Tensor:
        return (1 - (view.var(0) + self.eps).sqrt()).relu().mean()

    def _covariance(self, view: Tensor) -> Tensor:
        centred = view - view.mean(0)
        with without_autocast(view.device):
            matrix = centred.T @ centred / (view.shape[0] - 1)
        return (matrix - torch.diag(matrix.diagonal())).square().sum() / view.shape[1]
