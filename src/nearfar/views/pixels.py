"""Changes of images with given parameters, one for each item; the views of :mod:`nearfar.views.image` draw them.

Images are ``[n, c, h, w]``, clips ``[n, c, t, h, w]`` (all frames of a clip are changed alike), values in [0, 1] where
colours are meant. Parameters are tensors ``[n]``. Everything is computed in float32 at least and comes back in the type
of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import DataError

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601)."""

Padding = Literal["zeros", "border", "reflection"]


def crop_and_resize(images: Tensor, boxes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Each image's box as an image of ``size`` (height, width; default: as before), bilinear.

    ``boxes [n, 4]``: left, top, width and height as shares of the image, in [0, 1]; (0, 0, 1, 1) is all of it. There is
    no smoothing where a box has more pixels than ``size``.
    """
    left, top, width, height = at_least_float32(boxes).unbind(1)
    zero = torch.zeros_like(left)
    across = torch.stack([width, zero, 2 * left + width - 1], 1)
    down = torch.stack([zero, height, 2 * top + height - 1], 1)
    return _sampled(images, torch.stack([across, down], 1), size, "border")


def rotate(images: Tensor, degrees: Tensor, *, padding: Padding = "zeros") -> Tensor:
    """Each image turned counter-clockwise about its centre by ``degrees [n]``, bilinear, in pixels of equal sides."""
    h, w = images.shape[-2:]
    angle = torch.deg2rad(at_least_float32(degrees))
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    across = torch.stack([cosine, -sine * h / w, zero], 1)
    down = torch.stack([sine * w / h, cosine, zero], 1)
    return _sampled(images, torch.stack([across, down], 1), None, padding)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Each image averaged with Gaussian weights of deviation ``sigma [n]`` pixels.

    The kernel is not cut off; at the border the weights of the pixels that exist are divided by their sum, so that a
    constant image stays constant. ``sigma`` 0 leaves an image as it is.
    """

    def weights(size: int, like: Tensor) -> Tensor:
        place = torch.arange(size, dtype=like.dtype, device=like.device)
        squared = (place[:, None] - place[None, :]).square()
        variance = sigma.to(like).square()[:, None, None]
        return torch.softmax(-squared / (2 * variance).clamp_min(1e-12), 2)

    def smooth(planes: Tensor) -> Tensor:
        h, w = planes.shape[-2:]
        return weights(h, planes)[:, None] @ planes @ weights(w, planes)[:, None].mT

    return _planes(images, smooth)


def greyscale(images: Tensor) -> Tensor:
    """The grey of colour images in each of their three channels; images of one channel as they are."""
    if images.shape[1] == 1:
        return images
    _colours(images)
    return grey_of(at_least_float32(images)).expand(images.shape).to(images.dtype)


def grey_of(images: Tensor) -> Tensor:
    """The grey ``[n, 1, ...]`` of colour images; those of another number of channels than 3: their mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = images.new_tensor(LUMA).reshape(1, 3, *[1] * (images.dim() - 2))
    return (images * weights).sum(1, keepdim=True)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """``factor [n]`` times each image, cut to [0, 1]."""
    values = at_least_float32(images)
    return (values * _per_item(factor, values)).clamp(0, 1).to(images.dtype)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """``factor`` times the difference to the image's mean grey, plus that; cut to [0, 1]."""
    values = at_least_float32(images)
    mean = grey_of(values).flatten(1).mean(1)
    return torch.lerp(_per_item(mean, values), values, _per_item(factor, values)).clamp(0, 1).to(images.dtype)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """``factor`` times the difference to the pixel's grey, plus that; cut to [0, 1]. Grey images as they are."""
    if images.shape[1] == 1:
        return images
    _colours(images)
    values = at_least_float32(images)
    return torch.lerp(grey_of(values), values, _per_item(factor, values)).clamp(0, 1).to(images.dtype)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """The hue turned by ``shift [n]`` turns (0.5: to the complement), saturation and value of HSV kept.

    Images of one channel have no hue and come back as they are.
    """
    if images.shape[1] == 1:
        return images
    _colours(images)
    rgb = at_least_float32(images)
    value, least = rgb.amax(1), rgb.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    red, green, blue = rgb.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + _per_item(shift, value)) % 1
    # of each channel: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    turned = []
    for offset in (5, 3, 1):
        k = (offset + 6 * hue) % 6
        turned.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(turned, 1).to(images.dtype)


def check_images(name: str, images: Tensor) -> None:
    """Raise :class:`~nearfar.errors.DataError` unless these are batches of images or clips of floating numbers."""
    if images.dim() not in (4, 5) or not images.is_floating_point() or 0 in images.shape[1:]:
        raise DataError(
            f"{name}: images are [n, c, h, w] or clips [n, c, t, h, w] of floating numbers, got "
            f"{tuple(images.shape)} of {images.dtype}",
            hint="scale whole numbers from 0..255 to [0, 1]: images.float() / 255",
        )


def _colours(images: Tensor) -> None:
    if images.shape[1] != 3:
        raise DataError(
            f"colours need 1 channel (grey) or 3 (red, green, blue), got {tuple(images.shape)}",
            hint="leave out saturation, hue and greyscale",
        )


def _per_item(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).reshape(-1, *[1] * (like.dim() - 1))


def _planes(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """``change`` of ``[n, c * t, h, w]``: a clip's frames as so many channels."""
    planes = at_least_float32(images)
    changed = change(planes.flatten(1, -3))
    return changed.reshape(*images.shape[:-2], *changed.shape[-2:]).to(images.dtype)


def _sampled(images: Tensor, affine: Tensor, size: tuple[int, int] | None, padding: Padding) -> Tensor:
    def sample(planes: Tensor) -> Tensor:
        shape = [*planes.shape[:2], *(planes.shape[-2:] if size is None else size)]
        if not len(planes):
            return planes.new_zeros(shape)
        grid = F.affine_grid(affine.to(planes), shape, align_corners=False)
        return F.grid_sample(planes, grid, padding_mode=padding, align_corners=False)

    return _planes(images, sample)
