"""Initial vectors of a static encoder from a model that is already good: its embedding of every token, compressed.

The recipe of Model2Vec (Tulkens & van Dongen 2024) with the word weights of SIF (Arora, Liang & Ma 2017), whose word
probabilities are counted on the user's texts instead of guessed from ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from nearfar.encoders.vocabulary import BYTES, UNKNOWN
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

SIF_COEFFICIENT = 1e-3
"""a in the weight a / (a + p): words rarer than a keep their length (Arora et al. 2017: 1e-3)."""


def distilled_vectors(
    initial: str | SentenceTransformer,
    tokenizer: Tokenizer,
    dimension: int,
    frequency: npt.NDArray[np.int64],
    *,
    seed: int = 0,
) -> torch.Tensor:
    """One float32 vector for each token of ``tokenizer``, ``[v, dimension]``, of length 1 in the quadratic mean.

    The text of every token is embedded by ``initial``; the embeddings are centred and projected on their
    ``dimension`` first principal components; then each is multiplied by a / (a + p), where p is the token's share of
    all (token, text) occurrences ``frequency``. Single bytes and the unknown token, which have no text, get Gaussian
    directions of the mean length.

    Raises :class:`UsageError` when ``initial`` has fewer dimensions than asked for.
    """
    from nearfar.encoders.encode import encode
    from nearfar.encoders.load import load
    from nearfar.encoders.sentence_modules import dimension_of

    model = load(initial) if isinstance(initial, str) else initial
    width = dimension_of(model)
    if width < dimension:
        raise UsageError(
            f"the initial model has {width} dimensions, fewer than the {dimension} asked for",
            where=f"initial={initial!r:.80}",
            hint=f"choose dimension={width} or less",
        )
    nameless = {UNKNOWN, *BYTES}
    numbers = tokenizer.get_vocab()
    names = sorted(numbers, key=numbers.__getitem__)
    spelt = np.array([name not in nameless for name in names])
    embedded = encode(model, [name for name in names if name not in nameless], normalize=False).astype(np.float64)
    compressed = principal_components(embedded, dimension)
    length = np.sqrt(np.mean(np.sum(compressed**2, axis=1))) if len(compressed) else 1.0
    vectors = np.random.default_rng(seed).standard_normal((len(names), dimension)) * (length / dimension**0.5)
    vectors[spelt] = compressed
    probability = frequency / max(int(frequency.sum()), 1)
    vectors *= (SIF_COEFFICIENT / (SIF_COEFFICIENT + probability))[:, None]
    mean_square = np.mean(np.sum(vectors**2, axis=1))
    return torch.from_numpy(vectors / np.sqrt(mean_square if mean_square > 0 else 1.0)).to(torch.float32)


def principal_components(rows: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """``[n, count]`` coordinates of the centred ``rows`` ``[n, d]`` along their first ``count`` <= d principal axes.

    The sign of an axis is fixed so that its largest component is positive: equal input gives equal output.
    """
    centred = rows - rows.mean(axis=0, keepdims=True) if len(rows) else rows
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    largest = np.argmax(np.abs(axes), axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    coordinates: npt.NDArray[np.float64] = centred @ axes
    return coordinates
