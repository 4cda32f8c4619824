"""A random rotation, which mixes what a world is made of so that no input dimension is one of its parts alone."""

from __future__ import annotations

import torch
from torch import Tensor


def random_rotation(dimension: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix ``[dimension, dimension]`` (uniform up to the signs of its columns)."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator))
    rotation: Tensor = orthogonal * triangular.diagonal().sign()
    return rotation
