"""Small corrections of frozen embeddings, learned in their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError


class ResidualAdapter(nn.Module):
    """``x + up(down(x))``, ``[n, dimension] -> [n, dimension]``: a linear map that begins as the identity.

    With a ``rank`` below the dimension it changes what a few directions say and leaves the rest (the low-rank update of
    LoRA, Hu et al., 2021, on embeddings instead of weights); ``up`` begins at 0, ``down`` at N(0, 1 / dimension).

    Arguments:
        dimension: of the embeddings.
        rank: default 16, at most the dimension.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1.
    """

    def __init__(self, dimension: int, rank: int = 16) -> None:
        super().__init__()
        if min(dimension, rank) < 1:
            raise UsageError(f"an adapter has a dimension and a rank of at least 1, got {dimension} and {rank}")
        self.rank = min(rank, dimension)
        self.down = nn.Parameter(torch.randn(self.rank, dimension) / dimension**0.5)
        self.up = nn.Parameter(torch.zeros(dimension, self.rank))

    def forward(self, x: Tensor) -> Tensor:
        return x + x @ self.down.T @ self.up.T
