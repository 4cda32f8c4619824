"""Views of time series ``[n, t]`` or ``[n, t, d]``, and of sequences of ids ``[n, t]`` with padding.

Time is the second axis. A series fills all of its ``t`` steps; a sequence of ids ends (or, padded on the left, begins)
with as many padding ids as it is shorter.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import DataError, UsageError
from nearfar.views.base import View, checked_range, normal, uniform


class SeriesView(View):
    """Base of views of time series ``[n, t]`` or ``[n, t, d]``, floating numbers."""

    def check(self, items: Tensor) -> None:
        if items.dim() not in (2, 3) or not items.is_floating_point() or 0 in items.shape[1:]:
            raise DataError(
                f"{type(self).__name__}: time series are [n, t] or [n, t, d] of floating numbers, got "
                f"{tuple(items.shape)} of {items.dtype}"
            )


class Jitter(SeriesView):
    """Gaussian noise at every step. ``deviation``: a number or a range by item, default 0.03 (Um et al., 2017)."""

    def __init__(self, deviation: float | tuple[float, float] = 0.03, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.deviation = checked_range("Jitter: deviation", deviation, 0, 1e9)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.deviation
        size = uniform(len(items), *[1] * (items.dim() - 1), low=low, high=high, like=items, generator=generator)
        noise = normal(*items.shape, like=items, generator=generator)
        return (at_least_float32(items) + size * noise).to(items.dtype)


class Rescale(SeriesView):
    """Each channel of each series times a factor ``N(1, deviation)``; default 0.1 (Um et al., 2017)."""

    def __init__(self, deviation: float = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.deviation = checked_range("Rescale: deviation", deviation, 0, 1e9)[0]

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        factor = 1 + self.deviation * normal(len(items), 1, *items.shape[2:], like=items, generator=generator)
        return (at_least_float32(items) * factor).to(items.dtype)


class PermuteSegments(SeriesView):
    """Cut into equal pieces, which are put together in random order (Um et al., 2017; TS-TCC, 2021).

    Arguments: ``segments``: how many, a number or a range by item, at least 1; default 5. Pieces differ in length by
    one step at most; with more segments than steps every step is one. ``p``: default 1.
    """

    def __init__(self, segments: int | tuple[int, int] = 5, *, p: float = 1.0) -> None:
        super().__init__(p)
        low, high = checked_range("PermuteSegments: segments", segments, 1, 1e6)
        self.segments = (int(low), int(high))

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        n, t = items.shape[:2]
        low, high = self.segments
        count = low + (uniform(n, 1, generator=generator) * (high - low + 1)).long().clamp_max(high - low)
        count = count.clamp_max(t)
        drawn = uniform(n, int(count.max()), generator=generator)
        segment = torch.arange(t, device=count.device)[None] * count // t
        order = drawn.gather(1, segment).argsort(dim=1, stable=True)
        return _take(items, order)


class WindowSlice(SeriesView):
    """A random window, stretched to the old length (Le Guennec et al., 2016): crop and resize in time, linear.

    Arguments: ``share``: of the length, a number or a range in (0, 1] by item, default 0.9; ``p``: default 1.
    """

    def __init__(self, share: float | tuple[float, float] = 0.9, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = checked_range("WindowSlice: share", share, 1e-6, 1)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        n, t = items.shape[:2]
        low, high = self.share
        length = (t - 1) * uniform(n, 1, low=low, high=high, generator=generator)
        start = (t - 1 - length) * uniform(n, 1, generator=generator)
        return resample(items, start + length * torch.linspace(0, 1, t, device=start.device))


class TimeWarp(SeriesView):
    """Time runs faster here and slower there; beginning and end stay (Um et al., 2017).

    The speed is ``exp(deviation N(0, 1))`` at each of ``knots`` equidistant places and linear between.

    Arguments: ``deviation``: default 0.2; ``knots``: at least 2, default 4; ``p``: default 1.
    """

    def __init__(self, deviation: float = 0.2, knots: int = 4, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.deviation = checked_range("TimeWarp: deviation", deviation, 0, 10)[0]
        if knots < 2:
            raise UsageError(f"TimeWarp: knots must be at least 2, got {knots}")
        self.knots = knots

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        n, t = items.shape[:2]
        if t < 2:
            return items.clone()
        at_knots = (self.deviation * normal(n, self.knots, generator=generator)).exp()
        halfway = (torch.arange(t - 1, device=at_knots.device) + 0.5) * (self.knots - 1) / (t - 1)
        steps = resample(at_knots, halfway.expand(n, -1))
        passed = torch.cat([steps.new_zeros(n, 1), steps.cumsum(1)], 1)
        return resample(items, (t - 1) * passed / passed[:, -1:])


class TimeMask(SeriesView):
    """Random stretches of time replaced by ``value`` (SpecAugment, Park et al., 2019).

    Arguments: ``share``: length of a stretch as a share of the series, a number or a range in [0, 1] by stretch,
    default (0, 0.2); ``stretches``: how many, default 1; ``value``: default 0; ``p``: default 1.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = (0.0, 0.2),
        *,
        stretches: int = 1,
        value: float = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.share = checked_range("TimeMask: share", share, 0, 1)
        if stretches < 1:
            raise UsageError(f"TimeMask: stretches must be at least 1, got {stretches}")
        self.stretches, self.value = stretches, float(value)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        n, t = items.shape[:2]
        low, high = self.share
        shape = (n, self.stretches, 1)
        length = (t * uniform(*shape, low=low, high=high, generator=generator)).round()
        start = ((t - length + 1) * uniform(*shape, generator=generator)).floor()
        time = torch.arange(t, device=start.device)
        gone = ((time >= start) & (time < start + length)).any(1).to(items.device)
        return items.masked_fill(gone.reshape(n, t, *[1] * (items.dim() - 2)), self.value)


