"""View objectives that also compare how an encoder attends to the two views."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast.engine import evaluate
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import ViewObjective
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import InfoNCE


@register
class MiCSE(ViewObjective):
    """miCSE: InfoNCE, and attention maps of the two views that tell much of one another (Klein & Nabi, 2023).

    ``contrast_weight * InfoNCE(z1, z2) - weight * mean(I) * f^2``. For every sentence, head and parity of the layer,
    the entries of the maps of that parity's layers form a vector a view; of both, the entries above 0 in each (neither
    padding nor dropped) are kept, ``samples`` of them are drawn, the same for both, and
    ``I = -1/2 log(1 - rho^2)`` with rho the correlation of their logarithms. Only vectors with ``samples`` such entries
    count; where there are none, all do, with as many entries as the poorest has. f is the share of entries above 0.
    rho^2 is held below 1 - 1e-6: equal maps would have infinite I. I does not tell rho from -rho.

    Called as ``objective(z1, z2, attention=(a1, a2))``: maps *after* attention dropout ``[n, layers, heads, L, L]``
    (with a prefix more keys), of an even number of layers (the paper: 7 to 10 of 12). Without dropout there is nothing
    to learn from them. Which entries are drawn follows from ``generator``, or from torch's global one. Raises
    ValueError for shapes that do not fit.

    The official code adds 1e-6 to f^2 (``scale_offset``, default 0) and gives a constant 100 where this would be
    infinite.

    Arguments:
        weight: default 5e-4 (the paper's for 10 % of its data; 1e-3 for the least); ``contrast_weight`` default 1.
        temperature: of InfoNCE, default 0.05. ``samples``: default 150.
        scale_offset: see above. ``generator``: what draws the entries.
    """

    name = "micse"
    formula = "-log( exp(s_ip/T) / sum_j exp(s_ij/T) ) + weight mean 1/2 log(1 - rho^2) f^2, rho of log attention maps"
    paper = "Klein 2023, miCSE: Mutual Information Contrastive Learning, arXiv:2211.04928"
    needs = ("attention",)

    def __init__(
        self,
        weight: float = 5e-4,
        *,
        contrast_weight: float = 1.0,
        temperature: float = 0.05,
        samples: int = 150,
        scale_offset: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not (0 <= weight < math.inf and 0 <= contrast_weight < math.inf):
            raise UsageError("micse: weights must be finite numbers >= 0")
        if samples < 2:
            raise UsageError(f"micse: samples must be at least 2, got {samples}")
        self.weight = weight
        self.contrast_weight = contrast_weight
        self.samples = samples
        self.scale_offset = scale_offset
        self.generator = generator
        self.contrast = InfoNCE(temperature=temperature)

    def forward(self, z1: Tensor, z2: Tensor, *, attention: tuple[Tensor, Tensor]) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        for maps in attention:
            if maps.dim() != 5 or maps.shape != attention[0].shape or maps.shape[0] != z1.shape[0]:
                raise ValueError(
                    f"micse: attention must be two [{z1.shape[0]}, layers, heads, length, length] alike, got "
                    f"{[tuple(each.shape) for each in attention]}"
                )
        if attention[0].shape[1] % 2 or not attention[0].numel():
            raise ValueError(f"micse: needs an even number of layers, got {attention[0].shape[1]}")
        return self.contrast_weight * evaluate(self.contrast, z1, z2) + self.weight * self.attention_term(*attention)

    def attention_term(self, one: Tensor, other: Tensor) -> Tensor:
        """``-mean(I) f^2`` of the maps of the two views."""
        rho, share = self.correlations(one, other)
        if not len(rho):
            return (one.sum() + other.sum()) * 0.0
        information = -0.5 * (1 - rho.square().clamp(max=1 - 1e-6)).log()
        return -information.mean() * (share**2 + self.scale_offset)

    def correlations(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The rho ``[m]`` of the vectors that count, none where there are too few entries for any, and f."""
        one, other = (_by_parity(at_least_float32(maps)) for maps in (one, other))
        valid = (one > 0) & (other > 0)
        enough = valid.sum(1) >= self.samples
        samples = self.samples
        if bool(enough.any()):
            one, other, valid = one[enough], other[enough], valid[enough]
        else:
            samples = int(valid.sum(1).min())
        share = valid.to(one.dtype).mean()
        if samples < 2:  # a correlation needs two entries
            return one.new_zeros(0), share
        drawn = torch.rand(
            valid.shape, generator=self.generator, device=valid.device if self.generator is None else None
        )
        chosen = drawn.to(valid.device).masked_fill(~valid, -1).topk(samples, 1).indices
        logs = [maps.gather(1, chosen).log() for maps in (one, other)]
        x, y = (normalize(values - values.mean(1, keepdim=True)) for values in logs)
        return (x * y).sum(1), share


def _by_parity(maps: Tensor) -> Tensor:
    """``[n, layers, heads, L, keys]`` to one row a sentence, head and parity of the layer: ``[2 n heads, ...]``."""
    n, layers, heads = maps.shape[:3]
    grouped = maps.reshape(n, layers // 2, 2, heads, -1).permute(0, 3, 2, 1, 4)
    return grouped.reshape(n * heads * 2, -1)
