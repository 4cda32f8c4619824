"""Set operations by similarity: a set of examples stands for a meaning, and an operation is an order of the items.

The operations of SetCSE (Liu, 2024, arXiv:2404.17606) on embeddings. The items A are what is ordered, the sets B and C
are criteria: ``A ∩ B`` and ``B ∩ A`` are different things, and nothing of A is ever left out::

    order(series_scores(items, like=[B1, B2], unlike=[C]))      # A ∩ B1 ∩ B2 \\ C: rows, best first
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.errors import UsageError


def direction(members: Tensor) -> Tensor:
    """The mean of the members' directions, ``[m, d] -> [d]`` (float64), whose dot product with an item of length 1 is
    its mean cosine with them. Not of length 1: the more the members disagree, the shorter.

    A zero vector has the cosine 0 with everything. Raises :class:`~nearfar.errors.UsageError` for no members.
    """
    if members.dim() != 2 or not len(members):
        raise UsageError(f"a set needs at least one member: embeddings [m, d], got {list(members.shape)}")
    return normalize(members.double()).mean(0)


def series_direction(like: Sequence[Tensor], unlike: Sequence[Tensor] = ()) -> Tensor:
    """``sum_i direction(B_i) - sum_j direction(C_j)``, ``[d]``: one vector that a whole series of operations asks for.

    Raises :class:`~nearfar.errors.UsageError` for no sets at all.
    """
    if not like and not unlike:
        raise UsageError("there is no set to compare with", hint="give examples of what is wanted, or of what is not")
    parts = [direction(each) for each in like] + [-direction(each) for each in unlike]
    return torch.stack(parts).sum(0)


def set_similarity(items: Tensor, members: Tensor) -> Tensor:
    """``SIM(x, S) = mean_{s in S} cos(x, s)`` of each item, ``[n, d], [m, d] -> [n]`` in [-1, 1]."""
    return series_scores(items, [members])


def series_scores(items: Tensor, like: Sequence[Tensor], unlike: Sequence[Tensor] = ()) -> Tensor:
    """``sum_i SIM(x, B_i) - sum_j SIM(x, C_j)`` of each item, ``[n]``: float64, higher is better.

    One B alone is the intersection with it, one C alone the difference. Equal items score equally.
    """
    # summed by row, not by a matrix product, whose rounding may differ between equal rows
    return (normalize(items.double()) * series_direction(like, unlike)).sum(1)


def order(scores: Tensor) -> Tensor:
    """Rows by falling score ``[n]``; equal scores in the order they came."""
    return torch.sort(scores, descending=True, stable=True).indices


def intersection(items: Tensor, members: Tensor) -> Tensor:
    """``A ∩ B``: the rows of ``items`` by falling similarity to ``members``."""
    return order(series_scores(items, [members]))


def difference(items: Tensor, members: Tensor) -> Tensor:
    """``A \\ C``: the rows of ``items`` by rising similarity to ``members``."""
    return order(series_scores(items, [], [members]))
