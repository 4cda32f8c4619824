"""Dense and tiled evaluation of any row objective; the reference of every faster form."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import total_over_processes
from nearfar.contrast.precision import without_autocast
from nearfar.contrast.relation import Relation

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts

TILE_BYTES = 2**26
"""Working memory of a tile: 64 MiB."""

TILES_KEPT = 16
"""After so many tiles of a large problem the C library is asked to return what it keeps of freed ones."""


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``, or None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


def give_back(shape: tuple[int, int]) -> None:
    """Let freed tiles go, where all scores would take a GiB: glibc keeps pieces of them between what is still used, and
    resident memory would grow almost as if the scores were held."""
    trim = _trim() if shape[0] * shape[1] >= 2**28 else None
    if trim is not None:
        trim(0)


_DOUBLE_BACKWARD = (
    "the tiled evaluation computes its gradient during forward and cannot be differentiated twice; "
    'pass memory="dense" for higher-order gradients'
)


@dataclass(frozen=True)
class Problem:
    """One row objective on one bound relation, and how its rows are visited."""

    objective: RowCosts
    relation: Relation
    step: int
    group: dist.ProcessGroup | None
    state_names: tuple[str, ...]
    parameters: tuple[torch.nn.Parameter, ...]

    def tiles(self) -> Iterator[slice]:
        for number, rows in enumerate(steps(self.relation.shape[0], self.step)):
            if number and number % TILES_KEPT == 0:
                give_back(self.relation.shape)
            yield rows


def of_rows(scale: Tensor | float, rows: slice) -> Tensor | float:
    """What the scores of ``rows`` are multiplied by, given one scale for all rows or one a row ``[n]``."""
    return scale[rows, None] if isinstance(scale, Tensor) and scale.dim() else scale


def steps(n: int, step: int) -> list[slice]:
    """``n`` rows in slices of ``step``."""
    return [slice(start, min(n, start + step)) for start in range(0, n, step)]


def reduction_of(objective: RowCosts) -> str:
    """How the rows' costs are reduced: not yet, where the objective joins rows first."""
    return "none" if objective.joins_rows else objective.reduction


