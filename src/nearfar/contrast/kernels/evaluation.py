"""Losses of the softmax family by the fused kernels.

The log-sums of the rows (and columns) come from one visit of the scores. A second visit writes their derivative in the
precision of the embeddings, a square of it at a time, which two matrix products turn into the gradients of queries and
keys: four products for one direction, five for both. Memory is that of the embeddings, their gradients and one square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows, total_over_processes
from nearfar.contrast.kernels import softmax
from nearfar.contrast.kernels.compared import Compared, compared
from nearfar.contrast.kernels.softmax import LOG2_E, Pull, Side, Sums
from nearfar.contrast.passes import scale_of
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Cosine
from nearfar.contrast.tiles import Counts, Problem, keep, kept, steps, tie
from nearfar.contrast.two_sided import log_sum_over_processes

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts

SQUARE = 8192
"""Rows and columns whose derivative is held at once: 128 MiB in half precision."""

_LIFT = 1024.0
"""What derivatives are multiplied by, so that float16 does not lose the small ones among many keys."""


@dataclass(frozen=True)
class _How:
    problem: Problem
    precision: torch.dtype
    both_sides: bool
    own_columns: slice
    """The keys of this process among those of all."""


def evaluate(
    objective: RowCosts,
    query: Tensor,
    key: Tensor,
    relation: Relation,
    group: dist.ProcessGroup | None,
    *,
    precision: torch.dtype,
    both_sides: bool,
) -> tuple[Tensor, Counts]:
    """The loss of ``query [n, d]`` against ``key [m, d]``, float32 and not normalised, that are multiplied in
    ``precision``; with ``both_sides`` half of it plus half that of the columns.

    Scores are exact in float32 where the embeddings are numbers of that precision.
    """
    own_columns = slice(0, key.shape[0])
    if group is not None:
        queries = GatheredRows(query.shape[0], group, query.device)
        keys = queries if key is query else GatheredRows(key.shape[0], group, query.device)
        relation = relation.across(queries, keys)
        own_columns = slice(keys.start, keys.start + key.shape[0])
        key = keys.gather_with_gradient(key)

    def paired(rows: Tensor, columns: Tensor) -> Tensor:
        return objective.score.paired(objective.score.embed(query[rows]), objective.score.embed(key[columns]))

    scale = torch.as_tensor(scale_of(objective, relation, query.dtype, paired, group)).to(query)
    problem = Problem(objective, relation, SQUARE, group, (), tuple(objective.parameters()))
    counts = Counts(query.device)
    inputs = (query, key, scale)
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    how = _How(problem, precision, both_sides, own_columns)
    loss: Tensor = _Loss.apply(how, counts, tie(inputs, wanted), *inputs)  # type: ignore[no-untyped-call]
    return loss, counts


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, how: _How, counts: Counts, ties: Tensor | None, query: Tensor, key: Tensor, scale: Tensor
    ) -> Tensor:
        ctx.save_for_backward(ties)
        pairs = _Pairs(how, query, key, scale)
        rows, columns = pairs.rows(), None
        if not how.both_sides:
            counts.add(rows.active, rows.near.sum(), rows.far.sum())
            total, weight = rows.total(), rows.active.sum().to(query.dtype)
        else:
            columns, own = pairs.columns(), how.own_columns
            counts.add(torch.cat([rows.active, columns.active[own]]), 2 * rows.near.sum(), 2 * rows.far.sum())
            if how.problem.objective.reduction == "mean":
                active = total_over_processes(rows.active.sum(), how.problem.group)
                rows, columns = rows.divided(active.clamp_min(1)), columns.divided(columns.active.sum().clamp_min(1))
            rows, columns = rows.divided(2), columns.divided(2)
            total, weight = rows.total() + columns.total(own), None
        gradients: list[Tensor | None] = [None, None, None]
        if ties is not None:
            gradients = [*pairs.gradients(rows, columns)]
        return keep(ctx, how.problem, gradients, total, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


@dataclass(frozen=True)
class _Costs:
    """The rows' costs (or the columns'), and how much each counts."""

    sums: Sums
    near: Tensor  # [n] how many are near
    far: Tensor  # [n] how many are far
    active: Tensor  # [n] bool
    weight: Tensor  # [n], 0 where not active

    def total(self, own: slice = slice(None)) -> Tensor:
        costs = self.sums.log_sum - self.sums.target / self.near.clamp_min(1)
        return torch.where(self.active, costs * self.weight, 0)[own].sum()

    def divided(self, count: Tensor | int) -> _Costs:
        return replace(self, weight=self.weight / count)

    def pull(self, factor: Tensor) -> Pull:
        weight = self.weight * factor
        log_sum = torch.where(self.active, self.sums.log_sum * LOG2_E, torch.inf)
        return Pull(log_sum, weight, weight / self.near.clamp_min(1))


class _Pairs:
    """Queries and keys as the kernels see them."""

    def __init__(self, how: _How, query: Tensor, key: Tensor, scale: Tensor) -> None:
        objective, relation = how.problem.objective, how.problem.relation
        self.query, self.key, self.scale, self.group = query, key, scale, how.problem.group
        self.only_far = objective.softmax_form == "negative"
        self.needs_far = objective.needs_negative
        self.self_contrast = relation.self_contrast
        position = relation.query_state.get("position")
        self.first = int(position[0]) if position is not None and position.numel() else 0
        cosine = isinstance(objective.score, Cosine)
        self.query_length, self.key_length = (_inverse_lengths(items) if cosine else None for items in (query, key))
        self.ids = compared(relation)
        self.queries = _side(query, self.query_length, how.precision, self.ids, 0)
        self.keys = _side(key, self.key_length, how.precision, self.ids, 1)
        if key is query:
            self.keys = self.keys._replace(items=self.queries.items)

    def _costs(self, one: Side, other: Side, ids: Compared) -> _Costs:
        sums = softmax.log_sums(
            one._replace(factor=one.factor * self.scale),
            other,
            first=self.first,
            self_contrast=self.self_contrast,
            only_far=self.only_far,
        )
        return self._of(sums, *ids.counts(self.self_contrast))

    def _of(self, sums: Sums, near: Tensor, far: Tensor) -> _Costs:
        active = near > 0
        if self.needs_far:
            active &= far > 0
        return _Costs(sums, near, far, active, active.to(self.query.dtype))

    def rows(self) -> _Costs:
        return self._costs(self.queries, self.keys, self.ids)

    def columns(self) -> _Costs:
        """Of all columns, over the rows of all processes."""
        here, group = self._costs(self.keys, self.queries, self.ids.turned()), self.group
        if group is None:
            return here
        target, near, far = (total_over_processes(value, group) for value in (here.sums.target, here.near, here.far))
        return self._of(Sums(log_sum_over_processes(here.sums.log_sum, group), target), near, far)

    def gradients(self, rows: _Costs, columns: _Costs | None) -> tuple[Tensor, Tensor, Tensor]:
        """Those of queries, keys and scale."""
        largest = rows.weight.amax() if columns is None else torch.maximum(rows.weight.amax(), columns.weight.amax())
        factor = _LIFT / torch.where(largest > 0, largest, 1)
        row, column = rows.pull(factor), None if columns is None else columns.pull(factor)
        n, m = self.query.shape[0], self.key.shape[0]
        queries = _units(self.queries, self.query, self.query_length)
        keys = queries if self.keys.items is self.queries.items else _units(self.keys, self.key, self.key_length)
        memory = queries.new_empty(min(n, SQUARE) * min(m, SQUARE))
        d_query, d_key = torch.zeros_like(self.query), torch.zeros_like(self.key)
        scaled = self.queries._replace(factor=self.queries.factor * self.scale)
        for some in steps(n, SQUARE):
            for others in steps(m, SQUARE):
                found = softmax.derivatives(
                    scaled, self.keys, some, others, row, column, memory,
                    first=self.first, self_contrast=self.self_contrast, only_far=self.only_far,
                )  # fmt: skip
                _add_product(d_query[some], found, keys[others])
                _add_product(d_key[others], found.T, queries[some])
        d_query /= factor
        d_key *= self.scale / factor
        along = (self.query * d_query).sum(1)
        d_scale = (along if self.query_length is None else along * self.query_length).sum()
        d_query *= self.scale
        return _through(d_query, self.query, self.query_length), _through(d_key, self.key, self.key_length), d_scale


def _inverse_lengths(items: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(items, dim=1)
    nonzero = length != 0
    return torch.where(nonzero, 1 / torch.where(nonzero, length, 1), 0)


def _side(items: Tensor, inverse_length: Tensor | None, precision: torch.dtype, ids: Compared, side: int) -> Side:
    exclude, within = (None if values is None else values[side].contiguous() for values in (ids.exclude, ids.within))
    factor = items.new_ones(items.shape[0]) if inverse_length is None else inverse_length
    return Side(items.to(precision).contiguous(), factor, ids.ids[side].contiguous(), exclude, within)


def _units(side: Side, items: Tensor, inverse_length: Tensor | None) -> Tensor:
    """What is compared, in the precision of the products."""
    return side.items if inverse_length is None else (items * inverse_length[:, None]).to(side.items.dtype)


def _through(gradient: Tensor, items: Tensor, inverse_length: Tensor | None) -> Tensor:
    """The gradient of the items from that of what is compared: what lies along an item does not change its cosines."""
    if inverse_length is None:
        return gradient
    along = (items * gradient).sum(1, keepdim=True) * inverse_length[:, None].square()
    return (gradient - items * along) * inverse_length[:, None]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to the float32 ``total``; sums are float32 whatever the factors are."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.device.type == "cuda":
        total += torch.mm(left, right, out_dtype=total.dtype)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
