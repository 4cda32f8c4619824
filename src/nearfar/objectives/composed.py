"""Objectives that take more than one contrast: their parts go through the engine, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Memory, Report, RowCosts, evaluate_rows
from nearfar.contrast.pair_rows import PairRows
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.objectives.base import RowObjective


@dataclass(frozen=True)
class Way:
    """How the parts are evaluated; see :func:`nearfar.contrast.evaluate`."""

    memory: Memory
    tile_rows: int | None
    group: dist.ProcessGroup | None

    def evaluate(self, part: RowCosts, query: Tensor, key: Tensor | None, relation: Relation) -> tuple[Tensor, Report]:
        return evaluate_rows(
            part,
            query,
            key,
            relation=relation,
            scores=None,
            memory=self.memory,
            tile_rows=self.tile_rows,
            group=self.group,
        )


@dataclass(frozen=True)
class Side:
    """Queries of this process and keys, as the objective's score embeds them.

    ``relation`` is bound; ``keys`` and ``relation_to_all`` are those of all processes, keys with their gradient.
    """

    query: Tensor
    key: Tensor
    relation: Relation
    keys: Tensor
    relation_to_all: Relation

    @property
    def self_contrast(self) -> bool:
        return self.relation.self_contrast

    @property
    def near(self) -> tuple[Tensor, Tensor]:
        """All near pairs, ``(rows [p], columns [p])`` of :attr:`query` and :attr:`keys`."""
        return self.relation_to_all.positive_pairs()


class ComposedObjective(RowObjective):
    """Base of objectives whose cost of a row needs more than the row's own scores.

    A subclass evaluates its parts, row objectives, in :meth:`one_side`. It takes embeddings: ready-made scores raise
    ValueError.
    """

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        """The loss of the queries against the keys: a scalar, or with ``reduction="none"`` one cost a query."""
        raise NotImplementedError

    def evaluation(
        self,
        query: Tensor | None,
        key: Tensor | None,
        *,
        relation: Relation | None,
        scores: Tensor | None,
        memory: Memory,
        tile_rows: int | None,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Report]:
        """The loss and what was done; the engine calls it."""
        if scores is not None or query is None:
            raise ValueError(f"{self.name} needs embeddings: its cost does not follow from a row's own scores")
        key, relation = checked(self, query, key, relation)
        way = Way(memory, tile_rows, group)
        with without_autocast(query.device):
            embedded = self.score.embed(at_least_float32(query))
            keys = embedded if key is None else self.score.embed(at_least_float32(key))
            loss, report = self.one_side(_side(embedded, keys, relation, group), way)
            if not self.two_sided or key is None:
                return loss, report
            back, _ = self.one_side(_side(keys, embedded, relation.transpose(), group), way)
        return (loss + back) / 2, report

    def of_pairs(self, part: RowObjective, pairs: Tensor, key: Tensor, side: Side, way: Way) -> tuple[Tensor, Report]:
        """The loss of ``part`` on near pairs as rows: ``pairs [p, e]`` describe :attr:`Side.near`, ``key [m, e]`` the
        keys of this process. ``reduction="none"`` gives each query's mean over its pairs."""
        rows, columns = side.near
        if not rows.numel() and way.group is None:
            return nothing(side.query, pairs, key)
        part.reduction = self.reduction
        loss, report = way.evaluate(part, pairs, key, PairRows(side.relation_to_all, rows, columns))
        if self.reduction == "none":
            loss = mean_by_row(loss, rows, side.query.shape[0])
        return loss, report


def checked(
    objective: RowObjective, query: Tensor, key: Tensor | None, relation: Relation | None
) -> tuple[Tensor | None, Relation]:
    """Key and bound relation. Raises ValueError for what does not fit together."""
    for name, value in (("query", query), ("key", key)):
        if value is not None and (value.dim() != 2 or not value.is_floating_point()):
            raise ValueError(
                f"{name} must be [rows, dimension] floating point, got {tuple(value.shape)} of {value.dtype}"
            )
    if key is not None and key.shape[1] != query.shape[1]:
        raise ValueError(f"query is {list(query.shape)} and key {list(key.shape)}: their dimensions differ")
    if relation is None:
        if key is None:
            raise ValueError("contrasting items among themselves needs a relation, e.g. Views(2) or Labels(y)")
        relation = Paired()
    if objective.two_sided and key is not None and objective.reduction == "none":
        raise ValueError("reduction='none' has no meaning for a two-sided objective: its sides differ in length")
    m = query.shape[0] if key is None else key.shape[0]
    return key, relation.bind(query.shape[0], m, self_contrast=key is None, device=query.device)


def _side(query: Tensor, key: Tensor, relation: Relation, group: dist.ProcessGroup | None) -> Side:
    if group is None:
        return Side(query, key, relation, key, relation)
    queries = GatheredRows(query.shape[0], group, query.device)
    keys = queries if key is query else GatheredRows(key.shape[0], group, key.device)
    return Side(query, key, relation, keys.gather_with_gradient(key), relation.across(queries, keys))


def nothing(*connected: Tensor) -> tuple[Tensor, Report]:
    """A loss of 0 that hangs on the graph of ``connected``, and its report."""
    loss = sum((value.sum() * 0.0 for value in connected), torch.zeros((), device=connected[0].device))
    none = torch.zeros((), dtype=torch.long, device=loss.device)
    return loss.to(connected[0].dtype), Report(0, none, none, none, "dense", 0, False)


def gathered_keys(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Values of this process's keys, of all processes, with their gradient."""
    if group is None:
        return values
    return GatheredRows(values.shape[0], group, values.device).gather_with_gradient(values)


def mean_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """The mean ``[count]`` of the values ``[p]`` of each row, 0 where it has none."""
    total = values.new_zeros(count).index_add(0, rows, values)
    return total / torch.bincount(rows, minlength=count).clamp_min(1)


def with_gradient_of_all(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """A loss of all processes as a value to compute with: its gradient is that of all processes' use of it."""
    if group is None:
        return value
    part = (value - value.detach())[None]
    return value.detach() + GatheredRows(1, group, value.device).gather_with_gradient(part).sum(0)


class Embedded(Score):
    """A score of items that are embedded already."""

    def __init__(self, score: Score) -> None:
        super().__init__()
        self.score = score
        self.bilinear = score.bilinear

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores: Tensor = self.score(query, keys)
        return scores

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.score.paired(query, keys)
