"""Contrast with keys of earlier batches: a queue of negatives, its hardest entries, the nearest neighbour in it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import own_share
from nearfar.contrast.engine import Memory
from nearfar.contrast.paired import Paired
from nearfar.contrast.relation import Relation, integers
from nearfar.contrast.score import Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.contrast.tiles import rows_that_fit, steps
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import InfoNCE, own_log_sums


@register
class MoCo(InfoNCE):
    """Momentum contrast: a query's own key against a queue of keys of earlier batches (He et al., 2020).

    ``L_i = -log( exp(q_i.k_i/T) / (exp(q_i.k_i/T) + sum_{k of the queue} exp(q_i.k/T)) )``. Called as
    ``MoCo()(query, key, queue=queue)``: keys of the batch carry no gradient and are no negatives of other queries, hard
    negatives among them are. ``queue [k, d]`` is the same on every process; ``queue_ids [k]`` (integers) with
    ``relation=Paired(ids)`` let an entry of a query's own item be ignored. Push the batch's keys after the loss, never
    before: the positive would be a negative too. Without a queue it is InfoNCE within the batch, which is MoCo v3's
    loss with ``two_sided=False`` on (q1, k2) and (q2, k1), there multiplied by 2T.

    Arguments: ``temperature`` default 0.07 (the paper's; alias "moco-v2": 0.2), and those of
    :class:`~nearfar.objectives.InfoNCE`. A queue has one direction: with it ``two_sided`` raises ValueError.
    """

    name = "moco"
    needs = ("queue",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"moco-v2": {"temperature": 0.2}}
    formula = "-log( exp(q_i.k_i/T) / (exp(q_i.k_i/T) + sum_queue exp(q_i.k/T)) )"
    paper = "He 2020, Momentum Contrast for Unsupervised Visual Representation Learning, arXiv:1911.05722"
    default_temperature = 0.07

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        queue: Tensor | None = None,
        queue_ids: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :func:`nearfar.contrast.evaluate`."""
        if queue is not None:
            one_direction(self)
            key = None if key is None else key.detach()
            query, key, relation = with_queue(query, key, relation, queue, queue_ids, group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


def one_direction(objective: RowObjective) -> None:
    """Raise ValueError for a two-sided objective: keys have no queue of queries to be told from."""
    if objective.two_sided:
        raise ValueError(f"{objective.name}: a queue holds keys alone, so there is no direction back: two_sided=False")


def with_queue(
    query: Tensor | None,
    key: Tensor | None,
    relation: Relation | None,
    queue: Tensor,
    queue_ids: Tensor | None,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor, Paired]:
    """Queries, keys with the queue behind them, and their relation: far are the queue and keys near to nobody."""
    if query is None or key is None:
        raise ValueError("a queue goes with queries and keys")
    relation = Paired() if relation is None else relation
    if not isinstance(relation, Paired) or relation.among_themselves:
        raise ValueError(f"a queue goes with a Paired relation, got {type(relation).__name__}")
    if queue.dim() != 2 or queue.shape[1] != key.shape[1]:
        raise ValueError(f"queue must be [k, {key.shape[1]}], got {tuple(queue.shape)}")
    if queue_ids is not None and queue_ids.shape != queue.shape[:1]:
        raise ValueError(f"queue_ids must be [{queue.shape[0]}], got {tuple(queue_ids.shape)}")
    n, m, device = query.shape[0], key.shape[0], query.device
    share = own_share(queue.detach().to(key), group)
    bound = relation.bind(n, m, self_contrast=False, device=device)
    ids, key_ids = bound.query_state["id"], bound.transpose().query_state["id"]
    nobody = torch.full((share.shape[0],), -1, device=device)
    extended = {
        "query_within": torch.zeros_like(ids),
        "key_within": torch.cat([torch.where(key_ids < 0, 0, -1), torch.zeros_like(nobody)]),
    }
    if relation.has_given_ids:
        extended |= {"query_ids": ids, "key_ids": torch.cat([key_ids, nobody])}
        if queue_ids is not None:
            numbers = own_share(integers(queue_ids, "queue_ids").to(device), group)
            extended |= {"query_exclude": ids, "key_exclude": torch.cat([torch.full_like(key_ids, -1), numbers])}
    elif queue_ids is not None:
        raise ValueError("queue_ids say which entries show a query's own item: give the queries' ids, Paired(ids)")
    return query, torch.cat([key, share]), Paired(**extended)


@register
class MoCoDualHard(RowObjective):
    """Momentum contrast against the hardest entries of the queue, in both directions (Hoang et al., 2025).

    ``L_q = -log( exp(q_i.k_i/T) / (exp(q_i.k_i/T) + sum_{k in Hard(q_i)} exp(q_i.k/T)) )`` with Hard(a) the negatives
    of a with the highest scores. The paper's own formulas were not at hand; this is the reading that its abstract
    supports. Called as ``MoCoDualHard()(query, key, queue=queue, other_query=..., other_key=...)``; the queue as in
    :class:`MoCo`.

    Arguments:
        mode: what is added to ``share L_q``.
            "symmetric" (default): ``(1 - share) L_q`` of the views exchanged: ``other_query`` is the second view
            through the trained encoder, ``other_key`` the first through the momentum encoder.
            "dual": ``(1 - share) L_k``, the same with the (gradient-free) key as the anchor, as literally described:
            the negatives then push nothing, and it trained much worse where it was tried.
            "query": nothing; ``share`` is 1. With ``hardest=None`` this is MoCo.
        hardest: how many negatives of a row count; default None, all. An eighth to a half of the queue is usual.
        skip: how many of the very hardest are left out first, as they may be false negatives; default 0.
        share: in [0, 1], default 0.5.
        temperature: default 0.07 (MoCo's); and those of :class:`~nearfar.objectives.InfoNCE` up to ``reduction``.
    """

    name = "moco-dual-hard"
    needs = ("queue", "other_query", "other_key")
    formula = (
        "-log( exp(q_i.k_i/T) / (exp(q_i.k_i/T) + sum_{hardest of the queue} exp(q_i.k/T)) ), and k_i as the anchor"
    )
    paper = "Hoang 2025, Momentum Contrastive Learning with Enhanced Negative Sampling, arXiv:2501.16360"
    default_temperature = 0.07
    needs_negative = False

    def __init__(
        self,
        mode: str = "symmetric",
        *,
        hardest: int | None = None,
        skip: int = 0,
        share: float = 0.5,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if mode not in ("symmetric", "dual", "query"):
            raise UsageError(f"moco-dual-hard: mode must be 'symmetric', 'dual' or 'query', got {mode!r}")
        if (hardest is not None and hardest < 1) or skip < 0:
            raise UsageError(f"moco-dual-hard: hardest must be at least 1 and skip 0, got {hardest} and {skip}")
        if not 0 <= share <= 1:
            raise UsageError(f"moco-dual-hard: share must lie in [0, 1], got {share}")
        self.mode = mode
        self.hardest = hardest
        self.skip = skip
        self.share = share

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return weighted_mean(own_log_sums(scores, self._hard(scores.detach(), negative)) - scores, positive)

    def _hard(self, scores: Tensor, negative: Tensor) -> Tensor:
        """The weights of the negatives, 0 outside the hardest."""
        if self.hardest is None and not self.skip:
            return negative
        m = scores.shape[1]
        count = m if self.hardest is None else min(m, self.skip + self.hardest)
        order = scores.masked_fill(negative == 0, -torch.inf).topk(count, dim=1).indices[:, self.skip :]
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)
        return negative * chosen

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        queue: Tensor | None = None,
        queue_ids: Tensor | None = None,
        other_query: Tensor | None = None,
        other_key: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :func:`nearfar.contrast.evaluate`."""

        def one(query: Tensor | None, key: Tensor | None, relation: Relation | None) -> Tensor:
            if queue is not None:
                query, key, relation = with_queue(query, key, relation, queue, queue_ids, group)
            return RowObjective.forward(self, query, key, relation=relation, scores=scores, memory=memory, group=group)

        if queue is not None:
            one_direction(self)
            key = None if key is None else key.detach()
        if self.mode == "query":
            return one(query, key, relation)
        if query is None or key is None:
            raise ValueError(f"moco-dual-hard: mode {self.mode!r} needs queries and keys; 'query' takes anything")
        if self.mode == "dual":
            turned = None
            if relation is not None:
                bound = relation.bind(query.shape[0], key.shape[0], self_contrast=False, device=query.device)
                turned = bound.transpose()
            return self.share * one(query, key, relation) + (1 - self.share) * one(key.detach(), query, turned)
        if other_query is None or other_key is None:
            raise ValueError("moco-dual-hard: mode 'symmetric' needs other_query and other_key, the views exchanged")
        if queue is not None:
            other_key = other_key.detach()
        return self.share * one(query, key, relation) + (1 - self.share) * one(other_query, other_key, relation)


@register
class NNCLR(InfoNCE):
    """Nearest-neighbour contrast: the anchor gives way to its neighbour in a support set (Dwibedi et al., 2021).

    ``L_i = -log( exp(NN(z_i).p_i/T) / sum_j exp(NN(z_i).p_j/T) )`` with NN(z) the nearest entry of the support set by
    cosine, without a gradient. Called as ``NNCLR()(z1, p2, support=support)`` and again with (z2, p1): the paper takes
    the mean of both. ``support [k, d]`` is the same on every process; push z into it after the loss, else a query finds
    itself. Without a support set it is InfoNCE.

    Arguments: ``temperature`` default 0.1 (the paper's), and those of :class:`~nearfar.objectives.InfoNCE`.
    """

    name = "nnclr"
    needs = ("support",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {}
    formula = "-log( exp(NN(z_i).p_i/T) / sum_j exp(NN(z_i).p_j/T) )"
    paper = "Dwibedi 2021, With a Little Help from My Friends, arXiv:2104.14548"
    default_temperature = 0.1

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        support: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :func:`nearfar.contrast.evaluate`."""
        if support is not None:
            if query is None or key is None:
                raise ValueError("nnclr: a support set goes with queries and keys")
            if support.dim() != 2 or support.shape[1:] != query.shape[1:] or not support.shape[0]:
                raise ValueError(f"nnclr: support must be [k, {query.shape[1]}], got {tuple(support.shape)}")
            query = support[nearest(query, support)].detach().to(query)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


@torch.no_grad()
def nearest(query: Tensor, support: Tensor) -> Tensor:
    """The index ``[n]`` of the entry of ``support [k, d]`` with the largest cosine to each query ``[n, d]``."""
    query, support = normalize(query.float()), normalize(support.float().to(query.device))
    n, k = query.shape[0], support.shape[0]
    found = [(query[rows] @ support.T).argmax(1) for rows in steps(n, rows_that_fit(n, k, 4, 1.0))]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=query.device)
