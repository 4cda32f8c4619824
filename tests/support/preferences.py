"""Pairs of responses that the numbers of preference objectives were made on, and the official calls of TRL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Pairs:
    """Summed log-probabilities ``[n]`` under policy and reference, and token counts."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    @property
    def references(self) -> dict[str, Tensor]:
        return {"reference_chosen": self.reference_chosen, "reference_rejected": self.reference_rejected}

    @property
    def lengths(self) -> dict[str, Tensor]:
        return {"chosen_length": self.chosen_length, "rejected_length": self.rejected_length}

    @property
    def policy(self) -> list[Tensor]:
        return [self.chosen, self.rejected]


def pairs(seed: int, n: int, *, at_reference: bool = False) -> Pairs:
    """Normal draws of mean -30 and deviation 3, lengths 5 to 19."""
    generator = np.random.default_rng(seed)
    chosen, rejected, reference_chosen, reference_rejected = (
        torch.from_numpy(generator.standard_normal(n) * 3 - 30) for _ in range(4)
    )
    lengths = [torch.from_numpy(generator.integers(5, 20, size=n)) for _ in range(2)]
    if at_reference:
        reference_chosen, reference_rejected = chosen.clone(), rejected.clone()
    return Pairs(
        chosen.requires_grad_(), rejected.requires_grad_(), reference_chosen, reference_rejected, lengths[0], lengths[1]
    )
