"""Views of embeddings: noise, dropout, cutoff. Cheap, and for inputs that nobody knows how to change.

Mixing embeddings is :func:`nearfar.negatives.mix_items` (with soft targets) and
:func:`nearfar.negatives.mix_hard_negatives`; noise as negatives is :func:`nearfar.negatives.gaussian`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.contrast.precision import at_least_float32
from nearfar.errors import DataError
from nearfar.views.base import View, checked_range, normal, uniform


class EmbeddingView(View):
    """Base of views of embeddings ``[n, d]``, or of the tokens or places of an item ``[n, t, d]``."""

    def check(self, items: Tensor) -> None:
        if items.dim() not in (2, 3) or not items.is_floating_point():
            raise DataError(
                f"{type(self).__name__}: embeddings are [n, d] or [n, t, d] of floating numbers, got "
                f"{tuple(items.shape)} of {items.dtype}"
            )


class SphereNoise(EmbeddingView):
    """A step in a random direction, and back to the old length: ``|x| (x/|x| + size u) / |x/|x| + size u|``.

    ``u`` is a uniformly random unit vector. With ``same_orthant`` its signs are those of x, so that no coordinate
    changes sign (SimGCL, Yu et al., 2022). A zero vector stays zero.

    Arguments: ``size``: a number or a range drawn for each vector, default 0.1 (SimGCL); ``same_orthant``: default
    False; ``p``: default 1.
    """

    def __init__(self, size: float | tuple[float, float] = 0.1, *, same_orthant: bool = False, p: float = 1.0) -> None:
        super().__init__(p)
        self.size = checked_range("SphereNoise: size", size, 0, 1e9)
        self.same_orthant = same_orthant

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        values = at_least_float32(items)
        direction = normalize(normal(*items.shape, like=items, generator=generator))
        if self.same_orthant:
            direction = direction.abs() * values.sign()
        low, high = self.size
        size = uniform(*items.shape[:-1], 1, low=low, high=high, like=items, generator=generator)
        length: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        return (length * normalize(normalize(values) + size * direction)).to(items.dtype)


class EmbeddingDropout(EmbeddingView):
    """Dropout with the numbers of a generator: each coordinate 0 with probability ``rate``, others / (1 - rate).

    Arguments: ``rate`` in [0, 1), default 0.1 (SimCSE's); ``p``: default 1.
    """

    def __init__(self, rate: float = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.rate = checked_range("EmbeddingDropout: rate", rate, 0, 1 - 1e-6)[0]

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        kept = (uniform(*items.shape, generator=generator) >= self.rate).to(items.device)
        return torch.where(kept, items / (1 - self.rate), 0)


class FeatureCutoff(EmbeddingView):
    """Whole features of an item set to 0, in all its tokens (ConSERT, Yan et al., 2021).

    Arguments: ``rate``: each feature's probability, default 0.2 (ConSERT); ``p``: default 1.
    """

    def __init__(self, rate: float = 0.2, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.rate = checked_range("FeatureCutoff: rate", rate, 0, 1)[0]

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        shape = (len(items), *[1] * (items.dim() - 2), items.shape[-1])
        return torch.where((uniform(*shape, generator=generator) < self.rate).to(items.device), 0, items)


class TokenCutoff(EmbeddingView):
    """Whole tokens of an item ``[n, t, d]`` set to 0 (ConSERT).

    Arguments: ``rate``: each token's probability, default 0.15 (ConSERT); ``p``: default 1.
    """

    def __init__(self, rate: float = 0.15, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.rate = checked_range("TokenCutoff: rate", rate, 0, 1)[0]

    def check(self, items: Tensor) -> None:
        super().check(items)
        if items.dim() != 3:
            raise DataError(f"TokenCutoff: tokens are [n, t, d], got {tuple(items.shape)}")

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        gone = uniform(*items.shape[:2], 1, generator=generator) < self.rate
        return torch.where(gone.to(items.device), 0, items)
