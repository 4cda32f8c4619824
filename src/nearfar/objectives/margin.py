"""Margins: a positive must be nearer than a negative by a stated amount."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Report, evaluate_rows
from nearfar.contrast.score import Cosine, NegativeEuclidean, Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, compact, masked
from nearfar.objectives.composed import ComposedObjective, Side, Way
from nearfar.objectives.registry import register


@register
class Triplet(ComposedObjective):
    """Triplet margin loss with mining (Weinberger & Saul, 2009; FaceNet, 2015; Hermans et al., 2017).

    ``l(a, p, n) = max(0, D_ap - D_an + margin)`` with D = -score, by default the Euclidean distance; with ``swap``
    ``D_an`` is ``min(D_an, D_pn)``, and ``direction * cos(n - a, p - a)`` may be taken off before the hinge.

    Arguments:
        mining: which triplets of an anchor count.
            "all" (default): every pair of a positive and a negative.
            "hard": the farthest positive with the nearest negative, one triplet an anchor (batch-hard).
            "semi-hard": each positive with the nearest negative that is farther than it; where there is none, with the
            farthest negative (FaceNet; the margin does not enter the choice).
        average: "all" (default): mean over the triplets; "active": mean over those with a cost (batch-all of Hermans).
        margin: >= 0, default 0.2 (FaceNet; among those tried by Hermans). Distances of unnormalised embeddings may need
            a larger one (sentence-transformers uses 5).
        smooth: ``log(1 + exp(D_ap - D_an + margin))`` instead of the hinge (Hermans' soft margin has margin 0).
        swap: the negative is that of the anchor or of the positive, whichever it is nearer to (Balntas et al., 2016).
        direction: >= 0, default 0: gamma of direction regularisation (Mohan et al., 2020), which lets a negative move
            away from both anchor and positive, at right angles to their line. Its authors' values: 0.3 and 0.5.
        anchors: "complete" (default): those with a positive and a negative. "all", of "hard" mining: every item, as in
            sentence-transformers' batch-hard losses: without a positive ``D_ap`` is 0, so that an item alone of its
            label still pushes its nearest negative away; without a negative ``D_an`` is ``D_ap``, a constant.
        score: default "negative-euclidean"; FaceNet's form is "negative-squared-euclidean" on normalised embeddings.

    Weights
    of the relation multiply: a triplet weighs ``positive * negative``; "hard" and "semi-hard" only ask whether they are
    > 0. The mean is over triplets, not over anchors; ``reduction="sum"`` sums triplets, "none" gives each anchor's
    mean. The gradient at distance 0 is 0, so duplicates are safe. ``swap`` and ``direction`` take all triplets and need
    embeddings, since they ask for the distance of positive and negative. Raises UsageError for what lies out of range.
    """

    name = "triplet"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "triplet-margin": {},
        "batch-hard-triplet": {"mining": "hard"},
        "batch-semi-hard-triplet": {"mining": "semi-hard"},
        "batch-hard-soft-margin-triplet": {"mining": "hard", "smooth": True, "margin": 0.0},
        "batch-all-triplet": {"average": "active"},
        "dr-triplet": {"direction": 0.3},
    }
    formula = "max(0, D_ap - D_an + margin)"
    paper = "Schroff 2015, FaceNet, arXiv:1503.03832; Hermans 2017, In Defense of the Triplet Loss, arXiv:1703.07737"
    default_score = "negative-euclidean"

    def __init__(
        self,
        mining: str = "all",
        *,
        margin: float = 0.2,
        average: str = "all",
        smooth: bool = False,
        swap: bool = False,
        direction: float = 0.0,
        anchors: str = "complete",
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if mining not in ("all", "hard", "semi-hard"):
            raise UsageError(f"triplet: mining must be 'all', 'hard' or 'semi-hard', got {mining!r}")
        if average not in ("all", "active"):
            raise UsageError(f"triplet: average must be 'all' or 'active', got {average!r}")
        if not 0 <= margin < float("inf"):
            raise UsageError(f"triplet: the margin must be a finite number >= 0, got {margin}")
        if not 0 <= direction < float("inf"):
            raise UsageError(f"triplet: direction must be a finite number >= 0, got {direction}")
        if (swap or direction) and mining != "all":
            raise UsageError("triplet: swap and direction go with mining='all'")
        if anchors not in ("complete", "all"):
            raise UsageError(f"triplet: anchors must be 'complete' or 'all', got {anchors!r}")
        if anchors == "all" and mining != "hard":
            raise UsageError("triplet: anchors='all' goes with mining='hard'")
        self.swap = swap
        self.direction = direction
        self.mining = mining
        self.average = average
        self.anchors = anchors
        self.margin = margin
        self.smooth = smooth

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        found = super().active(positive, negative)
        return torch.ones_like(found) if self.anchors == "all" else found

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        cost, weight = self._triplets(scores, positive, negative)
        return (cost * weight).sum((1, 2)) / self._counted(cost, weight).clamp_min(torch.finfo(cost.dtype).tiny)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self._counted(*self._triplets(scores, positive, negative))

    def arrays(self, positives: int) -> float:
        return 8.0 + (4.0 * positives if self.mining == "all" else 0.0)

    @property
    def of_rows_alone(self) -> bool:
        return not (self.swap or self.direction)

    def evaluation(self, query: Tensor | None, key: Tensor | None, **call: Any) -> tuple[Tensor, Report]:
        if self.of_rows_alone:
            return evaluate_rows(self, query, key, **call)
        return super().evaluation(query, key, **call)

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        rows, columns = side.near
        anchor, near = side.query[rows], side.keys[columns]
        pairs = torch.cat([anchor, near, self.score.paired(anchor, near)[:, None]], dim=1)
        key = torch.cat([side.key, side.key.new_zeros(len(side.key), pairs.shape[1] - side.key.shape[1])], dim=1)
        return self.of_pairs(_OfPairs(self), pairs, key, side, way)

    def _counted(self, cost: Tensor, weight: Tensor) -> Tensor:
        """The weight ``[t]`` of a row's triplets that count."""
        counted = weight if self.average == "all" else weight * (cost.detach() > 0)
        return counted.sum((1, 2))

    def _triplets(self, scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Costs and weights ``[t, p, n]`` of the triplets that the mining chose."""
        if self.mining == "hard":
            near = masked(-scores, positive > 0).amax(1).neg()
            far = masked(scores, negative > 0).amax(1)
            if self.anchors == "all":
                nearest = 1.0 if isinstance(self.score, Cosine) else 0.0  # the score at distance 0
                near = torch.where((positive > 0).any(1), near, nearest)
                far = torch.where((negative > 0).any(1), far, near)
            near, far = near[:, None, None], far[:, None, None]
            weight = torch.ones_like(near)
        elif self.mining == "semi-hard":
            near, near_weight = compact(scores, positive > 0)
            far = _nearest_beyond(near, scores, negative > 0)[:, :, None]
            near, weight = near[:, :, None], near_weight[:, :, None]
        else:
            near, near_weight = compact(scores, positive)
            far, far_weight = compact(scores, negative)
            near, far = near[:, :, None], far[:, None, :]
            weight = near_weight[:, :, None] * far_weight[:, None, :]
        difference = far - near + self.margin
        return (F.softplus(difference) if self.smooth else difference.relu()), weight


def _nearest_beyond(near: Tensor, scores: Tensor, negative: Tensor) -> Tensor:
    """For each positive score ``near [t, p]``: the highest negative score below it, else the lowest negative score."""
    ordered = scores.masked_fill(~negative, torch.inf).sort(1).values
    below = torch.searchsorted(ordered.detach(), near.detach().contiguous())
    return ordered.gather(1, (below - 1).clamp_min(0))


class _OfPairs(RowObjective):
    """The triplets of near pairs as rows."""

    def __init__(self, triplet: Triplet) -> None:
        super().__init__(score=_Violation(triplet.score, triplet.swap, triplet.direction))
        self.margin, self.smooth, self.average = triplet.margin, triplet.smooth, triplet.average

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return (self._costs(scores) * negative).sum(1) / self._counted(scores, negative).clamp_min(
            torch.finfo(scores.dtype).tiny
        )

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self._counted(scores, negative) * positive.sum(1)

    def _costs(self, scores: Tensor) -> Tensor:
        return F.softplus(scores + self.margin) if self.smooth else (scores + self.margin).relu()

    def _counted(self, scores: Tensor, negative: Tensor) -> Tensor:
        counted = negative if self.average == "all" else negative * (self._costs(scores.detach()) > 0)
        return counted.to(scores.dtype).sum(1)


class _Violation(Score):
    """Of a near pair ``[anchor, positive, their score]`` and a far item: by how much the far one is the nearer."""

    def __init__(self, score: Score, swap: bool, direction: float) -> None:
        super().__init__()
        self.score, self.swap, self.direction = score, swap, direction

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        d = query.shape[1] // 2
        anchor, near, item = query[:, :d], query[:, d : 2 * d], keys[:, :d]
        far = self.score(anchor, item)
        if self.swap:
            far = torch.maximum(far, self.score(near, item))
        violation: Tensor = far - query[:, 2 * d :]
        if self.direction:
            line = near - anchor
            line = _over(line, torch.linalg.vector_norm(line, dim=1, keepdim=True))
            along = line @ item.T - (line * anchor).sum(1, keepdim=True)
            cosine = _over(along, -NegativeEuclidean()(anchor, item))
            violation = violation - self.direction * cosine
        return violation


def _over(values: Tensor, length: Tensor) -> Tensor:
    """``values / length``; 0, without a gradient, where the square of the length is no longer a number above 0."""
    apart = length > torch.finfo(length.dtype).tiny ** 0.5
    return torch.where(apart, values / torch.where(apart, length, 1), 0)
