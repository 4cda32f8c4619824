"""How many items each class of a long tail has."""

from __future__ import annotations

import torch

from nearfar.errors import UsageError


def long_tail(classes: int, items: int, *, power: float = 1.0) -> list[int]:
    """Sizes of ``classes`` classes that fall as ``rank^-power`` (Zipf's law), ``items`` together, each at least 1.

    With ``power = 0`` all are alike to within one; default 1. For
    :class:`~nearfar.data.synthetic.ContentStyle`. Raises :class:`~nearfar.errors.UsageError` for fewer items than
    classes, no class or a negative power.
    """
    if classes < 1 or items < classes or not power >= 0:
        raise UsageError(f"{classes} classes, {items} items, power {power}: each class needs an item, power >= 0")
    shares = torch.arange(1, classes + 1, dtype=torch.float64) ** -power
    # one item each first, so that rounding leaves no class empty
    edges = ((items - classes) * shares.cumsum(0) / shares.sum()).round().long()
    sizes: list[int] = (edges.diff(prepend=edges.new_zeros(1)) + 1).tolist()
    return sorted(sizes, reverse=True)
