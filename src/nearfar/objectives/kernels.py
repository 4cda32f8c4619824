"""InfoNCE with kernels other than the exponential of a cosine, and mixtures of them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation, candidates
from nearfar.contrast.score import Cosine, Dot, NegativeEuclidean, NegativeSquaredEuclidean, Score
from nearfar.contrast.score import normalize as unit_rows
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import log_sum_exp, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective

_LEAST = 1e-12
"""What a kernel counts as where it is less, so that its logarithm is finite."""


class PowerDistance(Score):
    """``-|u - v|_p^gamma`` of normalised items; the gradient at distance 0 is 0."""

    def __init__(self, gamma: float, p: float = 2.0, *, normalized: bool = True) -> None:
        super().__init__()
        self.gamma, self.p, self.normalized = gamma, p, normalized
        self.euclidean = NegativeSquaredEuclidean() if gamma == 2 else NegativeEuclidean()

    def embed(self, items: Tensor) -> Tensor:
        return unit_rows(items) if self.normalized else items

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        if self.p == 2:
            return self._power(self.euclidean(query, keys))
        distances = torch.cdist(query, keys, p=self.p)
        return -distances.square() if self.gamma == 2 else self._power(-distances)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        if self.p == 2:
            return self._power(self.euclidean.paired(query, keys))
        distances: Tensor = torch.linalg.vector_norm(query - keys, ord=self.p, dim=-1)
        return -distances.square() if self.gamma == 2 else self._power(-distances)

    def _power(self, minus_distances: Tensor) -> Tensor:
        if self.gamma in (1, 2):  # 2: of squares already
            return minus_distances
        apart = minus_distances < 0
        return -torch.where(apart, torch.where(apart, -minus_distances, 1) ** self.gamma, 0)


class LogSumOfKernels(Score):
    """``log( exp(-|u - v|_2^2 / gaussian) + exp(-|u - v|_p^gamma / other) )`` of normalised items.

    With ``halves`` the Gaussian sees the first half of the coordinates alone and the other kernel the second; they are
    normalised together.
    """

    def __init__(
        self,
        gamma: float,
        gaussian: float,
        other: float,
        p: float = 2.0,
        *,
        halves: bool = False,
        normalized: bool = True,
    ) -> None:
        super().__init__()
        self.normalized = normalized
        self.parts = nn.ModuleList([PowerDistance(2.0), PowerDistance(gamma, p)])
        self.temperatures = (gaussian, other)
        self.halves = halves

    def embed(self, items: Tensor) -> Tensor:
        return unit_rows(items) if self.normalized else items

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self._sum("forward", query, keys)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return self._sum("paired", query, keys)

    def _sum(self, how: str, query: Tensor, keys: Tensor) -> Tensor:
        sides = zip(_halves(query), _halves(keys), strict=True) if self.halves else [(query, keys)] * 2
        logs = [
            getattr(part, how)(*side) / temperature
            for part, side, temperature in zip(self.parts, sides, self.temperatures, strict=True)
        ]
        return torch.logaddexp(*logs)


class ArcCosine(Dot):
    """The logarithm of an arc-cosine kernel of ``theta = arccos(T u . v + 1 - T)``, order 1, 2 or 3.

    The argument is kept away from -1 and 1 by 1e-6, where the gradient is 0.
    """

    bilinear = False

    def __init__(self, order: int, temperature: float, *, normalized: bool = True) -> None:
        super().__init__()
        self.order, self.shrink, self.normalized = order, temperature, normalized

    def embed(self, items: Tensor) -> Tensor:
        return unit_rows(items) if self.normalized else items

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self._log(super().forward(query, keys))

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return self._log(super().paired(query, keys))

    def _log(self, cosines: Tensor) -> Tensor:
        theta = (self.shrink * cosines + 1 - self.shrink).clamp(-1 + 1e-6, 1 - 1e-6).arccos()
        rest, sine, cosine = math.pi - theta, theta.sin(), theta.cos()
        if self.order == 1:
            kernel = rest
        elif self.order == 2:
            kernel = sine + rest * cosine
        else:
            kernel = 3 * sine * cosine + rest * (1 + 2 * cosine.square())
        return kernel.clamp_min(_LEAST).log()


@register
class KernelInfoNCE(SoftmaxObjective):
    """Kernel-InfoNCE: InfoNCE with any kernel of the distance, or a mixture of two (Tan et al., 2023).

    ``L_i = -log( K(z_i, z_p) / sum_{j in P(i) or N(i)} K(z_i, z_j) )``, mean over rows with a positive; several
    positives count by their mean. With positive weights as soft targets it is the cross-entropy of the paper's
    two Markov random fields, a similarity graph and the kernel's graph of the embeddings: spectral clustering. Kernels:

    - "gaussian" (default): ``exp(-|u - v|^2 / T)``. On unit rows NT-Xent at temperature T/2.
    - "laplacian": ``exp(-|u - v| / T)``; "exponential": ``exp(-|u - v|^gamma / T)``.
    - "simple-sum": ``exp(-|u - v|^2 / T2) + exp(-|u - v|^gamma / T)``; "concatenation-sum": the Gaussian of the first
      half of the coordinates plus the other kernel of the second half. With ``mixture="losses"``, as the official code
      has it, two losses are mixed instead, ``weight L_gamma + (1 - weight) L_gaussian``; there the first half has gamma
      and the second the Gaussian.
    - "arc-cosine" of ``order`` 1, 2 or 3 (official code; as released it returns NaN).
    - "spectral": no kernel but the spectral loss that the official code compares with,
      ``4/|N(i)| sum_{j in P(i) or N(i)} s_ij^2 - 2 s_ip`` of cosines; no temperature. (Its sum over ordered pairs of 2B
      rows is divided by B (B - 1).)

    Arguments:
        kernel: see above. gamma: > 0, up to 2 for a positive definite kernel; default 0.5 for "exponential", 1 in
            mixtures. order: default 1.
        temperature: T > 0, default 0.5 (the official code searches 0.01 to 1; MoCo's script 0.1). A number in mixtures
            and for "arc-cosine".
        gaussian_temperature: T2, default T (MoCo's script 0.3).
        mixture: "kernels" (default, the paper's) or "losses". weight: in [0, 1], default 0.5 (MoCo's script 0.2).
        distance_p: norm of the distance, >= 1, default 2; only with 2 is "gaussian" NT-Xent.
        normalize: rows are normalised first (default True; the official code leaves it to the encoder).
        eps: >= 0, added to the denominator; default 0 (official code 1e-6).
        two_sided, reduction: as in :class:`~nearfar.objectives.InfoNCE`.
    """

    name = "kernel-infonce"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "laplacian-infonce": {"kernel": "laplacian"},
        "simple-sum-infonce": {"kernel": "simple-sum"},
        "concatenation-sum-infonce": {"kernel": "concatenation-sum"},
    }
    formula = "-log( K(z_i, z_p) / sum_j K(z_i, z_j) ), K(u, v) = exp(-|u - v|^gamma / T)"
    paper = "Tan 2023, Contrastive Learning Is Spectral Clustering on Similarity Graph, arXiv:2303.15103"
    default_temperature = 0.5
    needs_negative = False

    def __init__(
        self,
        kernel: str = "gaussian",
        *,
        gamma: float | None = None,
        order: int = 1,
        temperature: float | str | Temperature | None = None,
        gaussian_temperature: float | None = None,
        mixture: str = "kernels",
        weight: float = 0.5,
        distance_p: float = 2.0,
        normalize: bool = True,
        eps: float = 0.0,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        powers = {"gaussian": 2.0, "laplacian": 1.0, "exponential": 0.5 if gamma is None else gamma}
        mixed = kernel in ("simple-sum", "concatenation-sum")
        if kernel not in (*powers, "simple-sum", "concatenation-sum", "arc-cosine", "spectral"):
            raise UsageError(f"kernel-infonce: there is no kernel {kernel!r}", hint="see `nearfar objectives`")
        if gamma is not None and kernel != "exponential" and not mixed:
            raise UsageError(f"kernel-infonce: {kernel!r} takes no gamma", hint="kernel='exponential' does")
        gamma = powers.get(kernel, 1.0 if gamma is None else gamma)
        if not 0 < gamma < math.inf or not 1 <= distance_p < math.inf:
            raise UsageError(f"kernel-infonce: gamma must be > 0 and distance_p >= 1, got {gamma} and {distance_p}")
        if order not in (1, 2, 3):
            raise UsageError(f"kernel-infonce: order must be 1, 2 or 3, got {order}")
        if mixture not in ("kernels", "losses") or not 0 <= weight <= 1:
            raise UsageError(
                f"kernel-infonce: mixture must be 'kernels' or 'losses' and weight in [0, 1], got {mixture!r}, {weight}"
            )
        if not 0 <= eps < math.inf:
            raise UsageError(f"kernel-infonce: eps must be a finite number >= 0, got {eps}")
        score: Score
        if kernel in powers:
            score = PowerDistance(gamma, distance_p, normalized=normalize)
        else:
            single = Temperature(self.default_temperature if temperature is None else temperature).value  # type: ignore[arg-type]
            second = single if gaussian_temperature is None else Temperature(gaussian_temperature).value
            temperature = 1.0
            if mixed:
                halves = kernel == "concatenation-sum"
                score = LogSumOfKernels(gamma, second, single, distance_p, halves=halves, normalized=normalize)
            elif kernel == "arc-cosine":
                score = ArcCosine(order, single, normalized=normalize)
            else:
                score = Cosine() if normalize else Dot()
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        self.kernel, self.mixture, self.weight, self.eps = kernel, mixture, weight, eps
        self.normalize = normalize
        self.parts: nn.ModuleList | None = None
        if mixed and mixture == "losses":
            self.parts = nn.ModuleList(
                KernelInfoNCE("exponential", gamma=power, temperature=value, distance_p=distance_p, eps=eps)
                for power, value in ((gamma, single), (2.0, second))
            )

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        has = super().active(positive, negative)
        return has & (negative > 0).any(1) if self.kernel == "spectral" else has

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near = weighted_mean(scores, positive)
        if self.kernel == "spectral":
            everyone = candidates(positive, negative).to(scores.dtype)
            return 4 * (everyone * scores.square()).sum(1) / negative.to(scores.dtype).sum(1) - 2 * near
        log_sum = log_sum_exp(scores, self.denominator(positive, negative))
        if self.eps:
            log_sum = torch.logaddexp(log_sum, log_sum.new_tensor(self.eps).log())
        return log_sum - near

    def evaluation(
        self,
        query: Tensor | None,
        key: Tensor | None,
        *,
        relation: Relation | None,
        scores: Tensor | None,
        memory: Memory,
        tile_rows: int | None,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Report]:
        """How the engine evaluates it: two losses, where losses are mixed."""
        where: dict[str, Any] = {"relation": relation, "memory": memory, "tile_rows": tile_rows, "group": group}
        if self.parts is None:
            return evaluate_rows(self, query, key, scores=scores, **where)
        if scores is not None or query is None:
            raise ValueError(f"{self.name}: a mixture of losses needs embeddings, not ready-made scores")
        sides: list[tuple[Tensor, Tensor | None]] = [(query, key)] * 2
        if self.kernel == "concatenation-sum":
            keys: Any = (None, None) if key is None else self._whole_halves(key)
            sides = list(zip(self._whole_halves(query), keys, strict=True))
        losses = []
        for part, side in zip(self.parts, sides, strict=True):
            assert isinstance(part, KernelInfoNCE)
            assert isinstance(part.score, PowerDistance)
            part.score.normalized = self.normalize and self.kernel == "simple-sum"  # halves were normalised together
            part.reduction, part.two_sided = self.reduction, self.two_sided
            losses.append(evaluate_rows(part, *side, scores=None, **where))
        (one, report), (gaussian, _) = losses
        return self.weight * one + (1 - self.weight) * gaussian, report

    def _whole_halves(self, items: Tensor) -> tuple[Tensor, Tensor]:
        items = at_least_float32(items)
        return _halves(unit_rows(items) if self.normalize else items)


def _halves(items: Tensor) -> tuple[Tensor, Tensor]:
    if items.shape[-1] % 2:
        raise ValueError(
            f"a concatenation of two kernels needs an even number of coordinates, got {tuple(items.shape)}"
        )
    one, other = items.chunk(2, dim=-1)
    return one, other
