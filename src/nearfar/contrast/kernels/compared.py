"""Relations in which comparing ids alone says who is near, far and ignored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.contrast.paired import Paired, Views
from nearfar.contrast.relation import Labels, Relation, Transposed

Sides = tuple[Tensor, Tensor]
"""A value of each query ``[n]`` and of each key ``[m]``, int32."""


class Compared(NamedTuple):
    """Pairs of equal ``ids`` are near; of the others those with equal ``exclude`` or different ``within`` are ignored,
    and the rest are far."""

    ids: Sides
    exclude: Sides | None
    within: Sides | None

    def counts(self, self_contrast: bool) -> tuple[Tensor, Tensor]:
        """How many keys are near and how many are far of each query, ``[n]`` each; linear memory."""
        within = () if self.within is None else (self.within,)
        equal = _equal(self.ids)
        own = (self.ids[0] >= 0).long() if self_contrast else 0  # an item is not near to itself
        far = (_equal(*within) if within else self.ids[1].numel()) - _equal(self.ids, *within)
        lonely = self.ids[0] < 0
        if self.exclude is not None:
            far = far - _equal(self.exclude, *within) + _equal(self.ids, self.exclude, *within)
            lonely &= self.exclude[0] < 0
        return equal - own, far - lonely.long() if self_contrast else far

    def turned(self) -> Compared:
        """The same with the roles of queries and keys exchanged."""
        ids, exclude, within = (None if sides is None else (sides[1], sides[0]) for sides in self)
        assert ids is not None
        return Compared(ids, exclude, within)


def comparable(relation: Relation) -> bool:
    """Whether the relation can be :func:`compared`."""
    kind = type(relation.inner) if isinstance(relation, Transposed) else type(relation)
    return kind in (Labels, Paired, Views)


def compared(relation: Relation) -> Compared:
    """What to compare of a bound relation."""
    if isinstance(relation, Transposed):
        return compared(relation.inner).turned()
    query, key = relation.query_state, relation.query_state if relation.key_state is None else relation.key_state
    name = "label" if isinstance(relation, Labels) else "id"
    return Compared(
        _numbered(query[name], key[name]),
        _numbered(query["exclude"], key["exclude"]) if "exclude" in query else None,
        _numbered(query["within"], key["within"], negative=True) if "within" in query else None,
    )


def _equal(*sides: Sides) -> Tensor:
    """How many keys equal each query in all of them, ``[n]``; those below 0 equal nothing."""
    n = sides[0][0].numel()
    numbers = torch.zeros(n + sides[0][1].numel(), dtype=torch.long, device=sides[0][0].device)
    nothing = torch.zeros_like(numbers, dtype=torch.bool)
    for side in sides:
        values = torch.cat(side).long()
        nothing |= values < 0
        numbers = torch.unique(numbers * (values.numel() + 1) + values.clamp_min(0), return_inverse=True)[1]
    numbers = torch.where(nothing, numbers.numel(), numbers)
    counts = torch.bincount(numbers[n:], minlength=numbers.numel() + 1)
    counts[-1] = 0
    return counts[numbers[:n]]


def _numbered(query: Tensor, key: Tensor, *, negative: bool = False) -> Sides:
    """The values as small integers, equal where they were; those below 0 equal nothing, unless ``negative``."""
    values = torch.cat([query, key])
    numbers = torch.unique(values, return_inverse=True)[1].to(torch.int32)
    if not negative:
        numbers[values < 0] = -1
    queries, keys = numbers.split([query.numel(), key.numel()])
    return queries, keys if negative else torch.where(keys < 0, -2, keys)
