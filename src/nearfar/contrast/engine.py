"""The engine: evaluates any row objective on (query, keys, relation) exactly, in memory linear in the batch.

*Dense* builds the n x m scores and lets autograd do the rest; it supports gradients of any order. *Tiled* computes the
scores of a few rows at a time, differentiates that tile at once, turns d(scores) into d(query) and d(keys) with two
matrix products and forgets the tile; its gradients are ready when the loss is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import fused, kernels, passes, symmetric, tiles, two_sided
from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError

Memory = Literal["auto", "dense", "tiled"]

DENSE_LIMIT = 2**20
"""Problems whose score matrix takes at most this many bytes (1 MiB) run dense under ``memory="auto"``."""


class RowCosts(Protocol):
    """What the engine asks of a row objective; :class:`nearfar.objectives.RowObjective` is the implementation."""

    score: Score
    temperature: Temperature | None
    two_sided: bool
    reduction: str
    softmax_form: str | None
    needs_positive_scores: bool
    needs_row_statistics: bool
    joins_rows: bool
    costs_a_row: int

    @property
    def needs_negative(self) -> bool: ...
    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor: ...
    def active(self, positive: Tensor, negative: Tensor) -> Tensor: ...
    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...
    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]: ...
    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...
    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]: ...
    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor: ...
    def arrays(self, positives: int) -> float: ...
    def parameters(self) -> Iterator[torch.nn.Parameter]: ...


@dataclass(frozen=True)
class Report:
    """What an evaluation did. Counts are 0-dimensional tensors (so that no device has to be waited for) or None.

    ``anchors``: rows seen; ``active_anchors``: rows that had what the formula needs and count in the mean;
    ``positive_pairs``, ``negative_pairs``: pairs with a weight; ``mode``: "dense" or "tiled"; ``tile_rows``: rows of a
    tile; ``fused``: whether the closed form of the softmax family was used,
    ``kernel``: by fused kernels of the device.
    """

    anchors: int
    active_anchors: Tensor
    positive_pairs: Tensor
    negative_pairs: Tensor
    mode: str
    tile_rows: int
    fused: bool
    kernel: bool = False

    def __add__(self, other: Report) -> Report:
        return Report(
            self.anchors + other.anchors,
            self.active_anchors + other.active_anchors,
            self.positive_pairs + other.positive_pairs,
            self.negative_pairs + other.negative_pairs,
            self.mode if self.mode == other.mode else "tiled",
            self.tile_rows,
            self.fused and other.fused,
            self.kernel and other.kernel,
        )

    def __str__(self) -> str:
        form = f"tiles of {self.tile_rows} rows" if self.mode == "tiled" else "the whole score matrix at once"
        how = ", fused kernel" if self.kernel else ", closed-form gradient" if self.fused else ""
        return (
            f"{self.mode}: {form}{how}; "
            f"{int(self.active_anchors)} of {self.anchors} anchors active, {int(self.positive_pairs)} positive and "
            f"{int(self.negative_pairs)} negative pairs"
        )


def evaluate(
    objective: RowCosts,
    query: Tensor | None = None,
    key: Tensor | None = None,
    *,
    relation: Relation | None = None,
    scores: Tensor | None = None,
    memory: Memory = "auto",
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The loss of a row objective; see :func:`evaluate_with_report` for the arguments."""
    return evaluate_with_report(
        objective, query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
    )[0]


