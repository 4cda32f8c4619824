"""Lists of candidates, a few of which are relevant and some half, as their features say; and sparse, noisy feedback."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError

_WORLDS = 13_000_027


class PlantedLists:
    """``L`` lists of ``items`` candidates with ``features [L, A, F]``, ``N(0, 1)``, in random order.

    What a candidate is worth is the dot product of its features with a fixed vector of length ``signal`` plus
    ``N(0, 1)`` that no feature shows. The ``relevant`` worthiest of a list have ``grade [L, A]`` 2, the next ``half``
    of them 1, the others 0. ``feedback [L, A]`` is what was said of them: of those graded 1 and 0 the share ``doubt``
    changed places in it with one of the other grade, so that what stands low is told less surely; those graded 2 are
    told rightly. ``reference [L, A]``: logits of a model that ranks by the features times a vector of which half is
    right. Features and logits are in float64.

    Arguments: ``world`` seeds the vectors, ``seed`` the lists. Raises UsageError for lists shorter than what is graded
    and one more, and ``doubt`` outside [0, 1].
    """

    def __init__(
        self,
        lists: int = 200,
        items: int = 12,
        *,
        relevant: int = 2,
        half: int = 2,
        width: int = 12,
        signal: float = 2.0,
        doubt: float = 0.0,
        world: int = 0,
        seed: int = 0,
    ) -> None:
        if lists < 1 or relevant < 1 or half < 1 or relevant + half >= items or not 0 <= doubt <= 1:
            raise UsageError(
                "lists must be longer than what is graded, with at least one of each grade, doubt in [0, 1]"
            )
        of_world = torch.Generator().manual_seed(world + _WORLDS)  # far from the seeds of lists
        drawn = torch.Generator().manual_seed(seed)
        true, other = (torch.randn(width, generator=of_world).double() for _ in range(2))
        true = signal * true / true.norm()
        self.features: Tensor = torch.randn(lists, items, width, generator=drawn).double()
        worth = self.features @ true + torch.randn(lists, items, generator=drawn).double()
        order = worth.argsort(1, descending=True)
        by_rank = torch.tensor([2.0] * relevant + [1.0] * half + [0.0] * (items - relevant - half)).double()
        self.grade: Tensor = torch.zeros_like(worth).scatter_(1, order, by_rank.expand_as(worth))
        told = by_rank.repeat(lists, 1)
        for place in range(relevant, relevant + half):
            partner = torch.randint(relevant + half, items, (lists,), generator=drawn)
            lists_changed = (torch.rand(lists, generator=drawn) < doubt).nonzero()[:, 0]
            told[lists_changed, place], told[lists_changed, partner[lists_changed]] = (
                told[lists_changed, partner[lists_changed]].clone(),
                told[lists_changed, place].clone(),
            )
        self.feedback: Tensor = torch.zeros_like(worth).scatter_(1, order, told)
        mixed = (true + signal * other / other.norm()) / 2
        self.reference: Tensor = self.features @ mixed
