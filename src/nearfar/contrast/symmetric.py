"""Items contrasted among themselves: two matrix products instead of three.

Scores of items among themselves are symmetric, and so is who is near whom. The gradient of the items is
``(G + G^T) z``, with G the derivative of the rows' costs with respect to the scores, and ``G_ji`` differs from ``G_ij``
by a factor a row and one a column. Once the log-sums of a tile's rows are known, all of ``G + G^T`` is known between
these rows and those before, and half of a symmetric matrix is enough for its product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nearfar.contrast import fused
from nearfar.contrast.paired import Paired
from nearfar.contrast.relation import Relation
from nearfar.contrast.tiles import Counts, Problem, keep, kept

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts

_SAFE_LOG = 60.0
"""How far (natural log) one row's log-sum may lie below another's before float32 could lose what they share."""

MOST_ROWS = 512
"""Of a tile: what lies beyond its last row is looked at once less, so that low tiles are quicker than high ones."""


def applies(objective: RowCosts, relation: Relation) -> bool:
    """Whether scores and relation are symmetric and few pairs are near or ignored."""
    return (
        fused.applies(objective, {})
        and relation.self_contrast
        and isinstance(relation, Paired)
        and relation.sparse(slice(0, 1)) is not None
    )


def loss(problem: Problem, items: Tensor, scale: Tensor | float, counts: Counts) -> Tensor:
    """The loss of ``items [n, d]`` among themselves, scores ``scale * z_i . z_j``."""
    return fused.apply(_Symmetric, problem, (items,), scale, counts)


class _Symmetric(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, counts: Counts, ties: Tensor | None, items: Tensor, scale: Tensor
    ) -> Tensor:
        wanted = ties is not None
        ctx.save_for_backward(ties)
        n = items.shape[0]
        buffer, work = items.new_empty(problem.step, n), items.new_empty(problem.step, n) if wanted else None
        log_sums, near = items.new_empty(n), items.new_empty(n)
        active = torch.empty(n, dtype=torch.bool, device=items.device)
        gradient = torch.zeros_like(items) if wanted else None
        total = items.new_zeros(())
        for rows in problem.tiles():
            scaled = items[rows] * scale
            scores = torch.mm(scaled, items.T, out=buffer[: scaled.shape[0]])
            masked = fused.masked(problem, rows, scores, counts)
            assert masked.near is not None
            near[rows] = torch.bincount(masked.near[0], minlength=scaled.shape[0]).to(near.dtype)
            active[rows] = masked.active
            log_sums[rows] = _softmax_(scores)
            total += torch.where(masked.active, log_sums[rows] - masked.target, 0).sum()
            if gradient is not None and work is not None:
                before = _Before(rows, log_sums[: rows.stop], active[: rows.stop], near[: rows.stop])
                known = scores[:, : rows.stop]
                if not before.share_(known, work[: scaled.shape[0], : rows.stop]):
                    torch.mm(scaled, items.T, out=scores)
                    fused.masked(problem, rows, scores, Counts(items.device))
                    before.share_each_(known, work[: scaled.shape[0], : rows.stop])
                before.pull_(known, masked.near)
                gradient[rows] += known @ items[: rows.stop]
                gradient[: rows.start].addmm_(known[:, : rows.start].T, items[rows])
        d_scale = None
        if gradient is not None:
            d_scale = torch.dot(items.reshape(-1), gradient.reshape(-1)) / 2
            gradient *= scale
        return keep(ctx, problem, [gradient, d_scale], total, active.sum().to(items.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


def _softmax_(scores: Tensor) -> Tensor:
    """Turn masked scores into their softmax in place and return ``logsumexp [t]``; without candidates 0 and -inf."""
    peak = scores.amax(1)
    empty = peak == -torch.inf
    some_empty = bool(empty.any())
    if some_empty:
        scores[empty] = 0.0
    torch.softmax(scores, 1, out=scores)
    log_sums = torch.where(empty, -torch.inf, peak - scores.amax(1).log())
    if some_empty:
        scores[empty] = 0.0
    return log_sums


class _Before:
    """A tile of ``rows`` and all rows up to its last, whose log-sums, activity and numbers of near items are known."""

    def __init__(self, rows: slice, log_sums: Tensor, active: Tensor, near: Tensor) -> None:
        self.rows = rows
        self.log_sums = log_sums
        self.weight = active.to(log_sums.dtype)
        self.active = active
        self.pull = self.weight / near.clamp_min(1)

    def share_(self, softmax: Tensor, work: Tensor) -> bool:
        """Turn ``P_ij`` into ``weight_i P_ij + weight_j P_ji``, ``P_ji = P_ij exp(log_sum_i - log_sum_j)``, in place.

        False, and nothing done, where float32 could lose ``P_ji`` that way.
        """
        here = self.log_sums[self.rows]
        highest = here.amax()
        if highest > -torch.inf:
            far_below = self.active & (self.log_sums < highest - _SAFE_LOG)
            if bool(far_below.any()):
                return False
        else:
            highest = torch.zeros_like(highest)
        across = (here - highest).exp()
        down = self.weight * torch.where(self.active, highest - self.log_sums, 0).exp()
        torch.mul(across[:, None], down[None, :], out=work)
        softmax.mul_(work.add_(self.weight[self.rows, None]))
        return True

    def share_each_(self, scores: Tensor, work: Tensor) -> None:
        """The same from masked scores, with an exponential each."""
        torch.sub(scores, torch.where(self.active, self.log_sums, torch.inf), out=work).exp_()
        own = torch.where(self.active[self.rows], self.log_sums[self.rows], torch.inf)
        scores.sub_(own[:, None]).exp_().add_(work)

    def pull_(self, derivative: Tensor, near: tuple[Tensor, Tensor]) -> None:
        """Subtract what near pairs pull each other by."""
        rows, columns = near
        known = columns < self.rows.stop
        rows, columns = rows[known], columns[known]
        derivative[rows, columns] -= self.pull[self.rows][rows] + self.pull[columns]
