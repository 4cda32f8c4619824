"""Inputs that recorded numbers were made on, and the comparison with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

WAYS: list[dict[str, Any]] = [{"memory": "dense"}, {"memory": "tiled"}, {"memory": "tiled", "tile_rows": 4}]


def drawn(seed: int, *shapes: tuple[int, int]) -> list[Tensor]:
    generator = np.random.default_rng(seed)
    return [torch.from_numpy(generator.standard_normal(shape)).requires_grad_() for shape in shapes]


def two_views(seed: int, n: int, d: int, count: int = 2) -> list[Tensor]:
    """``base + 0.5 * noise`` for each view, one base."""
    generator = np.random.default_rng(seed)
    base = generator.standard_normal((n, d))
    return [torch.from_numpy(base + 0.5 * generator.standard_normal((n, d))).requires_grad_() for _ in range(count)]


def check(loss: Tensor, expected: float, inputs: list[Tensor], norms: list[float]) -> None:
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    for gradient, norm in zip(torch.autograd.grad(loss, inputs), norms, strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-9)
