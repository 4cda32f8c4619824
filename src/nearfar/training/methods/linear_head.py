"""Plain fine-tuning of a classifier: a linear layer on the embedding, cross-entropy, all weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.negatives import Batches
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting, TextTraining

if TYPE_CHECKING:
    from nearfar.data import Examples


class LinearHead(TextMethod):
    """``mean -log softmax(W z + b)[label]`` of labelled texts, in the encoder and in the layer ``head`` (W, b), which
    has a row for each label of the examples in the order of :meth:`~nearfar.data.Examples.labels`."""

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting)
        self.head = nn.Linear(setting.dimension, len(setting.examples.labels()[1]))

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        logits = self.head(embeddings)
        return F.cross_entropy(logits.float(), batch["labels"].to(logits.device)), {}


def _batches(
    examples: Examples,
    options: Mapping[str, Option],
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Batches:
    return Batches(len(examples), batch_size, seed=seed, rank=rank, processes=processes)


TRAINING = TextTraining(
    method=LinearHead,
    shapes={"labelled texts": "each text against its label, by a linear layer and cross-entropy"},
    batches=_batches,
)
"""Shuffled rows, whatever their labels."""
