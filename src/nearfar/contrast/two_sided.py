"""Both directions of the softmax family from one set of score tiles: four matrix products instead of six.

The rows' softmax and the columns' softmax of the same scores differ by a factor a row and one a column, so that one
exponential serves both. Over several processes each visits its own rows against all columns; the sums of a column add
up over processes, and the rest is done as on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import fused
from nearfar.contrast.distributed import GatheredRows, total_over_processes
from nearfar.contrast.relation import Relation
from nearfar.contrast.tiles import Counts, Problem, kept

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts

_SAFE_LOG = 60.0
"""How far (natural log) a column's mass may lie below the largest row's before float32 could lose it."""

_LEAST_SHARE = 1e-30
"""A probability above which float32 still has all its digits."""


class Spread(NamedTuple):
    """How queries and keys are spread over processes."""

    queries: GatheredRows
    keys: GatheredRows

    @property
    def own_columns(self) -> slice:
        """The keys of this process among all of them."""
        return slice(self.keys.start, self.keys.start + self.keys.counts[self.keys.rank])


def applies(objective: RowCosts, relation: Relation) -> bool:
    """Whether both directions can share their score tiles: for sparse relations."""
    return (
        not objective.needs_positive_scores
        and fused.applies(objective, {})
        and relation.sparse(slice(0, 1)) is not None
    )


def loss(
    problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, counts: Counts, spread: Spread | None
) -> Tensor:
    """Half the loss of the rows plus half that of the columns; ``key`` holds those of all processes."""
    return fused.apply(_TwoSided, (problem, spread), (query, key), scale, counts)


class _TwoSided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spread_problem: tuple[Problem, Spread | None],
        counts: Counts,
        ties: Tensor | None,
        query: Tensor,
        key: Tensor,
        scale: Tensor,
    ) -> Tensor:
        problem, spread = spread_problem
        wanted = ties is not None
        ctx.save_for_backward(ties)
        buffer = query.new_empty(problem.step, key.shape[0])
        sides = _both_log_sums(problem, spread, query, key, scale, buffer, counts)
        active_rows = total_over_processes(sides.row_active.sum(), problem.group)
        row_weight = _side_weight(problem, sides.row_active, active_rows, query.dtype)
        column_weight = _side_weight(problem, sides.column_active, sides.column_active.sum(), query.dtype)
        total = (torch.where(sides.row_active, sides.row_log_sum - sides.row_target, 0) * row_weight).sum()
        column_cost = torch.where(sides.column_active, sides.column_log_sum - sides.column_target, 0)
        own = slice(None) if spread is None else spread.own_columns
        total += (column_cost * column_weight)[own].sum()
        d_query = d_key = None
        if wanted:
            d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
            mixed = torch.empty_like(buffer)
            for rows in problem.tiles():
                scaled = query[rows] * scale
                scores = torch.mm(scaled, key.T, out=buffer[: scaled.shape[0]])
                few = _mask_sparse(problem, rows, scores)
                _both_softmax_(scores, rows, sides, row_weight, column_weight, mixed[: scaled.shape[0]])
                near_rows, near_columns = few
                pull = row_weight[rows][near_rows] / sides.row_near[rows][near_rows]
                pull += column_weight[near_columns] / sides.column_near[near_columns]
                scores[near_rows, near_columns] -= pull
                torch.mm(scores, key, out=d_query[rows])
                d_key.addmm_(scores.T, scaled)
        return fused.finished(ctx, problem, query, scale, d_query, d_key, total, None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


def _both_softmax_(
    scores: Tensor, rows: slice, sides: _Sides, row_weight: Tensor, column_weight: Tensor, work: Tensor
) -> None:
    """Turn masked scores into ``row_weight * softmax over the row + column_weight * softmax over the column``."""
    if sides.reference is None:
        torch.sub(scores, sides.column_log_sum, out=work).exp_().mul_(column_weight)
        scores.sub_(sides.row_log_sum[rows, None]).exp_().mul_(row_weight[rows, None]).add_(work)
        return
    # P_column[i, j] = P_row[i, j] * exp(row_log_sum_i - c) * exp(c - column_log_sum_j), so one exponential serves both
    across = (sides.row_log_sum[rows] - sides.reference).exp()
    down = column_weight * torch.where(sides.column_active, sides.reference - sides.column_log_sum, 0).exp()
    if bool(sides.row_filled[rows].all()):
        torch.softmax(scores, 1, out=scores)
    else:
        scores.sub_(sides.row_log_sum[rows, None]).exp_()
    torch.mul(across[:, None], down[None, :], out=work)  # two passes are faster than addcmul, which does not vectorise
    scores.mul_(work.add_(row_weight[rows, None]))


class _Sides(NamedTuple):
    row_log_sum: Tensor
    row_target: Tensor
    row_active: Tensor
    row_near: Tensor
    row_filled: Tensor  # [n] bool, rows with any candidate
    column_log_sum: Tensor
    column_target: Tensor
    column_active: Tensor
    column_near: Tensor
    reference: Tensor | None  # None where rows and columns need exponentials of their own


def _side_weight(problem: Problem, active: Tensor, count: Tensor, dtype: torch.dtype) -> Tensor:
    weight = 0.5 * active.to(dtype)
    return weight / count.clamp_min(1) if problem.objective.reduction == "mean" else weight


def _mask_sparse(problem: Problem, rows: slice, scores: Tensor) -> tuple[Tensor, Tensor]:
    few = problem.relation.sparse(rows)
    assert few is not None
    scores[few.ignored_rows, few.ignored_columns] = -torch.inf
    if problem.objective.softmax_form == "negative":
        scores[few.near_rows, few.near_columns] = -torch.inf
    return few.near_rows, few.near_columns


def _both_log_sums(
    problem: Problem,
    spread: Spread | None,
    query: Tensor,
    key: Tensor,
    scale: Tensor,
    buffer: Tensor,
    counts: Counts,
) -> _Sides:
    """Log-sums of all rows and all columns in one visit of the tiles.

    A column's sum is taken from the rows' softmax, ``sum_i P_row[i, j] exp(row_log_sum_i - c)``: a matrix-vector
    product instead of a second exponential. Where that could lose a column to underflow, columns are summed again by
    themselves.
    """
    n, m = problem.relation.shape
    only_negative = problem.objective.softmax_form == "negative"
    row_log_sum, row_target = query.new_empty(n), query.new_empty(n)
    row_near, row_excluded = query.new_zeros(n), query.new_zeros(n)
    column_target, column_near, column_excluded = query.new_zeros(m), query.new_zeros(m), query.new_zeros(m)
    reference = query.new_full((), -torch.inf)
    column_sum = query.new_zeros(m)
    for rows in problem.tiles():
        scaled = query[rows] * scale
        scores = torch.mm(scaled, key.T, out=buffer[: scaled.shape[0]])
        few = problem.relation.sparse(rows)
        assert few is not None
        near_score = scores[few.near_rows, few.near_columns]
        here_near = torch.bincount(few.near_rows, minlength=scaled.shape[0]).to(query.dtype)
        row_near[rows] = here_near
        row_target[rows] = torch.zeros_like(here_near).index_add_(0, few.near_rows, near_score)
        row_excluded[rows] = torch.bincount(few.ignored_rows, minlength=scaled.shape[0]).to(query.dtype)
        column_near += torch.bincount(few.near_columns, minlength=m)
        column_target.index_add_(0, few.near_columns, near_score)
        column_excluded += torch.bincount(few.ignored_columns, minlength=m)
        _mask_sparse(problem, rows, scores)
        log_sum = None
        if not only_negative and bool((here_near > 0).all()):
            log_sum = _softmax_by_near_(scores, few.near_rows, few.near_columns, near_score)
            if log_sum is None:
                torch.mm(scaled, key.T, out=scores)
                _mask_sparse(problem, rows, scores)
        if log_sum is None:
            peak = scores.amax(1)
            empty = peak == -torch.inf
            if bool(empty.any()):
                scores[empty] = 0.0
            torch.softmax(scores, 1, out=scores)
            log_sum = torch.where(empty, -torch.inf, peak - scores.amax(1).log())
        row_log_sum[rows] = log_sum
        highest = torch.maximum(reference, log_sum.amax())
        if highest == -torch.inf:
            continue
        column_sum *= (reference - highest).exp()
        column_sum += scores.T @ (log_sum - highest).exp()
        reference = highest
    pairs, ignored = row_near.sum().long(), row_excluded.sum().long()
    if spread is not None:
        here, reference = reference, _highest_over_processes(reference, problem.group)
        column_sum *= torch.where(here == -torch.inf, 0, (here - reference).exp())
        sums = torch.stack([column_sum, column_target, column_near, column_excluded])
        column_sum, column_target, column_near, column_excluded = total_over_processes(sums, problem.group)
    reference = torch.where(reference == -torch.inf, 0, reference)
    column_log_sum = column_sum.log() + reference
    needs_negative = problem.objective.needs_negative
    all_rows = n if spread is None else sum(spread.queries.counts)
    row_other = m - row_excluded - (row_near if needs_negative else 0)
    column_other = all_rows - column_excluded - (column_near if needs_negative else 0)
    row_active = (row_near > 0) & (row_other > 0)
    column_active = (column_near > 0) & (column_other > 0)
    own = slice(None) if spread is None else spread.own_columns
    counts.add(torch.cat([row_active, column_active[own]]), 2 * pairs, 2 * (n * m - pairs - ignored))
    shared: Tensor | None = reference
    if bool((column_active & ~(column_log_sum > reference - _SAFE_LOG)).any()):
        shared = None
        column_log_sum = _log_sums(problem, key, query, scale)
    return _Sides(
        torch.where(row_log_sum == -torch.inf, reference, row_log_sum),  # a row without candidates: exp(-inf - .) is 0
        row_target / row_near.clamp_min(1),
        row_active,
        row_near.clamp_min(1),
        row_log_sum > -torch.inf,
        torch.where(column_active, column_log_sum, torch.inf),
        column_target / column_near.clamp_min(1),
        column_active,
        column_near.clamp_min(1),
        shared,
    )


def _softmax_by_near_(scores: Tensor, near_rows: Tensor, near_columns: Tensor, near_score: Tensor) -> Tensor | None:
    """The softmax of the rows in place; their log-sums from a near pair of each, ``s - log P``, without another look at
    the tile. None where a near pair's share is too small for that; the scores are spent in either case."""
    torch.softmax(scores, 1, out=scores)
    share = scores[near_rows, near_columns]
    if bool(share.min() < _LEAST_SHARE):
        return None
    found = torch.full_like(scores[:, 0], -torch.inf)
    return found.scatter_reduce(0, near_rows, near_score - share.log(), "amax")


def _log_sums(problem: Problem, key: Tensor, query: Tensor, scale: Tensor) -> Tensor:
    """Log-sums of the columns by tiles of columns, each with its own maximum, over the rows of all processes."""
    turned = Problem(problem.objective, problem.relation.transpose(), problem.step, None, (), ())
    parts = []
    for columns in turned.tiles():
        scores = (key[columns] * scale) @ query.T
        _mask_sparse(turned, columns, scores)
        parts.append(torch.logsumexp(scores, 1))
    return log_sum_over_processes(torch.cat(parts), problem.group)


def log_sum_over_processes(log_sums: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The log of the sum over processes of ``exp(log_sums)``, for values that may be -inf."""
    if group is None:
        return log_sums
    highest = _highest_over_processes(log_sums, group)
    reference = torch.where(highest == -torch.inf, 0, highest)
    return total_over_processes((log_sums - reference).exp(), group).log() + reference


def _highest_over_processes(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    highest = values.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    return highest
