"""Gates: which dimensions of an embedding count, as a function of something beside it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError


class ClassPairGate(nn.Module):
    """A gate in (0, 1)^d for each pair of classes (Hydra; Wu et al., 2024): ``(first [n], second [n]) -> [n, d]``.

    ``sigmoid(f((E[first] + E[second]) / 2))`` or ``sigmoid(f(E[first])) * sigmoid(f(E[second]))`` with a table ``E
    [classes, embedding]`` and ``f`` = ReLU, BatchNorm, Linear, ReLU, BatchNorm, Linear. It does not depend on the order
    of the two. For :class:`~nearfar.objectives.Hydra`, whose anchors' class is ``first`` and whose partners' is
    ``second``.

    Arguments:
        classes: how many there are.
        dimension: of the embeddings to gate.
        embedding, hidden: sizes of the table and the hidden layer; default 512 and 1024 (the official code's).
        fuse: "mean" of the embeddings (default, the official code's) or "product" of the classes' own gates.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or no such ``fuse``. Batch normalisation needs two
    rows in training mode.
    """

    def __init__(
        self,
        classes: int,
        dimension: int,
        *,
        embedding: int = 512,
        hidden: int = 1024,
        fuse: Literal["mean", "product"] = "mean",
    ) -> None:
        super().__init__()
        if min(classes, dimension, embedding, hidden) < 1:
            raise UsageError(f"sizes are {classes}, {dimension}, {embedding} and {hidden}; each must be at least 1")
        if fuse not in ("mean", "product"):
            raise UsageError(f"fuse is {fuse!r}; it must be 'mean' or 'product'")
        self.fuse = fuse
        self.table = nn.Embedding(classes, embedding)
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(embedding),
            nn.Linear(embedding, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, dimension),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        one, other = self.table(first), self.table(second)
        if self.fuse == "mean":
            gate: Tensor = torch.sigmoid(self.layers((one + other) / 2))
            return gate
        # one pass, so that both are normalised over the same rows
        ours, theirs = torch.sigmoid(self.layers(torch.cat([one, other]))).chunk(2)
        product: Tensor = ours * theirs
        return product
