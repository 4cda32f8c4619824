"""How keys are made: by the trained encoder itself, by an earlier one, or by one that was trained for something else.

The three regimes of Le-Khac et al. (2020). Each takes the pairs of a batch and gives queries, keys and their relation
for any row objective; only :class:`EndToEnd` lets a gradient reach the encoder through keys.
"""

from __future__ import annotations

import copy
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.errors import UsageError
from nearfar.negatives.bank import MemoryBank
from nearfar.negatives.queue import Queue
from nearfar.training.momentum import MomentumKeys
from nearfar.views.pairs import Pairs


class Contrast(NamedTuple):
    """What a row objective is called with: ``objective(query [n, d], keys [m, d], relation=relation)``.

    The first n keys are those of the queries."""

    query: Tensor
    keys: Tensor
    relation: Paired


class Keys(nn.Module):
    """Base of the regimes: ``keys(pairs) -> Contrast``; :meth:`after_step` follows each step of the optimiser.

    Arguments:
        encoder: ``e``, what is trained and exported.
        head: ``h``, on which scores are computed, dropped after training.
    """

    name: ClassVar[str]

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def embed(self, items: Tensor) -> Tensor:
        """The metric embedding ``h(e(x))``: ``[n, d]``."""
        z: Tensor = self.head(self.encoder(items))
        return z

    def forward(self, pairs: Pairs) -> Contrast:
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Move what follows the encoder, after the optimiser's step number ``step``."""


class EndToEnd(Keys):
    """Queries and keys are both trained (siamese networks, SimCLR, CLIP).

    Arguments:
        encoder, head: see :class:`Keys`.
        key_encoder, key_head: of the keys, for another modality than the queries'; default the same, shared.
    """

    name = "end-to-end"

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        key_encoder: nn.Module | None = None,
        key_head: nn.Module | None = None,
    ) -> None:
        super().__init__(encoder, head)
        self.key_encoder = encoder if key_encoder is None else key_encoder
        self.key_head = head if key_head is None else key_head

    def forward(self, pairs: Pairs) -> Contrast:
        key = self.key_head(self.key_encoder(pairs.key))
        return Contrast(self.embed(pairs.query), key, Paired(pairs.ids, pairs.ids))


class OnlineOffline(Keys):
    """Keys come from a slow copy of encoder and head; those of earlier batches are negatives too (MoCo, 2020).

    With any row objective; MoCo's own, whose queries are not contrasted with the other keys of their batch, are driven
    by :class:`~nearfar.training.momentum.MomentumContrast`.

    Arguments:
        encoder, head: see :class:`Keys`.
        dimension: of the metric embedding.
        momentum: of the copy, default 0.999. size: of the queue, default 4,096 (MoCo: 65,536 for a million images).
    """

    name = "online-offline"

    def __init__(
        self, encoder: nn.Module, head: nn.Module, *, dimension: int, momentum: float = 0.999, size: int = 4096
    ) -> None:
        super().__init__(encoder, head)
        # lengths are left to the score: a distance needs those of queries and keys alike
        follower = nn.Sequential(encoder, head)
        self.offline = MomentumKeys(follower, Queue(size, dimension), momentum=momentum, normalize=False)

    def forward(self, pairs: Pairs) -> Contrast:
        key = self.offline.encode(pairs.key)
        keys, relation = self.offline.queue.extend(key, pairs.ids)
        self.offline.hold(key, pairs.ids)
        return Contrast(self.embed(pairs.query), keys, relation)

    def after_step(self, step: int) -> None:
        self.offline.after_step(step)


class Banked(Keys):
    """Keys are past embeddings of the items themselves: nothing is encoded twice (instance discrimination, 2018).

    The positive key of a pair is what the bank holds of its partner; negatives are the bank's vectors of other items.

    Arguments:
        encoder, head: see :class:`Keys`.
        dimension: of the metric embedding. items: how many items the data has.
        labels: ``[items]``, what the pairs' ids are, where that is not the item's number: items of an equal label are
            not taken for negatives of each other.
        momentum: of a stored vector, default 0.5. negatives: drawn each step, default 4,096 (the paper's).
    """

    name = "memory-bank"

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        dimension: int,
        items: int,
        labels: Tensor | None = None,
        momentum: float = 0.5,
        negatives: int = 4096,
    ) -> None:
        super().__init__(encoder, head)
        self.bank = MemoryBank(items, dimension, momentum=momentum)
        self.labels = torch.arange(items) if labels is None else labels
        self.negatives = negatives
        self._seen: tuple[Tensor, Tensor] | None = None

    def forward(self, pairs: Pairs) -> Contrast:
        query = self.embed(pairs.query)
        drawn = torch.randperm(len(self.bank.rows))[: self.negatives].to(pairs.ids.device)
        keys = self.bank.rows[torch.cat([pairs.partner, drawn])]
        relation = Paired(
            pairs.ids,
            torch.cat([pairs.ids, torch.full_like(drawn, -1)]),
            query_exclude=pairs.ids,
            key_exclude=torch.cat([pairs.ids, self.labels[drawn].to(pairs.ids)]),
        )
        if self.training:
            self._seen = (pairs.index, query.detach())
        return Contrast(query, keys, relation)

    def after_step(self, step: int) -> None:
        if self._seen is not None:
            self.bank.update(*self._seen)
            self._seen = None


class PreTrained(Keys):
    """Keys come from the encoder as it was given, trained for something else before (CRD, 2020).

    The keys' encoder is a frozen copy; the head, which has learned nothing yet, is trained on both sides.
    With ``train_keys`` there is no copy: the given encoder is trained on both sides from where it stands (CERT, SBERT),
    which is :class:`EndToEnd` from another start.

    Arguments:
        encoder: already trained. head: see :class:`Keys`.
        train_keys: default False.
    """

    name = "pre-trained"

    def __init__(self, encoder: nn.Module, head: nn.Module, *, train_keys: bool = False) -> None:
        super().__init__(encoder, head)
        self.frozen = None if train_keys else copy.deepcopy(encoder).requires_grad_(False)

    def train(self, mode: bool = True) -> PreTrained:
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()  # neither dropout nor running statistics: it stays what it was
        return self

    def forward(self, pairs: Pairs) -> Contrast:
        key = self.head((self.encoder if self.frozen is None else self.frozen)(pairs.key))
        return Contrast(self.embed(pairs.query), key, Paired(pairs.ids, pairs.ids))


REGIMES: dict[str, type[Keys]] = {regime.name: regime for regime in (EndToEnd, OnlineOffline, Banked, PreTrained)}
"""The regimes by name."""


def regime(name: str) -> type[Keys]:
    """The regime called ``name``. Raises :class:`~nearfar.errors.UsageError` for another name, with those there are."""
    if name not in REGIMES:
        raise UsageError(f"there is no key regime {name!r}", hint=f"choose one of {', '.join(REGIMES)}")
    return REGIMES[name]
