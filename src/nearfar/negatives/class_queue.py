"""A queue with places for every class, so that the rare ones are never crowded out."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast.distributed import GatheredRows, own_share
from nearfar.errors import UsageError
from nearfar.negatives.samplers import Numbers


class ClassQueue(nn.Module):
    """The last ``slots[c]`` embeddings of each class c that were pushed, first in, first out within the class.

    The memory of GML (Suh & Seo, 2023), which wants a key of every class at every step::

        queue = ClassQueue(class_slots(counts, 16_384, base=3), dimension)
        keys, key_labels = queue.stored()
        loss = GML(prior=counts)(query, keys, relation=Labels(labels, key_labels))
        queue.push(key, labels)

    Embeddings are kept as they are given, detached. State is in buffers: it is saved in checkpoints and moves with
    ``.to(device)``. Over several processes give ``group``, as to :class:`~nearfar.negatives.Queue`.

    Arguments: ``slots``: places of each class ``[C]``, such as :func:`~nearfar.negatives.class_slots` divides them;
    ``dimension``: of an embedding; ``dtype``: of the stored ones.

    Raises UsageError for slots or a dimension below 1, ValueError for embeddings or labels that do not fit.
    """

    embeddings: Tensor
    slots: Tensor
    pushed: Tensor

    def __init__(self, slots: Numbers, dimension: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        places = torch.as_tensor(slots).detach().cpu().long()
        if places.dim() != 1 or not len(places) or int(places.min()) < 1 or dimension < 1:
            raise UsageError(f"a class queue needs slots [C] and a dimension of at least 1, got {slots}, {dimension}")
        self.register_buffer("slots", places)
        self.register_buffer("embeddings", torch.zeros(int(places.sum()), dimension, dtype=dtype))
        self.register_buffer("pushed", torch.zeros_like(places))

    def __len__(self) -> int:
        return int(torch.minimum(self.pushed, self.slots).sum())

    @torch.no_grad()
    def push(self, embeddings: Tensor, labels: Tensor, *, group: dist.ProcessGroup | None = None) -> None:
        """Add ``embeddings [n, d]`` of the classes ``labels [n]``; of each class the oldest leave.

        Of more than ``slots[c]`` embeddings of one class the last ones stay.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"the queue holds embeddings [n, {self.embeddings.shape[1]}], got {tuple(embeddings.shape)}"
            )
        if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
            raise ValueError(f"labels must be [{len(embeddings)}] integers, got {tuple(labels.shape)}, {labels.dtype}")
        if group is not None:
            rows = GatheredRows(embeddings.shape[0], group, embeddings.device)
            embeddings, labels = rows.gather(embeddings), rows.gather(labels)
        if not len(labels):
            return
        labels = labels.to(self.slots)
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.slots):
            raise ValueError(f"labels must lie in 0 .. {len(self.slots) - 1}, got {labels.min()} .. {labels.max()}")
        counts = torch.bincount(labels, minlength=len(self.slots))
        order = labels.argsort(stable=True)
        sorted_labels = labels[order]
        number = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[sorted_labels]
        stays = number >= (counts - self.slots)[sorted_labels]
        order, sorted_labels, number = order[stays], sorted_labels[stays], number[stays]
        first = (self.slots.cumsum(0) - self.slots)[sorted_labels]
        places = first + (self.pushed[sorted_labels] + number) % self.slots[sorted_labels]
        self.embeddings[places] = embeddings.to(self.embeddings)[order]
        self.pushed += counts

    def stored(self, group: dist.ProcessGroup | None = None) -> tuple[Tensor, Tensor]:
        """What is in the queue: embeddings ``[k, d]`` (a copy, no gradient) and their labels ``[k]``, class by class.

        With ``group`` this process's share of them.
        """
        labels = torch.repeat_interleave(self.slots)
        number = torch.arange(len(labels), device=labels.device) - (self.slots.cumsum(0) - self.slots)[labels]
        filled = number < self.pushed[labels]
        return own_share(self.embeddings[filled], group), own_share(labels[filled], group)
