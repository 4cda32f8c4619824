"""A memory of every item's embedding: negatives come from the whole data set without being encoded again."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.contrast import Explicit, normalize
from nearfar.errors import UsageError


class MemoryBank(nn.Module):
    """One unit embedding an item, a moving average of what the encoder gave (Wu et al., 2018, arXiv:1805.01978).

    :meth:`scores` sets embeddings against their own item's row and rows drawn from all items; :meth:`update` moves the
    rows after the step: ``row <- normalize(momentum row + (1 - momentum) z)``. The bank gets no gradient and is a part
    of checkpoints. Two encoders, or two clips of one video, take two banks, each contrasted with the other's.

    Arguments:
        items: ids run from 0 to ``items - 1``.
        dimension: of the embeddings.
        momentum: in [0, 1), default 0.5 (the paper's).
        seed: of the rows at the start, uniform in +-1/sqrt(dimension / 3), of length about 1.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or a momentum outside [0, 1).
    """

    rows: Tensor

    def __init__(self, items: int, dimension: int, *, momentum: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if min(items, dimension) < 1 or not 0 <= momentum < 1:
            raise UsageError(
                f"a bank needs items and a dimension of at least 1 and a momentum in [0, 1), got {items}, {dimension}, "
                f"{momentum}"
            )
        self.momentum = momentum
        drawn = torch.rand(items, dimension, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", (2 * drawn - 1) / math.sqrt(dimension / 3))

    def scores(
        self, z: Tensor, ids: Tensor, negatives: int = 1024, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Explicit]:
        """Cosines ``[n, 1 + negatives]`` of ``z [n, d]`` with the rows of ``ids [n]`` (first) and of items drawn, and
        the relation that says so.

        Drawn uniformly with repetition for each row, the own item among them, as in the official code. Use:
        ``scores, relation = bank.scores(z, ids)``, then ``InfoNCE(temperature=0.07)(scores=scores,
        relation=relation)``.
        """
        self._check(z, ids)
        drawn = torch.randint(len(self.rows), (len(ids), negatives), generator=generator).to(ids.device)
        # a copy: the rows change before the gradient is taken
        keys = self.rows[torch.cat([ids[:, None], drawn], 1)].to(z)
        near = torch.zeros(len(ids), 1 + negatives, dtype=torch.bool, device=z.device)
        near[:, 0] = True
        return torch.einsum("nd,nkd->nk", normalize(z), keys), Explicit(near)

    @torch.no_grad()
    def update(self, ids: Tensor, z: Tensor) -> None:
        """Move the rows of ``ids [n]``, none twice, towards ``z [n, d]``."""
        self._check(z, ids)
        moved = self.momentum * self.rows[ids] + (1 - self.momentum) * normalize(z).to(self.rows)
        self.rows[ids] = normalize(moved)

    def _check(self, z: Tensor, ids: Tensor) -> None:
        if z.shape != (len(ids), self.rows.shape[1]):
            raise ValueError(f"embeddings must be [{len(ids)}, {self.rows.shape[1]}], got {tuple(z.shape)}")
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.rows):
            raise ValueError(f"ids must lie between 0 and {len(self.rows) - 1}")
