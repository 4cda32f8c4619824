"""A measurement for every pair of classes: how well the items of one do against those of another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.errors import DataError

PairMeasure = Callable[[Tensor, Tensor], float]
"""``measure(rows [k], partners [k])``: of the items ``rows``, whose partners are of the classes ``partners``."""


def of_class_pairs(measure: PairMeasure, labels: Tensor, classes: int) -> Tensor:
    """``measure`` of all items of class i with partners of class j, for all i and j: ``[classes, classes]``.

    ``labels [n]`` are the classes of the items, 0 to ``classes - 1``. The pairs are measured in the order (0, 0), (0,
    1), and so on. Raises :class:`~nearfar.errors.DataError` for labels that are none and for a class without an item.
    """
    counts = torch.bincount(labels.clamp_min(0), minlength=classes)
    if len(labels) and (int(labels.min()) < 0 or len(counts) > classes):
        raise DataError(f"labels lie in [{int(labels.min())}, {int(labels.max())}]; there are {classes} classes from 0")
    if not counts.all():
        raise DataError(f"no item is of class {int((counts == 0).nonzero()[0])}")
    rows = [(labels == one).nonzero()[:, 0] for one in range(classes)]
    return torch.tensor([[measure(own, torch.full_like(own, other)) for other in range(classes)] for own in rows])
