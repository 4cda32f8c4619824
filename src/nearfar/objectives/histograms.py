"""Costs of soft histograms of scores: how near and far pairs overlap, and how a row's ranking looks."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective
from nearfar.objectives.registry import register


@register
class Histogram(RowObjective):
    """Histogram loss: how often a random far pair scores above a random near pair (Ustinova & Lempitsky, 2016).

    ``sum_r h-_r sum_{q <= r} h+_q`` with h+ and h- the histograms of the cosines of all near and all far pairs over
    nodes -1, -1 + 2/bins, ..., 1; a score between two nodes counts at both, by its nearness. In [0, 1]. It has no
    margin to set.

    Arguments:
        bins: cells between the nodes, >= 1, default 100 (pytorch-metric-learning's; the paper finds little difference).
        two_sided, reduction: as in :class:`InfoNCE`; "none" gives the mean over an anchor's far pairs.

    The histogram of near pairs is made before the rows are visited, so memory stays linear. Weights of the relation
    count for far pairs, not for near ones. Cosines only. Anchors need a far pair; batches without a near pair cost 0.
    """

    name = "histogram"
    formula = "sum_r h-(r) sum_{q <= r} h+(q)"
    paper = "Ustinova 2016, Learning Deep Embeddings with Histogram Loss, arXiv:1611.00822"
    needs_negative = False
    needs_positive_scores = True

    def __init__(self, bins: int = 100, *, two_sided: bool = False, reduction: str = "mean") -> None:
        super().__init__(two_sided=two_sided, reduction=reduction)
        if bins < 1:
            raise UsageError(f"histogram: bins must be at least 1, got {bins}")
        self.bins = bins

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (negative > 0).any(1)

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        node, share = nodes(scores, -1.0, 2.0, self.bins)
        histogram = scores.new_zeros(self.bins + 1).index_add(0, node, 1 - share).index_add(0, node + 1, share)
        below = histogram.cumsum(0) / max(scores.numel(), 1)
        return {"below": below.expand(count, -1)}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        node, share = nodes(scores, -1.0, 2.0, self.bins)
        below = state["below"]
        beaten = (1 - share) * below.gather(1, node) + share * below.gather(1, node + 1)
        weight = negative.to(scores.dtype)
        return (weight * beaten).sum(1) / weight.sum(1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return negative.to(scores.dtype).sum(1)


@register
class FastAP(RowObjective):
    """FastAP: one minus the average precision of an anchor's ranking, by soft histograms (Cakir et al., 2019).

    ``1 - 1/|P| sum_k h+_k H+_k / H_k`` with h+ the histogram of squared distances of normalised vectors to near items
    over ``bins + 1`` nodes from 0 to 4 (a distance between two nodes counts at both), H+ and H the cumulated histograms
    of near and of all items. Mean over anchors with a near item. In [0, 1].

    Arguments:
        bins: >= 1, default 10 (the paper's and pytorch-metric-learning's).
        two_sided, reduction: as in :class:`InfoNCE`.

    Weights of the relation weigh the items in the histograms. Cosines only: the squared distance is 2 - 2 cos.
    """

    name = "fast-ap"
    formula = "1 - 1/|P| sum_k h+_k H+_k / H_k"
    paper = "Cakir 2019, Deep Metric Learning to Rank (CVPR 2019)"
    needs_negative = False

    def __init__(self, bins: int = 10, *, two_sided: bool = False, reduction: str = "mean") -> None:
        super().__init__(two_sided=two_sided, reduction=reduction)
        if bins < 1:
            raise UsageError(f"fast-ap: bins must be at least 1, got {bins}")
        self.bins = bins

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        node, share = nodes(2 - 2 * scores, 0.0, 4.0, self.bins)

        def histogram(weight: Tensor) -> Tensor:
            weight = weight.to(scores.dtype)
            empty = scores.new_zeros(scores.shape[0], self.bins + 1)
            return empty.scatter_add(1, node, weight * (1 - share)).scatter_add(1, node + 1, weight * share)

        near, far = histogram(positive), histogram(negative)
        near_so_far = near.cumsum(1)
        everyone = near_so_far + far.cumsum(1)
        seen = everyone > 0
        precision = torch.where(seen, near_so_far / torch.where(seen, everyone, 1), 0)
        return 1 - (near * precision).sum(1) / positive.to(scores.dtype).sum(1)

    def arrays(self, positives: int) -> float:
        return 16.0


def nodes(values: Tensor, start: float, width: float, bins: int) -> tuple[Tensor, Tensor]:
    """The node below each value, of ``bins + 1`` over ``[start, start + width]``, and how far towards the next it lies.

    Values beyond the last node, by rounding, count at it without a gradient.
    """
    place = ((values - start) * (bins / width)).clamp(0, bins)
    node = place.detach().floor().clamp_max(bins - 1)
    return node.long(), place - node
