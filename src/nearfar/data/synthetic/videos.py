"""Small videos with known truth: a shape that drifts over a cluttered background."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
"""Motion in pixels a frame, (down, right)."""

SHAPES = (
    ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ((0, 1, 0), (1, 1, 1), (0, 1, 0)),
    ((1, 0, 1), (0, 1, 0), (1, 0, 1)),
    ((1, 1, 1), (1, 0, 1), (1, 1, 1)),
)
"""A block, a plus, a cross and a ring, three pixels wide."""


class MovingShapes:
    """Grey videos of one shape that moves a pixel a frame over the edges; its class is direction x shape.

    Every video has a still background of its own: uniform noise in [0, ``clutter``] plus a sky, brightest at the top
    (``sky``) and 0 at the bottom, so that up is not down. A brightness factor of the video lies in
    [1 - ``brightness``, 1 + ``brightness``]; every pixel of every frame gets Gaussian noise. Where the shape is,
    pixels have the value 1 before brightness. Values are cut to [0, 1.5] and divided by 1.5.

    Arguments:
        items: how many videos.
        frames, size: length and side of a video.
        clutter, sky, brightness, noise: of the background, the light and the pixels.
        seed: of everything random here.

    ``videos [items, 1, frames, size, size]``, ``direction [items]`` and ``shape [items]``, 0 to 3 each, belong
    together.
    """

    def __init__(
        self,
        items: int = 512,
        *,
        frames: int = 44,
        size: int = 8,
        clutter: float = 0.5,
        sky: float = 0.5,
        brightness: float = 0.4,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        if items < 1 or frames < 1 or size < 4:
            raise UsageError(f"an item, a frame and a side of 4 are needed, got {items}, {frames}, {size}")
        if not (min(clutter, sky, noise) >= 0 and 0 <= brightness <= 1):
            raise UsageError("clutter, sky and noise must be >= 0, brightness must lie in [0, 1]")
        self.frames, self.size = frames, size
        self.clutter, self.sky, self.brightness, self.noise = clutter, sky, brightness, noise
        self.generator = torch.Generator().manual_seed(seed)
        self.videos, self.direction, self.shape = self.fresh(items)

    def fresh(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """New videos, their directions and their shapes, all classes equally likely."""
        drawn = self.generator if generator is None else generator
        direction = torch.randint(len(DIRECTIONS), (items,), generator=drawn)
        shape = torch.randint(len(SHAPES), (items,), generator=drawn)
        start = torch.randint(self.size, (items, 2), generator=drawn)
        time = torch.arange(self.frames)
        corner = (start[:, None] + torch.tensor(DIRECTIONS)[direction][:, None] * time[None, :, None]) % self.size
        # where each pixel lies from the corner of the shape, over the edges
        pixel = torch.arange(self.size)
        down = (pixel - corner[..., 0, None]) % self.size
        right = (pixel - corner[..., 1, None]) % self.size
        stencil = torch.zeros(len(SHAPES), self.size, self.size)
        stencil[:, :3, :3] = torch.tensor(SHAPES, dtype=torch.float32)
        covered = stencil[shape[:, None, None, None], down[..., :, None], right[..., None, :]]
        background = self.clutter * torch.rand(items, 1, self.size, self.size, generator=drawn)
        background = background + self.sky * torch.linspace(1, 0, self.size)[:, None]
        light = 1 + self.brightness * (2 * torch.rand(items, 1, 1, 1, generator=drawn) - 1)
        seen = torch.maximum(covered, background) * light
        seen = seen + self.noise * torch.randn(seen.shape, generator=drawn)
        return (seen.clamp(0, 1.5) / 1.5)[:, None], direction, shape