def evaluate_with_report(
    objective: RowCosts,
    query: Tensor | None = None,
    key: Tensor | None = None,
    *,
    relation: Relation | None = None,
    scores: Tensor | None = None,
    memory: Memory = "auto",
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Report]:
    """The loss of a row objective, and what was done to get it.

    Arguments:
        query: embeddings ``[n, d]``, floating point.
        key: embeddings ``[m, d]``; None contrasts the queries among themselves, which needs a ``relation``.
        relation: who is near whom; None pairs query i with key i, keys beyond n being hard negatives.
        scores: ready-made scores ``[n, m]`` instead of embeddings; divided by the temperature, never normalised, always
            evaluated dense. Square ones under a relation that describes one set of items (``Labels(y)``, ``Views(k)``)
            are scores of the items among themselves: the diagonal does not count.
        memory: "dense", "tiled", or "auto" (dense while the score matrix takes at most 1 MiB). Tiled, the softmax
            family runs by fused kernels on CUDA devices where triton is installed.
        tile_rows: rows of a tile; by default as many as fit in 64 MiB of working memory. Keeps to the plain engine.
        group: a process group; the loss is then that of the global batch (every process sees its value) and the
            gradients of each process are exact: the sum over processes of parameter gradients is that of the global
            batch. Processes may hold different numbers of rows.

    Returns the loss (a scalar; with ``reduction="none"`` ``[n]``, or one value a group where the objective joins rows)
    and a :class:`Report`. Scores are computed in float32
    for half-precision embeddings. Raises ValueError, with the shapes, for input that does not fit together, UsageError
    for an unknown ``memory``.
    """
    # an objective made of several contrasts, or of more than query and key, says itself how it is evaluated
    evaluation = getattr(objective, "evaluation", None) or partial(evaluate_rows, objective)
    found: tuple[Tensor, Report] = evaluation(
        query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
    )
    return found


def evaluate_rows(
    objective: RowCosts,
    query: Tensor | None,
    key: Tensor | None,
    *,
    relation: Relation | None,
    scores: Tensor | None,
    memory: Memory,
    tile_rows: int | None,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Report]:
    """:func:`evaluate_with_report` by the objective's ``rows``, whatever its own ``evaluation``."""
    if memory not in ("auto", "dense", "tiled"):
        raise UsageError(f"memory must be 'auto', 'dense' or 'tiled', got {memory!r}")
    if tile_rows is not None and tile_rows < 1:
        raise UsageError(f"tile_rows must be at least 1, got {tile_rows}")
    if scores is not None:
        if query is not None or key is not None:
            raise ValueError("give embeddings or ready-made scores, not both")
        if group is not None:
            raise ValueError("ready-made scores cannot be gathered over processes; give embeddings")
        with without_autocast(scores.device):
            return _of_scores(objective, scores, relation)
    if query is None:
        raise ValueError("give embeddings (query, key) or ready-made scores (scores=...)")
    _check(query, key, may_be_empty=group is not None)
    with without_autocast(query.device):
        return _of_embeddings(objective, query, key, relation, _Choice(memory, tile_rows, group, query.device))


def _of_embeddings(
    objective: RowCosts, query: Tensor, key: Tensor | None, relation: Relation | None, choice: _Choice
) -> tuple[Tensor, Report]:
    self_contrast = key is None
    if relation is None:
        if self_contrast:
            raise ValueError("contrasting items among themselves needs a relation, e.g. Views(2) or Labels(y)")
        relation = Paired()
    m = query.shape[0] if key is None else key.shape[0]
    relation = relation.bind(query.shape[0], m, self_contrast=self_contrast, device=query.device)
    if choice.kernel(objective, relation, query):
        return _by_kernels(objective, query, key, relation, choice)
    embedded_query = _embed(objective.score, query)
    embedded_key = embedded_query if key is None else _embed(objective.score, key)
    if not objective.two_sided or self_contrast:
        return _one_side(objective, embedded_query, embedded_key, relation, choice)
    _check_two_sided(objective)
    if two_sided.applies(objective, relation) and choice.agreed(choice.tiled(objective, relation, embedded_query)):
        return _two_sides_fused(objective, embedded_query, embedded_key, relation, choice)
    forward, report = _one_side(objective, embedded_query, embedded_key, relation, choice)
    backward, back_report = _one_side(objective, embedded_key, embedded_query, relation.transpose(), choice)
    return (forward + backward) / 2, report + back_report


