"""What is remembered of items from batch to batch, by their ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError

LARGEST = 2**27
"""Ids name the rows of a table; one of this size takes 1 GiB."""


class ItemTable(nn.Module):
    """One number (float64) an item, by its id (from 0): ``initial`` until something else is written. Saved in
    checkpoints.

    It grows with the ids that are written; ``items`` makes room for that many at once. Ids below 0 name nobody: they
    read as ``initial`` and writing them raises ValueError, as do ids of :data:`LARGEST` and above (hashes, say).
    """

    values: Tensor

    def __init__(self, initial: float = 0.0, items: int = 0) -> None:
        super().__init__()
        if not 0 <= items <= LARGEST:
            raise UsageError(f"items must be between 0 and {LARGEST:,}, got {items}")
        self.initial = initial
        self.register_buffer("values", torch.full((items,), initial, dtype=torch.float64))

    def forward(self, ids: Tensor) -> Tensor:
        """The numbers ``[n]`` of ``ids [n]`` (int64), a copy."""
        self._follow(ids.device)
        known = (ids >= 0) & (ids < self.values.numel())
        found = self.values.new_full(ids.shape, self.initial)
        found[known] = self.values[ids[known]]
        return found

    @torch.no_grad()
    def write(self, ids: Tensor, values: Tensor) -> None:
        """Keep ``values [n]`` of ``ids [n]``, none twice."""
        if not ids.numel():
            return
        self._follow(ids.device)
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= LARGEST:
            raise ValueError(
                f"items are remembered by ids from 0 to {LARGEST - 1:,}, got {lowest if lowest < 0 else highest}: "
                "number them, e.g. by their row in the data"
            )
        if highest >= self.values.numel():
            self._resize(2 ** (highest + 1).bit_length() if highest else 1)
        self.values[ids] = values.detach().to(self.values)

    def _follow(self, device: torch.device) -> None:
        """Move to where the batches are: an objective without parameters is seldom told."""
        if self.values.device != device:
            self.values = self.values.to(device)

    def _resize(self, items: int) -> None:
        grown = self.values.new_full((items,), self.initial)
        kept = min(items, self.values.numel())
        grown[:kept] = self.values[:kept]
        self.values = grown

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}values")
        if isinstance(saved, Tensor) and saved.dim() == 1:
            self._resize(saved.numel())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.values.numel()} items, initially {self.initial:g}"


def mean_by_id(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """``(ids [g], means [g])``: the ids, each once, and the mean of the ``values [n]`` of each."""
    names, which, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    sums = values.new_zeros(names.numel()).index_add(0, which, values)
    return names, sums / counts


def log_mean_exp_by_id(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """``(ids [g], log of the mean of exp(values) of each id [g])``, without overflow."""
    names, which, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    highest = values.new_full((names.numel(),), -torch.inf).scatter_reduce(0, which, values, "amax")
    sums = torch.zeros_like(highest).index_add(0, which, (values - highest[which]).exp())
    return names, sums.log() + highest - counts.to(values).log()
