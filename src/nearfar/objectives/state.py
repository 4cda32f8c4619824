"""What an objective keeps from batch to batch, where its shape is only known with the first of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class GrowingBuffers(nn.Module):
    """A module whose buffers are empty until data gives them a shape; a saved state of any shape loads into it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        for name, present in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if present is not None and saved is not None and saved.shape != present.shape:
                self._buffers[name] = torch.empty(saved.shape, dtype=saved.dtype, device=present.device)
        super()._load_from_state_dict(state_dict, prefix, *more)
