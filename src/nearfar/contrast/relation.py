"""Relations: who is near whom, who is far, and how much.

A relation is described by what travels with the items (ids, labels, grades), never by their position in a batch, so it
survives shuffling, gathering over processes, queues, several positives or hard negatives a query, and duplicates. It
holds O(n + m) state for n queries and m keys and hands out weights by tiles of query rows; no n x m matrix is ever made
(except by :class:`Explicit`, which is given one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows

Same = TypeVar("Same", bound="Relation")

Rows = slice | Tensor
"""Which rows (or columns) of a relation: a slice with step 1, or an int64 index tensor."""

PAIRS_AT_ONCE = 2**22
"""How many pairs are looked at together where all near ones are sought."""

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

    @property
    def among_themselves(self) -> bool:
        """Whether this relation, as it was made, describes one set of items rather than queries and keys."""
        return False

    # -- what everybody uses --------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``, once bound."""
        return _length(self.query_state), _length(self.key_state or self.query_state)

    @property
    def row_ids(self) -> Tensor | None:
        """What names the queries ``[n]`` (int64), once bound: their ids, or their labels; None where nothing does."""
        return self.query_state.get("id", self.query_state.get("label"))

    @property
    def has_given_ids(self) -> bool:
        """Whether :attr:`row_ids` was given, rather than counted from the positions of a batch."""
        return self.row_ids is not None

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        """This relation for ``n`` queries and ``m`` keys on ``device``.

        Raises ValueError where the relation describes other numbers of items.
        """
        return self._bound(n, m, self_contrast, device)

    def _bound(self: Same, n: int, m: int, self_contrast: bool, device: torch.device) -> Same:
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
        """Weights ``(positive [t, c], negative [t, c])`` of the queries ``rows`` against all keys (or ``columns``)."""
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
        return Transposed(self)

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """All near pairs as ``(rows [p], columns [p])``, ordered by row; linear memory where few pairs are near."""
        n, m = self.shape
        step = max(1, PAIRS_AT_ONCE // max(1, m))
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

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        """This bound relation between the queries of this process and the keys of all processes.

        ``queries`` and ``keys`` say how both are spread over the processes. Every process calls it.
        """
        query_state = dict(self.query_state)
        key_state = {name: keys.gather(value) for name, value in self._keys.items() if name != "position"}
        if self.self_contrast:
            query_state["position"] = query_state["position"] + queries.start
            key_state["position"] = torch.arange(sum(keys.counts), device=query_state["position"].device)
        return self._with_state(query_state, key_state, self.self_contrast)

    def ignore(self, mask: Tensor | Callable[[Tensor, Tensor], Tensor]) -> Relation:
        """The relation with some pairs ignored (weight 0 in both).

        ``mask`` is a bool ``[n, m]`` tensor, or a function of ``(rows [t], columns [c])`` (int64) giving a bool
        ``[t, c]`` tensor, which needs no n x m memory. True means ignored.
        """

        def change(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
            chosen = mask(rows, columns) if callable(mask) else mask.to(rows.device)[rows[:, None], columns[None, :]]
            if chosen.shape != positive.shape or chosen.dtype != torch.bool:
                raise ValueError(
                    f"ignore: the mask must be {tuple(positive.shape)} bool, got {tuple(chosen.shape)} {chosen.dtype}"
                )
            return positive.masked_fill(chosen, 0), negative.masked_fill(chosen, 0)

        return Changed(self, change, shape=None if callable(mask) else tuple(mask.shape))

    def reweight(self, fn: Callable[[Tensor, Tensor, Tensor, Tensor], Weights]) -> Relation:
        """The relation with other weights: ``fn(positive, negative, rows [t], columns [c]) -> (positive, negative)``.

        ``rows`` and ``columns`` count queries and keys (those of the global batch over several processes). An item's
        pair with itself stays at weight 0 whatever ``fn`` says.
        """
        return Changed(self, fn)

    # -- within the family ----------------------------------------------------------------------------------------

    @property
    def _keys(self) -> dict[str, Tensor]:
        return self.query_state if self.key_state is None else self.key_state

    def _with_state(self: Same, query: dict[str, Tensor], key: dict[str, Tensor] | None, self_contrast: bool) -> Same:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.query_state, copy.key_state, copy.self_contrast = query, key, self_contrast
        return copy


class Labels(Relation):
    """Items with the same label are near, all others far (SupCon, 2020).

    ``labels [n]`` of the queries and, where keys are given, ``key_labels [m]``; integers. Items with a negative label
    are unlabelled: near to nobody and far from everybody.
    """

    def __init__(self, labels: Tensor, key_labels: Tensor | None = None) -> None:
        key = None if key_labels is None else {"label": integers(key_labels, "key_labels")}
        super().__init__({"label": integers(labels, "labels")}, key)

    @property
    def among_themselves(self) -> bool:
        return self.key_state is None

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive = (query["label"][:, None] == key["label"][None, :]) & (query["label"] >= 0)[:, None]
        return positive, ~positive


class Explicit(Relation):
    """A relation given as matrices: ``positive [n, m]`` and ``negative [n, m]``, bool or float >= 0.

    ``negative`` defaults to everything that is not positive. Weights that are negative or not finite raise ValueError.
    A matrix cannot say how it continues on other processes: with a process group it raises ValueError.
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

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        raise ValueError(
            "Explicit: over several processes describe who is near by ids (Paired), labels or judgements (Graded), "
            "or change the weights of such a relation by its `reweight`"
        )

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        return query["positive"][:, key["column"]], query["negative"][:, key["column"]]


class Transposed(Relation):
    """The transpose of a bound relation; made by :meth:`Relation.transpose`."""

    def __init__(self, inner: Relation) -> None:
        super().__init__(inner._keys, inner.query_state)
        self.self_contrast = inner.self_contrast
        self.inner = inner

    @property
    def shape(self) -> tuple[int, int]:
        n, m = self.inner.shape
        return m, n

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        positive, negative = self.inner.weigh(key, query)
        return positive.T, negative.T

    def transpose(self) -> Relation:
        return self.inner


Change = Callable[[Tensor, Tensor, Tensor, Tensor], Weights]
"""``(positive [t, c], negative [t, c], rows [t], columns [c]) -> (positive, negative)``."""


class Changed(Relation):
    """A relation whose weights a function changes; made by :meth:`Relation.ignore` and :meth:`Relation.reweight`."""

    def __init__(self, inner: Relation, change: Change, *, shape: tuple[int, ...] | None = None) -> None:
        super().__init__({}, {})
        self.inner = inner
        self.change = change
        self.expected_shape = shape
        self.start = 0  # of this process's rows in the global batch
        self.device = torch.device("cpu")

    @property
    def among_themselves(self) -> bool:
        return self.inner.among_themselves

    @property
    def row_ids(self) -> Tensor | None:
        return self.inner.row_ids

    @property
    def has_given_ids(self) -> bool:
        return self.inner.has_given_ids

    @property
    def shape(self) -> tuple[int, int]:
        return self.inner.shape

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if self.expected_shape not in (None, (n, m)):
            raise ValueError(f"ignore: the mask is {self.expected_shape}, got {n} queries and {m} keys")
        return self._around(self.inner.bind(n, m, self_contrast=self_contrast, device=device), device)

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        if self.expected_shape is not None:
            raise ValueError("ignore: over several processes give the mask as a function of global rows and columns")
        moved = self._around(self.inner.across(queries, keys), self.device)
        moved.start = queries.start
        return moved

    def transpose(self) -> Relation:
        def turned(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
            positive, negative = self.change(positive.T, negative.T, columns, rows)
            return positive.T, negative.T

        other = self._around(self.inner.transpose(), self.device)
        other.change = turned
        other.expected_shape = None if self.expected_shape is None else self.expected_shape[::-1]
        return other

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        n, m = self.shape
        row_index = torch.arange(n, device=self.device)[rows] + self.start
        column_index = torch.arange(m, device=self.device)
        if columns is not None:
            column_index = column_index[columns]
        positive, negative = self.change(*self.inner.tile(rows, columns), row_index, column_index)
        expected = (row_index.numel(), column_index.numel())
        if positive.shape != expected or negative.shape != expected:
            raise ValueError(
                f"reweight: the function gave weights {tuple(positive.shape)} and {tuple(negative.shape)}, "
                f"expected {expected}"
            )
        if self.self_contrast:
            same = row_index[:, None] == column_index[None, :]
            positive, negative = positive.masked_fill(same, 0), negative.masked_fill(same, 0)
        return positive, negative

    def _around(self, inner: Relation, device: torch.device) -> Changed:
        copy = self._with_state({}, {}, inner.self_contrast)
        copy.inner, copy.device = inner, device
        return copy


def candidates(positive: Tensor, negative: Tensor) -> Tensor:
    """The weights ``[t, c]`` of all candidates of a row: 1 for a column with any positive weight, else its negative."""
    if positive.dtype == negative.dtype == torch.bool:
        return positive | negative
    return torch.where(positive > 0, 1, negative)


def matches(values: Tensor, ordered: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """All ``(row, column)`` with ``values[row] == keys[column]`` and the value >= 0.

    ``ordered, order`` is ``keys.sort()``.
    """
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
