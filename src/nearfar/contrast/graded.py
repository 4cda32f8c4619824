"""Graded relevance: how near each judged pair is, as in qrels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Weights, integers, matches


class Graded(Relation):
    """Pairs judged with a grade >= 0; the positive weight of a pair is its grade.

    ``relevance``: a dense tensor of grades (all pairs judged) or a sparse one, rows queries and columns keys; or
    judgements as ``{query id: {key id: grade}}``; or as three vectors ``(query ids, key ids, grades)``.
    ``query_ids [n]`` and ``key_ids [m]`` say which items are present; without them the rows and columns of the tensor
    are. A pair judged 0 is far. An unjudged pair is far too (``unjudged="far"``, what retrieval with in-batch negatives
    assumes) or ignored (``unjudged="ignored"``).

    A pair may be judged once: a second judgement, equal or not, raises ValueError, also the second entry of a sparse
    tensor. (Of judges who disagree take the mean, or the highest grade, before.)

    Over several processes give ids of the global batch and at least the judgements of each process's own queries; a
    tensor of grades without ids cannot say how it continues on other processes and raises ValueError there. Processes
    may hold the same judgements; two grades of one pair raise ValueError.

    Holds O(judgements + n + m). Negative or non-finite grades raise ValueError.
    """

    def __init__(
        self,
        relevance: Tensor | Mapping[int, Mapping[int, float]] | tuple[Tensor, Tensor, Tensor],
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        *,
        unjudged: Literal["far", "ignored"] = "far",
    ) -> None:
        if unjudged not in ("far", "ignored"):
            raise ValueError(f"Graded: unjudged must be 'far' or 'ignored', got {unjudged!r}")
        self.by_position = query_ids is None or key_ids is None
        if isinstance(relevance, Tensor):
            if relevance.dim() != 2:
                raise ValueError(f"Graded: relevance must be [n, m], got {tuple(relevance.shape)}")
            judged = relevance.coalesce() if relevance.is_sparse else relevance.to_sparse()
            if relevance.is_sparse and relevance._nnz() != judged._nnz():
                raise ValueError(f"Graded: {relevance._nnz() - judged._nnz()} pairs are judged more than once")
            unjudged = unjudged if relevance.is_sparse else "far"  # what the dense tensor says is 0, it judges 0
            queries, keys = judged.indices()
            grades = judged.values()
            query_ids = torch.arange(relevance.shape[0]) if query_ids is None else query_ids
            key_ids = torch.arange(relevance.shape[1]) if key_ids is None else key_ids
        else:
            if query_ids is None or key_ids is None:
                raise ValueError("Graded: judgements by id need query_ids and key_ids")
            if isinstance(relevance, Mapping):
                flat = [(q, k, g) for q, found in relevance.items() for k, g in found.items()]
                queries = torch.tensor([q for q, _, _ in flat], dtype=torch.long)
                keys = torch.tensor([k for _, k, _ in flat], dtype=torch.long)
                grades = torch.tensor([float(g) for _, _, g in flat])
            else:
                queries, keys, grades = relevance
        grades = grades if grades.is_floating_point() else grades.to(torch.get_default_dtype())
        if not bool(((grades >= 0) & torch.isfinite(grades)).all()):
            raise ValueError("Graded: grades must be finite and >= 0")
        super().__init__({"id": integers(query_ids, "query_ids")}, {"id": integers(key_ids, "key_ids")})
        self.judged = _by_query(queries.to(torch.long), keys.to(torch.long), grades)
        again = _again(*self.judged)
        if bool(again.any()):
            query, key = (int(part[again][0]) for part in self.judged[:2])
            raise ValueError(f"Graded: query {query} and key {key} are judged more than once")
        self.unjudged = unjudged

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        bound = self._bound(n, m, self_contrast, device)
        queries, keys, grades = self.judged
        bound.judged = (queries.to(device), keys.to(device), grades.to(device))
        return bound

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        if self.by_position:
            raise ValueError("Graded: over several processes give judgements by id, not a tensor of grades")
        moved = super().across(queries, keys)
        assert isinstance(moved, Graded)
        judgements = GatheredRows(self.judged[2].shape[0], queries.group, self.judged[2].device)
        judged_queries, judged_keys, grades = (judgements.gather(part) for part in self.judged)
        gathered = _by_query(judged_queries, judged_keys, grades)
        again = _again(*gathered)
        if bool((again & (gathered[2] != gathered[2].roll(1))).any()):
            raise ValueError("Graded: processes judge the same query and key with different grades")
        moved.judged = (gathered[0][~again], gathered[1][~again], gathered[2][~again])
        return moved

    def transpose(self) -> Relation:
        turned = self._with_state(self._keys, self.query_state, self.self_contrast)
        queries, keys, grades = self.judged
        turned.judged = _by_query(keys, queries, grades)
        return turned

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        judged_queries, judged_keys, grades = self.judged
        row, judgement = matches(query["id"], judged_queries, torch.arange(grades.numel(), device=grades.device))
        ordered, order = key["id"].sort(stable=True)
        which, column = matches(judged_keys[judgement], ordered, order)
        row, grade = row[which], grades[judgement][which]
        positive = grades.new_zeros(query["id"].numel(), key["id"].numel())
        positive[row, column] = grade
        if self.unjudged == "far":
            return positive, positive == 0
        negative = torch.zeros_like(positive, dtype=torch.bool)
        negative[row, column] = grade == 0
        return positive, negative


def _by_query(queries: Tensor, keys: Tensor, grades: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Judgements ordered by query, then by key."""
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(queries[order], stable=True)]
    return queries[order], keys[order], grades[order]


def _again(queries: Tensor, keys: Tensor, grades: Tensor) -> Tensor:
    """Which of the ordered judgements ``[j]`` are of the same pair as the one before."""
    again = torch.zeros_like(queries, dtype=torch.bool)
    again[1:] = (queries[1:] == queries[:-1]) & (keys[1:] == keys[:-1])
    return again
