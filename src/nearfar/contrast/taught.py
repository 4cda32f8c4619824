"""A teacher's opinion: how near each key is to each query by the scores of another model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Relation, Rows, Weights

LEAST = 1e-30
"""The smallest weight of a candidate, as a share of the nearest one's."""


class Taught(Relation):
    """The positive weights of a row are a teacher's distribution over its keys, ``softmax(teacher scores / T)``.

    ``scores [n, m]``: a cross-encoder's, say; ``mask [n, m]``, bool, says which keys are candidates (default: all). For
    a teacher that embeds see :meth:`of_embeddings`. ``temperature`` > 0, default 1.

    Nobody is far. A candidate that the teacher gives next to nothing keeps a weight of 1e-30 of the nearest one's, so
    that it stays a candidate. Weights carry no gradient.

    A matrix of scores cannot say how it continues on other processes: with a process group it raises ValueError. So do
    shapes that do not fit and scores that are not finite.
    """

    def __init__(self, scores: Tensor, *, mask: Tensor | None = None, temperature: float = 1.0) -> None:
        if scores.dim() != 2 or not scores.is_floating_point():
            raise ValueError(f"Taught: scores must be [n, m] floating point, got {[*scores.shape]} of {scores.dtype}")
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        if mask.shape != scores.shape or mask.dtype != torch.bool:
            raise ValueError(f"Taught: the mask must be {[*scores.shape]} bool, got {[*mask.shape]} of {mask.dtype}")
        _check(temperature, scores.masked_fill(~mask, 0))
        key = {"column": torch.arange(scores.shape[1], device=scores.device)}
        super().__init__({"teacher": at_least_float32(scores.detach()), "mask": mask}, key)
        self.temperature = temperature
        self.embedded = False

    @classmethod
    def of_embeddings(cls, query: Tensor, key: Tensor | None = None, *, temperature: float = 1.0) -> Taught:
        """By a teacher's embeddings ``query [n, e]`` and ``key [m, e]`` of the same items, whose dot products are its
        scores (normalise them first for cosines), computed tile by tile; also over several processes. Without ``key``
        the queries are contrasted among themselves."""
        for name, value in (("query", query), ("key", key)):
            if value is not None and (value.dim() != 2 or not value.is_floating_point()):
                raise ValueError(
                    f"Taught: {name} must be [rows, dimension] floating point, got {[*value.shape]} of {value.dtype}"
                )
            if value is not None:
                _check(temperature, value)
        taught = object.__new__(cls)
        state = {"teacher": at_least_float32(query.detach())}
        Relation.__init__(taught, state, None if key is None else {"teacher": at_least_float32(key.detach())})
        taught.temperature = temperature
        taught.embedded = True
        return taught

    @property
    def among_themselves(self) -> bool:
        return self.embedded and self.key_state is None

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        if not self.embedded:
            raise ValueError("Taught: over several processes give the teacher's embeddings, not a matrix of scores")
        return super().across(queries, keys)

    def transpose(self) -> Relation:
        if self.embedded:
            return self._with_state(self._keys, self.query_state, self.self_contrast)
        query = {name: value.T for name, value in self.query_state.items() if name != "position"}
        return self._with_state(query, {"column": torch.arange(self.shape[0])}, False)

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        query = {name: value[rows] for name, value in self.query_state.items()}
        positive, negative = self.weigh(query, self._keys)
        return (positive, negative) if columns is None else (positive[:, columns], negative[:, columns])

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        """Of queries against all keys: a distribution is one over a whole row."""
        if self.embedded:
            with without_autocast(query["teacher"].device):
                scores = query["teacher"] @ key["teacher"].T
            mask = torch.ones_like(scores, dtype=torch.bool)
        else:
            scores, mask = query["teacher"], query["mask"]
        if self.self_contrast:
            mask = mask & (query["position"][:, None] != key["position"][None, :])
        scaled = (scores / self.temperature).masked_fill(~mask, -torch.inf)
        peak = torch.nan_to_num(scaled.amax(1, keepdim=True), neginf=0.0)  # of a row without candidates
        weight = (scaled - peak).exp().clamp_min(LEAST) * mask
        total = weight.sum(1, keepdim=True)
        return weight / total.clamp_min(LEAST), torch.zeros_like(mask)


def _check(temperature: float, values: Tensor) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"Taught: the temperature must be a finite number > 0, got {temperature}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("Taught: the teacher's scores or embeddings are not finite")
