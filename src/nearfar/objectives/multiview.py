"""View objectives: costs on batch statistics of two views of the same items."""

from __future__ import annotations

import math
from typing import Any, ClassVar

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

    Arguments: ``alpha`` > 0, default 2 (the paper's); ``normalize``: rows are normalised first (default True);
    ``form``: "distance" (default) takes differences; "dot" takes rows to be of unit length and ``|z1 - z2|^2`` to be
    ``2 - 2 z1.z2``, as the paper's MoCo code does: the same value, and the same gradient of the rows before they were
    normalised.
    """

    name = "alignment"
    formula = "mean_i |z1_i - z2_i|^alpha"
    paper = "Wang 2020, Alignment and Uniformity on the Hypersphere, arXiv:2005.10242"

    def __init__(self, alpha: float = 2.0, *, normalize: bool = True, form: str = "distance") -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise UsageError(f"alignment: alpha must be a finite number > 0, got {alpha}")
        self.alpha = alpha
        self.normalize = normalize
        self.form = _form(form)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        if self.normalize:
            z1, z2 = normalize(z1), normalize(z2)
        squared = 2 - 2 * (z1 * z2).sum(1) if self.form == "dot" else (z1 - z2).square().sum(1)
        if self.alpha == 2:
            return squared.mean()
        apart = squared > 0  # the power's gradient at distance 0 is taken as 0 instead of NaN or infinity
        return torch.where(apart, torch.where(apart, squared, 1) ** (self.alpha / 2), 0).mean()


@register
class Uniformity(ViewObjective):
    """How evenly items spread over the sphere (Wang & Isola, 2020).

    ``log( 2/(n(n-1)) sum_{i<j} exp(-t |z_i - z_j|^2) )`` of normalised rows, averaged over the views given (one or
    more), not taken over their union. In [-4t, 0]; 0 is total collapse. Memory is linear in n. Needs at least 2 rows.

    Called with ``queue [k, d]`` (earlier items, usually without a gradient), the mean runs over one list of pairs:
    those of a row with an item of the queue and, unless ``within`` is False, those within the batch (the form of the
    paper's MoCo experiments, t 3). Then 1 row is enough.

    Arguments: ``t`` > 0, default 2 (the paper's); ``normalize``: rows are normalised first (default True; without it
    there is no lower bound); ``within``: whether pairs within the batch count beside a queue (default True); ``form``:
    of the distances to a queue, as in :class:`Alignment`.
    """

    name = "uniformity"
    formula = "log mean_{i<j} exp(-t |z_i - z_j|^2)"
    paper = "Wang 2020, Alignment and Uniformity on the Hypersphere, arXiv:2005.10242"

    def __init__(self, t: float = 2.0, *, normalize: bool = True, within: bool = True, form: str = "distance") -> None:
        super().__init__()
        if not 0 < t < math.inf:
            raise UsageError(f"uniformity: t must be a finite number > 0, got {t}")
        self.t = t
        self.normalize = normalize
        self.within = within
        self.form = _form(form)
        self.mass = _LogMass(temperature=1 / t, score="negative-squared-euclidean", reduction="none")
        self.mass_by_dot = _LogMass(temperature=1 / (2 * t), score="dot", reduction="none")

    def forward(self, *views: Tensor, queue: Tensor | None = None) -> Tensor:
        checked = self.views(*views, minimum=2 if queue is None else 1)
        if queue is not None:
            if queue.dim() != 2 or queue.shape[1] != checked[0].shape[1] or not queue.shape[0]:
                raise ValueError(f"uniformity: queue must be [k, {checked[0].shape[1]}], got {tuple(queue.shape)}")
            queue = queue.to(checked[0])
            queue = normalize(queue) if self.normalize else queue
        return torch.stack([self._of(view, queue) for view in checked]).mean()

    def _of(self, view: Tensor, queue: Tensor | None) -> Tensor:
        view = normalize(view) if self.normalize else view
        n = view.shape[0]
        items = torch.arange(n, device=view.device)
        origin = view.detach().mean(0)  # squared distances lose digits far from the origin
        log_sums, pairs = [], 0.0
        if n > 1 and (queue is None or self.within):
            ordered = evaluate(self.mass, view - origin, relation=Labels(items))
            log_sums.append(torch.logsumexp(ordered, 0) - math.log(2))
            pairs += n * (n - 1) / 2
        if queue is not None:
            far = Labels(items, items.new_full((queue.shape[0],), -1))
            if self.form == "dot":
                across = evaluate(self.mass_by_dot, view, queue, relation=far) - 2 * self.t
            else:
                across = evaluate(self.mass, view - origin, queue - origin, relation=far)
            log_sums.append(torch.logsumexp(across, 0))
            pairs += n * queue.shape[0]
        return torch.logsumexp(torch.stack(log_sums), 0) - math.log(pairs)


def _form(form: str) -> str:
    if form not in ("distance", "dot"):
        raise UsageError(f"form must be 'distance' or 'dot', got {form!r}")
    return form


@register
class AlignUniform(ViewObjective):
    """Alignment and uniformity as one loss (Wang & Isola, 2020).

    ``alignment_weight * mean_i |z1_i - z2_i|^alpha + uniformity_weight * (uniformity(z1) + uniformity(z2)) / 2``; see
    :class:`Alignment` and :class:`Uniformity`. InfoNCE becomes such a sum with many negatives. Alignment alone
    collapses. Needs at least 2 rows; memory is linear in n.

    Called with ``queue [k, d]``, the uniformity is that of ``z1`` and the queue (``z2`` being the momentum encoder's).

    Arguments: ``alignment_weight`` and ``uniformity_weight`` >= 0, default 1 (the paper's on STL-10; 3 and 1 with
    ``t`` 3 in its MoCo experiments); ``alpha``, ``t`` default 2; ``normalize``: rows are normalised first (default
    True); ``within``, ``form``: as in :class:`Uniformity`. "hypersphere" is lightly's form, t 1.
    """

    name = "align-uniform"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"hypersphere": {"t": 1.0}}
    formula = "mean_i |z1_i - z2_i|^alpha + mean over views of log mean_{i<j} exp(-t |z_i - z_j|^2)"
    paper = "Wang 2020, Alignment and Uniformity on the Hypersphere, arXiv:2005.10242"

    def __init__(
        self,
        alignment_weight: float = 1.0,
        uniformity_weight: float = 1.0,
        *,
        alpha: float = 2.0,
        t: float = 2.0,
        normalize: bool = True,
        within: bool = True,
        form: str = "distance",
    ) -> None:
        super().__init__()
        if not (0 <= alignment_weight < math.inf and 0 <= uniformity_weight < math.inf):
            raise UsageError("align-uniform: weights must be finite numbers >= 0")
        self.alignment_weight = alignment_weight
        self.uniformity_weight = uniformity_weight
        self.t = t
        self.alignment = Alignment(alpha, normalize=normalize, form=form)
        self.uniformity = Uniformity(t, normalize=normalize, within=within, form=form)

    def forward(self, z1: Tensor, z2: Tensor, *, queue: Tensor | None = None) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=2 if queue is None else 1)
        spread: Tensor = self.uniformity(z1, z2) if queue is None else self.uniformity(z1, queue=queue)
        near: Tensor = self.alignment(z1, z2)
        return self.alignment_weight * near + self.uniformity_weight * spread


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
