"""Neighbours in a graph are near."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Rows, SparseTile, Weights, integers, matches

Own = Literal["near", "ignored", "far"]


class Neighbours(Relation):
    """Items that an edge of a graph joins are near, all others far.

    ``edges [e, 2]``: ids ``(a, b)``, b is near to a; with ``symmetric`` also a to b. :meth:`nearest` makes them of a
    table of k nearest neighbours. ``ids [n]`` and ``key_ids [m]`` say which items are present; without them the rows of
    the batch are items 0, 1, .... ``own``: what a key is that shows the query's own item (another view of it): "near"
    (default), "ignored" or "far"; an item is no neighbour of itself, so edges from an id to itself say nothing. In
    self-contrast a row's pair with itself weighs nothing in any case. Ids below 0 are near to nobody.

    Over several processes give ids of the global batch and at least the edges that begin at each process's own queries
    (for two-sided objectives also those that end at its keys). Holds O(edges + n + m).
    """

    lookup: tuple[Tensor, Tensor]
    """Of a bound relation: the keys' ids, sorted, and where each stood."""

    def __init__(
        self,
        edges: Tensor,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        *,
        symmetric: bool = False,
        own: Own = "near",
    ) -> None:
        edges = torch.as_tensor(edges)
        if edges.dim() != 2 or edges.shape[1] != 2 or edges.is_floating_point():
            raise ValueError(
                f"Neighbours: edges must be [e, 2] integers, got {tuple(edges.shape)} of {edges.dtype}; a table of "
                "neighbours goes through Neighbours.nearest"
            )
        if own not in ("near", "ignored", "far"):
            raise ValueError(f"Neighbours: own must be 'near', 'ignored' or 'far', got {own!r}")
        if key_ids is not None and ids is None:
            raise ValueError("Neighbours: key_ids were given without ids")
        edges = edges.to(torch.long)
        self.edges = _ordered(torch.cat([edges, edges.flip(1)]) if symmetric else edges)
        self.own = own
        self.by_position = ids is None
        super().__init__(
            {} if ids is None else {"id": integers(ids, "ids")},
            None if key_ids is None else {"id": integers(key_ids, "key_ids")},
        )

    @classmethod
    def nearest(
        cls,
        table: Tensor,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        *,
        of: Tensor | None = None,
        symmetric: bool = False,
        own: Own = "near",
    ) -> Neighbours:
        """Of a table ``[r, k]`` of neighbours' ids, row i those of item ``of[i]`` (default: of item i); entries below 0
        are none."""
        table = torch.as_tensor(table)
        if table.dim() != 2 or table.is_floating_point():
            raise ValueError(
                f"Neighbours: the table must be [r, k] integers, got {tuple(table.shape)} of {table.dtype}"
            )
        of = torch.arange(len(table), device=table.device) if of is None else integers(of, "of").to(table.device)
        if of.numel() != len(table):
            raise ValueError(f"Neighbours: {of.numel()} items for a table of {len(table)} rows")
        edges = torch.stack([of[:, None].expand_as(table), table.to(torch.long)], dim=2).reshape(-1, 2)
        return cls(edges, ids, key_ids, symmetric=symmetric, own=own)

    @property
    def among_themselves(self) -> bool:
        return self.key_state is None

    @property
    def has_given_ids(self) -> bool:
        return not self.by_position

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        query, key = dict(self.query_state), self.key_state
        if "id" not in query:
            query["id"] = torch.arange(n, device=device)
            key = key or {"id": torch.arange(m, device=device)}
        bound = self._with_state(query, key, False)._bound(n, m, self_contrast, device)
        bound.edges = self.edges.to(device)
        return bound._sorted()

    def _sorted(self) -> Neighbours:
        ordered = self._keys["id"].sort(stable=True)
        self.lookup = (ordered.values, ordered.indices)
        return self

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        if self.by_position:
            raise ValueError("Neighbours: over several processes give ids of the global batch")
        moved = super().across(queries, keys)
        assert isinstance(moved, Neighbours)
        moved.edges = _ordered(GatheredRows(len(self.edges), queries.group, self.edges.device).gather(self.edges))
        return moved._sorted()

    def transpose(self) -> Relation:
        turned = self._with_state(self._keys, self.query_state, self.self_contrast)
        turned.edges = _ordered(self.edges.flip(1))
        return turned._sorted()

    def sparse(self, rows: Rows) -> SparseTile:
        ids = self.query_state["id"][rows]
        row, edge = matches(ids, self.edges[:, 0].contiguous(), torch.arange(len(self.edges), device=ids.device))
        which, near_columns = matches(self.edges[edge, 1], *self.lookup)
        near_rows = row[which]
        own_rows, own_columns = matches(ids, *self.lookup)
        ignored_rows = ignored_columns = own_rows.new_zeros(0)
        if self.self_contrast:
            position = self.query_state["position"][rows]
            other = position[own_rows] != own_columns
            own_rows, own_columns = own_rows[other], own_columns[other]
            ignored_rows, ignored_columns = torch.arange(position.numel(), device=position.device), position
        if self.own == "near":
            near_rows, near_columns = torch.cat([near_rows, own_rows]), torch.cat([near_columns, own_columns])
        elif self.own == "ignored":
            ignored_rows, ignored_columns = (
                torch.cat([ignored_rows, own_rows]),
                torch.cat([ignored_columns, own_columns]),
            )
        return SparseTile(near_rows, near_columns, ignored_rows, ignored_columns)

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        few = self.sparse(rows)
        positive = torch.zeros(
            self.query_state["id"][rows].numel(), self.shape[1], dtype=torch.bool, device=few.near_rows.device
        )
        positive[few.near_rows, few.near_columns] = True
        negative = ~positive
        negative[few.ignored_rows, few.ignored_columns] = False
        return (positive, negative) if columns is None else (positive[:, columns], negative[:, columns])


def _ordered(edges: Tensor) -> Tensor:
    """Each edge once, by where it begins; without those from an item to itself or to or from nobody."""
    kept = (edges[:, 0] != edges[:, 1]) & (edges >= 0).all(1)
    ordered: Tensor = torch.unique(edges[kept], dim=0)
    return ordered
