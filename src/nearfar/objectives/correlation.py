"""View objectives on covariances: canonical correlations, with or without reconstruction, and log-determinants."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import ViewObjective
from nearfar.objectives.registry import register
from nearfar.objectives.state import GrowingBuffers


def in_double(values: Tensor) -> Tensor:
    """The values in float64, where the device has it: determinants and inverse roots need the digits."""
    return values if values.device.type == "mps" else values.double()


def lower_root(covariance: Tensor, ridge: float) -> Tensor:
    """The lower triangular L with ``L L^T = covariance + ridge I``, of a positive semi-definite covariance.

    A ridge below what rounding leaves of the zero eigenvalues of a large covariance is raised to that.
    """
    d = covariance.shape[0]
    rounding = d * torch.finfo(covariance.dtype).eps * covariance.detach().trace()
    identity = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    root: Tensor = torch.linalg.cholesky(covariance + rounding.clamp_min(ridge) * identity)
    return root


def log_determinant(covariance: Tensor, ridge: float) -> Tensor:
    """``log det(covariance + ridge I)`` of a positive semi-definite covariance."""
    return 2 * lower_root(covariance, ridge).diagonal().log().sum()


@register
class CorInfoMax(GrowingBuffers, ViewObjective):
    """CorInfoMax: keep the information of the views, measured by log-determinants (Ozsoy et al., 2022).

    ``invariance * mean (z1 - z2)^2 - covariance/d * ( log det(R1 + eps I) + log det(R2 + eps I) )`` with running
    estimates for each view, ``mu <- memory mu + (1 - memory) mean z`` and
    ``R <- memory R + (1 - memory) mean (z - mu)(z - mu)^T``, starting from mu = 0 and R = initial * I. The gradient
    flows through what the batch adds, not through what is remembered. The paper's objective is this times d, with
    ``invariance`` 2/eps. Unbounded on both sides. Determinants are computed in float64.

    The estimates (``means [2, d]``, ``covariances [2, d, d]``) are updated by every call in training mode and saved
    with the state; in evaluation mode a call leaves them as they are. Over several processes call it on the global
    batch on every process, as training does, and they stay equal. A batch smaller than d leaves directions of R to the
    memory and eps.

    Arguments:
        invariance: default 500 (the official code's for CIFAR); ``covariance`` default 1.
        memory: how much of the old estimates stays, in [0, 1); default 0.01 (the official code's).
        initial: > 0, default 1. ``eps``: > 0, default 1e-6 (the official code's).
        normalize: normalise rows first (default False; the official scripts do).
    """

    name = "corinfomax"
    formula = "invariance mean (z1 - z2)^2 - covariance/d ( log det(R1 + eps I) + log det(R2 + eps I) )"
    paper = "Ozsoy 2022, Self-Supervised Learning with an Information Maximization Criterion, arXiv:2209.07999"
    means: Tensor
    covariances: Tensor

    def __init__(
        self,
        invariance: float = 500.0,
        covariance: float = 1.0,
        *,
        memory: float = 0.01,
        initial: float = 1.0,
        eps: float = 1e-6,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if not (0 <= invariance < math.inf and 0 <= covariance < math.inf):
            raise UsageError("corinfomax: weights must be finite numbers >= 0")
        if not 0 <= memory < 1:
            raise UsageError(f"corinfomax: memory must lie in [0, 1), got {memory}")
        if not (0 < initial < math.inf and 0 < eps < math.inf):
            raise UsageError(f"corinfomax: initial and eps must be finite numbers > 0, got {initial} and {eps}")
        self.invariance = invariance
        self.covariance = covariance
        self.memory = memory
        self.initial = initial
        self.eps = eps
        self.normalize = normalize
        self.register_buffer("means", torch.zeros(0))
        self.register_buffer("covariances", torch.zeros(0))

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        if self.normalize:
            z1, z2 = normalize(z1), normalize(z2)
        d = z1.shape[1]
        means, covariances = self._remembered(z1)
        found = [self._estimate(in_double(view), means[v], covariances[v]) for v, view in enumerate((z1, z2))]
        if self.training:
            self.means = torch.stack([mean for mean, _ in found]).detach()
            self.covariances = torch.stack([covariance for _, covariance in found]).detach()
        volume = torch.stack([log_determinant(covariance, self.eps) for _, covariance in found]).sum()
        return self.invariance * (z1 - z2).square().mean() - self.covariance / d * volume.to(z1.dtype)

    def _remembered(self, like: Tensor) -> tuple[Tensor, Tensor]:
        d = like.shape[1]
        if self.means.numel() and self.means.shape[1] != d:
            raise ValueError(f"corinfomax: remembers views of dimension {self.means.shape[1]}, got {tuple(like.shape)}")
        if self.means.numel():
            return in_double(self.means.to(like.device)), in_double(self.covariances.to(like.device))
        zeros = in_double(like.new_zeros(2, d))
        return zeros, self.initial * torch.eye(d, dtype=zeros.dtype, device=like.device).expand(2, d, d)

    def _estimate(self, view: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.memory * mean + (1 - self.memory) * view.mean(0)
        centred = view - mean
        return mean, self.memory * covariance + (1 - self.memory) * (centred.T @ centred) / view.shape[0]


class TwoEncoders(ViewObjective):
    """Base of objectives of two encoders, whose views may differ in width: ``(z1 [n, d1], z2 [n, d2])``."""

    same_width: ClassVar[bool] = True

    def pair(self, z1: Tensor, z2: Tensor, minimum: int = 2) -> tuple[Tensor, Tensor]:
        """Check the views; half precision becomes float32."""
        if self.same_width:
            z1, z2 = self.views(z1, z2, minimum=minimum)
            return z1, z2
        (z1,), (z2,) = self.views(z1, minimum=minimum), self.views(z2, minimum=minimum)
        if z1.shape[0] != z2.shape[0]:
            raise ValueError(f"{self.name}: views must have the same rows, got {tuple(z1.shape)} and {tuple(z2.shape)}")
        return z1, z2


@register
class DCCA(TwoEncoders):
    """Deep canonical correlation analysis: minus the total correlation of two encoders' outputs (Andrew et al., 2013).

    ``-sum of the top singular values of S11^{-1/2} S12 S22^{-1/2}`` with ``S11 = F^T F / (n-1) + ridge I`` of centred
    outputs F, S22 likewise, ``S12 = F^T G / (n-1)``. Each singular value is a canonical correlation, in [0, 1). The
    value does not change under an invertible linear map of either output (ridge 0). Views may differ in width; computed
    in float64 by Cholesky roots, which have the same singular values.

    It is a statistic of the whole batch: with n <= d every input correlates perfectly, n - 1 in total. A batch of fewer
    than 2 d rows warns; several times d is right. Needs at least 2 rows.

    Arguments: ``top``: how many correlations count (default None: all); ``ridge`` > 0, default 1e-4 (the paper's),
    or two of them, one a view.
    """

    name = "dcca"
    formula = "-sum_l sigma_l( S11^{-1/2} S12 S22^{-1/2} )"
    paper = "Andrew 2013, Deep Canonical Correlation Analysis; Wang 2015, arXiv:1602.01024"
    same_width = False

    def __init__(self, top: int | None = None, *, ridge: float | tuple[float, float] = 1e-4) -> None:
        super().__init__()
        if top is not None and top < 1:
            raise UsageError(f"{self.name}: top must be at least 1, got {top}")
        self.ridges = (float(ridge),) * 2 if isinstance(ridge, int | float) else tuple(ridge)
        if len(self.ridges) != 2 or not all(0 < each < math.inf for each in self.ridges):
            raise UsageError(f"{self.name}: ridge must be a finite number > 0, or two, got {ridge}")
        self.top = top
        self.ridge = ridge

    def correlations(self, z1: Tensor, z2: Tensor) -> Tensor:
        """All canonical correlations of the batch, the largest first: ``[min(d1, d2)]``."""
        z1, z2 = self.pair(z1, z2)
        n, width = z1.shape[0], min(z1.shape[1], z2.shape[1])
        if n < 2 * width:
            warnings.warn(
                f"{self.name}: {n} rows say little of correlations of {width} dimensions; give several times as many",
                UserWarning,
                stacklevel=3,
            )
        x, y = (in_double(view) for view in (z1, z2))
        x, y = x - x.mean(0), y - y.mean(0)
        root1, root2 = (
            lower_root(view.T @ view / (n - 1), ridge) for view, ridge in zip((x, y), self.ridges, strict=True)
        )
        whitened = torch.linalg.solve_triangular(root1, x.T @ y / (n - 1), upper=False)
        whitened = torch.linalg.solve_triangular(root2, whitened.T, upper=False)
        correlations: Tensor = torch.linalg.svdvals(whitened)
        return correlations.to(z1.dtype)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        return -self.correlations(z1, z2)[: self.top].sum()


class Reconstructing(TwoEncoders):
    """Base of the multi-view autoencoders: an agreement of the codes, and how well decoders restore the inputs."""

    needs = ("inputs", "reconstructions")

    def __init__(self, weight: float = 0.01) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise UsageError(f"{self.name}: weight must be a finite number >= 0, got {weight}")
        self.weight = weight

    def agreement(self, z1: Tensor, z2: Tensor) -> Tensor:
        """What is minimised of the codes alone."""
        raise NotImplementedError

    def reconstruction(self, inputs: Sequence[Tensor], reconstructions: Sequence[Tensor]) -> Tensor:
        """``1/n sum_i |x_i - x^_i|^2``, summed over what is restored."""
        shapes = [[tuple(value.shape) for value in values] for values in (inputs, reconstructions)]
        if shapes[0] != shapes[1] or not shapes[0] or not all(shape and shape[0] for shape in shapes[0]):
            raise ValueError(f"{self.name}: inputs and reconstructions must be alike, got {shapes[0]} and {shapes[1]}")
        pairs = zip(inputs, reconstructions, strict=True)
        return torch.stack([(at_least_float32(x) - y).square().flatten(1).sum(1).mean() for x, y in pairs]).sum()

    def forward(self, z1: Tensor, z2: Tensor, *, inputs: Sequence[Tensor], reconstructions: Sequence[Tensor]) -> Tensor:
        return self.agreement(z1, z2) + self.weight * self.reconstruction(inputs, reconstructions)


@register
class DCCAE(Reconstructing):
    """Deep canonically correlated autoencoders: correlated codes that restore their inputs (Wang et al., 2015).

    ``dcca(z1, z2) + weight * 1/n sum_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )``; see :class:`DCCA`. Squared errors
    are summed over the dimensions of an input and averaged over items.

    Called as ``objective(z1, z2, inputs=(x, y), reconstructions=(p(z1), q(z2)))``. Raises ValueError where inputs and
    reconstructions differ in shape.

    Arguments: ``weight`` >= 0, default 0.01 (the paper searches from 0.001 to 1); ``top``, ``ridge`` as in DCCA.
    """

    name = "dccae"
    formula = "-sum_l sigma_l( S11^{-1/2} S12 S22^{-1/2} ) + weight mean_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )"
    paper = "Wang 2015, On Deep Multi-View Representation Learning, arXiv:1602.01024"

    def __init__(
        self, weight: float = 0.01, *, top: int | None = None, ridge: float | tuple[float, float] = 1e-4
    ) -> None:
        super().__init__(weight)
        self.dcca = DCCA(top, ridge=ridge)

    def agreement(self, z1: Tensor, z2: Tensor) -> Tensor:
        minus_correlation: Tensor = self.dcca(z1, z2)
        return minus_correlation


@register
class CorrAE(Reconstructing):
    """Correlated autoencoders: like DCCAE, but dimension by dimension (Wang et al., 2015).

    ``-sum_l corr(z1_l, z2_l) + weight * 1/n sum_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )``. Nothing keeps the
    dimensions from repeating one another, which is why it falls behind :class:`DCCAE`. A constant dimension counts as
    uncorrelated. Needs at least 2 rows.

    Called as ``objective(z1, z2, inputs=(x, y), reconstructions=(p(z1), q(z2)))``. Arguments: ``weight`` >= 0, default
    0.01.
    """

    name = "corrae"
    formula = "-sum_l corr(z1_l, z2_l) + weight mean_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )"
    paper = DCCAE.paper

    def agreement(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.pair(z1, z2)
        columns1, columns2 = (normalize((view - view.mean(0)).T) for view in (z1, z2))
        return -(columns1 * columns2).sum()


@register
class SplitAE(Reconstructing):
    """Split autoencoder: one code restores both views (Ngiam et al., 2011; Wang et al., 2015).

    ``1/n sum_i ( |x_i - p(z1_i)|^2 + weight |y_i - q(z1_i)|^2 )`` with one encoder, of the view that is there at test
    time, and two decoders.

    Called as ``objective(z1, inputs=(x, y), reconstructions=(p(z1), q(z1)))``; a second code is allowed and not used.
    Arguments: ``weight`` >= 0 of the other view, default 1 (the paper's).
    """

    name = "splitae"
    formula = "mean_i ( |x_i - p(z1_i)|^2 + weight |y_i - q(z1_i)|^2 )"
    paper = DCCAE.paper

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor | None = None,
        *,
        inputs: Sequence[Tensor],
        reconstructions: Sequence[Tensor],
    ) -> Tensor:
        self.views(z1, minimum=1)
        if len(inputs) != 2 or len(reconstructions) != 2:
            raise ValueError(
                f"splitae: needs the inputs and reconstructions of two views, got {len(inputs)} and "
                f"{len(reconstructions)}"
            )
        own, other = (self.reconstruction(inputs[v : v + 1], reconstructions[v : v + 1]) for v in (0, 1))
        return own + self.weight * other


@register
class DistAE(Reconstructing):
    """Minimum-distance autoencoders: codes that lie close and restore their inputs (Wang et al., 2015).

    ``1/n sum_i D(z1_i, z2_i) + weight * 1/n sum_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )`` with ``form`` 1
    (DistAE-1): D = |z1 - z2|^2, which shrinking codes make small; ``form`` 2 (DistAE-2):
    D = |z1 - z2|^2 / (|z1| |z2|), which scale does not change. A zero code has D = 0 in form 2.

    Called as ``objective(z1, z2, inputs=(x, y), reconstructions=(p(z1), q(z2)))``. Arguments: ``form`` default 1;
    ``weight`` >= 0, default 0.01.
    """

    name = "distae"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"distae-1": {"form": 1}, "distae-2": {"form": 2}}
    formula = "mean_i |z1_i - z2_i|^2 + weight mean_i ( |x_i - p(z1_i)|^2 + |y_i - q(z2_i)|^2 )"
    paper = DCCAE.paper

    def __init__(self, form: int = 1, *, weight: float = 0.01) -> None:
        super().__init__(weight)
        if form not in (1, 2):
            raise UsageError(f"distae: form must be 1 or 2, got {form!r}")
        self.form = form

    def agreement(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.pair(z1, z2, minimum=1)
        squared = (z1 - z2).square().sum(1)
        if self.form == 1:
            return squared.mean()
        norms = torch.linalg.vector_norm(z1, dim=1) * torch.linalg.vector_norm(z2, dim=1)
        nonzero = norms > 0
        return torch.where(nonzero, squared / torch.where(nonzero, norms, 1), 0).mean()
