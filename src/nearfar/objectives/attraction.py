"""Attraction within the positives, repulsion within the negatives, instead of one softmax over both."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import mean_over_processes, sum_over_processes
from nearfar.contrast.engine import Memory, evaluate
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.score import Cosine, Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, masked, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import InfoNCE


@register
class CACR(RowObjective):
    """Contrastive attraction and contrastive repulsion (Zheng et al., 2021).

    With the cost ``c_ij = |z_i - z_j|^2`` of unit rows,
    ``L_i = alpha sum_{p in P(i)} a_ip c_ip - beta sum_{n in N(i)} r_in c_in``; ``a_i`` is the softmax of
    ``t_positive c_ip`` over the positives (the farthest pulls most), ``r_i`` that of ``-t_negative c_in`` over the
    negatives (the nearest is pushed most). Mean over rows with a positive and a negative. Temperatures of 0 weigh all
    alike. For unit rows in [-4 beta, 4 alpha].

    The official code takes V views of each item and contrasts every view with the items of one other view at a time:
    :meth:`of_views`. Its form for a momentum encoder, with weights that carry no gradient, is :meth:`of_queries`.

    Arguments:
        alpha, beta: >= 0, default 1. t_positive: >= 0, default 1. t_negative: >= 0, default 0.9 (the official code's
            for CIFAR-10; 2 for CIFAR-100 and STL-10).
        tau_plus: in [0, 1), the probability that a negative is none (default 0): the repulsion, as the official code
            has it, becomes ``(repulsion - tau_plus c_ip) / (1 - tau_plus)``.
        repulsion: "euclidean" (default), or "rbf": ``beta log mean_i sum_n r_in exp(-2 c_in)``, one logarithm for all
            rows (an option of the official code).
        detach_weights: whether the weights a and r carry no gradient (default False).
        score: "cosine" (default) or "negative-squared-euclidean" of rows as they are (then without a lower bound).
        two_sided, reduction: as in :class:`~nearfar.objectives.InfoNCE`; "rbf" gives one value for all rows.
    """

    name = "cacr"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"contrastive-attraction-repulsion": {}}
    formula = "sum_p a_ip c_ip - sum_n r_in c_in, a = softmax(t c_ip), r = softmax(-t' c_in), c = |z - z'|^2"
    paper = "Zheng 2021, Contrastive Attraction and Contrastive Repulsion, arXiv:2105.03746"

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        *,
        t_positive: float = 1.0,
        t_negative: float = 0.9,
        tau_plus: float = 0.0,
        repulsion: str = "euclidean",
        detach_weights: bool = False,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if not all(0 <= value < math.inf for value in (alpha, beta, t_positive, t_negative)):
            raise UsageError(
                "cacr: alpha, beta, t_positive and t_negative must be finite and >= 0, got "
                f"{alpha}, {beta}, {t_positive} and {t_negative}"
            )
        if not 0 <= tau_plus < 1:
            raise UsageError(f"cacr: tau_plus must lie in [0, 1), got {tau_plus}")
        if repulsion not in ("euclidean", "rbf"):
            raise UsageError(f"cacr: repulsion must be 'euclidean' or 'rbf', got {repulsion!r}")
        if repulsion == "rbf" and tau_plus:
            raise UsageError("cacr: tau_plus belongs to the euclidean repulsion")
        self.alpha, self.beta = alpha, beta
        self.t_positive, self.t_negative = t_positive, t_negative
        self.tau_plus = tau_plus
        self.repulsion = repulsion
        self.detach_weights = detach_weights
        if repulsion == "rbf":
            self.joins_rows = True
            self.costs_a_row = 2

    def cost(self, scores: Tensor) -> Tensor:
        """``c_ij`` from the scores."""
        return 2 - 2 * scores if isinstance(self.score, Cosine) else -scores

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        cost = self.cost(scores)
        attraction = self.alpha * (self._weights(self.t_positive * cost, positive) * cost).sum(1)
        nearest = self._weights(-self.t_negative * cost, negative)
        if self.repulsion == "rbf":
            return torch.stack([attraction, torch.logsumexp(masked(-2 * cost, nearest), 1)], dim=1)
        repulsion = -self.beta * (nearest * cost).sum(1)
        if self.tau_plus:
            repulsion = (repulsion - self.tau_plus * weighted_mean(cost, positive)) / (1 - self.tau_plus)
        return attraction + repulsion

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        attraction, log_kernel = costs.unbind(1)
        repulsion = torch.logsumexp(log_kernel, 0) - math.log(log_kernel.numel())
        return (attraction.mean() + self.beta * repulsion)[None]

    def _weights(self, values: Tensor, weight: Tensor) -> Tensor:
        found = torch.softmax(masked(values, weight), dim=1)
        return found.detach() if self.detach_weights else found

    def of_views(self, *views: Tensor, memory: Memory = "auto", group: dist.ProcessGroup | None = None) -> Tensor:
        """The official code's loss of views ``[n, d]`` of the same items.

        Attraction: each view of an item to all its others, mean over items and views. Repulsion: for every two views,
        the items of the earlier against the other items of the later, mean over the pairs of views.
        """
        shapes = [tuple(view.shape) for view in views]
        if len(views) < 2 or len(set(shapes)) != 1 or len(shapes[0]) != 2:
            raise ValueError(f"cacr: give two or more views [n, d] alike, got {shapes}")
        embedded = torch.stack([self.score.embed(at_least_float32(view)) for view in views], dim=1)
        pairs = list(itertools.product(range(len(views)), repeat=2))
        scores = torch.stack([self.score.paired(embedded[:, v], embedded[:, u]) for v, u in pairs], dim=1)
        cost = self.cost(scores.reshape(-1, len(views)))
        others = ~torch.eye(len(views), dtype=torch.bool, device=cost.device).repeat(len(embedded), 1)
        attraction = (self._weights(self.t_positive * cost, others) * cost).sum(1)
        apart = copy.copy(self)
        apart.alpha, apart.two_sided, apart.reduction = 0.0, False, "mean"
        repulsion = [
            evaluate(apart, one, other, relation=Paired(), memory=memory, group=group)
            for one, other in itertools.combinations(views, 2)
        ]
        return self.alpha * mean_over_processes(attraction, group) + torch.stack(repulsion).mean()

    def of_queries(
        self,
        queries: Sequence[Tensor],
        key: Tensor,
        *,
        temperature: float = 1.0,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        """The official code's loss for a momentum encoder: several ``queries [n, d]`` of each item, one ``key [n, d]``.

        The queries of an item weigh ``p_qi = softmax_q(|q_i - k_i|^2 / T)``, without a gradient; keys carry none.
        With ``repulsion="euclidean"``: ``sum_q sum_i p_qi ((1 - q_i k_i) - sum_{j != i} r_ij (1 - q_i k_j))``,
        ``r_i = softmax_j(-(1 - q_i k_j)/T)`` without a gradient, summed over items as in the official code. "rbf":
        ``2 T sum_q mean_i p_qi InfoNCE_i``. ``temperature`` T: 1 (default) for a ResNet, 0.2 for a ViT. Uses cosines,
        whatever the score, and none of the other arguments.
        """
        if not queries or any(query.shape != key.shape for query in queries):
            shapes = [tuple(query.shape) for query in queries]
            raise ValueError(f"cacr: queries and key must be [n, d] alike, got {shapes} and {tuple(key.shape)}")
        key, cosine = key.detach(), Cosine()
        unit = cosine.embed(at_least_float32(key))
        part: RowObjective
        if self.repulsion == "rbf":
            part = InfoNCE(temperature=temperature, reduction="none")
        else:
            part = CACR(0.5, 0.5, t_negative=0.5 / temperature, detach_weights=True, reduction="none")
        apart = [2 - 2 * cosine.paired(cosine.embed(at_least_float32(query)), unit) for query in queries]
        share = torch.softmax(torch.stack(apart).detach() / temperature, dim=0)
        costs = [evaluate(part, query, key, relation=Paired(), memory=memory, group=group) for query in queries]
        weighted = (share * torch.stack(costs)).sum(0)
        if self.repulsion == "rbf":
            return 2 * temperature * mean_over_processes(weighted, group)
        return sum_over_processes(weighted.sum(), group)
