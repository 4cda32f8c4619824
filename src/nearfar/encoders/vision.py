"""Small convolutional encoders of images and clips, for experiments on a CPU and for small data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from nearfar.errors import UsageError

Norm = Literal["group", "batch"]


class _Convolutions(nn.Module):
    """Convolutions of 3 in each direction, each followed by a norm and ReLU; the mean over places; a linear layer."""

    axes: int
    layout: str

    def __init__(self, channels: int, widths: Sequence[int], dimension: int, norm: Norm | None) -> None:
        super().__init__()
        if not widths or min(channels, dimension, *widths) < 1:
            raise UsageError(
                f"channels, widths and dimension must be at least 1 and one width be there, got {channels}, "
                f"{list(widths)}, {dimension}"
            )
        if norm not in ("group", "batch", None):
            raise UsageError(f"norm must be 'group', 'batch' or None, got {norm!r}")
        convolution: Any = nn.Conv2d if self.axes == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        for place, (below, above) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers.append(convolution(below, above, 3, stride=self.stride(place), padding=1, bias=norm is None))
            if norm == "group":
                layers.append(nn.GroupNorm(math.gcd(above, max(1, above // 4)), above))
            elif norm == "batch":
                layers.append((nn.BatchNorm2d if self.axes == 2 else nn.BatchNorm3d)(above))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], dimension)
        self.channels, self.dimension = channels, dimension

    def stride(self, place: int) -> int | tuple[int, ...]:
        """Of the convolution at ``place``, from 0."""
        raise NotImplementedError

    def feature_map(self, items: Tensor) -> Tensor:
        """What the convolutions make of the items, before the mean over places: ``[n, widths[-1], ...]``."""
        if items.dim() != self.axes + 2 or items.shape[1] != self.channels:
            raise ValueError(f"items must be [n, {self.channels}, {self.layout}], got {tuple(items.shape)}")
        found: Tensor = self.layers(items)
        return found

    def forward(self, items: Tensor) -> Tensor:
        embeddings: Tensor = self.last(self.feature_map(items).flatten(2).mean(2))
        return embeddings


class ConvolutionalEncoder(_Convolutions):
    """A small CNN of images: ``[n, channels, h, w] -> [n, dimension]``, any ``h, w`` from 1 on.

    Each of ``widths`` is a 3 x 3 convolution, a norm and ReLU; the first keeps the size, each other one halves it. The
    mean over places and a linear layer follow.

    Arguments:
        channels: 1 for grey images, 3 for colour.
        widths: channels of the convolutions, default (16, 32, 64).
        dimension: of the embedding, default 64.
        norm: ``"group"`` (default; four channels a group or about so, and independent of the batch), ``"batch"``, or
            None. Batch norm tells the items of a batch apart by its statistics and needs views in one batch to be
            mixed; group norm does not.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1, ValueError for items of another shape.
    """

    axes = 2
    layout = "h, w"

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        dimension: int = 64,
        *,
        norm: Norm | None = "group",
    ) -> None:
        super().__init__(channels, widths, dimension, norm)

    def stride(self, place: int) -> int | tuple[int, ...]:
        return 1 if place == 0 else 2


class ClipEncoder(_Convolutions):
    """A small 3-d CNN of clips: ``[n, channels, t, h, w] -> [n, dimension]``, any ``t, h, w`` from 1 on.

    Each of ``widths`` is a 3 x 3 x 3 convolution, a norm and ReLU; the first keeps all sizes, the second halves height
    and width, each later one time as well. The mean over places and a linear layer follow.

    Arguments: as of :class:`ConvolutionalEncoder`; widths default (8, 16, 32), dimension 64.
    """

    axes = 3
    layout = "t, h, w"

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (8, 16, 32),
        dimension: int = 64,
        *,
        norm: Norm | None = "group",
    ) -> None:
        super().__init__(channels, widths, dimension, norm)

    def stride(self, place: int) -> int | tuple[int, ...]:
        return 1 if place == 0 else (1 if place == 1 else 2, 2, 2)