class Counts:
    """Active rows and weighted pairs, summed as tensors on the device so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.active = torch.zeros((), dtype=torch.long, device=device)
        self.positive = torch.zeros((), dtype=torch.long, device=device)
        self.negative = torch.zeros((), dtype=torch.long, device=device)
        self._rows = [torch.zeros(0, dtype=torch.bool, device=device)]

    def add(self, active: Tensor, positive: Tensor | int, negative: Tensor | int) -> None:
        self.active += active.sum()
        self._rows.append(active)
        self.positive += positive
        self.negative += negative

    def values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.active, self.positive, self.negative

    def active_rows(self) -> Tensor:
        """Which of the rows seen so far, bool."""
        return torch.cat(self._rows)


def rows_that_fit(n: int, m: int, element_size: int, factor: float) -> int:
    """Rows of a tile against ``m`` keys whose ``factor`` arrays of scores fit in :data:`TILE_BYTES`; at least 1."""
    return max(1, min(n, int(TILE_BYTES / (max(m, 1) * element_size * factor))))


def _costs(
    objective: RowCosts, scores: Tensor, positive: Tensor, negative: Tensor, state: dict[str, Tensor], counts: Counts
) -> tuple[Tensor, Tensor, Tensor]:
    """``(active [t] bool, costs [a] or [a, k] of the active rows, their weights [a])``."""
    active = objective.active(positive, negative)
    counts.add(active, (positive > 0).sum(), (negative > 0).sum())
    if not bool(active.all()):  # a formula never sees a row it is not defined for
        scores, positive, negative = scores[active], positive[active], negative[active]
        state = {name: value if value.dim() == 0 else value[active] for name, value in state.items()}
    if scores.shape[0] == 0:
        nothing = scores.sum(1)
        k = objective.costs_a_row
        return active, nothing if k == 1 else nothing[:, None].expand(0, k), nothing.detach()
    costs = objective.rows(scores, positive, negative, **state)
    return active, costs, objective.weights(scores.detach(), positive, negative)


def reduce(
    objective: RowCosts,
    scores: Tensor,
    positive: Tensor,
    negative: Tensor,
    state: dict[str, Tensor],
    counts: Counts,
    group: dist.ProcessGroup | None,
) -> Tensor:
    """The reduced loss of a whole score matrix by plain autograd."""
    active, costs, weights = _costs(objective, scores, positive, negative, state, counts)
    if reduction_of(objective) == "none":
        return _spread(costs, active)
    total = (costs * weights).sum()
    if costs.numel() == 0:  # still connected to everything, so that all processes take part in the backward pass
        connected = (scores, *state.values(), *objective.parameters())
        total = total + sum(value.sum() * 0.0 for value in connected)
    return finish(objective, total, weights.sum(), group)[0]


def _spread(costs: Tensor, active: Tensor) -> Tensor:
    """The costs of the active rows at their places among all rows, 0 elsewhere."""
    mask = active if costs.dim() == 1 else active[:, None]
    return costs.new_zeros(active.numel(), *costs.shape[1:]).masked_scatter(mask, costs)


def finish(
    objective: RowCosts, total: Tensor, weight: Tensor | None, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """``(loss, divisor)``: the total over the weight of all processes (over 1, for a sum or without a weight).

    The loss has the gradient of this process's part. All evaluations of a group end here, so that processes that chose
    differently between dense and tiled still meet in the same collective calls.
    """
    divisor = torch.ones_like(total)
    if objective.reduction == "mean" and weight is not None:
        weight = total_over_processes(weight, group)
        divisor = torch.where(weight > 0, weight, divisor)
    total = total / divisor
    if group is not None:
        total = total + (total_over_processes(total, group) - total.detach())
    return total, divisor


def dense(
    problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, state: dict[str, Tensor], counts: Counts
) -> Tensor:
    """The loss from the whole score matrix by plain autograd, differentiable any number of times."""
    scores = problem.objective.score(query, key) * of_rows(scale, slice(0, query.shape[0]))
    weights = problem.relation.tile(slice(0, query.shape[0]))
    return reduce(problem.objective, scores, *weights, state, counts, problem.group)


def tiled(
    problem: Problem, query: Tensor, key: Tensor, scale: Tensor | float, state: dict[str, Tensor], counts: Counts
) -> Tensor:
    """The loss by row tiles. Costs of single rows (``reduction="none"``) recompute their tiles in backward."""
    scale = torch.as_tensor(scale, dtype=query.dtype, device=query.device)
    inputs = (query, key, scale, *state.values(), *problem.parameters)
    function = _TiledCosts if reduction_of(problem.objective) == "none" else _TiledLoss
    # grad mode is off inside a Function's forward, so whether a gradient is wanted has to be told to it
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    loss: Tensor = function.apply(problem, counts, tie(inputs, wanted), *inputs)  # type: ignore[no-untyped-call]
    return loss


class _Tile:
    """The differentiable evaluation of one tile: leaves that cut it off from the graph, and their gradients."""

    def __init__(
        self,
        problem: Problem,
        rows: slice,
        query: Tensor,
        key: Tensor,
        scale: Tensor,
        others: list[Tensor],
        counts: Counts,
        wanted: bool,
    ) -> None:
        objective = problem.objective
        names = problem.state_names
        self.problem, self.query, self.key, self.scale = problem, query[rows], key, scale
        self.bilinear = objective.score.bilinear
        with torch.set_grad_enabled(wanted):
            if self.bilinear:
                raw = (self.query.detach() @ key.detach().T).requires_grad_(wanted)
                self.leaves = [raw]
            else:
                self.leaves = [self.query.detach().requires_grad_(wanted), key.detach().requires_grad_(wanted)]
                raw = objective.score(*self.leaves)
            state_values = [value if value.dim() == 0 else value[rows] for value in others[: len(names)]]
            state_leaves = [
                value.detach().requires_grad_(wanted and value.is_floating_point()) for value in state_values
            ]
            scale_leaf = scale.detach().requires_grad_(wanted and scale.dim() == 0)
            self.leaves += [scale_leaf, *state_leaves, *problem.parameters]
            self.active, self.costs, self.weights = _costs(
                objective,
                raw * of_rows(scale_leaf, rows),
                *problem.relation.tile(rows),
                dict(zip(names, state_leaves, strict=True)),
                counts,
            )

    def gradients(self, of: Tensor) -> list[Tensor | None]:
        """Gradients of the scalar ``of`` to this tile's queries, all keys, the scale, the states, the parameters."""
        wanted = [leaf for leaf in self.leaves if leaf.requires_grad]
        if not of.requires_grad:
            return [None] * (len(self.leaves) + self.bilinear)
        found = iter(torch.autograd.grad(of, wanted, allow_unused=True))
        gradients = [next(found) if leaf.requires_grad else None for leaf in self.leaves]
        if not self.bilinear:
            return gradients
        raw = gradients[0]
        if raw is None:
            return [None, None, *gradients[1:]]
        return [raw @ self.key, raw.T @ self.query, *gradients[1:]]


