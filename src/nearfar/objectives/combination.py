"""Several losses at once: fixed weights, or the weights under which all of them descend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.base import Objective
from nearfar.objectives.registry import register

Normalization = Literal["none", "l2", "loss", "loss+"]


@dataclass(frozen=True)
class Combined:
    """A weighted sum of losses.

    ``loss`` is ``sum_k weights_k L_k``, to be back-propagated; ``weights [m]`` carry no gradient. ``gradients`` are
    those of ``loss`` with respect to the shared tensors, where the combination needed them, in their order.
    """

    loss: Tensor
    weights: Tensor
    gradients: tuple[Tensor, ...] = ()


class Combination(Objective):
    """Base of combinations of losses: ``combination(losses, shared) -> Combined``.

    ``losses`` are scalars, of any objectives; ``shared`` what they have in common: parameters, or a representation.
    """

    kind = "combination"

    def forward(self, losses: Sequence[Tensor], shared: Iterable[Tensor] | Tensor | None = None) -> Combined:
        """The weighted sum of the losses. Raises ValueError for losses that are not scalars."""
        raise NotImplementedError


@register
class LinearScalarization(Combination):
    """The weighted sum of losses, with fixed weights: ``sum_k w_k L_k``.

    Called as ``combination([loss1, loss2])``, which gives a :class:`Combined`: back-propagate its ``loss``. It reaches
    only the convex part of the Pareto front, and what a weight means depends on the losses' units. Raises ValueError
    for another number of losses than weights.

    Arguments: ``weights``: one number >= 0 a loss, used as they are; None (default) weighs all alike, 1/m.
    """

    name = "linear-scalarization"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"linear": {}, "weighted-sum": {}}
    formula = "sum_k w_k L_k (w fixed)"
    paper = "Zadeh 1963, Optimality and non-scalar-valued performance criteria"

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and (not weights or not all(0 <= weight < math.inf for weight in weights)):
            raise UsageError(f"linear scalarization: weights must be finite numbers >= 0, got {weights}")
        self.weights = weights

    def forward(self, losses: Sequence[Tensor], shared: Iterable[Tensor] | Tensor | None = None) -> Combined:
        """Combine scalar losses; ``shared`` is not looked at. Raises ValueError for another number of losses."""
        stacked = _stacked(losses)
        if self.weights is not None and len(self.weights) != len(losses):
            raise ValueError(f"{len(self.weights)} weights for {len(losses)} losses")
        weights = stacked.detach().new_full((len(losses),), 1 / len(losses))
        if self.weights is not None:
            weights = weights.new_tensor(self.weights)
        return Combined((weights * stacked).sum(), weights)


@register
class MGDA(Combination):
    """Multiple gradient descent: the weights under which no loss rises (Desideri, 2012; Sener & Koltun, 2018).

    The weights w >= 0, sum w = 1, minimise ``|sum_k w_k g_k|^2``, g_k being the gradient of loss k with respect to what
    the losses share. With ``d = sum_k w_k g_k``, a step along -d lowers every loss (``g_k . d >= |d|^2``), and d = 0
    exactly where no direction does (Pareto stationary).

    ``shared`` are the parameters that several losses depend on, or the representation that comes out of them: then the
    gradients cost one pass through the heads alone and the weights minimise an upper bound (Sener & Koltun's MGDA-UB).
    Parameters that only one loss has (heads, decoders) should follow that loss's own gradient: :meth:`backward` does
    that, ``combined.loss.backward()`` gives them the weighted one.

    Small gradients attract the weight: a loss whose gradient is ten times smaller than the other's gets nearly all of
    it. ``normalization`` divides the gradients before the weights are found (the weights then apply to the losses as
    they are, as in the authors' code): "none" (default), "l2" (by its norm), "loss" (by the loss), "loss+" (by both).
    Only "none" keeps the promise above.

    Arguments: ``normalization``; ``tolerance`` and ``iterations`` of the search for more than two losses, see
    :func:`min_norm_weights`.
    """

    name = "mgda"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"min-norm": {}, "pareto": {}}
    formula = "sum_k w_k L_k, w = argmin |sum_k w_k grad L_k|^2 over the simplex"
    paper = "Sener 2018, Multi-Task Learning as Multi-Objective Optimization, arXiv:1810.04650; Desideri 2012"

    def __init__(
        self, normalization: Normalization = "none", *, tolerance: float = 1e-12, iterations: int = 1000
    ) -> None:
        super().__init__()
        if normalization not in ("none", "l2", "loss", "loss+"):
            raise UsageError(f"mgda: normalization must be 'none', 'l2', 'loss' or 'loss+', got {normalization!r}")
        self.normalization = normalization
        self.tolerance = tolerance
        self.iterations = iterations

    def forward(self, losses: Sequence[Tensor], shared: Iterable[Tensor] | Tensor | None = None) -> Combined:
        """Weigh scalar losses by their gradients with respect to the ``shared`` tensors; the graph is kept.

        Raises ValueError where there is no loss or no shared tensor, a loss is no scalar, or none has a gradient.
        """
        stacked = _stacked(losses)
        if shared is None:
            raise ValueError("mgda: give the tensors that the losses share")
        tensors = [shared] if isinstance(shared, Tensor) else list(shared)
        if not tensors or not stacked.requires_grad:
            raise ValueError("mgda: no loss depends on a shared tensor")
        gradients = [_gradients(loss, tensors) for loss in losses]
        weights = min_norm_weights(
            self._normalized(_gram(gradients), stacked.detach()), tolerance=self.tolerance, iterations=self.iterations
        ).to(stacked.dtype)
        combined = tuple(
            torch.stack([w.to(g.dtype) * g for w, g in zip(weights, parts, strict=True)]).sum(0)
            for parts in zip(*gradients, strict=True)
        )
        return Combined((weights * stacked).sum(), weights, combined)

    def backward(
        self, losses: Sequence[Tensor], shared: Iterable[Tensor] | Tensor, own: Iterable[Tensor] = ()
    ) -> Combined:
        """Combine, and add to ``.grad``: of the ``shared`` tensors the gradient of the weighted sum, of ``own`` tensors
        (those of single losses) that of the plain sum.

        ``shared`` must be leaves; where it is the representation, back-propagate ``combined.gradients`` through it.
        """
        tensors = [shared] if isinstance(shared, Tensor) else list(shared)
        combined: Combined = self(losses, tensors)
        alone = list(own)
        of_own = _gradients(_stacked(losses).sum(), alone) if alone else []
        for tensor, gradient in (*zip(tensors, combined.gradients, strict=True), *zip(alone, of_own, strict=True)):
            tensor.grad = gradient.clone() if tensor.grad is None else tensor.grad + gradient
        return combined

    def _normalized(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The products of the gradients divided by what ``normalization`` says; by 1 where that is 0."""
        by = torch.ones_like(losses, dtype=gram.dtype)
        if self.normalization in ("l2", "loss+"):
            by = by * gram.diagonal().sqrt()
        if self.normalization in ("loss", "loss+"):
            by = by * losses.abs().to(gram)
        by = torch.where(by > 0, by, 1)
        return gram / by[:, None] / by[None, :]


@torch.no_grad()
def min_norm_weights(gram: Tensor, *, tolerance: float = 1e-12, iterations: int = 1000) -> Tensor:
    """The weights ``[m]`` (>= 0, sum 1) of the shortest convex combination of vectors, from their products ``[m, m]``.

    Two: ``w_1 = clip( (g_2 - g_1).g_2 / |g_1 - g_2|^2, 0, 1 )``, 1/2 where they are equal. More: Frank-Wolfe, fully
    corrective (Wolfe, 1976): from the best pair, again and again take in the vector that leans least along the
    combination and find the shortest combination of all taken in, until none leans less than the combination itself by
    more than ``tolerance`` times the largest squared norm. It ends after finitely many steps. In float64. Raises
    ValueError for products that are not ``[m, m]`` and finite.
    """
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1] or not gram.shape[0]:
        raise ValueError(f"products of gradients must be [m, m], got {tuple(gram.shape)}")
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("products of gradients must be finite")
    device, dtype = gram.device, gram.dtype
    products = gram.detach().cpu().double()
    scale = float(products.diagonal().max())
    if scale <= 0:
        return torch.full((gram.shape[0],), 1 / gram.shape[0], dtype=dtype, device=device)
    products = products / scale
    weights = _best_pair(products)
    for _ in range(iterations if gram.shape[0] > 2 else 0):
        lean = products @ weights
        nearest = int(lean.argmin())
        if weights[nearest] > 0 or float(weights @ lean - lean[nearest]) <= tolerance:
            break
        weights = _corrected(products, weights, nearest)
    return (weights / weights.sum()).to(device, dtype)


def _corrected(products: Tensor, weights: Tensor, added: int) -> Tensor:
    """The shortest combination of the vectors in use and one more, leaving out those that it would weigh below 0."""
    weights = weights.clone()
    use = weights > 0
    use[added] = True
    while True:
        chosen = use.nonzero()[:, 0]
        k = chosen.numel()
        system = torch.ones(k + 1, k + 1, dtype=products.dtype)
        system[:k, :k], system[k, k] = products[chosen][:, chosen], 0
        wanted = torch.zeros(k + 1, 1, dtype=products.dtype)
        wanted[k] = 1
        best = torch.linalg.lstsq(system, wanted, driver="gelsd").solution[:k, 0]
        present = weights[chosen]
        if bool((best >= 0).all()):
            weights[chosen] = best
            return weights
        falling = best < 0
        steps = torch.where(falling, present / torch.where(falling, present - best, 1), torch.inf)
        first = int(steps.argmin())
        weights[chosen] = present + steps[first].clamp(max=1) * (best - present)
        weights[chosen[first]] = 0
        use[chosen[first]] = False


def _best_pair(products: Tensor) -> Tensor:
    """The weights of the shortest combination of two of the vectors."""
    m = products.shape[0]
    one, other = torch.triu_indices(m, m, 1) if m > 1 else torch.zeros(2, 1, dtype=torch.long)
    squared = products.diagonal()
    apart = squared[one] - 2 * products[one, other] + squared[other]
    share = torch.where(apart > 0, (squared[other] - products[one, other]) / torch.where(apart > 0, apart, 1), 0.5)
    share = share.clamp(0, 1)
    rest = 1 - share
    lengths = share**2 * squared[one] + 2 * share * rest * products[one, other] + rest**2 * squared[other]
    best = int(lengths.argmin())
    weights = products.new_zeros(m)
    weights[one[best]] += share[best]
    weights[other[best]] += rest[best]
    return weights


def _stacked(losses: Sequence[Tensor]) -> Tensor:
    if not losses or any(loss.numel() != 1 for loss in losses):
        raise ValueError(f"losses must be one or more scalars, got {[tuple(loss.shape) for loss in losses]}")
    return torch.stack([loss.reshape(()) for loss in losses])


def _gradients(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(loss.reshape(()), tensors, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(tensors, found, strict=True)
    ]


def _gram(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """The products ``[m, m]`` of the losses' gradients over all shared tensors."""
    double = torch.float32 if gradients[0][0].device.type == "mps" else torch.float64
    flat = [torch.cat([part.reshape(-1).to(double) for part in parts]) for parts in gradients]
    return torch.stack([torch.stack([one @ other for other in flat]) for one in flat])


__all__ = ["MGDA", "Combined", "LinearScalarization", "min_norm_weights"]
