"""Views of images ``[n, c, h, w]`` and clips ``[n, c, t, h, w]`` in [0, 1]: crops, turns, colours, blur, erasing.

Batched and in torch alone; each item draws its own parameters, the frames of a clip share them. All are views as
:class:`~nearfar.views.base.View` describes them. The changes themselves, with given parameters, are in
:mod:`nearfar.views.pixels`.

::

    from nearfar import views

    view = views.simclr_views(32)
    first, second = views.views_of(view, images, generator=generator)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import UsageError
from nearfar.views import pixels
from nearfar.views.base import Compose, View, checked_range, is_number, normal, uniform


class ImageView(View):
    """Base of views of images: ``[n, c, h, w]`` or ``[n, c, t, h, w]``, floating numbers."""

    def check(self, items: Tensor) -> None:
        pixels.check_images(type(self).__name__, items)


class RandomResizedCrop(ImageView):
    """A box of random area, shape and place, enlarged to the whole image.

    Arguments:
        size: height and width of the result, or both in one number; default: that of the input.
        scale: range of the box's share of the area, default (0.08, 1) (SimCLR).
        ratio: range of its width over its height in pixels, log-uniform, default (3/4, 4/3). A side that would not fit
            into the image becomes the image's.
        p: default 1. Where ``size`` differs from the input's, an item that is not cropped is resized as a whole.

    Raises :class:`~nearfar.errors.UsageError` for ranges that are none.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.size = None if size is None else _height_and_width(size)
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"RandomResizedCrop: size must be at least 1, got {size}")
        self.scale = checked_range("RandomResizedCrop: scale", scale, 1e-6, 1)
        self.ratio = checked_range("RandomResizedCrop: ratio", ratio, 1e-6, 1e6)

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.check(items)
        if self.size in (None, tuple(items.shape[-2:])):
            return super().__call__(items, generator)
        chosen = uniform(len(items), generator=generator) < self.p
        boxes = self.boxes(len(items), items.shape[-2], items.shape[-1], generator)
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
        return pixels.crop_and_resize(
            items, torch.where(chosen[:, None], boxes, whole.to(boxes)).to(items.device), self.size
        )

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        boxes = self.boxes(len(items), items.shape[-2], items.shape[-1], generator)
        return pixels.crop_and_resize(items, boxes.to(items.device))

    def boxes(self, n: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
        """Random boxes ``[n, 4]`` as :func:`~nearfar.views.pixels.crop_and_resize` takes them."""
        area = uniform(n, low=self.scale[0], high=self.scale[1], generator=generator)
        log_ratio = uniform(n, low=math.log(self.ratio[0]), high=math.log(self.ratio[1]), generator=generator)
        relative = log_ratio.exp() * height / width
        across, down = (area * relative).sqrt().clamp_max(1), (area / relative).sqrt().clamp_max(1)
        left = (1 - across) * uniform(n, generator=generator)
        top = (1 - down) * uniform(n, generator=generator)
        return torch.stack([left, top, across, down], 1)


class HorizontalFlip(ImageView):
    """Left and right exchanged, with probability ``p``, default 0.5."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        return items.flip(-1)


class Rotate(ImageView):
    """Turned about the centre by a random angle, counter-clockwise, bilinear.

    Arguments:
        degrees: a range, or one number x for (-x, x); default 45.
        padding: what lies outside: ``"zeros"`` (default), ``"border"`` or ``"reflection"``.
        p: default 1.
    """

    def __init__(
        self, degrees: float | tuple[float, float] = 45.0, *, padding: pixels.Padding = "zeros", p: float = 1.0
    ) -> None:
        super().__init__(p)
        turn = abs(degrees) if is_number(degrees) else degrees
        self.degrees = checked_range("Rotate: degrees", turn, -360, 360, around=0)
        if padding not in ("zeros", "border", "reflection"):
            raise UsageError(f"Rotate: padding must be 'zeros', 'border' or 'reflection', got {padding!r}")
        self.padding = padding

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.degrees
        angles = uniform(len(items), low=low, high=high, generator=generator)
        return pixels.rotate(items, angles.to(items.device), padding=self.padding)


class ColourJitter(ImageView):
    """Brightness, contrast, saturation and hue changed, in an order that is random for each batch.

    Arguments:
        brightness, contrast, saturation: one number x for a factor in [max(0, 1 - x), 1 + x], or the range of the
            factor; default 0.8.
        hue: one number x in [0, 0.5] for a shift in [-x, x] turns, or the range; default 0.2.
        p: default 0.8.

    Defaults are SimCLR's at strength 1. Images of one channel have neither saturation nor hue.
    """

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0.8,
        contrast: float | tuple[float, float] = 0.8,
        saturation: float | tuple[float, float] = 0.8,
        hue: float | tuple[float, float] = 0.2,
        *,
        p: float = 0.8,
    ) -> None:
        super().__init__(p)
        big = float("inf")
        self.brightness = checked_range("ColourJitter: brightness", brightness, 0, big, around=1)
        self.contrast = checked_range("ColourJitter: contrast", contrast, 0, big, around=1)
        self.saturation = checked_range("ColourJitter: saturation", saturation, 0, big, around=1)
        self.hue = checked_range("ColourJitter: hue", hue, -0.5, 0.5, around=0)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        steps = (
            (pixels.adjust_brightness, self.brightness, 1.0),
            (pixels.adjust_contrast, self.contrast, 1.0),
            (pixels.adjust_saturation, self.saturation, 1.0),
            (pixels.adjust_hue, self.hue, 0.0),
        )
        device = "cpu" if generator is None else generator.device
        for place in torch.randperm(len(steps), generator=generator, device=device).tolist():
            adjust, (low, high), neutral = steps[place]
            if (low, high) != (neutral, neutral):
                drawn = uniform(len(items), low=low, high=high, generator=generator)
                items = adjust(items, drawn.to(items.device))
        return items


class Greyscale(ImageView):
    """Colours replaced by their grey in all three channels, with probability ``p``, default 0.2."""

    def __init__(self, p: float = 0.2) -> None:
        super().__init__(p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        return pixels.greyscale(items)


class GaussianBlur(ImageView):
    """Blurred with a deviation of ``sigma`` pixels, a range or a number; default (0.1, 2), p 0.5 (SimCLR at 224)."""

    def __init__(self, sigma: float | tuple[float, float] = (0.1, 2.0), *, p: float = 0.5) -> None:
        super().__init__(p)
        self.sigma = checked_range("GaussianBlur: sigma", sigma, 0, 1e4)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.sigma
        return pixels.blur(items, uniform(len(items), low=low, high=high, generator=generator))


class Erase(ImageView):
    """A random box of each item filled (random erasing, Zhong et al., 2020).

    Arguments:
        area: range of the box's share of the image, default (0.02, 0.33).
        ratio: range of width over height in pixels, log-uniform, default (0.3, 3.3); a side is at most the image's and
            at least one pixel.
        value: what fills it: a number, default 0, or ``"noise"``, uniform in [0, 1].
        p: default 0.5.
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.02, 0.33),
        *,
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | Literal["noise"] = 0.0,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        self.area = checked_range("Erase: area", area, 0, 1)
        self.ratio = checked_range("Erase: ratio", ratio, 1e-6, 1e6)
        if isinstance(value, str) and value != "noise":
            raise UsageError(f"Erase: value must be a number or 'noise', got {value!r}")
        self.value = value

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        n, (h, w) = len(items), items.shape[-2:]
        pixels_inside = h * w * uniform(n, low=self.area[0], high=self.area[1], generator=generator)
        low, high = (math.log(bound) for bound in self.ratio)
        ratio = uniform(n, low=low, high=high, generator=generator).exp()
        width = (pixels_inside * ratio).sqrt().round().clamp(1, w)
        height = (pixels_inside / ratio).sqrt().round().clamp(1, h)
        left = (uniform(n, generator=generator) * (w - width + 1)).floor()
        top = (uniform(n, generator=generator) * (h - height + 1)).floor()
        column, row = torch.arange(w, device=left.device), torch.arange(h, device=left.device)
        across = (column >= left[:, None]) & (column < (left + width)[:, None])
        down = (row >= top[:, None]) & (row < (top + height)[:, None])
        inside = (down[:, :, None] & across[:, None, :]).reshape(n, *[1] * (items.dim() - 3), h, w).to(items.device)
        if self.value == "noise":
            return torch.where(inside, uniform(*items.shape, like=items, generator=generator).to(items.dtype), items)
        return items.masked_fill(inside, float(self.value))


