"""A recurrent encoder of time series and of sequences of ids, for experiments on a CPU and for small data."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nearfar.errors import UsageError


class GRUEncoder(nn.Module):
    """Sequences to vectors by a gated recurrent unit: ``[n, t, features]`` or ids ``[n, t]`` to ``[n, dimension]``.

    Ids are embedded, or one-hot where ``embedding`` is None. The states of all steps are pooled and mapped linearly to
    ``dimension``. Padding has no part in anything: a sequence gives the same vector whatever it is padded with and to
    whatever length. A sequence without a step counts as a state of zeros. No sequences give no vectors, ``[0, d]``.

    Arguments:
        features: of a step of a series; give this or ``vocabulary``.
        vocabulary: how many ids there are, from 0 on, the padding among them.
        embedding: width of an id's embedding; None: one-hot.
        hidden: width of the states, in each direction; default 64.
        dimension: of the result, default 64.
        layers: default 1. bidirectional: also from the end to the beginning; default False.
        pooling: ``"last"`` (default): the state after the last step, of both directions; ``"mean"``, ``"max"``: over
            all steps.
        padding: the id that stands for no step, default 0; None: there is none.

    Called as ``encoder(items, mask=None)``; ``mask [n, t]`` (bool) says which steps there are, by default all of a
    series and all ids that are not ``padding``. Steps may be missing at the end, at the beginning or between.
    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or options that do not exist, ValueError for items of
    another form.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        vocabulary: int | None = None,
        embedding: int | None = None,
        hidden: int = 64,
        dimension: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: Literal["last", "mean", "max"] = "last",
        padding: int | None = 0,
    ) -> None:
        super().__init__()
        if (features is None) == (vocabulary is None):
            raise UsageError("a sequence encoder takes either series (features=) or ids (vocabulary=)")
        if embedding is not None and vocabulary is None:
            raise UsageError("an embedding belongs to ids", hint="give vocabulary=")
        if min(size for size in (features, vocabulary, embedding, hidden, dimension, layers) if size is not None) < 1:
            raise UsageError("all sizes of a sequence encoder must be at least 1")
        if pooling not in ("last", "mean", "max"):
            raise UsageError(f"pooling must be 'last', 'mean' or 'max', got {pooling!r}")
        self.features, self.vocabulary, self.padding, self.pooling = features, vocabulary, padding, pooling
        self.embedding = None if embedding is None or vocabulary is None else nn.Embedding(vocabulary, embedding)
        width = embedding or vocabulary or features or 1
        self.recurrent = nn.GRU(width, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.last = nn.Linear(hidden * (2 if bidirectional else 1), dimension)

    def forward(self, items: Tensor, mask: Tensor | None = None) -> Tensor:
        steps, there = self._steps(items, mask)
        if not len(steps):
            none: Tensor = self.last(self.last.weight.new_zeros(0, self.last.in_features))
            return none
        # what is no step may be no number
        steps = torch.where(there[:, :, None], steps, 0)
        lengths = there.sum(1)
        # missing steps to the end, the others in their order
        order = (~there).long().argsort(dim=1, stable=True)
        steps = steps.gather(1, order[:, :, None].expand_as(steps))
        packed = pack_padded_sequence(steps, lengths.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        output, final = self.recurrent(packed)
        any_step = (lengths > 0)[:, None]
        if self.pooling == "last":
            both = final[-2:] if self.recurrent.bidirectional else final[-1:]
            pooled = both.transpose(0, 1).flatten(1)
        else:
            states, _ = pad_packed_sequence(output, batch_first=True)
            inside = torch.arange(states.shape[1], device=lengths.device)[None, :, None] < lengths[:, None, None]
            if self.pooling == "mean":
                pooled = torch.where(inside, states, 0).sum(1) / lengths.clamp_min(1)[:, None]
            else:
                pooled = states.masked_fill(~inside, -torch.inf).amax(1)
        embeddings: Tensor = self.last(torch.where(any_step, pooled, 0))
        return embeddings

    def _steps(self, items: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps ``[n, t, width]`` as the recurrent layer takes them, and which of them there are ``[n, t]``."""
        if self.vocabulary is None:
            if items.dim() != 3 or items.shape[2] != self.features or not items.shape[1]:
                raise ValueError(f"series must be [n, t, {self.features}], got {tuple(items.shape)}")
            there = torch.ones(items.shape[:2], dtype=torch.bool, device=items.device)
            steps = items
        else:
            if items.dim() != 2 or items.is_floating_point() or not items.shape[1]:
                raise ValueError(f"sequences of ids must be integers [n, t], got {tuple(items.shape)} of {items.dtype}")
            if len(items) and not 0 <= int(items.min()) <= int(items.max()) < self.vocabulary:
                raise ValueError(f"ids must lie in 0 .. {self.vocabulary - 1}, got {items.min()} .. {items.max()}")
            there = torch.ones_like(items, dtype=torch.bool) if self.padding is None else items != self.padding
            steps = (
                F.one_hot(items.long(), self.vocabulary).to(self.last.weight)
                if self.embedding is None
                else self.embedding(items)
            )
        if mask is not None:
            if mask.shape != items.shape[:2]:
                raise ValueError(f"mask must be {tuple(items.shape[:2])}, got {tuple(mask.shape)}")
            there = there & mask.bool()
        return steps, there
