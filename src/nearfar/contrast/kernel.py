"""Kernels of a condition: how near two items are is a function of what is known beside them (CCL-K, 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Rows, Weights, integers
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError

Compare = Callable[[Tensor, Tensor], Tensor]
"""Conditions ``[t, c]`` and ``[m, c]`` -> a number for each pair ``[t, m]``."""

Same = TypeVar("Same", bound="Kernel")


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances ``[t, m]`` of conditions, exactly 0 between equal ones."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


KERNELS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "rbf": lambda one, other, bandwidth: (-distances(one, other).square() / bandwidth).exp(),
    "laplacian": lambda one, other, bandwidth: (-distances(one, other) / bandwidth).exp(),
    "cosine": lambda one, other, bandwidth: normalize(one) @ normalize(other).T,
    "linear": lambda one, other, bandwidth: one @ other.T / bandwidth,
    "polynomial": lambda one, other, bandwidth: (one @ other.T) ** 3 / bandwidth,
    "delta": lambda one, other, bandwidth: (distances(one, other) == 0).to(one.dtype),
}


class Kernel(Relation):
    """Items with like conditions are near: the positive weight of a pair is ``k(c_i, c_j)``.

    ``condition [n]`` or ``[n, c]``: a value or a vector an item (an age, a sensitive attribute, an embedding); with
    keys of their own ``key_condition [m]`` or ``[m, c]``. ``fn``: "rbf" ``exp(-|c - c'|^2 / bandwidth)`` (default),
    "laplacian" ``exp(-|c - c'| / bandwidth)``, "cosine", "linear" ``c . c' / bandwidth``, "polynomial"
    ``(c . c')^3 / bandwidth``, "delta" (1 where equal), or a function of ``(c [t, c], c' [m, c])`` giving ``[t, m]``.
    Negative values of a kernel count as 0. ``far``: the negative weight of a pair, "complement" ``1 - k`` (default, not
    below 0), "all": 1 for every pair, or a function like ``fn``.

    ``ids [n]``, ``key_ids [m]``: integers, which rows show the same item; by default query i and key i. They matter to
    objectives that tell an item from others of the same condition (:class:`~nearfar.objectives.CCLK`).

    Holds O(n + m) conditions. Over several processes ids must be those of the global batch; without ids each process
    numbers its own items apart. Raises ValueError for shapes that do not fit and for conditions that are not finite.
    """

    numbered_by: Literal["query", "key"] | None = None
    """Which side's positions gave the ids, where none were given."""

    def __init__(
        self,
        condition: Tensor,
        fn: str | Compare = "rbf",
        *,
        key_condition: Tensor | None = None,
        bandwidth: float = 1.0,
        far: str | Compare = "complement",
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> None:
        if isinstance(fn, str) and fn not in KERNELS:
            raise UsageError(
                f"there is no kernel {fn!r}", hint=f"choose one of {', '.join(KERNELS)}, or give a function"
            )
        if isinstance(far, str) and far not in ("complement", "all"):
            raise UsageError(f"Kernel: far must be 'complement', 'all' or a function, got {far!r}")
        if not 0 < bandwidth < float("inf"):
            raise UsageError(f"Kernel: bandwidth must be a finite number > 0, got {bandwidth}")
        if key_ids is not None and ids is None:
            raise ValueError("Kernel: key_ids were given without ids")
        query = {"condition": _conditions(condition, "condition")}
        key = None if key_condition is None else {"condition": _conditions(key_condition, "key_condition")}
        if key is not None and key["condition"].shape[1] != query["condition"].shape[1]:
            raise ValueError(
                f"Kernel: conditions of queries and keys differ in length: {tuple(query['condition'].shape)} and "
                f"{tuple(key['condition'].shape)}"
            )
        if ids is not None:
            query["id"] = integers(ids, "ids")
        if key_ids is not None:
            key = {**(key or {"condition": query["condition"]}), "id": integers(key_ids, "key_ids")}
        super().__init__(query, key)
        self.fn = fn
        self.bandwidth = bandwidth
        self.far = far

    @property
    def among_themselves(self) -> bool:
        return self.key_state is None

    @property
    def has_given_ids(self) -> bool:
        return self.numbered_by is None and "id" in self.query_state

    def compare(self, one: Tensor, other: Tensor) -> Tensor:
        """``k(c_i, c_j)`` ``[t, m]``, as the kernel gives it."""
        return KERNELS[self.fn](one, other, self.bandwidth) if isinstance(self.fn, str) else self.fn(one, other)

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        query = dict(self.query_state)
        key = query if self.key_state is None or self_contrast else dict(self.key_state)
        numbered_by = self.numbered_by
        if "id" not in query:
            numbered_by = "query"
            query["id"] = torch.arange(len(query["condition"]), device=query["condition"].device)
        if "id" not in key:
            extra = len(key["condition"]) - query["id"].numel()
            own = query["id"][: len(key["condition"])]
            key["id"] = torch.cat([own, own.new_full((max(extra, 0),), -1)]) if extra else own
        for state, side in ((query, "ids"), (key, "key_ids")):
            if state["id"].numel() != len(state["condition"]):
                raise ValueError(f"Kernel: {state['id'].numel()} {side} for {len(state['condition'])} conditions")
        bound = self._with_state(query, None if key is query else key, False)._bound(n, m, self_contrast, device)
        bound.numbered_by = numbered_by
        return bound

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        local = self
        if self.numbered_by is not None:
            start = (queries if self.numbered_by == "query" else keys).start
            query, key = dict(self.query_state), dict(self._keys)
            for state in (query, key):
                state["id"] = torch.where(state["id"] >= 0, state["id"] + start, state["id"])
            local = self._with_state(query, key, self.self_contrast)
        return Relation.across(local, queries, keys)

    def transpose(self) -> Relation:
        turned = self._with_state(self._keys, self.query_state, self.self_contrast)
        if self.numbered_by is not None:
            turned.numbered_by = "key" if self.numbered_by == "query" else "query"
        return turned

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        one, other = query["condition"], key["condition"]
        positive = self.compare(one, other).clamp_min(0)
        if callable(self.far):
            return positive, self.far(one, other)
        return positive, torch.ones_like(positive) if self.far == "all" else (1 - positive).clamp_min(0)

    def of_kind(self, kind: type[Same]) -> Same:
        """The same conditions, kernel and ids as another kind of relation."""
        copy = object.__new__(kind)
        copy.__dict__.update(self.__dict__)
        return copy


class _Operator(NamedTuple):
    """What the weights of a row are solved from: of N items, each once."""

    names: Tensor  # [N] ids; below 0 where the item has none
    of_column: Tensor  # [m], which item a key shows
    condition: Tensor  # [N, c]
    factors: Tensor  # [N, N], LU of K + regularization I
    pivots: Tensor


class ConditionalKernel(Kernel):
    """Weights that estimate an expectation given the condition of a query: its conditional mean embedding.

    Of N items among the keys (rows of one id count as one) with conditions z,
    ``W = (K + regularization I)^-1 k(z, z_i)`` are the weights of a row: ``sum_j W_ji f(y_j)``
    estimates ``E[f(y) | z_i]``. Negative weights count as 0.

    ``role`` "near": the weights are those of positives, and all items but the query's own are far with weight 1.
    "far": (N - 1) times the weights are those of negatives, and the query's own item is near. ``official``: as the
    official code of CCL-K has it: the kernel of an item with itself is 1, its own weight 0, weights below 1e-6 are 0,
    and for "near" the query's own item is far as well. Holds N x N numbers and takes N^3 / 3 steps.
    """

    role: Literal["near", "far"] = "near"
    regularization: float = 0.01
    official: bool = False
    _operator: _Operator | None = None

    def _with_state(self: Same, query: dict[str, Tensor], key: dict[str, Tensor] | None, self_contrast: bool) -> Same:
        copy = super()._with_state(query, key, self_contrast)
        copy.__dict__["_operator"] = None
        return copy

    def operator(self) -> _Operator:
        """Of the keys there are, solved once."""
        if self._operator is None:
            ids = self._keys["id"]
            column = torch.arange(ids.numel(), device=ids.device)
            names, of_column = torch.unique(torch.where(ids >= 0, ids, -1 - column), return_inverse=True)
            first = torch.full_like(names, ids.numel()).scatter_reduce(0, of_column, column, "amin")
            condition = self._keys["condition"][first]
            kernel = self.compare(condition, condition).double()
            if self.official:
                kernel = kernel.fill_diagonal_(1.0)
            kernel.diagonal().add_(self.regularization)
            self._operator = _Operator(names, of_column, condition, *torch.linalg.lu_factor(kernel))
        return self._operator

    def expectation_weights(self, rows: Rows) -> Tensor:
        """The weights ``W [t, m]`` of the queries ``rows``: each key of an item has the item's."""
        found = self.operator()
        ids = self.query_state["id"][rows]
        own = (found.names[:, None] == ids[None, :]) & (ids >= 0)
        kernel = self.compare(found.condition, self.query_state["condition"][rows]).double()
        if self.official:
            kernel = kernel.masked_fill(own, 1.0)
        weights = torch.linalg.lu_solve(found.factors, found.pivots, kernel)
        if self.official:
            weights = weights.masked_fill(own | (weights < 1e-6), 0.0)
        each: Tensor = weights.clamp_min(0)[found.of_column].T
        return each

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        weights = self.expectation_weights(rows)
        ids = self.query_state["id"][rows]
        own = (ids[:, None] == self._keys["id"][None, :]) & (ids >= 0)[:, None]
        if self.role == "near":
            positive, negative = weights, torch.ones_like(own) if self.official else ~own
        else:
            positive, negative = own, weights * (self.operator().names.numel() - 1)
        if self.self_contrast:
            same = self.query_state["position"][rows][:, None] == self._keys["position"][None, :]
            positive, negative = positive.masked_fill(same, 0), negative.masked_fill(same, 0)
        return (positive, negative) if columns is None else (positive[:, columns], negative[:, columns])


def _conditions(values: Tensor, name: str) -> Tensor:
    values = torch.as_tensor(values)
    if values.dim() not in (1, 2) or values.is_complex():
        raise ValueError(f"Kernel: {name} must be [n] or [n, c], got {tuple(values.shape)} of {values.dtype}")
    if not values.is_floating_point():
        values = values.double()
    elif values.element_size() < 4:
        values = values.float()
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"Kernel: {name} holds values that are not finite")
    values = values.detach()
    return values[:, None] if values.dim() == 1 else values
