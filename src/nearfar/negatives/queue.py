"""Keys of earlier batches as further candidates: the first-in-first-out queue of MoCo, and cross-batch memory."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast import Labels, Paired
from nearfar.contrast.distributed import GatheredRows, own_share
from nearfar.errors import UsageError
from nearfar.objectives import RowObjective


class Queue(nn.Module):
    """The last ``size`` embeddings that were pushed, first in, first out (MoCo, He et al., 2020, arXiv:1911.05722).

    Embeddings are kept as they are given (detached; normalise them before or let the score do it), with a number each:
    the item's id, so that an older embedding of the anchor's own item is not taken for a negative, or its label.
    State is in buffers: it is saved in checkpoints and moves with ``.to(device)``.

    Over several processes :meth:`push` takes ``group`` and pushes the rows of all of them, so that every process holds
    the same queue; :meth:`share` then gives this process's part of it, which the engine gathers again.

    Arguments:
        size: how many are kept; MoCo used 65,536. A push of more keeps its last ``size``.
        dimension: of an embedding.
        dtype: of the stored embeddings.

    Raises UsageError for a size or dimension below 1, ValueError for embeddings or numbers that do not fit.
    """

    embeddings: Tensor
    numbers: Tensor
    pushed: Tensor

    def __init__(self, size: int, dimension: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if size < 1 or dimension < 1:
            raise UsageError(f"a queue needs a size and a dimension of at least 1, got {size} and {dimension}")
        self.size = size
        self.register_buffer("embeddings", torch.zeros(size, dimension, dtype=dtype))
        self.register_buffer("numbers", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return min(self.size, int(self.pushed))

    @torch.no_grad()
    def push(
        self, embeddings: Tensor, numbers: Tensor | None = None, *, group: dist.ProcessGroup | None = None
    ) -> None:
        """Add ``embeddings [n, d]`` with their ids or labels ``numbers [n]`` (integers; none: -1); the oldest leave."""
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"the queue holds embeddings [n, {self.embeddings.shape[1]}], got {tuple(embeddings.shape)}"
            )
        if numbers is None:
            numbers = torch.full((embeddings.shape[0],), -1, dtype=torch.long, device=embeddings.device)
        if numbers.shape != embeddings.shape[:1] or numbers.is_floating_point():
            raise ValueError(
                f"numbers must be [{embeddings.shape[0]}] integers, got {tuple(numbers.shape)} of {numbers.dtype}"
            )
        if group is not None:
            rows = GatheredRows(embeddings.shape[0], group, embeddings.device)
            embeddings, numbers = rows.gather(embeddings), rows.gather(numbers)
        total = embeddings.shape[0]
        embeddings, numbers = embeddings[-self.size :], numbers[-self.size :]
        first = int(self.pushed) + total - embeddings.shape[0]
        places = (first + torch.arange(embeddings.shape[0], device=self.numbers.device)) % self.size
        self.embeddings[places] = embeddings.to(self.embeddings)
        self.numbers[places] = numbers.to(self.numbers)
        self.pushed += total

    def stored(self) -> tuple[Tensor, Tensor]:
        """What is in the queue: embeddings ``[k, d]`` (a copy, no gradient) and their numbers ``[k]``."""
        filled = len(self)
        return self.embeddings[:filled].clone(), self.numbers[:filled].clone()

    def share(self, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
        """This process's part of :meth:`stored`; all of it without a group."""
        embeddings, numbers = self.stored()
        return own_share(embeddings, group), own_share(numbers, group)

    def extend(self, key: Tensor, ids: Tensor, *, group: dist.ProcessGroup | None = None) -> tuple[Tensor, Paired]:
        """Keys and relation of a batch whose query i is near key i, with the queue as further negatives.

        ``key [n, d]`` and the items' ids ``[n]`` (int64 >= 0). A queued embedding of an anchor's own item, pushed in an
        earlier epoch, is ignored. Use: ``keys, relation = queue.extend(key, ids)``, then
        ``InfoNCE(0.07)(query, keys, relation=relation)``, then ``queue.push(key, ids)``.
        """
        embeddings, numbers = self.share(group)
        numbers = numbers.to(ids.device)
        keys = torch.cat([key, embeddings.to(key)])
        key_ids = torch.cat([ids, torch.full_like(numbers, -1)])
        return keys, Paired(ids, key_ids, query_exclude=ids, key_exclude=torch.cat([ids, numbers]))


class CrossBatchMemory(nn.Module):
    """Any row objective on labelled items, contrasted with the items of many earlier batches as well (XBM, 2020).

    ``L = objective(z, z; labels) + weight * objective(z, memory; labels)``, then z is pushed into the memory (Wang et
    al., 2020, arXiv:1912.06798). Old embeddings drift slowly once training has settled, so the memory gives far more
    pairs of each class than a batch could hold; before ``start`` calls it is only filled.

    Arguments:
        objective: a row objective that is called with ``relation=Labels(...)``.
        size, dimension: of the memory (a :class:`Queue`).
        weight: of the memory's part; default 1, as in the paper.
        start: calls in training mode before the memory is used; default 1,000, the iteration at which the paper's
            embeddings have settled.

    Called with ``z [n, d]`` and ``labels [n]`` (int64). In evaluation mode the memory is used and not changed.
    """

    calls: Tensor

    def __init__(
        self, objective: RowObjective, size: int, dimension: int, *, weight: float = 1.0, start: int = 1000
    ) -> None:
        super().__init__()
        if weight < 0 or start < 0:
            raise UsageError(f"weight and start must be >= 0, got {weight} and {start}")
        self.objective = objective
        self.memory = Queue(size, dimension)
        self.weight = weight
        self.start = start
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor, labels: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
        loss: Tensor = self.objective(z, relation=Labels(labels), group=group)
        if len(self.memory) and int(self.calls) >= self.start:
            stored, numbers = self.memory.share(group)
            relation = Labels(labels, numbers.to(labels.device))
            loss = loss + self.weight * self.objective(z, stored.to(z), relation=relation, group=group)
        if self.training:
            self.memory.push(z, labels, group=group)
            self.calls += 1
        return loss
