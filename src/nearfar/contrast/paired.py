"""Pairs and views: items with the same id are near."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Rows, SparseTile, Weights, integers, matches

COMPARED_AT_ONCE = 2**18
"""Tiles of at most so many pairs compare all ids of both sides, which is quicker there than to look them up."""


class Paired(Relation):
    """Items with the same id are near, all others far: pairs, several positives a query, hard negatives.

    ``query_ids [n]`` and ``key_ids [m]`` are integers. A negative key id is near to nobody: an extra hard negative.
    Without any ids, query i and key i are near, and keys beyond n are hard negatives. In self-contrast only
    ``query_ids`` is needed.

    ``query_exclude [n]``, ``key_exclude [m]``: integers; a pair of equal values (>= 0) whose ids differ is ignored.
    Give them the hash of the text, and a duplicate of the positive is no longer taken for a negative.

    ``query_within [n]``, ``key_within [m]``: integers; a pair of different values whose ids differ is ignored, so that
    an item is far only from items of its own part: from the same view, the same moment, the queue alone, or its own
    hard negatives alone.

    Over several processes ids must be those of the global batch; without ids each process numbers its own items apart.
    """

    _sorted_keys: dict[str, tuple[Tensor, Tensor]]

    numbered_by: Literal["query", "key"] | None = None
    """Which side's positions gave the ids, where none were given."""

    def __init__(
        self,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        *,
        query_exclude: Tensor | None = None,
        key_exclude: Tensor | None = None,
        query_within: Tensor | None = None,
        key_within: Tensor | None = None,
    ) -> None:
        if query_ids is None and key_ids is not None:
            raise ValueError("Paired: key_ids were given without query_ids")
        query: dict[str, Tensor] = {}
        key: dict[str, Tensor] = {}
        if query_ids is not None:
            query["id"] = integers(query_ids, "query_ids")
        if key_ids is not None:
            key["id"] = integers(key_ids, "key_ids")
        if query_exclude is not None:
            query["exclude"] = integers(query_exclude, "query_exclude")
        if key_exclude is not None:
            key["exclude"] = integers(key_exclude, "key_exclude")
        if query_within is not None:
            query["within"] = integers(query_within, "query_within")
        if key_within is not None:
            key["within"] = integers(key_within, "key_within")
        super().__init__(query, key or None)

    @property
    def has_given_ids(self) -> bool:
        return self.numbered_by is None and "id" in self.query_state

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        query, key = dict(self.query_state), dict(self.key_state or {})
        numbered_by = self.numbered_by
        if "id" not in query:
            numbered_by = "query"
            if self_contrast:
                raise ValueError("Paired: contrasting items among themselves needs query_ids (or Views, or Labels)")
            if m < n:
                raise ValueError(f"Paired: {n} queries need at least as many keys, got {m}")
            query["id"] = torch.arange(n, device=device)
            key["id"] = torch.cat([query["id"], query["id"].new_full((m - n,), -1)])
        if self_contrast:
            key = {}
        elif "id" not in key:
            key["id"] = query["id"]
        for name in ("exclude", "within"):
            if not self_contrast and (name in query) != (name in key):
                if name in key or n != m:
                    raise ValueError(f"Paired: query_{name} and key_{name} are needed together")
                key[name] = query[name]
        for state, count, side in ((query, n, "queries"), (key, m, "keys")):
            for name, value in state.items():
                if value.numel() != count:
                    raise ValueError(f"Paired: {value.numel()} {name} values for {count} {side}")
        bound = self._with_state(query, key or None, False)._bound(n, m, self_contrast, device)
        bound.numbered_by = numbered_by
        bound._sorted_keys = {}
        return bound

    def _lookup(self, name: str) -> tuple[Tensor, Tensor]:
        """The keys' ``"id"`` or ``"exclude"`` values in order, and where each stood; of a bound relation."""
        if name not in self._sorted_keys:
            self._sorted_keys[name] = torch.sort(self._keys[name], stable=True)
        return self._sorted_keys[name]

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        local = self
        if self.numbered_by is not None:
            start = (queries if self.numbered_by == "query" else keys).start
            query, key = dict(self.query_state), dict(self._keys)
            for state in (query, key):
                state["id"] = torch.where(state["id"] >= 0, state["id"] + start, state["id"])
            local = self._with_state(query, key, self.self_contrast)
        moved = Relation.across(local, queries, keys)
        assert isinstance(moved, Paired)
        moved._sorted_keys = {}
        return moved

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive = (query["id"][:, None] == key["id"][None, :]) & (query["id"] >= 0)[:, None]
        negative = ~positive
        if "exclude" in query:
            same = query["exclude"][:, None] == key["exclude"][None, :]
            negative &= ~(same & (query["exclude"] >= 0)[:, None])
        if "within" in query:
            negative &= query["within"][:, None] == key["within"][None, :]
        return positive, negative

    def sparse(self, rows: Rows) -> SparseTile | None:
        if "within" in self.query_state:
            return None  # most pairs may be ignored
        query = {name: value[rows] for name, value in self.query_state.items()}
        near_rows, near_columns = matches(query["id"], *self._lookup("id"))
        if self.self_contrast:
            other = query["position"][near_rows] != self._keys["position"][near_columns]
            near_rows, near_columns = near_rows[other], near_columns[other]
        ignored_rows = ignored_columns = near_rows.new_zeros(0)
        if "exclude" in query:
            ignored_rows, ignored_columns = matches(query["exclude"], *self._lookup("exclude"))
            ids = query["id"][ignored_rows]
            other = (ids != self._keys["id"][ignored_columns]) | (ids < 0)
            if self.self_contrast:
                other &= query["position"][ignored_rows] != self._keys["position"][ignored_columns]
            ignored_rows, ignored_columns = ignored_rows[other], ignored_columns[other]
        if self.self_contrast:
            here = torch.arange(query["position"].numel(), device=ignored_rows.device)
            ignored_rows = torch.cat([ignored_rows, here])
            ignored_columns = torch.cat([ignored_columns, query["position"]])
        return SparseTile(near_rows, near_columns, ignored_rows, ignored_columns)

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        count = self.query_state["id"][rows].numel()
        small = count * self.shape[1] <= COMPARED_AT_ONCE
        few = None if small or columns is not None else self.sparse(rows)
        if few is None:
            return super().tile(rows, columns)
        positive = torch.zeros(count, self.shape[1], dtype=torch.bool, device=few.near_rows.device)
        positive[few.near_rows, few.near_columns] = True
        negative = ~positive
        negative[few.ignored_rows, few.ignored_columns] = False
        return positive, negative

    def transpose(self) -> Relation:
        turned = self._with_state(self._keys, self.query_state, self.self_contrast)
        if self.numbered_by is not None:
            turned.numbered_by = "key" if self.numbered_by == "query" else "query"
        turned._sorted_keys = {}
        return turned


