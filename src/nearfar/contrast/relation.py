"""Relations: who is near whom, who is far, and how much.

A relation is described by what travels with the items (ids, labels, grades), never by their position in a batch, so it
survives shuffling, gathering over processes, queues, several positives or hard negatives a query, and duplicates. It
holds O(n + m) state for n queries and m keys and hands out weights by tiles of query rows; no n x m matrix is ever made
(except by :class:`Explicit`, which is given one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Rows = slice | Tensor
"""Which rows (or columns) of a relation: a slice with step 1, or an int64 index tensor."""

Weights = tuple[Tensor, Tensor]
"""The weights ``(positive, negative)`` of a tile: two ``[t, c]`` tensors, bool or float >= 0."""


class SparseTile(NamedTuple):
    """A tile in which few pairs are near or ignored and *every other pair is far with weight 1*.

    ``near_rows [p], near_columns [p]`` and ``ignored_rows [q], ignored_columns [q]`` are int64; rows count from the
    first row of the tile. The two lists have no pair in common and hold none twice.
    """

    near_rows: Tensor
    near_columns: Tensor
    ignored_rows: Tensor
    ignored_columns: Tensor


class Relation:
    """Base of all relations between n queries and m keys.

    A subclass keeps one row of ``query_state`` tensors a query and one of ``key_state`` tensors a key and implements
    :meth:`weigh`. When keys are the queries themselves (*self-contrast*), an item's pair with itself weighs 0 in both.
    """

    def __init__(self, query_state: dict[str, Tensor], key_state: dict[str, Tensor] | None) -> None:
        self.query_state = query_state
        self.key_state = key_state
        self.self_contrast = False

    # -- what a subclass says -------------------------------------------------------------------------------------

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        """Weights ``(positive, negative) [t, c]`` of the queries with state ``query`` against the keys with ``key``."""
        raise NotImplementedError

    def sparse(self, rows: Rows) -> SparseTile | None:
        """The tile of ``rows`` against all keys as a :class:`SparseTile`, or None where the relation is not sparse."""
        return None

    # -- what everybody uses --------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``, once bound."""
        return _length(self.query_state), _length(self.key_state or self.query_state)

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        """This relation for ``n`` queries and ``m`` keys on ``device``.

        Raises ValueError where the relation describes other numbers of items.
        """
        key_state = self.query_state if self_contrast else self.key_state
        if key_state is None:
            if n != m:
                raise ValueError(
                    f"{type(self).__name__} describes {_length(self.query_state)} queries but no keys; "
                    f"got {n} queries and {m} keys: give the keys' side as well"
                )
            key_state = self.query_state
        have = (_length(self.query_state), _length(key_state))
        if have != (n, m):
            raise ValueError(
                f"{type(self).__name__} describes {have[0]} queries and {have[1]} keys, got {n} queries and {m} keys"
            )
        query_state = {name: value.to(device) for name, value in self.query_state.items()}
        key_state = {name: value.to(device) for name, value in key_state.items()}
        if self_contrast:
            position = torch.arange(n, device=device)
            query_state["position"] = position
            key_state["position"] = position
        return self._with_state(query_state, key_state, self_contrast)

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        """Weights ``(positive [t, c], negative [t, c])`` of the query rows ``rows`` against all keys (or ``columns``)."""
        query = {name: value[rows] for name, value in self.query_state.items()}
        key = self._keys
        if columns is not None:
            key = {name: value[columns] for name, value in key.items()}
        positive, negative = self.weigh(query, key)
        if self.self_contrast:
            same = query["position"][:, None] == key["position"][None, :]
            positive, negative = positive.masked_fill(same, 0), negative.masked_fill(same, 0)
        return positive, negative

    def transpose(self) -> Relation:
        """The relation with the roles of queries and keys exchanged."""
        if self.self_contrast and type(self).symmetric:
            return self
        return Transposed(self)

    symmetric = False
    """Whether the pair (i, j) always weighs what (j, i) weighs, so that self-contrast is its own transpose."""

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """All near pairs as ``(rows [p], columns [p])``, ordered by row; linear memory where few pairs are near."""
        n, m = self.shape
        step = max(1, 2**24 // max(1, m))
        found = []
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            few = self.sparse(rows)
            if few is None:
                near_rows, near_columns = self.tile(rows)[0].nonzero(as_tuple=True)
            else:
                near_rows, near_columns = few.near_rows, few.near_columns
            found.append((near_rows + start, near_columns))
        if not found:
            empty = torch.zeros(0, dtype=torch.long)
            return empty, empty
        return torch.cat([rows for rows, _ in found]), torch.cat([columns for _, columns in found])

    def across(self, gather: Callable[[Tensor], Tensor], offset: int, start: int) -> Relation:
        """This bound relation with the keys of all processes: ``gather`` concatenates a tensor's rows over processes.

        ``start`` is the number of queries on the processes before this one, ``offset`` that of keys.
        """
        query_state = dict(self.query_state)
        key_state = {name: gather(value) for name, value in self._keys.items() if name != "position"}
        if self.self_contrast:
            query_state["position"] = query_state["position"] + start
            key_state["position"] = torch.arange(_length(key_state), device=query_state["position"].device)
        return self._with_state(query_state, key_state, self.self_contrast)

    def ignore(self, mask: Tensor | Callable[[Tensor, Tensor], Tensor]) -> Relation:
        """The relation with some pairs ignored (weight 0 in both).

        ``mask`` is a bool ``[n, m]`` tensor, or a function of ``(rows [t], columns [c])`` (int64) giving a bool
        ``[t, c]`` tensor, which needs no n x m memory. True means ignored.
        """

        def change(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
            chosen = mask(rows, columns) if callable(mask) else mask.to(rows.device)[rows[:, None], columns[None, :]]
            if chosen.shape != positive.shape:
                raise ValueError(f"ignore: the mask has shape {tuple(chosen.shape)}, expected {tuple(positive.shape)}")
            return positive.masked_fill(chosen, 0), negative.masked_fill(chosen, 0)

        return Changed(self, change, shape=None if callable(mask) else (mask.shape[0], mask.shape[1]))

    def reweight(self, fn: Callable[[Tensor, Tensor, Tensor, Tensor], Weights]) -> Relation:
        """The relation with other weights: ``fn(positive, negative, rows [t], columns [c]) -> (positive, negative)``."""
        return Changed(self, fn)

    # -- within the family ----------------------------------------------------------------------------------------

    @property
    def _keys(self) -> dict[str, Tensor]:
        return self.query_state if self.key_state is None else self.key_state

    def _with_state(self, query: dict[str, Tensor], key: dict[str, Tensor], self_contrast: bool) -> Relation:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.query_state, copy.key_state, copy.self_contrast = query, key, self_contrast
        return copy


class Paired(Relation):
    """Items with the same id are near, all others far: pairs, several positives a query, hard negatives.

    ``query_ids [n]`` and ``key_ids [m]`` are integers. A negative key id is near to nobody: an extra hard negative.
    Without any ids, query i and key i are near, and keys beyond n are hard negatives. In self-contrast only
    ``query_ids`` is needed.

    ``query_exclude [n]``, ``key_exclude [m]``: integers; a pair of equal values (>= 0) whose ids differ is ignored. Give
    them the hash of the text, and a duplicate of the positive is no longer taken for a negative.
    """

    symmetric = True

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

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        query, key = dict(self.query_state), dict(self.key_state or {})
        if "id" not in query:
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
        sized = self._with_state(query, key, False)
        sized.key_state = key or None
        return Relation.bind(sized, n, m, self_contrast=self_contrast, device=device)._sorted()

    def _sorted(self) -> Relation:
        for name in ("id", "exclude"):
            if name in self._keys:
                self.__dict__[f"_sorted_{name}"] = torch.sort(self._keys[name], stable=True)
        return self

    def across(self, gather: Callable[[Tensor], Tensor], offset: int, start: int) -> Relation:
        return super().across(gather, offset, start)._sorted()  # type: ignore[attr-defined,no-any-return]

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive = (query["id"][:, None] == key["id"][None, :]) & (query["id"] >= 0)[:, None]
        negative = ~positive
        if "exclude" in query:
            same = query["exclude"][:, None] == key["exclude"][None, :]
            negative &= ~(same & (query["exclude"] >= 0)[:, None])
        return positive, negative

    def sparse(self, rows: Rows) -> SparseTile:
        query = {name: value[rows] for name, value in self.query_state.items()}
        near_rows, near_columns = matches(query["id"], *self.__dict__["_sorted_id"])
        if self.self_contrast:
            other = query["position"][near_rows] != self._keys["position"][near_columns]
            near_rows, near_columns = near_rows[other], near_columns[other]
        ignored_rows = ignored_columns = near_rows.new_zeros(0)
        if "exclude" in query:
            ignored_rows, ignored_columns = matches(query["exclude"], *self.__dict__["_sorted_exclude"])
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
        if self.self_contrast:
            return self
        turned = self._with_state(self._keys, self.query_state, False)
        return turned._sorted()  # type: ignore[attr-defined,no-any-return]


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

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if not self_contrast:
            raise ValueError("Views: give all views as one query tensor (torch.cat([z1, z2])) and no key")
        if "id" in self.query_state:
            return super().bind(n, m, self_contrast=True, device=device)
        if n % self.count:
            raise ValueError(f"Views: {n} rows cannot be {self.count} views of each item")
        ids = torch.arange(n, device=device) % (n // self.count)
        return self._with_state({"id": ids}, {}, False)._bind_ids(n, device)

    def _bind_ids(self, n: int, device: torch.device) -> Relation:
        self.key_state = None
        return Paired.bind(self, n, n, self_contrast=True, device=device)


class Labels(Relation):
    """Items with the same label are near, all others far (SupCon, 2020).

    ``labels [n]`` of the queries and, where keys are given, ``key_labels [m]``; integers. Items with a negative label
    are unlabelled: near to nobody and far from everybody.
    """

    symmetric = True

    def __init__(self, labels: Tensor, key_labels: Tensor | None = None) -> None:
        key = None if key_labels is None else {"label": integers(key_labels, "key_labels")}
        super().__init__({"label": integers(labels, "labels")}, key)

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive = (query["label"][:, None] == key["label"][None, :]) & (query["label"] >= 0)[:, None]
        return positive, ~positive


class Explicit(Relation):
    """A relation given as matrices: ``positive [n, m]`` and ``negative [n, m]``, bool or float >= 0.

    ``negative`` defaults to everything that is not positive. Weights that are negative or not finite raise ValueError.
    Over several processes each gives its own queries' rows against the keys of all processes.
    """

    def __init__(self, positive: Tensor, negative: Tensor | None = None) -> None:
        negative = positive == 0 if negative is None else negative
        if positive.dim() != 2 or positive.shape != negative.shape:
            raise ValueError(
                f"Explicit: positive and negative must be [n, m] alike, "
                f"got {tuple(positive.shape)} and {tuple(negative.shape)}"
            )
        for name, weight in (("positive", positive), ("negative", negative)):
            if weight.dtype != torch.bool and not bool(((weight >= 0) & torch.isfinite(weight)).all()):
                raise ValueError(f"Explicit: {name} holds weights that are negative or not finite")
        super().__init__({"positive": positive, "negative": negative}, {})

    @property
    def shape(self) -> tuple[int, int]:
        n, m = self.query_state["positive"].shape
        return n, m

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if self.shape != (n, m):
            raise ValueError(f"Explicit: the matrices are {list(self.shape)}, got {n} queries and {m} keys")
        query = {name: value.to(device) for name, value in self.query_state.items()}
        column = torch.arange(m, device=device)
        key = {"column": column}
        if self_contrast:
            query["position"] = torch.arange(n, device=device)
            key["position"] = column
        return self._with_state(query, key, self_contrast)

    def across(self, gather: Callable[[Tensor], Tensor], offset: int, start: int) -> Relation:
        if self.self_contrast:
            return self._with_state(
                {**self.query_state, "position": self.query_state["position"] + start}, self._keys, True
            )
        return self

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        return query["positive"][:, key["column"]], query["negative"][:, key["column"]]


class Transposed(Relation):
    """The transpose of a bound relation; made by :meth:`Relation.transpose`."""

    def __init__(self, inner: Relation) -> None:
        super().__init__({}, {})
        self.inner = inner

    @property
    def shape(self) -> tuple[int, int]:
        n, m = self.inner.shape
        return m, n

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        positive, negative = self.inner.tile(slice(None) if columns is None else columns, rows)
        return positive.T, negative.T

    def transpose(self) -> Relation:
        return self.inner


class Changed(Relation):
    """A relation whose weights a function changes; made by :meth:`Relation.ignore` and :meth:`Relation.reweight`."""

    def __init__(
        self,
        inner: Relation,
        change: Callable[[Tensor, Tensor, Tensor, Tensor], Weights],
        *,
        shape: tuple[int, int] | None = None,
        start: int = 0,
    ) -> None:
        super().__init__({}, {})
        self.inner = inner
        self.change = change
        self.expected_shape = shape
        self.start = start

    @property
    def shape(self) -> tuple[int, int]:
        return self.inner.shape

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if self.expected_shape not in (None, (n, m)):
            raise ValueError(f"ignore: the mask is {self.expected_shape}, got {n} queries and {m} keys")
        inner = self.inner.bind(n, m, self_contrast=self_contrast, device=device)
        bound = Changed(inner, self.change)
        bound.self_contrast = self_contrast
        bound.device = device  # type: ignore[attr-defined]
        return bound

    def across(self, gather: Callable[[Tensor], Tensor], offset: int, start: int) -> Relation:
        if self.expected_shape is not None:
            raise ValueError("ignore: over several processes give the mask as a function of global rows and columns")
        moved = Changed(self.inner.across(gather, offset, start), self.change, start=start)
        moved.self_contrast = self.self_contrast
        moved.device = self.device  # type: ignore[attr-defined]
        return moved

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        n, m = self.shape
        device = self.device  # type: ignore[attr-defined]
        row_index = torch.arange(n, device=device)[rows] + self.start
        column_index = torch.arange(m, device=device)
        if columns is not None:
            column_index = column_index[columns]
        positive, negative = self.inner.tile(rows, columns)
        return self.change(positive, negative, row_index, column_index)


def matches(values: Tensor, ordered: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """All ``(row, column)`` with ``values[row] == keys[column]`` and the value >= 0; ``ordered, order = keys.sort()``."""
    first = torch.searchsorted(ordered, values)
    last = torch.searchsorted(ordered, values, right=True)
    counts = torch.where(values >= 0, last - first, 0)
    rows = torch.repeat_interleave(counts)
    within = torch.arange(rows.numel(), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    return rows, order[first[rows] + within]


def integers(values: Tensor, name: str) -> Tensor:
    values = torch.as_tensor(values)
    if values.dim() != 1 or values.is_floating_point() or values.is_complex():
        raise ValueError(f"{name} must be a vector of integers, got shape {tuple(values.shape)} of {values.dtype}")
    return values.to(torch.long)


def _length(state: dict[str, Tensor]) -> int:
    return next(iter(state.values())).shape[0] if state else 0
