"""Batches whose texts are made anew each time they are seen, and tokenised then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nearfar.encoders import tokenize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def tokenised(
    encoder: SentenceTransformer, columns: Sequence[Sequence[str]], *, size: int | None = None
) -> tuple[list[dict[str, Any]], Tensor | None]:
    """The ``"chunks"`` and the ``"order"`` of a batch (:class:`~nearfar.training.loading.TextBatches`) of texts.

    A chunk holds texts of one column, at most ``size``, the longest first; ``"column"`` says which. Features are on the
    encoder's device. The embeddings come in the order of the columns.
    """
    chunks, places, begin = [], [], 0
    for number, texts in enumerate(columns):
        order = np.arange(len(texts))
        step = len(texts)
        if size is not None and size < len(texts):
            step, order = size, np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), step or 1):
            features = tokenize(encoder, [texts[place] for place in order[start : start + step]])
            moved = {
                name: value.to(encoder.device) if isinstance(value, Tensor) else value
                for name, value in features.items()
            }
            chunks.append({**moved, "column": number})
        places.append(begin + order)
        begin += len(texts)
    taken = np.concatenate(places)
    back = np.empty_like(taken)
    back[taken] = np.arange(len(taken))
    return chunks, None if (taken == np.arange(len(taken))).all() else torch.from_numpy(back)
