"""The quadruplet loss: near pairs against all far pairs of the batch, not only against those of their anchor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Report
from nearfar.contrast.score import Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective
from nearfar.objectives.composed import ComposedObjective, Embedded, Side, Way
from nearfar.objectives.margin import Triplet
from nearfar.objectives.registry import register


@register
class Quadruplet(ComposedObjective):
    """Quadruplet loss: a near pair is also nearer than far pairs it has nothing to do with (Chen et al., 2017).

    ``max(0, D_ap - D_an + margin)``, mean over triplets, plus ``max(0, D_ap - D_kl + pair_margin)``, mean over all near
    pairs (a, p) and far pairs (k, l) that are both of other classes than a. D by default the squared Euclidean
    distance. The second term widens the gaps between classes whichever the anchor. In [0, inf).

    Arguments:
        margin: >= 0, default 1; pair_margin: >= 0, default 0.5: the weaker of the two, as the paper asks.
        score: D is minus the score, default "negative-squared-euclidean"; ``two_sided`` and ``reduction`` as in
            :class:`InfoNCE`. "none" gives a row's triplets, plus the mean over its far pairs of the second term.

    Classes are the ids or labels of the relation: others (judgements, matrices) raise ValueError, and so do ready-made
    scores. All quadruplets of the batch count, by sorting the scores of near pairs: memory stays linear in items and
    near pairs. Weights of near pairs count as 1 in the second term. The paper picks hard quadruplets by an adaptive
    margin; here none are left out.
    """

    name = "quadruplet"
    formula = "max(0, D_ap - D_an + margin) + max(0, D_ap - D_kl + pair_margin), k and l of other classes"
    paper = "Chen 2017, Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-identification, arXiv:1704.01719"
    default_score = "negative-squared-euclidean"

    def __init__(
        self,
        *,
        margin: float = 1.0,
        pair_margin: float = 0.5,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        for label, value in (("margin", margin), ("pair_margin", pair_margin)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"quadruplet: {label} must be a finite number >= 0, got {value}")
        self.margin = margin
        self.pair_margin = pair_margin

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        key = None if side.self_contrast else side.key
        triplet = Triplet(margin=self.margin, score=Embedded(self.score), reduction=self.reduction)
        first, report = way.evaluate(triplet, side.query, key, side.relation)
        second, _ = way.evaluate(_FarPairs(self, side, way), side.query, key, side.relation)
        return first + second, report


class _FarPairs(RowObjective):
    """The second term: rows of far pairs (k, l), each against all near pairs of the batch of other classes.

    ``sum_q max(0, x - s_q)`` over sorted scores s is ``count x - prefix sum``: the sum over all near pairs, less those
    of the class of k and of the class of l.
    """

    def __init__(self, whole: Quadruplet, side: Side, way: Way) -> None:
        super().__init__(score=Embedded(whole.score), reduction=whole.reduction)
        self.margin = whole.pair_margin
        self.needs_positive_scores = True
        names, key_names = side.relation_to_all.row_ids, side.relation_to_all.transpose().row_ids
        if names is None or key_names is None:
            raise ValueError("quadruplet needs the classes of items: give Labels, or Paired or Views")
        rows, columns = side.near
        scores, classes = whole.score.paired(side.query[rows], side.keys[columns]), names[rows]
        if way.group is not None:
            pairs = GatheredRows(scores.shape[0], way.group, scores.device)
            scores, classes = pairs.gather_with_gradient(scores), pairs.gather(classes)
            names = GatheredRows(names.shape[0], way.group, names.device).gather(names)
        self.near = scores
        self.ascending = scores.detach().argsort()
        classes = classes[self.ascending]
        by_class = classes.argsort(stable=True)
        known, counts = torch.unique_consecutive(classes[by_class], return_counts=True)
        self.counts = torch.cat([counts, counts.new_zeros(1)])  # of a class without near pairs
        self.places = torch.full((self.counts.numel(), int(self.counts.max())), -1, device=scores.device)
        within = torch.arange(self.places.shape[1], device=scores.device) < self.counts[:, None]
        self.places[within] = self.ascending[by_class]
        self.quadruplets = scores.new_zeros(0)
        self.row_classes, self.column_classes = _index(names, known), _index(key_names, known)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The scores of near pairs: through them the engine's tiles pass the gradient on to all near pairs."""
        yield self.near  # type: ignore[misc]

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (negative > 0).any(1)

    def arrays(self, positives: int) -> float:
        return 24.0

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        return {"classes": self.row_classes}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        classes = state["classes"]
        middle = self.near.detach().mean() if self.near.numel() else 0.0  # shorter sums lose fewer digits
        nearness, near = scores + self.margin - middle, self.near - middle
        by_class = torch.where(self.places >= 0, near[self.places], torch.inf)
        total = _beyond(near[self.ascending][None], nearness.reshape(1, -1)).view_as(scores)
        total = total - _beyond(by_class[classes], nearness) - _beyond(by_class[self.column_classes], nearness.T).T
        weight = negative.to(scores.dtype)
        compared = near.numel() - self.counts[classes][:, None] - self.counts[self.column_classes]
        total = torch.where(compared > 0, total, 0)  # what rounding leaves of a sum over no near pair
        self.quadruplets = (weight * compared).sum(1)
        cost: Tensor = (weight * total).sum(1) / self.quadruplets.clamp_min(torch.finfo(scores.dtype).tiny)
        return cost

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.quadruplets  # of these very rows: classes are known to their costs alone


def _index(names: Tensor, known: Tensor) -> Tensor:
    """The place of each name in ``known`` (ascending), or their number where it is not there."""
    place = torch.searchsorted(known, names)
    found = known[place.clamp_max(max(known.numel() - 1, 0))] == names if known.numel() else names < names
    return torch.where(found, place, known.numel())


def _beyond(ascending: Tensor, values: Tensor) -> Tensor:
    """``sum_q max(0, values_bk - ascending_bq)``, ``[b, k]``, of ascending numbers ``[b, q]`` that may end in inf."""
    count = torch.searchsorted(ascending.detach(), values.detach().contiguous())
    finite = ascending.masked_fill(torch.isinf(ascending), 0)
    prefix = torch.cat([torch.zeros_like(finite[:, :1]), finite.cumsum(1)], dim=1)
    return count * values - prefix.gather(1, count)