class _Sums:
    """Gradients summed over tiles, in the shapes of the inputs ``(query, key, scale, *states, *parameters)``."""

    def __init__(self, inputs: tuple[Tensor, ...], needed: tuple[bool, ...]) -> None:
        self.sums = [torch.zeros_like(value) if need else None for value, need in zip(inputs, needed, strict=True)]

    def add(self, rows: slice, gradients: list[Tensor | None], states: int) -> None:
        for index, (total, gradient) in enumerate(zip(self.sums, gradients, strict=True)):
            if total is None or gradient is None:
                continue
            by_row = index == 0 or (3 <= index < 3 + states and total.dim() > 0)
            (total[rows] if by_row else total).add_(gradient)


class _TiledLoss(torch.autograd.Function):
    """Sum or mean of the rows' costs; the gradient is computed during forward, tile by tile."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, counts: Counts, ties: Tensor | None, *inputs: Tensor) -> Tensor:
        wanted = ties is not None
        ctx.save_for_backward(ties)
        query, key, scale, *others = inputs
        needed = tuple(wanted and need for need in ctx.needs_input_grad[3:])
        sums = _Sums(inputs, needed)
        total, weight = query.new_zeros(()), query.new_zeros(())
        for rows in problem.tiles():
            tile = _Tile(problem, rows, query, key, scale, others, counts, wanted)
            with torch.set_grad_enabled(wanted):
                cost = (tile.costs * tile.weights).sum()
            if wanted:
                sums.add(rows, tile.gradients(cost), len(problem.state_names))
            total += cost.detach()
            weight += tile.weights.sum()
        return keep(ctx, problem, sums.sums, total, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *kept(ctx, gradient))


def keep(ctx: Any, problem: Problem, gradients: list[Tensor | None], total: Tensor, weight: Tensor | None) -> Tensor:
    """Finish the loss, store the gradients of it with the graph, and return it.

    ``weight`` is what the total is divided by, summed over processes; None where it is divided already.
    """
    loss, divisor = finish(problem.objective, total, weight, problem.group)
    if problem.objective.reduction == "mean" and weight is not None:
        factor = divisor.reciprocal()
        for value in gradients:
            if value is not None:
                value.mul_(factor)
    ctx.gradients = gradients
    return loss


def kept(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """The stored gradients times the one from above."""
    scaled: list[Tensor | None] = ctx.gradients
    # loss.backward() needs no copy; a device is not waited for
    if gradient.device.type != "cpu" or float(gradient) != 1.0:
        with torch.no_grad():
            scaled = [None if value is None else value * gradient for value in ctx.gradients]
    return once(ctx, scaled) if torch.is_grad_enabled() else scaled


def tie(inputs: tuple[Tensor, ...], wanted: bool) -> Tensor | None:
    """An empty tensor that hangs on the graph of all inputs without holding them; None where no gradient is wanted."""
    if not wanted:
        return None
    return torch.cat([value.reshape(-1)[:0].to(inputs[0]) for value in inputs if value.requires_grad])


def once(ctx: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients, tied to the inputs and refusing to be differentiated again.

    Under ``create_graph=True`` they would otherwise be constants of the graph, and a second derivative would silently
    miss a term.
    """
    ties = ctx.saved_tensors[0]
    return [None if value is None else _Once.apply(value, ties) for value in gradients]  # type: ignore[no-untyped-call]


class _Once(torch.autograd.Function):
    """Passes a gradient on as a function of ``ties``, whose derivative is an error."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ties: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(_DOUBLE_BACKWARD)


class _TiledCosts(torch.autograd.Function):
    """The costs of single rows; backward visits the tiles again, since their upstream gradients differ by row."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, counts: Counts, ties: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(ties, *inputs)
        query, key, scale, *others = inputs
        k = problem.objective.costs_a_row
        costs = query.new_zeros(query.shape[0]) if k == 1 else query.new_zeros(query.shape[0], k)
        for rows in problem.tiles():
            tile = _Tile(problem, rows, query, key, scale, others, counts, False)
            costs[rows] = _spread(tile.costs, tile.active)
        ctx.problem = problem
        return costs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        problem: Problem = ctx.problem
        with torch.no_grad(), without_autocast(gradient.device):
            _, *inputs = ctx.saved_tensors
            query, key, scale, *others = inputs
            sums = _Sums(tuple(inputs), ctx.needs_input_grad[3:])
            for rows in problem.tiles():
                tile = _Tile(problem, rows, query, key, scale, others, Counts(query.device), True)
                with torch.enable_grad():
                    cost = (tile.costs * gradient[rows].detach()[tile.active]).sum()
                sums.add(rows, tile.gradients(cost), len(problem.state_names))
        return (None, None, None, *(once(ctx, sums.sums) if torch.is_grad_enabled() else sums.sums))
