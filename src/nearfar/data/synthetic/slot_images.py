"""Features of images that show what a sentence of the slot grammar says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.data.synthetic.slot_grammar import SlotGrammar
from nearfar.errors import UsageError


class SlotImages:
    """Images as features ``[dimension]``: a fixed random map of the concepts a sentence says, and noise.

    ``image = P onehot(concepts) + noise N(0, I)`` with P of N(0, 1) / 3. What an image says is what the sentence says,
    without its synonyms, function words and order.

    Arguments: ``grammar``; ``dimension``: default 32; ``noise``: default 0.3; ``seed``: of P. Raises UsageError for a
    dimension below 1 or noise below 0.
    """

    def __init__(self, grammar: SlotGrammar, dimension: int = 32, *, noise: float = 0.3, seed: int = 0) -> None:
        if dimension < 1 or noise < 0:
            raise UsageError(
                f"an image has a dimension of at least 1 and noise of at least 0, got {dimension}, {noise}"
            )
        self.concepts, self.noise = grammar.concepts, noise
        generator = torch.Generator().manual_seed(seed)
        self.map = torch.randn(grammar.slots * grammar.concepts, dimension, generator=generator) / 3

    def of(self, concepts: Tensor, *, generator: torch.Generator) -> Tensor:
        """An image ``[n, dimension]`` of each row of ``concepts [n, slots]``, with fresh noise."""
        clean = F.one_hot(concepts, self.concepts).flatten(1).to(self.map) @ self.map
        return clean.add(torch.randn(clean.shape, generator=generator), alpha=self.noise)