class Noise(ImageView):
    """Gaussian noise added to every pixel and cut to [0, 1].

    Arguments: ``deviation``: a number or a range, drawn for each item; default (0, 0.1). ``p``: default 1.
    """

    def __init__(self, deviation: float | tuple[float, float] = (0.0, 0.1), *, p: float = 1.0) -> None:
        super().__init__(p)
        self.deviation = checked_range("Noise: deviation", deviation, 0, 1e4)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.deviation
        values = at_least_float32(items)
        drawn = uniform(len(items), low=low, high=high, like=items, generator=generator)
        noise = normal(*items.shape, like=items, generator=generator)
        return (values + drawn.reshape(-1, *[1] * (items.dim() - 1)) * noise).clamp(0, 1).to(items.dtype)


class Solarise(ImageView):
    """Values of ``threshold`` or more become ``1 - value``; default 0.5, p 0.2 (BYOL's second view)."""

    def __init__(self, threshold: float = 0.5, *, p: float = 0.2) -> None:
        super().__init__(p)
        self.threshold = float(threshold)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.where(items >= self.threshold, 1 - items, items)


def simclr_views(
    size: int | Sequence[int] = 32,
    *,
    strength: float | None = None,
    flip: bool = True,
    blur: bool | None = None,
    crop: tuple[float, float] | None = None,
) -> Compose:
    """The views of SimCLR (Chen et al., 2020): crop, flip, colour jitter, grey, blur, in this order.

    Arguments:
        size: of the result, height and width or one number for both.
        strength: s of the jitter (0.8 s, 0.8 s, 0.8 s, 0.2 s), with probability 0.8; default 1, below 64 pixels 0.5
            (the paper's for CIFAR-10).
        flip: exchange left and right of half of them; False for digits and letters.
        blur: deviation (0.1, 2) scaled by size / 224, of half of them; default: from 64 pixels on (the paper leaves it
            out on CIFAR-10).
        crop: range of the area, default (0.08, 1), the paper's; below 28 pixels the least area is that of 8 x 8 pixels,
            but at most a half, because less shows nothing.
    """
    height, width = _height_and_width(size)
    if min(height, width) < 1:
        raise UsageError(f"simclr_views: size must be at least 1, got {size}")
    small = min(height, width) < 64
    s = (0.5 if small else 1.0) if strength is None else strength
    if not 0 <= s <= 2.5:
        raise UsageError(f"simclr_views: strength must lie in [0, 2.5], got {strength}")
    least = min(0.5, max(0.08, 64 / (height * width)))
    chain: list[View] = [RandomResizedCrop((height, width), scale=(least, 1.0) if crop is None else crop)]
    if flip:
        chain.append(HorizontalFlip())
    chain += [ColourJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), Greyscale()]
    if not small if blur is None else blur:
        scale = min(height, width) / 224
        chain.append(GaussianBlur((0.1 * scale, 2 * scale)))
    return Compose(*chain)


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = size if isinstance(size, Iterable) else (size, size)
    return index(height), index(width)
