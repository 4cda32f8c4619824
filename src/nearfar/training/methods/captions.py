"""Methods that learn from texts and from images that some of them describe (MCSE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nearfar.contrast import Paired
from nearfar.encoders.heads import Pooler
from nearfar.errors import DataError
from nearfar.negatives import Batches, NoDuplicateBatches
from nearfar.negatives.streams import Interleaved
from nearfar.objectives import MCSE
from nearfar.training.method import Batch, Logs, paired
from nearfar.training.text_training import Option, TextMethod, TextSetting

if TYPE_CHECKING:
    from nearfar.data import Examples

OPTIONS: Mapping[str, Option] = {"weight": 0.01, "width": 256, "temperature": 0.05, "image_temperature": 0.05}
"""Options of :class:`CaptionGrounding`."""


class CaptionGrounding(TextMethod):
    """SimCSE on all texts, and each text that has an image against the images of its batch (MCSE; Zhang et al., 2022);
    see :class:`~nearfar.objectives.MCSE`.

    Three heads, which are dropped after training: ``z = tanh(W p + b)`` of a text's embedding p for the contrast of its
    two dropout views, ``g = tanh(W_g p + b_g)`` and ``v = tanh(W_v x + b_v)`` of ``width`` dimensions for that of texts
    and of image features x, which stay as they are.

    Options: ``weight`` of the images, default 0.01 (the paper's with a large corpus of texts alone; 0.05 is the default
    of the official code; with captions alone more is worth a try); ``width``, default 256; both temperatures 0.05.
    """

    def __init__(self, setting: TextSetting) -> None:
        options, dimension, width = setting.options, setting.dimension, int(setting.options["width"])
        objective = MCSE(
            float(options["weight"]),
            temperature=float(options["temperature"]),
            image_temperature=float(options["image_temperature"]),
        )
        super().__init__(setting, objective)
        self.head, self.grounding = Pooler(dimension), Pooler(dimension, width)
        self.image_head = Pooler(setting.examples.image_length, width)

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        n = len(batch["rows"])
        projected = self.head(embeddings)
        ids = batch["image_ids"].to(embeddings.device)
        shown = ids >= 0
        images = {}
        if bool(shown.any()):
            grounded = self.grounding(embeddings)
            features = batch["images"].to(embeddings.device)[shown].to(projected.dtype)
            images = {
                "grounded_query": grounded[:n][shown],
                "grounded_key": grounded[n:][shown],
                "image": self.image_head(features),
                "image_relation": Paired(ids[shown]),
            }
        loss: Tensor = self.objective(
            projected[:n], projected[n:], relation=paired(batch, n, columns=1), memory=self.memory, **images
        )
        return loss, {"texts with images": shown.float().mean()}


def two_streams(
    examples: Examples,
    options: Mapping[str, Option],
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Batches:
    """Batches of captions, no image twice in one, and batches of texts alone, evenly mixed; no text twice in a batch.

    Raises :class:`~nearfar.errors.DataError` for fewer than two captions.
    """
    images, texts = examples.image_ids(), examples.hashes("text")
    paired_rows, alone = np.flatnonzero(images >= 0), np.flatnonzero(images < 0)
    if len(paired_rows) < 2:
        raise DataError("fewer than two texts have an image, so there is nothing to contrast")
    pictures = examples.hashes("image")
    streams = [(paired_rows, NoDuplicateBatches([texts[paired_rows], pictures[paired_rows]], batch_size, seed=seed))]
    if len(alone) > 1:  # a single text has nothing to be far from
        streams.append((alone, NoDuplicateBatches([texts[alone]], batch_size, seed=seed)))
    return Interleaved(streams, rank=rank, processes=processes)
