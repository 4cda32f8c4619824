"""The passes before and after the rows: temperatures, positive pairs, what is remembered of items, rows joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import tiles
from nearfar.contrast.distributed import GatheredRows, gather_for_all, total_over_processes
from nearfar.contrast.relation import Relation

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts


def scale_of(
    objective: RowCosts,
    relation: Relation,
    dtype: torch.dtype,
    score_of_pairs: Callable[[Tensor, Tensor], Tensor],
    group: dist.ProcessGroup | None,
) -> Tensor | float:
    """One over the temperature: one for all rows, or ``[n]`` of ``dtype`` where items have their own."""
    temperature = objective.temperature
    if temperature is None:
        return 1.0
    if temperature.individual:
        return temperature.scales(_given_ids(objective, relation)).to(dtype)
    if temperature.follows_alignment:
        with torch.no_grad():
            scores = score_of_pairs(*relation.positive_pairs())
            total = total_over_processes(scores.sum(), group)
            count = total_over_processes(scores.new_tensor(scores.numel()), group)
            if bool(count):
                temperature.observe(total / count)
    return temperature.scale()


def _given_ids(objective: RowCosts, relation: Relation) -> Tensor:
    ids = relation.row_ids
    if ids is None or not relation.has_given_ids:
        raise ValueError(
            f"{type(objective).__name__} remembers items from batch to batch and needs their ids: give them in the "
            "relation, e.g. Paired(ids) or Views(2, ids=torch.cat([ids, ids]))"
        )
    return ids


def prepared(
    objective: RowCosts, query: Tensor, key: Tensor, relation: Relation, group: dist.ProcessGroup | None
) -> dict[str, Tensor]:
    """What the objective makes of the scores of all positive pairs, over all processes, for the rows of this one."""
    if not objective.needs_positive_scores:
        return {}
    rows, columns = relation.positive_pairs()
    scores = objective.score.paired(query[rows], key[columns])
    n = relation.shape[0]
    if group is None:
        return objective.prepare(scores, rows, n)
    queries = GatheredRows(n, group, query.device)
    pairs = GatheredRows(scores.shape[0], group, query.device)
    state = objective.prepare(
        pairs.gather_with_gradient(scores), pairs.gather(rows + queries.start), sum(queries.counts)
    )
    own = slice(queries.start, queries.start + n)
    return {name: value if value.dim() == 0 else value[own] for name, value in state.items()}


def remembered(
    objective: RowCosts,
    scores_of: Callable[[slice], Tensor],
    steps: list[slice],
    relation: Relation,
    group: dist.ProcessGroup | None,
) -> dict[str, Tensor]:
    """What the objective remembers of its active rows: its statistics of them, over all processes, by id."""
    ids = _given_ids(objective, relation)
    found, active = [], []
    with torch.no_grad():
        for rows in steps or [slice(0, 0)]:  # a process without rows still says what a statistic looks like
            positive, negative = relation.tile(rows)
            has = objective.active(positive, negative)
            active.append(has)
            found.append(objective.statistic(scores_of(rows)[has], positive[has], negative[has]))
    here = torch.cat(active)
    statistics, ids = torch.cat(found), ids[here]
    own = slice(0, ids.numel())
    if group is not None:
        counted = GatheredRows(ids.numel(), group, ids.device)
        statistics, ids = counted.gather(statistics), counted.gather(ids)
        own = slice(counted.start, counted.start + counted.counts[counted.rank])
    state = objective.remember(statistics, ids)
    return {name: value if value.dim() == 0 else _spread(value[own], here) for name, value in state.items()}


def _spread(values: Tensor, active: Tensor) -> Tensor:
    """Values ``[a, ...]`` of the active rows at their places among all rows ``[n, ...]``."""
    spread = values.new_zeros(active.numel(), *values.shape[1:])
    spread[active] = values
    return spread


def joined(
    objective: RowCosts, costs: Tensor, counts: tiles.Counts, relation: Relation, group: dist.ProcessGroup | None
) -> Tensor:
    """The reduced loss of an objective that joins rows, from the costs ``[n]`` of this process's rows."""
    if not objective.joins_rows:
        return costs
    active, ids = counts.active_rows(), relation.row_ids
    connected = costs.sum() * 0.0
    costs = costs[active]
    ids = None if ids is None else ids[active]
    if group is not None:
        counted = GatheredRows(costs.shape[0], group, costs.device)
        costs = gather_for_all(costs, counted)
        ids = None if ids is None else counted.gather(ids)
    if not costs.numel():
        return connected
    groups = objective.join(costs, ids)
    if objective.reduction != "none":
        groups = groups.mean() if objective.reduction == "mean" else groups.sum()
    return connected + groups
