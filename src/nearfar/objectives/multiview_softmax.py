"""Objectives of several views of an item: what is near across views, what is far, and how the views are combined."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.paired import Paired, Views
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation, candidates
from nearfar.contrast.score import Dot, Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, grouped_log_sum_exp, log_sum_exp, masked, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import of_anchors, own_log_sums


class WithinViews(RowObjective):
    """Base of objectives whose negatives lie within a view.

    Plain ``Views`` are taken as ``Views(negatives="same-view")``; any other relation is taken as it is.
    """

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
        """How the engine evaluates it."""
        return evaluate_rows(
            self,
            query,
            key,
            relation=within_views(relation),
            scores=scores,
            memory=memory,
            tile_rows=tile_rows,
            group=group,
        )


def within_views(relation: Relation | None) -> Relation | None:
    """Plain ``Views`` with the negatives of the same view; any other relation as it is."""
    if isinstance(relation, Views) and relation.negatives == "all":
        return relation.far_from("same-view")
    return relation


@register
class DHEL(WithinViews):
    """Decoupled hyperspherical energy: alignment across views, spread within each view (Koromilas et al., 2024).

    ``L_i = -s(a_i, b_i)/T + log sum_{j != i} exp(s(a_i, a_j)/T) + log sum_{j != i} exp(s(b_i, b_j)/T)`` for the views a
    and b of item i, mean over items; called as ``DHEL()(torch.cat([a, b]), relation=Views(2))``. With several positives
    a row, their mean. No lower bound of 0.

    Arguments:
        energies: "both" (default): the energies of both views, as in the official code by default; "one": that of one
            view, averaged over which one it is. ``include_augs=False`` of the official code is "one" with the first
            views as ``anchors``.
        temperature: default 0.3 (the official code's); and those of :class:`~nearfar.objectives.InfoNCE` up to
            ``reduction``.

    As a row objective: each row costs ``-s_ip/T + w log sum_{n of its view} exp(s_in/T)``, w 2 or 1, and the mean is
    over rows, those with a positive and a negative. Called with ``anchors [n]`` (bool), only those rows are anchors,
    all items their candidates.
    """

    name = "dhel"
    formula = "-s(a_i, b_i)/T + log sum_{j!=i} exp(s(a_i, a_j)/T) + log sum_{j!=i} exp(s(b_i, b_j)/T)"
    paper = "Koromilas 2024, Bridging Mini-Batch and Asymptotic Analysis in Contrastive Learning, arXiv:2405.18045"
    default_temperature = 0.3

    def __init__(
        self,
        energies: str = "both",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if energies not in ("both", "one"):
            raise UsageError(f"dhel: energies must be 'both' or 'one', got {energies!r}")
        self.energies = energies

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        energies = 2 if self.energies == "both" else 1
        return energies * log_sum_exp(scores, negative) - weighted_mean(scores, positive)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        anchors: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :func:`nearfar.contrast.evaluate`. ``anchors [n]``: bool, which queries are anchors."""
        if anchors is not None:
            relation = of_anchors(anchors, query if scores is None else scores, within_views(relation), group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


@register
class MVInfoNCE(RowObjective):
    """Multi-view InfoNCE: one term an item, over all its views (Koromilas et al., 2025).

    ``L_i = -log( sum_{l != m} exp(s(z_il, z_im)/T) / sum_l sum_{(j, m) != (i, l)} exp(s(z_il, z_jm)/T) )``, mean over
    items; called as ``MVInfoNCE()(torch.cat(views), relation=Views(len(views)))``. Every row but itself is a candidate,
    views of the same item included. With two views it is not NT-Xent: both directions stand within one logarithm.

    Arguments: ``temperature`` default 0.5 (the paper's CIFAR runs), and those of
    :class:`~nearfar.objectives.InfoNCE` up to ``reduction``. ``reduction="none"`` gives one cost an item, in ascending
    order of ids. Under ``Labels`` a class takes the place of an item. The README of the official code writes a
    denominator without the views of the own view's index; the code, and this, have it with them.
    """

    name = "mv-infonce"
    formula = "-log( sum_{l!=m} exp(s(z_il, z_im)/T) / sum_l sum_{(j,m)!=(i,l)} exp(s(z_il, z_jm)/T) )"
    paper = "Koromilas 2025, A Principled Framework for Multi-View Contrastive Learning, arXiv:2507.06979"
    default_temperature = 0.5
    needs_negative = False
    joins_rows = True
    costs_a_row = 2

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return torch.stack([log_sum_exp(scores, candidates(positive, negative)), log_sum_exp(scores, positive)], dim=1)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        everyone, near = costs.unbind(1)
        return grouped_log_sum_exp(everyone, _named(ids)) - grouped_log_sum_exp(near, _named(ids))


@register
class MVDHEL(WithinViews):
    """Multi-view DHEL: all pairs of views aligned in one sum, energies within each view (Koromilas et al., 2025).

    ``L_i = -log sum_{l < m} exp(s(z_il, z_im)/T) + sum_l log sum_{j != i} exp(s(z_il, z_jl)/T)``, mean over items;
    called as ``MVDHEL()(torch.cat(views), relation=Views(len(views)))``. With two views it is :class:`DHEL`. The
    official code multiplies the energies before the logarithm, which overflows for many views; its README sums ordered
    pairs of views, a constant log 2 less.

    Arguments: ``temperature`` default 0.2 (the official code's), and those of :class:`~nearfar.objectives.InfoNCE` up
    to ``reduction``. ``reduction="none"`` gives one cost an item, in ascending order of ids. A view without another
    item in it takes no part.
    """

    name = "mv-dhel"
    formula = "-log sum_{l<m} exp(s(z_il, z_im)/T) + sum_l log sum_{j!=i} exp(s(z_il, z_jl)/T)"
    paper = "Koromilas 2025, A Principled Framework for Multi-View Contrastive Learning, arXiv:2507.06979"
    default_temperature = 0.2
    joins_rows = True
    costs_a_row = 2

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return torch.stack([log_sum_exp(scores, negative), log_sum_exp(scores, positive)], dim=1)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        energies, near = costs.unbind(1)
        names, place = torch.unique(_named(ids), return_inverse=True)
        energy = energies.new_zeros(names.shape).index_add(0, place, energies)
        twice = torch.log(torch.tensor(2.0, dtype=costs.dtype, device=costs.device))  # each pair of views has two rows
        return energy - grouped_log_sum_exp(near, _named(ids)) + twice


@register
class PolyView(RowObjective):
    """Poly-view contrast: a view against all other views of its item (Shidani et al., 2024).

    ``l_iab = exp(s(z_ia, z_ib)/T) / ( exp(s(z_ia, z_ib)/T) + sum_{j != i} sum_g exp(s(z_ia, z_jg)/T) )``: the other
    views of the anchor's own item are no negatives. Called as ``PolyView()(torch.cat(views), relation=Views(M))``; mean
    over rows. With two views all three methods are NT-Xent. ``log(1 + negatives) - L`` bounds the mutual information of
    a view and the others from below.

    Arguments:
        method: how the other views are combined.
            "geometric" (default): ``-mean_b log l_iab``.
            "arithmetic": ``-log mean_b l_iab``; never above "geometric".
            "sufficient": the anchor is the mean of the other views' features, ``q_ia``, and its own view the positive:
            ``-log( exp(q_ia . z_ia/T) / (exp(q_ia . z_ia/T) + sum_{j != i} sum_g exp(q_ia . z_jg/T)) )``.
        renormalise: scale the means of "sufficient" to length 1 (default False: the paper does not say so).
        temperature: default 0.1 (the paper's); and those of :class:`~nearfar.objectives.InfoNCE` up to ``reduction``.
            "sufficient" needs the cosine.

    Rows without another view do not count. A peer's "arithmetic" form is a log-sum-exp of costs that were averaged over
    the batch before: not this mean of likelihoods.
    """

    name = "poly-view"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "pvc": {},
        "poly-view-arithmetic": {"method": "arithmetic"},
        "poly-view-sufficient": {"method": "sufficient"},
    }
    formula = (
        "-mean_b log l_iab or -log mean_b l_iab, l_iab = exp(s_iab/T) / (exp(s_iab/T) + sum_{j!=i,g} exp(s_iajg/T))"
    )
    paper = "Shidani 2024, Poly-View Contrastive Learning, arXiv:2403.05490"
    default_temperature = 0.1
    needs_negative = False

    def __init__(
        self,
        method: str = "geometric",
        *,
        renormalise: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if method not in ("geometric", "arithmetic", "sufficient"):
            raise UsageError(f"poly-view: method must be 'geometric', 'arithmetic' or 'sufficient', got {method!r}")
        if method == "sufficient" and score not in (None, "cosine"):
            raise UsageError("poly-view: the sufficient statistics are means of unit features: the score is the cosine")
        self.method = method
        self.renormalise = renormalise
        if method == "sufficient":
            self.score = Dot()  # of features that are normalised before their means are taken

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        log_likelihood = scores - own_log_sums(scores, negative)
        if self.method == "arithmetic":
            return positive.to(scores.dtype).sum(1).log() - torch.logsumexp(masked(log_likelihood, positive), 1)
        return -weighted_mean(log_likelihood, positive)

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
        """How the engine evaluates it: with "sufficient", the means of the other views against all views."""
        if self.method == "sufficient":
            if query is None or key is not None or relation is None:
                raise ValueError("poly-view: sufficient statistics are taken of views: one tensor and e.g. Views(4)")
            query, key, relation = self._statistics(query, relation, group)
        return evaluate_rows(
            self, query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
        )

    def _statistics(
        self, views: Tensor, relation: Relation, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Relation]:
        """The mean of each row's other views, the views, and who is near whom among them."""
        features = normalize(at_least_float32(views))
        n = features.shape[0]
        bound = relation.bind(n, n, self_contrast=True, device=features.device)
        everyone, rows = features, torch.arange(n, device=features.device)
        if group is not None:
            counted = GatheredRows(n, group, features.device)
            bound = bound.across(counted, counted)
            everyone, rows = counted.gather_with_gradient(features), rows + counted.start
        ids, all_ids = bound.row_ids, bound.transpose().row_ids
        if ids is None or all_ids is None:
            raise ValueError("poly-view: sufficient statistics need a relation with ids or labels, e.g. Views(4)")
        names, place = torch.unique(all_ids, return_inverse=True)
        total = features.new_zeros(names.numel(), features.shape[1]).index_add(0, place, everyone)
        own = torch.searchsorted(names, ids)
        others = torch.bincount(place, minlength=names.numel())[own] - 1
        means = (total[own] - features) / others.clamp_min(1)[:, None]
        has_others = (others > 0) & (ids >= 0)
        near = Paired(torch.where(has_others, rows, -1), rows, query_exclude=ids, key_exclude=ids)
        return normalize(means) if self.renormalise else means, features, near


def _named(ids: Tensor | None) -> Tensor:
    if ids is None:
        raise ValueError("a term an item needs a relation with ids or labels, e.g. Views(4)")
    return ids
