"""Asking an index by sets of example texts: like these, unlike those."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar import encoders
from nearfar.contrast import normalize
from nearfar.errors import DataError, UsageError
from nearfar.search.index import Hit, Index
from nearfar.search.set_tuning import tune_adapter, tune_encoder
from nearfar.search.sets import series_direction

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Tuning = Literal["none", "adapter", "encoder"]
Progress = Callable[[int, int], None]

BLOCK = 16_384
"""Vectors that are in memory at once where all have to be looked at."""

_NOTHING = 1e-9
"""The length of a direction below which like and unlike cancel and say nothing."""


def search_sets(
    index: Index,
    like: Sequence[Sequence[str]],
    unlike: Sequence[Sequence[str]] = (),
    *,
    k: int = 10,
    tuning: Tuning = "none",
    rank: int = 16,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Hit]:
    """The ``k`` documents that are most like each of the sets ``like`` and unlike each of ``unlike``, best first.

    A document's score is ``sum_i SIM(x, B_i) - sum_j SIM(x, C_j)`` with the mean cosine SIM
    (:mod:`nearfar.search.sets`), between minus the number of sets ``unlike`` and the number of ``like``. Equal scores
    stay in the order of the documents.

    Arguments:
        like, unlike: sets of texts; 20 of each are enough in the paper.
        k: how many documents.
        tuning: "none" asks the index for one vector, as quick as any query and as exact as its kind. "adapter" tunes a
            small correction of the embeddings to this query, which tells its sets apart (SetCSE; Liu, 2024), and looks
            at all vectors once, a block at a time. "encoder" tunes a copy of the encoder and embeds all documents anew.
            With a single set there is nothing to tell apart, and nothing is tuned.
        rank: of the adapter, see :func:`~nearfar.search.set_tuning.tune_adapter`.
        steps: of tuning, at most; default 100 (adapter), 20 (encoder).
        seed: of the tuning.
        progress: called with (documents looked at, documents in all).

    The index and its encoder stay as they are. Raises :class:`UsageError` for no sets, an unknown tuning or k below 1,
    :class:`~nearfar.errors.DataError` for a set none of whose texts says anything to the encoder.
    """
    if k < 1:
        raise UsageError(f"at least 1 document must be asked for, not {k}")
    if tuning not in ("none", "adapter", "encoder"):
        raise UsageError(f"there is no tuning {tuning!r}", hint="choose none, adapter or encoder")
    if isinstance(like, str) or any(isinstance(each, str) for each in (*like, *unlike)):
        raise UsageError("sets are lists of texts", hint='like=[["one example", "another"]]')
    sets = [list(each) for each in (*like, *unlike)]
    if not sets:
        raise UsageError("there is no set to search by", hint="give example texts of what is wanted or not wanted")
    if len(sets) == 1 and tuning != "none":
        warnings.warn("a single set leaves nothing to tell apart: nothing is tuned", UserWarning, stacklevel=2)
        tuning = "none"
    model = index.model
    if tuning == "encoder":
        model = tune_encoder(model, sets, seed=seed, steps=20 if steps is None else steps)
    members = [_embedded(model, number, each) for number, each in enumerate(sets, 1)]
    correct: Callable[[Tensor], Tensor] | None = None
    if tuning == "adapter":
        adapter = tune_adapter(members, rank=rank, seed=seed, steps=100 if steps is None else steps)
        correct = torch.no_grad()(adapter)
        members = [correct(each) for each in members]
    wanted = series_direction(members[: len(like)], members[len(like) :])
    k = min(k, len(index))
    if tuning == "none" and float(wanted.norm()) > _NOTHING:
        # one direction says it all, so that the index can be asked for its neighbours
        length = float(wanted.norm())
        rows, cosines = index.search_vectors((wanted / length).float().numpy()[None], k)[0]
        scores = length * cosines.astype(np.float64)
    else:
        blocks = _anew(index, model) if tuning == "encoder" else _stored(index, correct)
        rows, scores = _best(blocks, wanted, k, len(index), progress)
    ranked = enumerate(zip(rows.tolist(), scores.tolist(), strict=True), 1)
    return [index.hit(rank, row, score) for rank, (row, score) in ranked]


def _embedded(model: SentenceTransformer, number: int, texts: list[str]) -> Tensor:
    found = encoders.encode(model, texts, task="document")
    said = np.array([bool(text.strip()) for text in texts], dtype=bool) & found.any(axis=1)
    if not said.any():
        raise DataError(
            f"set {number} of the query holds no text that says anything to the encoder",
            hint="give it example sentences, one a line",
        )
    return torch.from_numpy(found[said])


def _stored(index: Index, correct: Callable[[Tensor], Tensor] | None) -> Iterator[tuple[int, Tensor]]:
    """The index's vectors, a block at a time, as they are or corrected."""
    for start in range(0, len(index), BLOCK):
        vectors = torch.from_numpy(index.vectors(start, min(start + BLOCK, len(index))))
        yield start, vectors if correct is None else correct(vectors)


def _anew(index: Index, model: SentenceTransformer) -> Iterator[tuple[int, Tensor]]:
    """The documents embedded by ``model``, a block at a time."""
    for start in range(0, len(index), BLOCK):
        texts = [index.documents[row]["text"] for row in range(start, min(start + BLOCK, len(index)))]
        yield start, torch.from_numpy(encoders.encode(model, texts, task="document"))


def _best(
    blocks: Iterator[tuple[int, Tensor]], wanted: Tensor, k: int, total: int, progress: Progress | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ``k`` best rows of all blocks, best first, equal scores by row."""
    rows, scores = np.zeros(0, np.int64), np.zeros(0)
    for start, vectors in blocks:
        found = (normalize(vectors.double()) * wanted).sum(1).numpy()
        scores = np.concatenate([scores, found])
        rows = np.concatenate([rows, np.arange(start, start + len(found))])
        kept = np.lexsort((rows, -scores))[:k]
        rows, scores = rows[kept], scores[kept]
        if progress is not None:
            progress(start + len(found), total)
    return rows, scores
