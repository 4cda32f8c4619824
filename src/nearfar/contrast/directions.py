"""Queries and documents contrasted among themselves, in any of the four directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.paired import Paired
from nearfar.contrast.relation import Relation, Weights
from nearfar.errors import UsageError

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
"""Who is contrasted with whom; named as sentence-transformers does."""

_BY_ENDS = ("query_to_query", "query_to_doc", "doc_to_query", "doc_to_doc")
"""By ``2 * (the row is a document) + (the column is a document)``."""


class Directions(Relation):
    """Pairs of queries and documents as one set of items, ``torch.cat([query, document])`` (GTE; Li et al., 2023).

    ``pairs`` says which of the ``n`` queries and ``m`` documents belong together (default: query i and document i; more
    ones are hard negatives, of query ``j mod n`` where there are n, 2 n ... of them). ``directions`` are those that
    count, of "query_to_doc" (always), "query_to_query", "doc_to_query" and "doc_to_doc" (which needs "doc_to_query":
    without it the row of a document holds no pair). Near are a query and a document of the same id. Ignored are two
    queries of the same id, two documents of the same query, and what ``pairs`` excludes.

    The rows of hard negatives have no positive and so no cost. Raises UsageError for directions that make no sense.
    """

    def __init__(self, n: int, m: int, pairs: Paired | None = None, directions: Sequence[str] = DIRECTIONS) -> None:
        directions = checked(directions)
        bound = (Paired() if pairs is None else pairs).bind(n, m, self_contrast=False, device=torch.device("cpu"))
        assert isinstance(bound, Paired)
        query, key = bound.query_state, bound._keys
        if "within" in query:
            raise ValueError("Directions: pairs must not restrict who is far by query_within and key_within")
        self.numbered = not bound.has_given_ids
        owner = key["id"]
        if self.numbered and n and m % n == 0:
            owner = torch.arange(m) % n
        state = {name: torch.cat([query[name], key[name]]) for name in query}
        state["owner"] = torch.cat([torch.full((n,), -1), owner])
        state["document"] = (torch.arange(n + m) >= n).long()
        super().__init__(state, None)
        self.chosen = torch.tensor([direction in directions for direction in _BY_ENDS])

    @property
    def among_themselves(self) -> bool:
        return True

    @property
    def has_given_ids(self) -> bool:
        return not self.numbered

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if not self_contrast:
            raise ValueError("Directions: give torch.cat([query, document]) as one tensor and no key")
        bound = self._bound(n, m, True, device)
        bound.chosen = self.chosen.to(device)
        return bound

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        local = self
        if self.numbered:
            moved = {
                name: torch.where(value >= 0, value + queries.start, value) if name in ("id", "owner") else value
                for name, value in self.query_state.items()
            }
            local = self._with_state(moved, moved, True)
        return Relation.across(local, queries, keys)

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        same_item = _equal(query["id"], key["id"])
        chosen = self.chosen[2 * query["document"][:, None] + key["document"][None, :]]
        positive = same_item & (query["document"][:, None] != key["document"][None, :]) & chosen
        negative = chosen & ~same_item & ~_equal(query["owner"], key["owner"])
        if "exclude" in query:
            negative &= ~_equal(query["exclude"], key["exclude"])
        return positive, negative


def checked(directions: Sequence[str]) -> tuple[str, ...]:
    """The directions, each once. Raises UsageError for those that make no sense."""
    unknown = [direction for direction in directions if direction not in DIRECTIONS]
    if unknown or isinstance(directions, str):
        raise UsageError(f"there is no direction {directions!r}", hint=f"choose some of {', '.join(DIRECTIONS)}")
    if "query_to_doc" not in directions:
        raise UsageError("directions must hold 'query_to_doc', which the pairs are in")
    if "doc_to_doc" in directions and "doc_to_query" not in directions:
        raise UsageError("direction 'doc_to_doc' needs 'doc_to_query': else the row of a document holds no pair")
    return tuple(direction for direction in DIRECTIONS if direction in directions)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """Which values ``[t, c]`` are equal and >= 0."""
    return (one[:, None] == other[None, :]) & (one >= 0)[:, None]
