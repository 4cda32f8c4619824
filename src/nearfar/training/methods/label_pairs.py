"""Labelled texts in pairs: the cosine of two is drawn to 1 where their labels are equal, to 0 where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from nearfar.negatives import LabelPairBatches, LabelPairs
from nearfar.objectives import get
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting, TextTraining

if TYPE_CHECKING:
    from nearfar.data import Examples

PAIRS = 10_000
"""Pairs an epoch at most, by default: n texts have n² / 2 of them."""

OPTIONS: Mapping[str, Option] = {"strategy": "oversampling", "iterations": 0, "pairs": PAIRS, "itself": True}
"""Of :class:`~nearfar.negatives.LabelPairs`; ``iterations`` 0: by the strategy; ``pairs`` 0: no bound."""


class LabelPairRegression(TextMethod):
    """``mean (cos(u, v) - y)²`` over the pairs of a batch, y = 1 where the labels of the two texts are equal, else 0
    (SetFit's first stage; Tunstall et al., 2022, arXiv:2209.11055).

    The rows of a batch are first, second, first, second, ... as :class:`~nearfar.negatives.LabelPairBatches` makes
    them.
    """

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting, get("cosine-similarity-loss"))

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        labels = batch["labels"].to(embeddings.device)
        near = (labels[0::2] == labels[1::2]).to(embeddings.dtype)
        loss: Tensor = self.objective(embeddings[0::2], embeddings[1::2], grade=near)
        return loss, {}


def _batches(
    examples: Examples,
    options: Mapping[str, Option],
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> LabelPairBatches:
    """The pairs of labelled texts by :data:`OPTIONS`, ``batch_size`` texts (half as many pairs) at a time."""
    pairs = LabelPairs(
        examples.labels()[0],
        strategy=str(options["strategy"]),
        iterations=int(options["iterations"]) or None,
        most=int(options["pairs"]) or None,
        itself=bool(options["itself"]),
        seed=seed,
    )
    return LabelPairBatches(pairs, batch_size, rank=rank, processes=processes)


TRAINING = TextTraining(
    method=LabelPairRegression,
    shapes={"labelled texts": "pairs of texts: the cosine drawn to 1 where labels are equal, to 0 where they differ"},
    options=OPTIONS,
    settings={"batch_size": 32, "learning_rate": 2e-5, "epochs": 1.0, "weight_decay": 0.01},
    batches=_batches,
)
"""The settings of the SetFit package: 16 pairs a batch, one epoch of the pairs."""
