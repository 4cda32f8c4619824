"""Pairs and views: items with the same id are near."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Rows, SparseTile, Weights, integers, matches


class Paired(Relation):
    """Items with the same id are near, all others far: pairs, several positives a query, hard negatives.

    ``query_ids [n]`` and ``key_ids [m]`` are integers. A negative key id is near to nobody: an extra hard negative.
    Without any ids, query i and key i are near, and keys beyond n are hard negatives. In self-contrast only
    ``query_ids`` is needed.

    ``query_exclude [n]``, ``key_exclude [m]``: integers; a pair of equal values (>= 0) whose ids differ is ignored.
    Give them the hash of the text, and a duplicate of the positive is no longer taken for a negative.

    Over several processes ids must be those of the global batch; without ids each process numbers its own items apart.
    """

    lookup: dict[str, tuple[Tensor, Tensor]]
    """Of a bound relation: the keys' ids and exclude values, sorted, and where each stood."""

    numbered_by: Literal["query", "key"] | None = None
    """Which side's positions gave the ids, where none were given."""

    def __init__(
        self,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        *,
        query_exclude: Tensor | None = None,
        key_exclude: Tensor | None = None,
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
        if not self_contrast and ("exclude" in query) != ("exclude" in key):
            if "exclude" in key or n != m:
                raise ValueError("Paired: query_exclude and key_exclude are needed together")
            key["exclude"] = query["exclude"]
        for state, count, side in ((query, n, "queries"), (key, m, "keys")):
            for name, value in state.items():
                if value.numel() != count:
                    raise ValueError(f"Paired: {value.numel()} {name} values for {count} {side}")
        bound = self._with_state(query, key or None, False)._bound(n, m, self_contrast, device)
        bound.numbered_by = numbered_by
        return bound._sorted()

    def _sorted(self) -> Paired:
        self.lookup = {
            name: torch.sort(self._keys[name], stable=True) for name in ("id", "exclude") if name in self._keys
        }
        return self

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
        return moved._sorted()

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive = (query["id"][:, None] == key["id"][None, :]) & (query["id"] >= 0)[:, None]
        negative = ~positive
        if "exclude" in query:
            same = query["exclude"][:, None] == key["exclude"][None, :]
            negative &= ~(same & (query["exclude"] >= 0)[:, None])
        return positive, negative

    def sparse(self, rows: Rows) -> SparseTile:
        query = {name: value[rows] for name, value in self.query_state.items()}
        near_rows, near_columns = matches(query["id"], *self.lookup["id"])
        if self.self_contrast:
            other = query["position"][near_rows] != self._keys["position"][near_columns]
            near_rows, near_columns = near_rows[other], near_columns[other]
        ignored_rows = ignored_columns = near_rows.new_zeros(0)
        if "exclude" in query:
            ignored_rows, ignored_columns = matches(query["exclude"], *self.lookup["exclude"])
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
        if columns is not None:
            return super().tile(rows, columns)
        few = self.sparse(rows)
        count = self.query_state["id"][rows].numel()
        positive = torch.zeros(count, self.shape[1], dtype=torch.bool, device=few.near_rows.device)
        positive[few.near_rows, few.near_columns] = True
        negative = ~positive
        negative[few.ignored_rows, few.ignored_columns] = False
        return positive, negative

    def transpose(self) -> Relation:
        turned = self._with_state(self._keys, self.query_state, self.self_contrast)
        if self.numbered_by is not None:
            turned.numbered_by = "key" if self.numbered_by == "query" else "query"
        return turned._sorted()


class Views(Paired):
    """``count`` views of each item, contrasted among themselves: near when they show the same item (SimCLR, 2020).

    The rows are the first view of every item, then the second view of every item, and so on: ``torch.cat([z1, z2])``.
    With ``ids [n]`` (one a row) any other order will do.
    """

    def __init__(self, count: int = 2, *, ids: Tensor | None = None) -> None:
        if count < 2:
            raise ValueError(f"Views: contrasting views needs at least 2 of them, got {count}")
        super().__init__(ids)
        self.count = count

    @property
    def among_themselves(self) -> bool:
        return True

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if not self_contrast:
            raise ValueError("Views: give all views as one query tensor (torch.cat([z1, z2])) and no key")
        if "id" in self.query_state:
            return super().bind(n, m, self_contrast=True, device=device)
        if n % self.count:
            raise ValueError(f"Views: {n} rows cannot be {self.count} views of each item")
        numbered = self._with_state({"id": torch.arange(n, device=device) % (n // self.count)}, None, False)
        numbered.numbered_by = "query"
        return Paired.bind(numbered, n, m, self_contrast=True, device=device)