@dataclass(frozen=True)
class _Choice:
    memory: Memory
    tile_rows: int | None
    group: dist.ProcessGroup | None
    device: torch.device

    def tiled(self, objective: RowCosts, relation: Relation, like: Tensor) -> bool:
        if self.memory != "auto":
            return self.memory == "tiled"
        n, m = relation.shape
        size = n * m * like.element_size()
        if size > DENSE_LIMIT:
            return True
        # an objective on pairs of columns may need much more than its scores
        if size * objective.arrays(max(1, m)) <= 64 * DENSE_LIMIT:
            return False  # however many of them are near
        return size * objective.arrays(_positives(relation)) > 64 * DENSE_LIMIT

    def kernel(self, objective: RowCosts, relation: Relation, query: Tensor) -> bool:
        """Whether fused kernels do it."""
        if not kernels.applies(objective, relation, query):
            return False
        return self.agreed(self.tile_rows is None and self.tiled(objective, relation, query))

    def agreed(self, wish: bool) -> bool:
        """Whether all processes want it: those of a group that share sums have to do so alike."""
        return wish if self.group is None else all(GatheredRows(int(wish), self.group, self.device).counts)

    def rows(self, objective: RowCosts, relation: Relation, like: Tensor, *, closed_form: bool) -> int:
        if self.tile_rows is not None:
            return self.tile_rows
        arrays = 1.0 if closed_form else objective.arrays(_positives(relation))
        return tiles.rows_that_fit(*relation.shape, like.element_size(), arrays)


def _positives(relation: Relation) -> int:
    """The most positives among the first rows: an estimate of what a row of this relation has."""
    if not relation.shape[0]:
        return 1
    return max(1, int((relation.tile(slice(0, 8))[0] > 0).sum(1).max()))


def _one_side(
    objective: RowCosts, query: Tensor, key: Tensor, relation: Relation, choice: _Choice
) -> tuple[Tensor, Report]:
    group = choice.group
    if group is not None:
        counted = GatheredRows(query.shape[0], group, query.device)
        keys = counted if key is query else GatheredRows(key.shape[0], group, query.device)
        relation = relation.across(counted, keys)
        key = keys.gather_with_gradient(key)
    n = relation.shape[0]
    scale = passes.scale_of(
        objective, relation, query.dtype, lambda rows, columns: objective.score.paired(query[rows], key[columns]), group
    )
    state = passes.prepared(objective, query, key, relation, group)
    tiled = choice.tiled(objective, relation, query)
    use_fused = tiled and fused.applies(objective, state)
    step = choice.rows(objective, relation, query, closed_form=use_fused) if tiled else max(n, 1)
    use_symmetric = use_fused and key is query and symmetric.applies(objective, relation)
    if use_symmetric and choice.tile_rows is None:
        step = min(step, symmetric.MOST_ROWS)
    if objective.needs_row_statistics:

        def scores_of(rows: slice) -> Tensor:
            scores: Tensor = objective.score(query[rows], key) * tiles.of_rows(scale, rows)
            return scores

        state.update(passes.remembered(objective, scores_of, tiles.steps(n, step), relation, group))
    problem = tiles.Problem(objective, relation, step, group, tuple(state), tuple(objective.parameters()))
    counts = tiles.Counts(query.device)
    if not tiled:
        loss = tiles.dense(problem, query, key, scale, state, counts)
    elif use_symmetric:
        loss = symmetric.loss(problem, query, scale, counts)
    elif use_fused:
        loss = fused.one_sided(problem, query, key, scale, counts)
    else:
        loss = tiles.tiled(problem, query, key, scale, state, counts)
    loss = passes.joined(objective, loss, counts, relation, group)
    return loss, Report(n, *counts.values(), "tiled" if tiled else "dense", step, use_fused)


def _two_sides_fused(
    objective: RowCosts, query: Tensor, key: Tensor, relation: Relation, choice: _Choice
) -> tuple[Tensor, Report]:
    group, spread = choice.group, None
    m = key.shape[0]
    if group is not None:
        spread = two_sided.Spread(*(GatheredRows(side.shape[0], group, side.device) for side in (query, key)))
        relation = relation.across(*spread)
        key = spread.keys.gather_with_gradient(key)
    scale = passes.scale_of(
        objective, relation, query.dtype, lambda rows, columns: objective.score.paired(query[rows], key[columns]), group
    )
    step = choice.rows(objective, relation, query, closed_form=True)
    problem = tiles.Problem(objective, relation, step, group, (), tuple(objective.parameters()))
    counts = tiles.Counts(query.device)
    loss = two_sided.loss(problem, query, key, scale, counts, spread)
    return loss, Report(query.shape[0] + m, *counts.values(), "tiled", step, True)


