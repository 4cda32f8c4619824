"""Which negatives count, and how much: functions for ``relation.reweight``, in memory linear in the batch."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.contrast.distributed import GatheredRows, of_all
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Change, Weights, integers
from nearfar.errors import UsageError


def by_complement(
    query: Tensor,
    key: Tensor,
    *,
    threshold: float = 0.9,
    keys: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Change:
    """Negatives that a fixed complementary model finds too similar weigh 0 (DCLR; Zhou et al., 2022).

    ``relation.reweight(by_complement(f1, f2))``: ``alpha_ij = 0`` for a negative with ``cos(f1_i, f2_j) >= threshold``;
    positives and all other weights stay.

    Arguments:
        query: the complementary model's embeddings ``[n, d]`` of the queries, without a gradient.
        key: of the keys ``[m, d]``.
        threshold: phi in the paper; default 0.9 (BERT), 0.85 (RoBERTa). Above 1 nothing is taken for a false negative.
        keys: how many keys the batch has, where rows without such an embedding (noise) stand after the m described;
            they keep their weights.
        group: over processes, the group of the batch.
    """
    if query.dim() != 2 or query.shape[1:] != key.shape[1:]:
        raise ValueError(f"by_complement: embeddings {tuple(query.shape)} and {tuple(key.shape)} do not compare")
    if keys is not None and keys < len(key):
        raise ValueError(f"by_complement: {len(key)} keys are described but the batch has {keys}")
    own_query, own_key = (normalize(at_least_float32(items.detach())) for items in (query, key))
    if keys is not None:  # a zero row has cosine 0 with everything
        own_key = torch.cat([own_key, own_key.new_zeros(keys - len(key), own_key.shape[1])])
    known = torch.ones(len(own_key), dtype=torch.bool, device=key.device)
    known[len(key) :] = False
    of_queries, of_keys, known = (of_all(items, group) for items in (own_query, own_key, known))

    def change(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
        with without_autocast(of_queries.device):
            similar = of_queries[rows] @ of_keys[columns].T >= threshold
        return positive, negative.masked_fill(similar & known[columns] & (positive == 0), 0)

    return change


def by_cluster(
    query: Tensor,
    key: Tensor,
    *,
    same: float = 0.0,
    other: float = 1.0,
    group: dist.ProcessGroup | None = None,
) -> Change:
    """Negatives weigh by whether they share the query's cluster.

    ``query [n]`` and ``key [m]`` are integers (:meth:`nearfar.negatives.ClusterMemory.assign`); negative numbers belong
    to no cluster. The weight of a negative is multiplied by ``same`` within a cluster (default 0: a false negative left
    out) and by ``other`` outside (0 contrasts an item with its cluster alone, the hardest negatives).
    """
    _check_weights("by_cluster", same, other)
    of_queries, of_keys = of_all(integers(query, "query"), group), of_all(integers(key, "key"), group)

    def change(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
        own = of_queries[rows][:, None]
        together = (own == of_keys[columns][None, :]) & (own >= 0)
        return positive, _times(negative, other, (together, same))

    return change


def own_negatives(
    queries: int,
    keys: int,
    *,
    logit: float | None = None,
    weight: float = 1.0,
    others: float = 1.0,
    in_batch: float = 1.0,
    group: dist.ProcessGroup | None = None,
    device: torch.device | None = None,
) -> Change:
    """A query's own hard negatives weigh otherwise than those of other queries.

    Keys are the positive of each query, then its first hard negative for each query, then the second, and so on, as
    ``torch.cat([positive, negative])`` has them. A negative's weight is multiplied by ``weight`` (or ``exp(logit)``,
    SimCSE's hard-negative weight, 2021) if it is the query's own, by ``others`` if it is another query's hard negative,
    by ``in_batch`` if it is another query's positive. ``others=0, in_batch=0``: each query against its own triple.

    ``queries`` and ``keys`` count those of this process. Raises ValueError where they do not fit each other.
    """
    if queries < 1 or keys < queries or keys % queries:
        raise ValueError(f"own_negatives: {keys} keys are not a positive and hard negatives of {queries} queries")
    if logit is not None:
        weight *= math.exp(logit)
    _check_weights("own_negatives", weight, others, in_batch)
    start = 0 if group is None else GatheredRows(queries, group, device or torch.device("cpu")).start
    owner = torch.arange(start, start + queries, device=device).repeat(keys // queries)
    is_hard = torch.arange(keys, device=device) >= queries
    owners, hard = of_all(owner, group), of_all(is_hard, group)

    def change(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
        own = rows[:, None] == owners.to(rows.device)[columns][None, :]
        among_hard = hard.to(rows.device)[columns][None, :].expand_as(own)
        return positive, _times(negative, in_batch, (among_hard & own, weight), (among_hard & ~own, others))

    return change


def _times(weights: Tensor, factor: float, *cases: tuple[Tensor, float]) -> Tensor:
    """Weights times ``factor``, or in each of the cases times its own; bool stays bool where all factors are 0 or 1."""
    if weights.dtype == torch.bool and {factor, *(other for _, other in cases)} <= {0, 1}:
        kept = torch.full_like(weights, bool(factor))
        for where, other in cases:
            kept.masked_fill_(where, bool(other))
        return weights & kept
    dtype = weights.dtype if weights.is_floating_point() else torch.float64
    factors = torch.full_like(weights, factor, dtype=dtype)
    for where, other in cases:
        factors.masked_fill_(where, other)
    return weights * factors


def _check_weights(name: str, *weights: float) -> None:
    if not all(0 <= weight < math.inf for weight in weights):
        raise UsageError(f"{name}: weights must be finite numbers >= 0, got {weights}")
