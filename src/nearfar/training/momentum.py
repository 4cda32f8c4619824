"""Momentum contrast as a procedure: an encoder, the copy that follows it, and a queue of the copy's embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.encoders.momentum import MomentumCopy
from nearfar.errors import TrainingError, UsageError
from nearfar.negatives.queue import Queue
from nearfar.objectives import RowObjective


class MomentumKeys(nn.Module):
    """Keys of an encoder's slow copy, and the queue that they enter after the step: what momentum contrast drives.

    For objectives that take no queue of their own see :class:`~nearfar.training.keys.OnlineOffline`.

    Arguments:
        encoder: what the copy follows; no part of this module.
        queue: empty or filled; see :func:`fill_at_random`.
        momentum: of the copy; default 0.999 (MoCo's; 0.99 for small data).
        normalize: whether keys have length 1, default True.
    """

    def __init__(self, encoder: nn.Module, queue: Queue, *, momentum: float = 0.999, normalize: bool = True) -> None:
        super().__init__()
        self.queue = queue
        self.copy = MomentumCopy(encoder, momentum)
        self.normalize = normalize
        self._pushed_next: tuple[Tensor, Tensor | None] | None = None

    def encode(self, items: Tensor) -> Tensor:
        """Keys of the copy, without a gradient."""
        key: Tensor = self.copy(items)
        return nn.functional.normalize(key) if self.normalize else key

    def hold(self, key: Tensor, ids: Tensor | None = None) -> None:
        """Keep keys ``[n, d]``, with their items' ids ``[n]``, for :meth:`after_step` to push; of several calls the
        last counts. In evaluation it does nothing: what training has kept stays."""
        if self.training:
            self._pushed_next = (key, ids)

    def after_step(self, step: int) -> None:
        """Move the copy and push the keys of the last batch. Raises TrainingError where there was none in training."""
        if self._pushed_next is None:
            raise TrainingError("after_step comes after a loss in training mode, once")
        self.copy.update()
        self.queue.push(*self._pushed_next)
        self._pushed_next = None


class MomentumContrast(MomentumKeys):
    """Queries of an encoder against keys of its slow copy and a queue of earlier keys (MoCo, He et al., 2020).

    One step: :meth:`forward` encodes the first view as queries and, without a gradient, the second as keys, and gives
    the objective's loss against the queue; then comes the optimiser's step; :meth:`after_step` moves the copy and
    pushes the keys, after the loss, as a key pushed before it would be its query's positive and negative at once::

        contrast = MomentumContrast(encoder, MoCo(), Queue(65536, 128))
        train_steps(lambda batch: contrast(*views_of(batch), ids=batch), [contrast], batches,
                    after_step=contrast.after_step)

    Where the objective contrasts the views exchanged as well (:class:`~nearfar.objectives.MoCoDualHard` in its mode
    "symmetric"), the second view is encoded by the encoder and the first by the copy, too; the keys that are pushed
    stay those of the second view.

    Arguments:
        encoder: what is trained and kept afterwards.
        objective: takes ``(query, key, relation=..., queue=..., queue_ids=...)``: :class:`~nearfar.objectives.MoCo`,
            :class:`~nearfar.objectives.MoCoDualHard`.
        queue: empty or filled. An empty one is contrasted with as far as it is filled; see :func:`fill_at_random`.
        momentum: of the copy; default 0.999 (MoCo's; 0.99 for small data).

    Raises :class:`~nearfar.errors.UsageError` for an objective without a queue.
    """

    def __init__(self, encoder: nn.Module, objective: RowObjective, queue: Queue, *, momentum: float = 0.999) -> None:
        if "queue" not in getattr(objective, "needs", ()):
            raise UsageError(f"{objective.name} takes no queue", hint="use moco or moco-dual-hard")
        super().__init__(encoder, queue, momentum=momentum)
        self.encoder = encoder
        self.objective = objective
        self.exchanges = getattr(objective, "mode", None) == "symmetric"

    def forward(self, first: Tensor, second: Tensor, *, ids: Tensor | None = None) -> Tensor:
        """The loss of two views of the same items, row by row.

        ``ids [n]``, integers >= 0: which items they are, so that an item's own earlier key in the queue is ignored.
        None: it is a negative, as in the paper, whose data are so many that it rarely meets one.
        """
        key = self.encode(second)
        if self.exchanges:
            query, other_query = self.encoder(torch.cat([first, second])).chunk(2)
            exchanged: dict[str, Any] = {"other_query": other_query, "other_key": self.encode(first)}
        else:
            query, exchanged = self.encoder(first), {}
        stored, numbers = self.queue.stored()
        named: dict[str, Any] = {} if ids is None else {"relation": Paired(ids), "queue_ids": numbers}
        loss: Tensor = self.objective(query, key, queue=stored.to(key), **named, **exchanged)
        self.hold(key, ids)
        return loss


def fill_at_random(queue: Queue, *, generator: torch.Generator | None = None) -> Queue:
    """Fill ``queue`` with random unit vectors, as MoCo starts, so that early steps have negatives; returns it."""
    noise = torch.randn(queue.embeddings.shape, generator=generator).double()
    queue.push(nn.functional.normalize(noise))
    return queue
