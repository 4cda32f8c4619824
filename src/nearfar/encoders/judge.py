"""A frozen encoder that says how alike two texts are, in the place of a person or a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nearfar.encoders.encode import encode
from nearfar.errors import DataError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class EncoderJudge(nn.Module):
    """``max(0, cos(phi(a), phi(b)))`` in [0, 1] of each pair of texts, ``phi`` an encoder that stays as it is.

    Called with two lists of texts, it gives ``[n]`` (float32, on the CPU). Neither it nor its encoder is ever in
    training mode. Raises :class:`~nearfar.errors.DataError` for lists of different lengths.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        super().__init__()
        self.model = encoder.eval().requires_grad_(False)

    def forward(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        if len(first) != len(second):
            raise DataError(f"pairs are judged, and there are {len(first)} and {len(second)} texts")
        embedded = torch.from_numpy(encode(self.model, [*first, *second]))
        one, other = embedded[: len(first)], embedded[len(first) :]
        return (one * other).sum(1).clamp(0, 1)

    def train(self, mode: bool = True) -> EncoderJudge:
        return super().train(False)
