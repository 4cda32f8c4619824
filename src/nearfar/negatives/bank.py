"""A memory bank: one past embedding of every item of the data, moved towards the present one when it is seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.contrast import normalize
from nearfar.errors import UsageError


class MemoryBank(nn.Module):
    """A unit vector for every item: ``v_i <- normalise(momentum v_i + (1 - momentum) z_i)`` when item i is seen.

    What instance discrimination (Wu et al., 2018) and PIRL (Misra & van der Maaten, 2020) contrast with: keys cost no
    encoder, but are as old as the item's last visit. Unlike a :class:`~nearfar.negatives.Queue` it has a key of every
    item, the positive's own included, and its size is that of the data. Starts as random unit vectors. State is in
    buffers; nothing carries a gradient.

    Arguments:
        items: how many. dimension: of an embedding.
        momentum: in [0, 1), default 0.5 (both papers); 0 keeps the last embedding alone.

    Raises UsageError for sizes below 1 or a momentum outside [0, 1), ValueError for embeddings that do not fit.
    """

    embeddings: Tensor

    def __init__(self, items: int, dimension: int, *, momentum: float = 0.5) -> None:
        super().__init__()
        if items < 1 or dimension < 1:
            raise UsageError(f"a memory bank needs items and a dimension of at least 1, got {items} and {dimension}")
        if not 0 <= momentum < 1:
            raise UsageError(f"the momentum of a memory bank lies in [0, 1), got {momentum}")
        self.momentum = momentum
        self.register_buffer("embeddings", normalize(torch.randn(items, dimension)))

    def __len__(self) -> int:
        return len(self.embeddings)

    def read(self, index: Tensor) -> Tensor:
        """The stored vectors of the items ``index [n]`` (a copy): ``[n, d]``."""
        return self.embeddings[index]

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """The numbers of ``count`` different items, uniform; all items where there are fewer."""
        return torch.randperm(len(self), generator=generator)[:count].to(self.embeddings.device)

    @torch.no_grad()
    def update(self, index: Tensor, embeddings: Tensor) -> None:
        """Move the vectors of the items ``index [n]`` towards ``embeddings [n, d]``, whose lengths do not matter."""
        if embeddings.shape != (len(index), self.embeddings.shape[1]):
            raise ValueError(
                f"the bank moves {len(index)} embeddings of dimension {self.embeddings.shape[1]}, got "
                f"{tuple(embeddings.shape)}"
            )
        present = normalize(embeddings.to(self.embeddings))
        moved = self.momentum * self.embeddings[index] + (1 - self.momentum) * present
        self.embeddings[index] = normalize(moved)