class Views(Paired):
    """``count`` views of each item, contrasted among themselves: near when they show the same item (SimCLR, 2020).

    The rows are the first view of every item, then the second view of every item, and so on: ``torch.cat([z1, z2])``.
    With ``ids [n]`` (one a row) any other order will do.

    ``negatives``: which views of other items are far: "all" (default), those of the "same-view" (DHEL) or those of
    every "other-view" (CLIP). The last two ask which view a row shows: its place in the order above or, with ``ids``,
    ``views [n]``, an integer a row.
    """

    def __init__(
        self, count: int = 2, *, ids: Tensor | None = None, views: Tensor | None = None, negatives: str = "all"
    ) -> None:
        if count < 2:
            raise ValueError(f"Views: contrasting views needs at least 2 of them, got {count}")
        if negatives not in ("all", "same-view", "other-view"):
            raise ValueError(f"Views: negatives must be 'all', 'same-view' or 'other-view', got {negatives!r}")
        if views is not None and ids is None:
            raise ValueError("Views: views say which view each of the ids shows, but no ids were given")
        super().__init__(ids)
        self.count = count
        self.negatives = negatives
        self.views = None if views is None else integers(views, "views")
        if self.views is not None and bool((self.views < 0).any()):
            raise ValueError("Views: views are numbered from 0 on")

    @property
    def among_themselves(self) -> bool:
        return True

    def far_from(self, negatives: str) -> Views:
        """The same views, with other ``negatives``."""
        return Views(self.count, ids=self.query_state.get("id"), views=self.views, negatives=negatives)

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if not self_contrast:
            raise ValueError("Views: give all views as one query tensor (torch.cat([z1, z2])) and no key")
        state, numbered_by, views = dict(self.query_state), self.numbered_by, self.views
        if "id" not in state:
            if n % self.count:
                raise ValueError(f"Views: {n} rows cannot be {self.count} views of each item")
            position, items = torch.arange(n, device=device), n // self.count
            state["id"], views, numbered_by = position % items, position // items, "query"
        if self.negatives != "all":
            if views is None:
                raise ValueError(f"Views: to tell which rows are of the {self.negatives}, give views beside ids")
            state["within" if self.negatives == "same-view" else "exclude"] = views
        numbered = self._with_state(state, None, False)
        numbered.numbered_by = numbered_by
        return Paired.bind(numbered, n, m, self_contrast=True, device=device)

    def sparse(self, rows: Rows) -> SparseTile | None:
        return super().sparse(rows) if self.negatives == "all" else None  # else half of all pairs may be ignored
