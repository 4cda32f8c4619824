"""What a view is: a callable that draws one random version of every item of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, TypeGuard

import torch
from torch import Tensor

from nearfar.errors import UsageError

AnyView = Callable[..., Tensor]
"""``view(items [n, ...], generator=None) -> items``: any callable of this form is a view."""


class View:
    """Base of the views here: ``view(items [n, ...], generator=None)`` gives a new version of every item.

    Each item is changed with probability ``p``, by parameters of its own; an item that is not changed comes back as it
    was, bit by bit. Number type and device stay. The input is never written to, but where no item was changed the
    result may be the input itself. Everything random comes from ``generator`` (default: torch's global one on the CPU):
    the same generator state gives the same views. Numbers are drawn on the generator's device, so a generator of the
    CPU gives the same views on every device.

    A subclass writes :meth:`change` for the chosen items and :meth:`check` for what it can be given.
    Raises :class:`~nearfar.errors.UsageError` for a ``p`` outside [0, 1].
    """

    def __init__(self, p: float = 1.0) -> None:
        if not is_number(p) or not 0 <= p <= 1:
            raise UsageError(f"{type(self).__name__}: p must lie in [0, 1], got {p!r}")
        self.p = float(p)

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.check(items)
        if self.p == 1 and len(items):
            return self.change(items, generator)
        chosen = (uniform(len(items), generator=generator) < self.p).to(items.device)
        if not chosen.any():
            return items
        changed = items.clone()
        changed[chosen] = self.change(items[chosen], generator)
        return changed

    def check(self, items: Tensor) -> None:
        """Raise :class:`~nearfar.errors.DataError` for items that the view cannot be applied to."""

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        """A new version of every item; same shape, number type and device."""
        raise NotImplementedError

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({options})"


class Compose:
    """One view after the other: ``Compose(crop, flip, jitter)``. An empty one gives the items as they are."""

    def __init__(self, *views: AnyView) -> None:
        self.views = views

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for view in self.views:
            items = view(items, generator=generator)
        return items

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.views))})"


def views_of(view: AnyView, items: Tensor, count: int = 2, *, generator: torch.Generator | None = None) -> list[Tensor]:
    """``count`` independent views of the same items: what most contrastive methods start from."""
    if count < 1:
        raise UsageError(f"count is {count}; at least one view is needed")
    return [view(items, generator=generator) for _ in range(count)]


def uniform(
    *shape: int,
    low: float = 0.0,
    high: float = 1.0,
    like: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Uniform numbers in [low, high) of ``shape``; float32 on the CPU, or as ``like`` (float32 for half precision)."""
    device = "cpu" if generator is None else generator.device
    drawn = low + (high - low) * torch.rand(shape, generator=generator, device=device)
    return _as(drawn, like)


def normal(*shape: int, like: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers of ``shape``; number type and device as :func:`uniform`."""
    device = "cpu" if generator is None else generator.device
    return _as(torch.randn(shape, generator=generator, device=device), like)


def is_number(given: Any) -> TypeGuard[float]:
    """Whether ``given`` is a finite real number, of Python or of numpy; True and False are none."""
    return isinstance(given, Real) and not isinstance(given, bool) and math.isfinite(given)


def checked_range(
    name: str, given: float | Sequence[float], low: float, high: float, *, around: float | None = None
) -> tuple[float, float]:
    """``given`` as an ordered pair of numbers in [low, high]: a pair as it is, one number x as (around - x, around + x)
    or, without ``around``, as (x, x).

    Numbers are those of :func:`is_number`. Raises :class:`~nearfar.errors.UsageError` for anything else.
    """
    if isinstance(given, Iterable):
        pair = tuple(given)
    elif not is_number(given) or around is None:
        pair = (given, given)
    else:
        pair = (max(low, around - given), around + given)
    if len(pair) != 2 or not all(map(is_number, pair)) or not low <= pair[0] <= pair[1] <= high:
        raise UsageError(f"{name} must be a range of finite numbers within [{low:g}, {high:g}], got {given!r}")
    return float(pair[0]), float(pair[1])


def _as(drawn: Tensor, like: Tensor | None) -> Tensor:
    if like is None:
        return drawn
    return drawn.to(like.device, torch.float64 if like.dtype == torch.float64 else torch.float32)
