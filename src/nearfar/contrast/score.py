"""Scores: how alike a query and a key are. ``score(query [t, d], keys [m, d]) -> [t, m]``, higher is nearer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.contrast.distances import euclidean
from nearfar.errors import UsageError


def normalize(embeddings: Tensor) -> Tensor:
    """Rows divided by their Euclidean norm, ``x / |x|``. A zero row stays zero, with a zero gradient; NaN stays NaN."""
    norm = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
    nonzero = norm != 0
    return torch.where(nonzero, embeddings / torch.where(nonzero, norm, 1), 0)


class Score(nn.Module):
    """Base of all scores.

    ``embed`` is applied once to each item, in memory linear in their number; ``forward`` compares embedded items.
    ``bilinear`` says that ``forward`` is the plain matrix product ``query @ keys.T``, which the engine then
    differentiates with two more products.
    """

    bilinear = False

    def embed(self, items: Tensor) -> Tensor:
        """What is compared: ``[n, d] -> [n, d]``."""
        return items

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores ``[t, m]`` of embedded queries ``[t, d]`` and embedded keys ``[m, d]``."""
        raise NotImplementedError

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores ``[p]`` of embedded queries ``[p, d]`` and keys ``[p, d]``, row by row."""
        raise NotImplementedError


class Dot(Score):
    """The dot product ``q . k``; unbounded."""

    bilinear = True

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.mm(query, keys.T)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return (query * keys).sum(-1)


class Cosine(Dot):
    """The cosine ``q . k / (|q| |k|)``, in [-1, 1]; a zero vector scores 0."""

    def embed(self, items: Tensor) -> Tensor:
        return normalize(items)


class Angle(Score):
    """AnglE's angle (Li & Li, 2023): ``|Re + Im|`` of the quotient of two normalised complex vectors, in [0, sqrt(2)].

    With ``q = [q_1, q_2]`` read as ``q_1 + i q_2``: ``|q.k + q_2.k_1 - q_1.k_2|``. Not symmetric. An odd dimension is
    padded by a zero.
    """

    def embed(self, items: Tensor) -> Tensor:
        return torch.nn.functional.pad(normalize(items), (0, items.shape[-1] % 2))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.mm(_turned(query), keys.T).abs()

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return (_turned(query) * keys).sum(-1).abs()


def _turned(query: Tensor) -> Tensor:
    """What the sum of real and imaginary parts of the quotient by a key is the dot product with."""
    real, imaginary = query.chunk(2, -1)
    return torch.cat([real + imaginary, imaginary - real], -1)


class NegativeEuclidean(Score):
    """Minus the Euclidean distance, ``-|q - k|``, in (-inf, 0]. The gradient at distance 0 is 0.

    Equal items have distance exactly 0, and small distances are as exact as large ones.
    """

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return -euclidean(query, keys)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        distances: Tensor = torch.linalg.vector_norm(query - keys, dim=-1)
        return -distances


class NegativeSquaredEuclidean(Score):
    """Minus the squared Euclidean distance, ``-|q - k|^2``, in (-inf, 0]."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        squares = query.square().sum(-1)[:, None] + keys.square().sum(-1)[None, :]
        return torch.addmm(-squares, query, keys.T, alpha=2.0).clamp(max=0.0)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return -(query - keys).square().sum(-1)


class NegativeNormalizedEuclidean(NegativeEuclidean):
    """Minus the Euclidean distance of normalised vectors, ``-|q/|q| - k/|k||``, in [-2, 0]. A zero vector stays 0."""

    def embed(self, items: Tensor) -> Tensor:
        return normalize(items)


class NegativeSNR(Score):
    """Minus the noise-to-signal ratio ``Var(q - k) / Var(q)`` of normalised vectors, in (-inf, 0] (Yuan et al., 2019).

    Variances are over the coordinates of a vector. Not symmetric: the query is the signal. A query whose coordinates
    are all alike holds no signal; its score is 0, without a gradient.
    """

    def embed(self, items: Tensor) -> Tensor:
        items = normalize(items)
        return items - items.mean(-1, keepdim=True)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        noise = (query.square().sum(-1)[:, None] + keys.square().sum(-1)) - 2 * torch.mm(query, keys.T)
        return _minus_ratio(noise.clamp(min=0.0), query.square().sum(-1)[:, None])

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return _minus_ratio((query - keys).square().sum(-1), query.square().sum(-1))


def _minus_ratio(noise: Tensor, signal: Tensor) -> Tensor:
    present = signal > torch.finfo(signal.dtype).eps
    return torch.where(present, -noise / torch.where(present, signal, 1), 0)


SCORES: dict[str, type[Score]] = {
    "cosine": Cosine,
    "dot": Dot,
    "angle": Angle,
    "negative-euclidean": NegativeEuclidean,
    "negative-normalized-euclidean": NegativeNormalizedEuclidean,
    "negative-squared-euclidean": NegativeSquaredEuclidean,
    "negative-snr": NegativeSNR,
}


def get(score: str | Score) -> Score:
    """The score of that name, or the given one. Raises UsageError for an unknown name."""
    if isinstance(score, Score):
        return score
    if score not in SCORES:
        raise UsageError(f"there is no score {score!r}", hint=f"choose one of {', '.join(SCORES)}")
    return SCORES[score]()
