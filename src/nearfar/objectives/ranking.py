"""Ranking by pairs: costs of two columns of a row in the wrong order."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, compact
from nearfar.objectives.graded_columns import has_order, listed, ordered_pairs
from nearfar.objectives.registry import register


class PairwiseObjective(RowObjective):
    """Base of costs of ordered pairs of a row, ``cost(s_i - s_j)`` for a column i that is to stand above j.

    ``pairs="near-far"``: each near column above each far one, weighted by the product of their weights; near columns
    are not ordered among themselves. ``pairs="graded"``: each column above all of a lower grade (positive weight; far
    columns have grade 0 and count by their weight); equal grades make no pair.
    ``average="rows"``: the mean over rows of the mean over their pairs; ``"pairs"``: the mean over all pairs of the
    batch (``reduction="sum"``: their sum).
    """

    default_temperature = 1.0

    def __init__(
        self,
        *,
        pairs: str = "near-far",
        average: str = "rows",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if pairs not in ("near-far", "graded"):
            raise UsageError(f"{self.name}: pairs must be 'near-far' or 'graded', got {pairs!r}")
        if average not in ("rows", "pairs"):
            raise UsageError(f"{self.name}: average must be 'rows' or 'pairs', got {average!r}")
        self.pairs = pairs
        self.average = average

    def cost(self, difference: Tensor) -> Tensor:
        """The cost of pairs of columns, given the score of the one to stand above less that of the other."""
        raise NotImplementedError

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.pairs == "graded":
            ordered = ordered_pairs(listed(scores, positive, negative))
            share = ordered.weight / ordered.weight.sum((1, 2), keepdim=True)
            return (share * self.cost(ordered.difference)).sum((1, 2))
        near, near_weight = compact(scores, positive)
        far, far_weight = compact(scores, negative)
        near_weight = near_weight / near_weight.sum(1, keepdim=True)  # apart: the product of small ones could vanish
        far_weight = far_weight / far_weight.sum(1, keepdim=True)
        cost = self.cost(near[:, :, None] - far[:, None, :])
        return (near_weight[:, :, None] * far_weight[:, None, :] * cost).sum((1, 2))

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return has_order(positive, negative) if self.pairs == "graded" else super().active(positive, negative)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        if self.pairs == "graded":
            return ordered_pairs(listed(scores, positive, negative)).weight.sum((1, 2))
        return positive.to(scores.dtype).sum(1) * negative.to(scores.dtype).sum(1)

    def arrays(self, positives: int) -> float:
        return 8.0 + (8.0 if self.pairs == "graded" else 4.0) * positives


@register
class PairwiseLogistic(PairwiseObjective):
    """Pairwise logistic loss: each positive above each negative of its row (RankNet, 2005; Bradley & Terry, 1952).

    ``L_i = mean_{p in P(i), n in N(i)} log(1 + exp(-(s_ip - s_in)/T))``, weighted by ``positive * negative``. On the
    scores of one chosen and one rejected response it is the reward-model loss, on implicit rewards DPO's; over all
    pairs of a batch, whatever their row, it is :class:`MannWhitney`. In [0, inf); log 2 when the scores say nothing.

    Aliases: "ranknet" (all pairs of different grades, mean over all of them; sentence-transformers' RankNetLoss divides
    by log 2), "lipo-pair-logistic" (the same, as in rax), "bradley-terry". ``reward-modeling`` takes chosen and
    rejected rewards as two vectors, with margins.

    Arguments:
        pairs: "near-far" (default): near columns against far ones; "graded": every column against all of a lower grade,
            grades being the positive weights and 0 for far columns; equal grades make no pair.
        average: "rows" (default): mean over rows of their mean; "pairs": mean over all pairs of the batch.
        temperature: T > 0; default 1 (rewards). Cosines need about 0.01 to 0.05.
        score: default "cosine"; ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "pairwise-logistic"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "ranknet": {"pairs": "graded", "average": "pairs"},
        "lipo-pair-logistic": {"pairs": "graded", "average": "pairs"},
        "bradley-terry": {},
    }
    formula = "log(1 + exp(-(s_ip - s_in)/T))"
    paper = "Burges 2005, Learning to Rank using Gradient Descent"

    def cost(self, difference: Tensor) -> Tensor:
        return F.softplus(-difference)


@register
class PairwiseHinge(PairwiseObjective):
    """Pairwise hinge loss: a column above another by a margin (Herbrich et al., 2000, RankSVM).

    ``max(0, margin - (s_i - s_j)/T)``, averaged as in :class:`PairwiseLogistic`. With one chosen and one rejected
    response of implicit rewards it is SLiC's calibration loss. In [0, inf); ``margin`` when the scores say nothing. The
    gradient at the kink is 0.

    Alias: "lipo-pair-hinge" (all pairs of different grades, mean over all of them, as in rax).

    Arguments: ``margin`` > 0, default 1; ``pairs``, ``average``, ``temperature`` (default 1) and the others as in
    :class:`PairwiseLogistic`.
    """

    name = "pairwise-hinge"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"lipo-pair-hinge": {"pairs": "graded", "average": "pairs"}}
    formula = "max(0, margin - (s_i - s_j)/T)"
    paper = (
        "Herbrich 2000, Large Margin Rank Boundaries for Ordinal Regression; Joachims 2002, Optimizing Search Engines"
    )

    def __init__(
        self,
        margin: float = 1.0,
        *,
        pairs: str = "near-far",
        average: str = "rows",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            pairs=pairs,
            average=average,
            temperature=temperature,
            score=score,
            two_sided=two_sided,
            reduction=reduction,
        )
        if not 0 < margin < math.inf:
            raise UsageError(f"pairwise-hinge: the margin must be a finite number > 0, got {margin}")
        self.margin = margin

    def cost(self, difference: Tensor) -> Tensor:
        return (self.margin - difference).relu()
