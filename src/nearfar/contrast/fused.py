"""The closed-form gradient of the softmax family, by row tiles.

The cost of a row of this family is ``logsumexp_{j in denominator}(s_ij) - sum_j attract_ij s_ij``, so its derivative
with respect to the scores is ``softmax - attract``: no graph of the tile is needed, and where few pairs are near or
ignored no mask of it either. One direction takes three matrix products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nearfar.contrast.relation import Rows, candidates
from nearfar.contrast.tiles import Counts, Problem, keep, kept, tie

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts


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


class Masked(NamedTuple):
    """A tile of scaled scores with -inf outside the denominator, and what pulls it."""

    scores: Tensor  # [t, m]
    target: Tensor  # [t], sum_j attract_ij s_ij
    active: Tensor  # [t] bool
    near: tuple[Tensor, Tensor] | None  # where attract is not zero, for a sparse tile
    attract: Tensor  # [p] for a sparse tile, [t, m] for a dense one


def masked(problem: Problem, rows: slice, scores: Tensor, counts: Counts) -> Masked:
    """The tile of those scores, which are masked in place."""
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
    return Masked(scores, target, active, near, attract * active[few.near_rows])


def _masked_dense(problem: Problem, rows: Rows, scores: Tensor, counts: Counts, only_negative: bool) -> Masked:
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
    return Masked(scores, target, active, None, attract)


def _softmax_(tile: Masked) -> Tensor:
    """Turn the scores into their softmax in place and return ``logsumexp [t]``; inactive rows become 0."""
    scores = tile.scores
    inactive = ~tile.active
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
    return apply(_OneSided, problem, (query, key), scale, counts)


def apply(function: Any, problem: Any, items: tuple[Tensor, ...], scale: Tensor | float, counts: Counts) -> Tensor:
    """The loss by an autograd function whose gradient is ready when the loss is."""
    inputs = (*items, torch.as_tensor(scale, dtype=items[0].dtype, device=items[0].device))
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    loss: Tensor = function.apply(problem, counts, tie(inputs, wanted), *inputs)
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
            tile = masked(problem, rows, scores, counts)
            log_sum = _softmax_(tile)
            total += torch.where(tile.active, log_sum - tile.target, 0).sum()
            weight += tile.active.sum()
            if d_query is not None and d_key is not None:
                _subtract_attraction(tile)
                torch.mm(scores, key, out=d_query[rows])
                d_key.addmm_(scores.T, scaled)
        return finished(ctx, problem, query, scale, d_query, d_key, total, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


def _subtract_attraction(tile: Masked) -> None:
    if tile.near is None:
        tile.scores.sub_(tile.attract)
    else:
        tile.scores[tile.near] -= tile.attract


def finished(
    ctx: Any,
    problem: Problem,
    query: Tensor,
    scale: Tensor,
    d_query: Tensor | None,
    d_key: Tensor | None,
    total: Tensor,
    weight: Tensor | None,
) -> Tensor:
    """The loss, with the gradients of unscaled scores' products; see :func:`nearfar.contrast.tiles.keep`."""
    d_scale = None
    if d_query is not None:
        d_scale = torch.dot(query.reshape(-1), d_query.reshape(-1))
        d_query *= scale
    return keep(ctx, problem, [d_query, d_key, d_scale], total, weight)
