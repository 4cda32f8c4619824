"""Everything a report draws of a model: its map, its similarities, its geometry and its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.diagnostics.geometry import geometry_of
from nearfar.diagnostics.samples import Sample, draw
from nearfar.errors import MissingExtraError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples, RetrievalSet

TEXT_LIMIT = 300
"""Characters of a text in the result; longer ones end in an ellipsis."""

ERRORS = 20
"""How many of the worst mistakes are given."""

Floats = npt.NDArray[np.float32]


def collect(
    model: SentenceTransformer,
    data: Examples | RetrievalSet,
    before_model: SentenceTransformer | None = None,
    *,
    groups: Sequence[str] | None = None,
    limit: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Look at ``model`` on at most ``limit`` rows of ``data``, drawn with ``seed``; each model embeds every text once.

    Ready for JSON (``diagnostics.json`` of a run folder):

    - ``"map"``: ``{"x", "y", "group", "text"}`` of at most ``limit`` texts, by :func:`project`. Groups are ``groups``
      (one a row of ``data``: a
      module, a source), else labels, else the sides of the pairs;
    - ``"similarities"``: cosines of near pairs (``"positive"``) and of as many random far ones (``"negative"``), for
      ``"after"`` and, with
      ``before_model``, ``"before"``;
    - ``"geometry"``: :func:`~nearfar.diagnostics.geometry_of` over the distinct texts, alignment over the near pairs;
      where the two sides of
      pairs are of different kinds, both are in the one cloud;
    - ``"errors"``: the 20 queries whose nearest right answer stands lowest among the answers drawn, with the wrong
      answer that stands first:
      ``{"query", "expected", "found", "expected_rank", "expected_score", "found_score"}``. A wrong answer of equal
      score stands above. Empty when every query finds its own first.

    What is near, far and asked for each shape of data is said at :func:`nearfar.diagnostics.samples.draw`;
    ``"similarities"`` and ``"errors"`` are left out where nothing is known (texts alone).

    Raises :class:`~nearfar.errors.DataError` for data without rows, :class:`~nearfar.errors.ModelError` when
    embeddings are not finite.
    """
    sample = draw(data, limit, seed, groups)
    states = {"before": before_model, "after": model}
    embedded = {name: _embed(each, sample) for name, each in states.items() if each is not None}
    places = project(embedded["after"][sample.shown], seed=seed)
    found: dict[str, Any] = {
        "map": {
            "x": [round(float(value), 4) for value in places[:, 0]],
            "y": [round(float(value), 4) for value in places[:, 1]],
            "group": sample.groups,
            "text": [_cut(sample.texts[row]) for row in sample.shown],
        }
    }
    if sample.near:
        found["similarities"] = {
            name: {"positive": _cosines(points, sample.near), "negative": _cosines(points, sample.far)}
            for name, points in embedded.items()
        }
    found["geometry"] = {name: _geometry(points, sample) for name, points in embedded.items() if len(points) > 1}
    if sample.asked:
        found["errors"] = hardest_errors(embedded["after"], sample)
    return found


def project(embeddings: npt.NDArray[np.floating[Any]], *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Places ``[n, 2]`` of ``[n, d]`` embeddings in the plane: principal components to 50, then t-SNE (van der Maaten
    and Hinton, 2008).

    Perplexity 30, less where there are fewer than about 90 items; below 5 items, the first two principal components.
    Items that are all the same stand at the origin.
    """
    points = np.asarray(embeddings, np.float64)
    points = points - points.mean(axis=0, keepdims=True)
    if len(points) < 2 or points.var(axis=0).sum() < 1e-12:
        return np.zeros((len(points), 2))
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
    width = min(50, *points.shape)
    reduced = PCA(width, random_state=seed).fit_transform(points)
    if reduced.shape[1] < 2:
        reduced = np.column_stack([reduced, np.zeros(len(reduced))])
    if len(points) < 5:
        return np.asarray(reduced[:, :2], np.float64)
    perplexity = min(30.0, (len(points) - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init=_start(reduced), random_state=seed).fit_transform(reduced)
    return np.asarray(placed, np.float64)


def _start(reduced: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The first two components at the small scale that t-SNE starts from (Kobak and Berens, 2019)."""
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    return np.asarray(start, np.float32)


def hardest_errors(embeddings: Floats, sample: Sample, number: int = ERRORS) -> list[dict[str, Any]]:
    """The queries of ``sample`` whose nearest right answer has the most wrong answers above it, worst first."""
    answers = np.asarray(sample.answers, np.int64)
    errors: list[tuple[int, float, dict[str, Any]]] = []
    size = max(1, (1 << 22) // max(len(answers), 1))
    for start in range(0, len(sample.asked), size):
        block = sample.asked[start : start + size]
        scores = embeddings[[query for query, _ in block]] @ embeddings[answers].T
        for (query, right), row in zip(block, scores, strict=True):
            is_right = np.isin(answers, list(right))
            is_wrong = ~is_right & (answers != query)
            if not is_right.any() or not is_wrong.any():
                continue
            expected = int(np.argmax(np.where(is_right, row, -np.inf)))
            found = int(np.argmax(np.where(is_wrong, row, -np.inf)))
            above = int(np.count_nonzero(is_wrong & (row >= row[expected])))
            if above:
                error = {
                    "query": _cut(sample.texts[query]),
                    "expected": _cut(sample.texts[answers[expected]]),
                    "found": _cut(sample.texts[answers[found]]),
                    "expected_rank": above + 1,
                    "expected_score": float(row[expected]),
                    "found_score": float(row[found]),
                }
                errors.append((-above, float(row[expected] - row[found]), error))
    errors.sort(key=lambda item: item[:2])
    return [error for _, _, error in errors[:number]]


def _embed(model: SentenceTransformer, sample: Sample) -> Floats:
    from nearfar.encoders import encode

    parts: list[tuple[list[int], Floats]] = []
    for task in dict.fromkeys(sample.tasks):
        rows = [row for row, each in enumerate(sample.tasks) if each == task]
        parts.append((rows, np.asarray(encode(model, [sample.texts[row] for row in rows], task=task), np.float32)))
    embeddings = np.empty((len(sample.texts), parts[0][1].shape[1]), np.float32)
    for rows, embedded in parts:
        embeddings[rows] = embedded
    return embeddings


def _geometry(points: Floats, sample: Sample) -> dict[str, float | str]:
    if not sample.near:
        return geometry_of(points)
    pairs = np.asarray(sample.near, np.int64)
    return geometry_of(points, points[pairs[:, 0]], points[pairs[:, 1]])


def _cosines(points: Floats, pairs: list[tuple[int, int]]) -> list[float]:
    if not pairs:
        return []
    rows = np.asarray(pairs, np.int64)
    products = np.einsum("nd,nd->n", points[rows[:, 0]], points[rows[:, 1]])
    return [round(float(value), 5) for value in np.clip(products, -1.0, 1.0)]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