class Reverse(SeriesView):
    """Time backwards, with probability ``p``, default 0.5."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        return items.flip(1)


class IdsView(View):
    """Base of views of sequences of ids ``[n, t]`` (integers), padded to equal length with the id ``padding``.

    The share of a sequence counts its own ids; an empty one stays empty.

    Arguments: ``share``: of the ids, a number or a range in [0, 1] by sequence, default 0.6; ``padding``: default 0;
    ``padding_side``: where it stands, ``"right"`` (default) or ``"left"``; ``p``: default 1.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = 0.6,
        *,
        padding: int = 0,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.share = checked_range(f"{type(self).__name__}: share", share, 0, 1)
        if padding_side not in ("right", "left"):
            raise UsageError(f"{type(self).__name__}: padding_side must be 'right' or 'left', got {padding_side!r}")
        self.padding, self.padding_side = padding, padding_side

    def check(self, items: Tensor) -> None:
        if items.dim() != 2 or items.is_floating_point() or items.dtype == torch.bool:
            raise DataError(
                f"{type(self).__name__}: sequences of ids are integers [n, t], got {tuple(items.shape)} of "
                f"{items.dtype}"
            )

    def counted(self, items: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Which places hold an id ``[n, t]``, its number in the sequence ``[n, t]``, and the share's length ``[n, 1]``.

        ``floor(share * length)`` (a share of 0.6 of 5 ids is 3).
        """
        real = items != self.padding
        low, high = self.share
        share = uniform(len(items), 1, low=low, high=high, generator=generator).to(items.device)
        return real, real.cumsum(1) - 1, (share * real.sum(1, keepdim=True) + 1e-5).long()


class CropIds(IdsView):
    """A random contiguous part of each sequence (CL4SRec, Xie et al., 2022), padded to the old length.

    Arguments: ``share``: of the ids that stay, at least one, default 0.6; ``padding``: default 0; ``padding_side``:
    default ``"right"``; ``p``: default 1.
    """

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        real, number, length = self.counted(items, generator)
        length = length.clamp_min(1)
        free = real.sum(1, keepdim=True) - length + 1
        start = _below(free, generator)
        kept = real & (number >= start) & (number < start + length)
        moved = (~kept if self.padding_side == "right" else kept).long().argsort(dim=1, stable=True)
        return items.masked_fill(~kept, self.padding).gather(1, moved)


class MaskIds(IdsView):
    """Random ids of each sequence replaced by the id ``mask`` (CL4SRec; BERT4Rec).

    Arguments: ``mask``: the id of "masked", one that no item has; ``share``: of the ids, default 0.3; ``padding``:
    default 0; ``p``: default 1.
    """

    def __init__(
        self, mask: int, share: float | tuple[float, float] = 0.3, *, padding: int = 0, p: float = 1.0
    ) -> None:
        super().__init__(share, padding=padding, p=p)
        if mask == padding:
            raise UsageError(f"MaskIds: mask and padding are both {mask}; what is masked must not look like padding")
        self.mask = mask

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        real, _, length = self.counted(items, generator)
        drawn = uniform(*items.shape, generator=generator).to(items.device).masked_fill(~real, 2.0)
        return items.masked_fill((drawn.argsort(1).argsort(1) < length) & real, self.mask)


class ReorderIds(IdsView):
    """A random contiguous part of each sequence shuffled (CL4SRec).

    Arguments: ``share``: of the ids that are shuffled, default 0.6; ``padding``, ``padding_side``, ``p``: as of
    :class:`CropIds`.
    """

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        real, number, length = self.counted(items, generator)
        start = _below(real.sum(1, keepdim=True) - length + 1, generator)
        inside = (number >= start) & (number < start + length)
        within = uniform(*items.shape, generator=generator).to(items.device)
        place = torch.where(inside, start + length * within, number.float())
        place = place.masked_fill(~real, float("inf") if self.padding_side == "right" else -1.0)
        return items.gather(1, place.argsort(dim=1, stable=True))


def resample(series: Tensor, times: Tensor) -> Tensor:
    """The values of series ``[n, t]`` or ``[n, t, d]`` at ``times [n, s]`` in steps from 0 to t - 1, linear between."""
    values = at_least_float32(series)
    last = series.shape[1] - 1
    exact = times.to(values).clamp(0, last)
    below = exact.floor().clamp_max(max(0, last - 1))
    share = (exact - below).reshape(*times.shape, *[1] * (series.dim() - 2))
    left = below.long()
    found = torch.lerp(_take(values, left), _take(values, (left + 1).clamp_max(last)), share)
    return found.to(series.dtype)


def _take(items: Tensor, places: Tensor) -> Tensor:
    """``items[i, places[i, s]]`` for all i, s."""
    places = places.to(items.device)
    if items.dim() == 3:
        return items.gather(1, places[:, :, None].expand(-1, -1, items.shape[2]))
    return items.gather(1, places)


def _below(bounds: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random whole numbers from 0 on below each of ``bounds [n, 1]``; 0 where that is below 1."""
    drawn = uniform(*bounds.shape, generator=generator).to(bounds.device)
    return torch.minimum((drawn * bounds).long(), bounds - 1).clamp_min(0)
