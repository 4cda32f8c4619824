"""Two domains with the same two classes, which lie along another direction and elsewhere in the second."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.errors import UsageError


class RotatedDomains:
    """Items of two classes in a source and in a target domain.

    ``x = distance * (+-1) * w + offset + noise N(0, I)``. In the source w is the first axis and the offset 0; in the
    target w is turned by ``angle`` degrees in the plane of the first two axes, and the offset is 1 along the second and
    2 along the third. Both classes are equally likely.

    Arguments: ``dimension``: at least 3, default 20; ``angle``, ``distance``, ``noise`` as above. Raises UsageError for
    fewer dimensions and noise below 0.
    """

    def __init__(self, dimension: int = 20, *, angle: float = 60.0, distance: float = 1.5, noise: float = 0.6) -> None:
        if dimension < 3 or noise < 0:
            raise UsageError(f"3 dimensions at least and noise of at least 0 are needed, got {dimension}, {noise}")
        self.distance, self.noise = distance, noise
        self.direction, self.offset = torch.zeros(2, dimension), torch.zeros(2, dimension)
        turned = math.radians(angle)
        self.direction[0, 0] = 1
        self.direction[1, :2] = torch.tensor([math.cos(turned), math.sin(turned)])
        self.offset[1, 1:3] = torch.tensor([1.0, 2.0])

    def draw(self, items: int, domain: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``items`` items ``[items, dimension]`` of a domain (0 source, 1 target) and their classes ``[items]``, 0 or
        1."""
        classes = torch.randint(2, (items,), generator=generator)
        clean = self.distance * (2 * classes - 1)[:, None] * self.direction[domain] + self.offset[domain]
        return clean.add(torch.randn(clean.shape, generator=generator), alpha=self.noise), classes
