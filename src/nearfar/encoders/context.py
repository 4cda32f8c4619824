"""Contextualising heads without order: several vectors of an item become one.

With order it is :class:`~nearfar.encoders.sequence.GRUEncoder` on what the encoder gives (CPC, wav2vec).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError


class Context(nn.Module):
    """One vector of several: ``[n, width, dimension] -> [n, outputs]``; their order does not matter.

    ``"attention"``: ``sum_j a_j v_j``, ``a = softmax_j(w . tanh(U v_j))`` (Ilse et al., 2018); ``"mean"``: their mean,
    the readout of Deep Graph Infomax. A linear map to ``outputs`` follows.

    Arguments:
        dimension: of a vector. outputs: of the result.
        kind: see above; default ``"attention"``.
        hidden: rows of U; default ``dimension``.

    Called with ``vectors`` and, where some are padding, ``mask [n, width]`` (bool): which there are; an item without
    any counts as a zero vector. What stands in masked places, were it no number, reaches neither result nor gradients.
    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or no such kind,
    ValueError for vectors or a mask that do not fit.
    """

    def __init__(
        self,
        dimension: int,
        outputs: int,
        *,
        kind: Literal["attention", "mean"] = "attention",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        hidden = dimension if hidden is None else hidden
        if min(dimension, outputs, hidden) < 1:
            raise UsageError(f"a context needs sizes of at least 1, got {dimension}, {outputs} and {hidden}")
        if kind not in ("attention", "mean"):
            raise UsageError(f"kind is {kind!r}; it must be 'attention' or 'mean'")
        self.kind = kind
        self.dimension = dimension
        self.attention: nn.Module | None = None
        if kind == "attention":
            self.attention = nn.Sequential(
                nn.Linear(dimension, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False), nn.Flatten(1)
            )
        self.linear = nn.Linear(dimension, outputs)

    def weights(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each vector counts, ``[n, width]``: rows sum to 1, or are 0 where an item has none."""
        if vectors.dim() != 3 or vectors.shape[2] != self.dimension:
            raise ValueError(f"a context takes vectors [n, width, {self.dimension}], got {tuple(vectors.shape)}")
        if mask is not None and (mask.shape != vectors.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(f"mask must be {list(vectors.shape[:2])} of bool, got {list(mask.shape)} of {mask.dtype}")
        vectors = _there(vectors, mask)
        logits = vectors.new_zeros(vectors.shape[:2]) if self.attention is None else self.attention(vectors)
        if mask is None:
            return torch.softmax(logits, 1)
        # an item without vectors: a softmax over -inf alone would be no number
        least = torch.finfo(logits.dtype).min
        return torch.softmax(logits.masked_fill(~mask, least), 1).masked_fill(~mask, 0)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = self.weights(vectors, mask)
        outputs: Tensor = self.linear(torch.einsum("nw,nwd->nd", weights, _there(vectors, mask)))
        return outputs


def _there(vectors: Tensor, mask: Tensor | None) -> Tensor:
    """``vectors`` with zeros in masked places."""
    return vectors if mask is None else vectors.masked_fill(~mask[..., None], 0)
