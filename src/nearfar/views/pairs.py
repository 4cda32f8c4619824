"""Where positive pairs come from: five sources, by what query and key share (Le-Khac et al., 2020).

What the two have in common is what a representation keeps, and what differs between them is what it forgets. A source
is called with the numbers of a batch's items and gives their :class:`Pairs`::

    source = Multisensory(look, sensors=2, events=1000)
    pairs = source(torch.arange(64), generator=generator)
    loss = InfoNCE(0.2)(encoder(pairs.query), encoder(pairs.key), relation=Paired(pairs.ids, pairs.ids))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.views.base import AnyView, uniform

Look = Callable[..., Tensor]
"""``look(index [n], generator=None) -> [n, ...]``: what the items of these numbers look like, drawn anew each time."""


@dataclass(frozen=True)
class Pairs:
    """Query i and key i are a positive pair: ``query [n, ...]`` and ``key [n, ...]``.

    ``ids [n]`` (int64): pairs of equal ids are near each other too (the same event, the same class). ``index [n]`` and
    ``partner [n]``: the numbers of the items that query and key show.
    """

    query: Tensor
    key: Tensor
    ids: Tensor
    index: Tensor
    partner: Tensor


class PairSource:
    """Base of the sources: ``source(index [n], generator=None) -> Pairs``.

    A subclass says which item the key of an item shows (:meth:`partner`), which pairs are near one another beyond
    their own (:meth:`ids`), and how query and key are looked at (:meth:`query`, :meth:`key`). Everything random comes
    from ``generator``.
    """

    name: ClassVar[str]

    def __init__(self, look: Look) -> None:
        self.look = look

    def partner(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """The item that the key of each item shows; the item itself by default."""
        return index

    def ids(self, index: Tensor) -> Tensor:
        """Pairs of equal ids are near; the item's number by default."""
        return index

    def query(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """The queries that show the items ``index``."""
        return self.look(index, generator=generator)

    def key(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """The keys that show the items ``index``."""
        return self.look(index, generator=generator)

    def __call__(self, index: Tensor, generator: torch.Generator | None = None) -> Pairs:
        partner = self.partner(index, generator)
        query, key = self.query(index, generator), self.key(partner, generator)
        return Pairs(query, key, self.ids(index), index, partner)


class Multisensory(PairSource):
    """The same event by two sensors, modalities or viewpoints: what one sensor alone sees is forgotten.

    Item ``sensor * events + event`` is what a sensor saw of an event; the key is the same event at another sensor,
    uniform among the others. Contrastive multiview coding, time-contrastive networks, image and text (CLIP).

    Arguments:
        look: see :data:`Look`.
        sensors: how many, 2 at least.
        events: how many each of them saw.
    """

    name = "multisensory"

    def __init__(self, look: Look, *, sensors: int, events: int) -> None:
        super().__init__(look)
        if sensors < 2 or events < 1:
            raise UsageError(f"multisensory pairs need at least 2 sensors and 1 event, got {sensors} and {events}")
        self.sensors, self.events = sensors, events

    def partner(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        other = torch.randint(1, self.sensors, index.shape, generator=generator)
        return (index + other * self.events) % (self.sensors * self.events)

    def ids(self, index: Tensor) -> Tensor:
        return index % self.events


class Transformation(PairSource):
    """Two looks at one item, such as two augmentations: what the transformation changes is forgotten.

    Instance discrimination, MoCo, SimCLR; for sentences dropout (SimCSE) or back-translation (CERT).
    """

    name = "transformation"


class ContextInstance(PairSource):
    """A part of an item and the whole of it: local detail is forgotten, what is true of the whole is kept.

    Deep InfoMax (a patch and its image), skip-gram (a word and those around it), Deep Graph Infomax (a node and its
    graph).

    Arguments:
        look: see :data:`Look`.
        part: ``part(items, generator=None)``: what is left of each item; default :class:`Block` of half the last
            dimension.
    """

    name = "context-instance"

    def __init__(self, look: Look, part: AnyView | None = None) -> None:
        super().__init__(look)
        self.part = Block() if part is None else part

    def query(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.part(self.look(index, generator=generator), generator=generator)


class Sequential(PairSource):
    """Neighbours in a sequence: what changes quickly is forgotten, what stays for a while is kept.

    Items ``k * length`` to ``(k + 1) * length - 1`` are a sequence in order; the key is an item of the same sequence at
    most ``distance`` away, uniform among them. Slow features, time-contrastive networks of one view, wav2vec,
    Quick-Thoughts.

    Arguments:
        look: see :data:`Look`.
        length: of the sequences, 2 at least.
        distance: default 1.
    """

    name = "sequential"

    def __init__(self, look: Look, *, length: int, distance: int = 1) -> None:
        super().__init__(look)
        if length < 2 or distance < 1:
            raise UsageError(f"sequential pairs need a length of 2 and a distance of 1, got {length} and {distance}")
        self.length, self.distance = length, distance

    def partner(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        place = index % self.length
        before = place.clamp_max(self.distance)
        after = (self.length - 1 - place).clamp_max(self.distance)
        # one of the neighbours before and after, numbered from the first; the item itself is stepped over
        chosen = (uniform(len(index), generator=generator) * (before + after)).long()
        return index - before + chosen + (chosen >= before).long()


class Clustering(PairSource):
    """Another item of the same class, or of the same cluster that was found: variation within it is forgotten.

    With labels siamese verification, FaceNet, SupCon; with clusters DeepCluster, local aggregation, PCL. All pairs of a
    label are near one another (:attr:`Pairs.ids` are the labels). An item alone in its class is its own partner.

    Arguments:
        look: see :data:`Look`.
        labels: ``[items]`` integers, the class or cluster of every item.
    """

    name = "clustering"

    def __init__(self, look: Look, labels: Tensor) -> None:
        super().__init__(look)
        if labels.dim() != 1 or labels.is_floating_point() or not len(labels):
            raise UsageError(f"labels must be [items] integers, got {tuple(labels.shape)} of {labels.dtype}")
        self.labels = labels
        _, number, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        self._order = number.argsort(stable=True)
        self._place = torch.empty_like(self._order)
        self._place[self._order] = torch.arange(len(labels))
        self._first = (counts.cumsum(0) - counts)[number]
        self._count = counts[number]

    def partner(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        first, others = self._first[index], self._count[index] - 1
        chosen = first + (uniform(len(index), generator=generator) * others).long()
        chosen = chosen + ((chosen >= self._place[index]) & (others > 0)).long()
        partner: Tensor = self._order[chosen]
        return partner

    def ids(self, index: Tensor) -> Tensor:
        return self.labels[index]


class RandomPairs(PairSource):
    """Any two items, which share nothing: the control that nothing can be learned from.

    Arguments:
        look: see :data:`Look`.
        items: how many there are.
    """

    name = "random"

    def __init__(self, look: Look, items: int) -> None:
        super().__init__(look)
        self.items = items

    def partner(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.randint(self.items, index.shape, generator=generator)


class Block:
    """A contiguous part of the last dimension of each item, at a place of its own; the rest becomes 0.

    ``block(items [n, ..., d], generator=None)``. ``share``: of d, in (0, 1], default 0.5; at least one number stays.
    """

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"the share of a block lies in (0, 1], got {share}")
        self.share = share

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        size = items.shape[-1]
        width = max(1, round(self.share * size))
        start = (uniform(len(items), generator=generator) * (size - width + 1)).long().to(items.device)
        place = torch.arange(size, device=items.device)
        kept = (place >= start[:, None]) & (place < start[:, None] + width)
        return items * kept.reshape(len(items), *[1] * (items.dim() - 2), size)


def looks(items: Tensor, view: AnyView | None = None) -> Look:
    """Looks at ``items [m, ...]`` through a view, or as they are: what the sources of pairs take."""

    def look(index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if view is None:
            return items[index]
        seen: Tensor = view(items[index], generator=generator)
        return seen

    return look


SOURCES: dict[str, type[PairSource]] = {
    source.name: source for source in (Multisensory, Transformation, ContextInstance, Sequential, Clustering)
}
"""The five sources by name."""
