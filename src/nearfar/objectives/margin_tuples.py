"""Margins on tuples: costs of a near pair that also ask how far its key is from others."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast import tiles
from nearfar.contrast.engine import Report
from nearfar.contrast.score import Score, normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked
from nearfar.objectives.composed import (
    ComposedObjective,
    Embedded,
    Side,
    Way,
    gathered_keys,
    mean_by_row,
    nothing,
)
from nearfar.objectives.registry import register


@register
class LiftedStructure(ComposedObjective):
    """Lifted structured loss: a near pair against all that is far from either of its items (Oh Song et al., 2016).

    ``form="structured"`` (default): for each near pair (i, j)
    ``max(0, D_ij + log( sum_{k far from i} exp(margin - D_ik) + sum_{l far from j} exp(margin - D_jl) ))^2 / 2``, mean
    over near pairs (the paper's sum over unordered pairs, divided by twice their number).
    ``form="generalized"`` (Hermans et al., 2017): for each anchor
    ``max(0, log sum_p exp(D_ip) + log sum_n exp(margin - D_in))``, mean over anchors with near and far items.

    Arguments:
        form: see above.
        margin: default 1 (the paper's).
        anchors: of the generalized form: "complete" (default), those with a near and a far item, or "all": the
            logarithm of an empty sum counts as 0, as in pytorch-metric-learning, where an item alone of its label is
            still pushed away from the others.
        score: D is minus the score, default "negative-euclidean" (of embeddings as they are);
            pytorch-metric-learning normalises them.
        two_sided, reduction: as in :class:`InfoNCE`; "none" gives each anchor's cost or mean over its pairs.

    Of queries and keys, what is far from a key j are the queries that are. Weights of near pairs count as 1 in the
    structured form. Takes embeddings, no ready-made scores.
    """

    name = "lifted-structure"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"generalized-lifted-structure": {"form": "generalized"}}
    formula = "max(0, D_ij + log( sum_k exp(margin - D_ik) + sum_l exp(margin - D_jl) ))^2 / 2"
    paper = "Oh Song 2016, Deep Metric Learning via Lifted Structured Feature Embedding, arXiv:1511.06452"
    default_score = "negative-euclidean"

    def __init__(
        self,
        form: str = "structured",
        *,
        margin: float = 1.0,
        anchors: str = "complete",
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("structured", "generalized"):
            raise UsageError(f"lifted-structure: form must be 'structured' or 'generalized', got {form!r}")
        if not math.isfinite(margin):
            raise UsageError(f"lifted-structure: the margin must be a finite number, got {margin}")
        if anchors not in ("complete", "all"):
            raise UsageError(f"lifted-structure: anchors must be 'complete' or 'all', got {anchors!r}")
        if anchors == "all" and form != "generalized":
            raise UsageError("lifted-structure: anchors='all' goes with form='generalized'")
        self.form = form
        self.margin = margin
        self.anchors = anchors

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        key = None if side.self_contrast else side.key
        if self.form == "generalized":
            return way.evaluate(_Generalized(self), side.query, key, side.relation)
        far, report = way.evaluate(_FarSum(self.score, self.margin), side.query, key, side.relation)
        far_from_keys = far
        if key is not None:
            far_from_keys, _ = way.evaluate(
                _FarSum(self.score, self.margin), side.key, side.query, side.relation.transpose()
            )
        far_from_keys = gathered_keys(far_from_keys, way.group)
        rows, columns = side.near
        has_far = torch.isfinite(far.detach()[rows]) | torch.isfinite(far_from_keys.detach()[columns])
        rows, columns = rows[has_far], columns[has_far]
        apart = -self.score.paired(side.query[rows], side.keys[columns])
        costs = (torch.logaddexp(far[rows], far_from_keys[columns]) + apart).relu().square() / 2
        counts = (torch.bincount(rows, minlength=1) > 0).sum()
        report = Report(
            side.query.shape[0],
            counts,
            report.positive_pairs,
            report.negative_pairs,
            report.mode,
            report.tile_rows,
            False,
        )
        connected = nothing(side.query, side.key)[0]
        if self.reduction == "none":
            return connected + mean_by_row(costs, rows, side.query.shape[0]), report
        total, weight = connected + costs.sum(), torch.tensor(float(costs.numel()), device=costs.device).to(costs.dtype)
        return tiles.finish(self, total, weight, way.group)[0], report


class _FarSum(RowObjective):
    """``log sum_n exp(margin - D_in)`` of every row; -inf where nothing is far."""

    def __init__(self, score: Score, margin: float) -> None:
        super().__init__(score=Embedded(score), reduction="none")
        self.margin = margin

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return torch.ones_like(positive[:, 0], dtype=torch.bool)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        nothing_far = ~(negative > 0).any(1)
        exponents = masked(scores + self.margin, negative).masked_fill(nothing_far[:, None], 0)
        return torch.logsumexp(exponents, dim=1).masked_fill(nothing_far, -torch.inf)


class _Generalized(RowObjective):
    def __init__(self, whole: LiftedStructure) -> None:
        super().__init__(score=Embedded(whole.score), reduction=whole.reduction)
        self.margin, self.anchors = whole.margin, whole.anchors

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        complete = super().active(positive, negative)
        return torch.ones_like(complete) if self.anchors == "all" else complete

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        pull, push = _log_sum_or_0(-scores, positive), _log_sum_or_0(scores + self.margin, negative)
        return (pull + push).relu()


def _log_sum_or_0(scores: Tensor, weight: Tensor) -> Tensor:
    """:func:`log_sum_exp`, and 0 for rows without a weight."""
    none = ~(weight > 0).any(1)
    exponents = masked(scores, weight).masked_fill(none[:, None], 0)
    return torch.logsumexp(exponents, dim=1).masked_fill(none, 0)


@register
class Angular(ComposedObjective):
    """Angular loss: the angle at the far item of its triangle with a near pair stays small (Wang et al., 2017).

    ``log(1 + sum_n exp(4 tan^2(alpha) (x_a + x_p) . x_n - 2 (1 + tan^2(alpha)) x_a . x_p))`` of normalised x, for each
    near pair (a, p), mean over near pairs. In (0, inf). It does not change with the scale of the embeddings.

    Arguments:
        alpha: the largest angle in radians, in (0, pi/2), default 45 degrees (the paper: 36 to 55 work alike;
            pytorch-metric-learning 40).
        normalize_far: default True. pytorch-metric-learning normalises anchors and positives but not x_n: False.
        two_sided, reduction: as in :class:`InfoNCE`; "none" gives each anchor's mean over its near pairs.

    Anchors need a near and a far item; items far from the anchor count. The paper's best form adds half its value to
    the N-pair loss. Takes embeddings, no ready-made scores.
    """

    name = "angular"
    formula = "log(1 + sum_n exp(4 tan^2(alpha) (x_a + x_p) . x_n - 2 (1 + tan^2(alpha)) x_a . x_p))"
    paper = "Wang 2017, Deep Metric Learning with Angular Loss, arXiv:1708.01682"

    def __init__(
        self,
        alpha: float = math.radians(45),
        *,
        normalize_far: bool = True,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        # scores are dot products; what is normalised is normalised in one_side
        super().__init__(score="cosine" if normalize_far else "dot", two_sided=two_sided, reduction=reduction)
        if not 0 < alpha < math.pi / 2:
            raise UsageError(f"angular: alpha must be an angle in (0, pi/2), got {alpha}")
        self.alpha = alpha
        self.normalize_far = normalize_far

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        square = math.tan(self.alpha) ** 2
        rows, columns = side.near
        anchor, near = side.query[rows], side.keys[columns]
        if not self.normalize_far:
            anchor, near = normalize(anchor), normalize(near)
        together = (anchor * near).sum(1, keepdim=True)
        pairs = torch.cat([4 * square * (anchor + near), -2 * (1 + square) * together], dim=1)
        key = torch.cat([side.key, torch.ones_like(side.key[:, :1])], dim=1)
        return self.of_pairs(_Angles(), pairs, key, side, way)


class _Angles(RowObjective):
    """Of pairs as rows, whose scores with far items are the exponents of the sum."""

    default_score = "dot"

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return F.softplus(log_sum_exp(scores, negative), threshold=40)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return positive.to(scores.dtype).sum(1)