def _by_kernels(
    objective: RowCosts, query: Tensor, key: Tensor | None, relation: Relation, choice: _Choice
) -> tuple[Tensor, Report]:
    from nearfar.contrast.kernels import evaluation  # needs triton

    precision, query = query.dtype, at_least_float32(query)
    key = query if key is None else at_least_float32(key)
    both_sides = objective.two_sided and key is not query
    if both_sides:
        _check_two_sided(objective)
    loss, counts = evaluation.evaluate(
        objective, query, key, relation, choice.group, precision=precision, both_sides=both_sides
    )
    anchors = query.shape[0] + (key.shape[0] if both_sides else 0)
    return loss, Report(anchors, *counts.values(), "tiled", evaluation.SQUARE, True, True)


def _of_scores(objective: RowCosts, scores: Tensor, relation: Relation | None) -> tuple[Tensor, Report]:
    if scores.dim() != 2 or not scores.is_floating_point():
        raise ValueError(f"scores must be [n, m] floating point, got {tuple(scores.shape)} of {scores.dtype}")
    n, m = scores.shape
    if not n or not m:
        raise ValueError(f"scores has no {'columns' if n else 'rows'}, got {tuple(scores.shape)}")
    scores = at_least_float32(scores)
    relation = Paired() if relation is None else relation
    self_contrast = relation.among_themselves and n == m
    relation = relation.bind(n, m, self_contrast=self_contrast, device=scores.device)

    def one(values: Tensor, side: Relation) -> tuple[Tensor, Report]:
        n = values.shape[0]
        state: dict[str, Tensor] = {}
        scale = passes.scale_of(objective, side, values.dtype, lambda rows, columns: values[rows, columns], None)
        if objective.needs_positive_scores:
            rows, columns = side.positive_pairs()
            state = objective.prepare(values[rows, columns], rows, n)
        scaled = values * tiles.of_rows(scale, slice(0, n))
        if objective.needs_row_statistics:
            state.update(passes.remembered(objective, lambda rows: scaled[rows], [slice(0, n)], side, None))
        counts = tiles.Counts(values.device)
        loss = tiles.reduce(objective, scaled, *side.tile(slice(0, n)), state, counts, None)
        loss = passes.joined(objective, loss, counts, side, None)
        return loss, Report(values.shape[0], *counts.values(), "dense", max(values.shape[0], 1), False)

    loss, report = one(scores, relation)
    if objective.two_sided and not self_contrast:
        _check_two_sided(objective)
        backward, back_report = one(scores.T, relation.transpose())
        return (loss + backward) / 2, report + back_report
    return loss, report


def _embed(score: Score, items: Tensor) -> Tensor:
    return score.embed(at_least_float32(items))


def _check_two_sided(objective: RowCosts) -> None:
    if objective.reduction == "none":
        raise ValueError("reduction='none' has no meaning for a two-sided objective: its sides differ in length")


def _check(query: Tensor, key: Tensor | None, *, may_be_empty: bool) -> None:
    for name, value in (("query", query), ("key", key)):
        if value is not None and (value.dim() != 2 or not value.is_floating_point()):
            raise ValueError(
                f"{name} must be [rows, dimension] floating point, got {tuple(value.shape)} of {value.dtype}"
            )
    if query.shape[0] == 0 and not may_be_empty:
        raise ValueError("query has no rows")
    if key is None:
        return
    if key.shape[0] == 0 and not may_be_empty:
        raise ValueError("key has no rows")
    if query.shape[1] != key.shape[1]:
        raise ValueError(f"query is {list(query.shape)} and key {list(key.shape)}: their dimensions differ")
    if query.device != key.device:
        raise ValueError(f"query is on {query.device} and key on {key.device}")
    if query.dtype != key.dtype:
        raise ValueError(f"query is {query.dtype} and key {key.dtype}")


__all__ = ["DENSE_LIMIT", "Report", "RowCosts", "evaluate", "evaluate_rows", "evaluate_with_report"]
