"""The closed-form gradient of the softmax family, by row tiles.

The cost of a row of this family is ``logsumexp_{j in denominator}(s_ij) - sum_j attract_ij s_ij``, so its derivative
with respect to the scores is ``softmax - attract``: no graph of the tile is needed, and where few pairs are near or
ignored no mask of it either. One direction takes three matrix products; both directions take four, since they share the
scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.relation import Relation, Rows, candidates
from nearfar.contrast.tiles import Counts, Problem, keep, kept, tie

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts

_SAFE_LOG = 60.0
"""How far (natural log) a column's mass may lie below the largest row's before float32 could lose it."""


_LEAST_SHARE = 1e-30
"""A probability above which float32 still has all its digits."""


def applies(objective: RowCosts, state: dict[str, Tensor]) -> bool:
    """Whether the closed form says what ``objective.rows`` says."""
    return (
        objective.softmax_form is not None
        and objective.score.bilinear
        and not (objective.temperature is not None and objective.temperature.individual)
        and not state
        and not objective.needs_row_statistics
        and not objective.joins_rows
        and objective.reduction in ("mean", "sum")
    )


def two_sided_applies(objective: RowCosts, relation: Relation, group: dist.ProcessGroup | None) -> bool:
    """Whether both directions can share their score tiles: on one process, for sparse relations."""
    return (
        group is None
        and not objective.needs_positive_scores
        and applies(objective, {})
        and relation.sparse(slice(0, 1)) is not None
    )


class _Masked(NamedTuple):
    """A tile of scaled scores with -inf outside the denominator, and what pulls it."""

    scores: Tensor  # [t, m]
    target: Tensor  # [t], sum_j attract_ij s_ij
    active: Tensor  # [t] bool
    near: tuple[Tensor, Tensor] | None  # where attract is not zero, for a sparse tile
    attract: Tensor  # [p] for a sparse tile, [t, m] for a dense one


def _masked(problem: Problem, rows: slice, scores: Tensor, counts: Counts) -> _Masked:
    only_negative = problem.objective.softmax_form == "negative"
    few = problem.relation.sparse(rows)
    if few is None:
        return _masked_dense(problem, rows, scores, counts, only_negative)
    t, m = scores.shape
    near = (few.near_rows, few.near_columns)
    near_count = torch.bincount(few.near_rows, minlength=t)
    ignored_count = torch.bincount(few.ignored_rows, minlength=t)
    negative_count = m - near_count - ignored_count
    active = near_count > 0
    if problem.objective.needs_negative:
        active &= negative_count > 0
    counts.add(active, near_count.sum(), negative_count.sum())
    attract = near_count[few.near_rows].to(scores.dtype).reciprocal()
    target = torch.zeros_like(scores[:, 0]).index_add_(0, few.near_rows, scores[near] * attract)
    scores[few.ignored_rows, few.ignored_columns] = -torch.inf
    if only_negative:
        scores[near] = -torch.inf
    return _Masked(scores, target, active, near, attract * active[few.near_rows])


def _masked_dense(problem: Problem, rows: Rows, scores: Tensor, counts: Counts, only_negative: bool) -> _Masked:
    positive, negative = problem.relation.tile(rows)
    active = problem.objective.active(positive, negative)
    counts.add(active, (positive > 0).sum(), (negative > 0).sum())
    attract = positive.to(scores.dtype, copy=True)
    attract /= attract.sum(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    target = (attract * scores).sum(1)
    if negative.dtype == torch.bool and positive.dtype == torch.bool:
        outside = ~negative if only_negative else ~(positive | negative)
        scores.masked_fill_(outside, -torch.inf)
    else:
        scores += (negative if only_negative else candidates(positive, negative)).to(scores.dtype).log()
    attract *= active[:, None]
    return _Masked(scores, target, active, None, attract)


def _softmax_(masked: _Masked) -> Tensor:
    """Turn the scores into their softmax in place and return ``logsumexp [t]``; inactive rows become 0."""
    scores = masked.scores
    inactive = ~masked.active
    some_inactive = bool(inactive.any())
    if some_inactive:
        scores[inactive] = 0.0  # a row without a denominator would be NaN
    peak = scores.amax(1)
    torch.softmax(scores, 1, out=scores)
    log_sum = peak - scores.amax(1).log()
    if some_inactive:
        scores[inactive] = 0.0
    return log_sum


def one_sided(problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, counts: Counts) -> Tensor:
    """Loss of the rows ``query [n, d]`` against ``key [m, d]``, scores ``scale * q . k``; three matrix products."""
    return _apply(_OneSided, problem, query, key, scale, counts)


def two_sided(problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, counts: Counts) -> Tensor:
    """Half the loss of the rows plus half that of the columns; four matrix products."""
    return _apply(_TwoSided, problem, query, key, scale, counts)


def _apply(
    function: Any, problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, counts: Counts
) -> Tensor:
    scale = torch.as_tensor(scale, dtype=query.dtype, device=query.device)
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in (query, key, scale))
    loss: Tensor = function.apply(problem, counts, tie((query, key, scale), wanted), query, key, scale)
    return loss


class _OneSided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, counts: Counts, ties: Tensor | None, query: Tensor, key: Tensor, scale: Tensor
    ) -> Tensor:
        wanted = ties is not None
        ctx.save_for_backward(ties)
        buffer = query.new_empty(problem.step, key.shape[0])
        d_query = torch.empty_like(query) if wanted else None
        d_key = torch.zeros_like(key) if wanted else None
        total, weight = query.new_zeros(()), query.new_zeros(())
        for rows in problem.tiles():
            scaled = query[rows] * scale
            scores = torch.mm(scaled, key.T, out=buffer[: scaled.shape[0]])
            masked = _masked(problem, rows, scores, counts)
            log_sum = _softmax_(masked)
            total += torch.where(masked.active, log_sum - masked.target, 0).sum()
            weight += masked.active.sum()
            if d_query is not None and d_key is not None:
                _subtract_attraction(masked)
                torch.mm(scores, key, out=d_query[rows])
                d_key.addmm_(scores.T, scaled)
        return _finished(ctx, problem, query, scale, d_query, d_key, total, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


def _subtract_attraction(masked: _Masked) -> None:
    if masked.near is None:
        masked.scores.sub_(masked.attract)
    else:
        masked.scores[masked.near] -= masked.attract


def _finished(
    ctx: Any,
    problem: Problem,
    query: Tensor,
    scale: Tensor,
    d_query: Tensor | None,
    d_key: Tensor | None,
    total: Tensor,
    weight: Tensor,
) -> Tensor:
    d_scale = None
    if d_query is not None:
        d_scale = torch.dot(query.reshape(-1), d_query.reshape(-1))
        d_query *= scale
    return keep(ctx, problem, [d_query, d_key, d_scale], total, weight)


class _TwoSided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, counts: Counts, ties: Tensor | None, query: Tensor, key: Tensor, scale: Tensor
    ) -> Tensor:
        wanted = ties is not None
        ctx.save_for_backward(ties)
        buffer = query.new_empty(problem.step, key.shape[0])
        sides = _both_log_sums(problem, query, key, scale, buffer, counts)
        row_weight = _side_weight(problem, sides.row_active, query.dtype)
        column_weight = _side_weight(problem, sides.column_active, query.dtype)
        total = (torch.where(sides.row_active, sides.row_log_sum - sides.row_target, 0) * row_weight).sum()
        column_cost = torch.where(sides.column_active, sides.column_log_sum - sides.column_target, 0)
        total += (column_cost * column_weight).sum()
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
        one = query.new_ones(())
        return _finished(ctx, problem, query, scale, d_query, d_key, total, one)

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


def _side_weight(problem: Problem, active: Tensor, dtype: torch.dtype) -> Tensor:
    weight = 0.5 * active.to(dtype)
    return weight / active.sum().clamp_min(1) if problem.objective.reduction == "mean" else weight


def _mask_sparse(problem: Problem, rows: slice, scores: Tensor) -> tuple[Tensor, Tensor]:
    few = problem.relation.sparse(rows)
    assert few is not None
    scores[few.ignored_rows, few.ignored_columns] = -torch.inf
    if problem.objective.softmax_form == "negative":
        scores[few.near_rows, few.near_columns] = -torch.inf
    return few.near_rows, few.near_columns


def _both_log_sums(
    problem: Problem, query: Tensor, key: Tensor, scale: Tensor, buffer: Tensor, counts: Counts
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
    reference = torch.where(reference == -torch.inf, 0, reference)
    column_log_sum = column_sum.log() + reference
    needs_negative = problem.objective.needs_negative
    row_other = m - row_excluded - (row_near if needs_negative else 0)
    column_other = n - column_excluded - (column_near if needs_negative else 0)
    row_active = (row_near > 0) & (row_other > 0)
    column_active = (column_near > 0) & (column_other > 0)
    pairs = row_near.sum().long()
    ignored = row_excluded.sum().long()
    counts.add(torch.cat([row_active, column_active]), 2 * pairs, 2 * (n * m - pairs - ignored))
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
    """Log-sums of the columns by tiles of columns, each with its own maximum."""
    turned = Problem(problem.objective, problem.relation.transpose(), problem.step, None, (), ())
    parts = []
    for columns in turned.tiles():
        scores = (key[columns] * scale) @ query.T
        _mask_sparse(turned, columns, scores)
        parts.append(torch.logsumexp(scores, 1))
    return torch.cat(parts)
