"""Half-precision input is contrasted in float32, and autocast does not reach the scores."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 where they came in half precision."""
    return values.float() if values.element_size() < 4 else values


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which matrix products keep the precision of their input.

    Scores divided by a temperature of 0.05 or less lose all meaning in bfloat16.
    """
    return torch.autocast(device.type, enabled=False)
