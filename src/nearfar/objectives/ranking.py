"""Ranking: costs of columns in the wrong order."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, compact
from nearfar.objectives.registry import register


@register
class PairwiseLogistic(RowObjective):
    """Pairwise logistic loss: each positive above each negative of its row (RankNet, 2005; Bradley & Terry, 1952).

    ``L_i = mean_{p in P(i), n in N(i)} log(1 + exp(-(s_ip - s_in)/T))``, weighted by ``positive * negative``. On the
    scores of one chosen and one rejected response it is the reward-model loss, on implicit rewards DPO's; on the scores
    of all pairs of a batch laid out as one row it is the Mann-Whitney loss, whose value / log 2 bounds 1 - AUC. In
    [0, inf); log 2 when the scores say nothing.

    Arguments:
        temperature: T > 0; default 1 (rewards). Cosines need about 0.01 to 0.05.
        average: "rows" (default): mean over rows of their mean; "pairs": mean over all pairs of the batch.
        score: default "cosine"; ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "pairwise-logistic"
    aliases = {"ranknet": {"average": "pairs"}, "bradley-terry": {}}  # noqa: RUF012
    formula = "log(1 + exp(-(s_ip - s_in)/T))"
    paper = "Burges 2005, Learning to Rank using Gradient Descent"
    default_temperature = 1.0

    def __init__(
        self,
        *,
        average: str = "rows",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if average not in ("rows", "pairs"):
            raise UsageError(f"pairwise-logistic: average must be 'rows' or 'pairs', got {average!r}")
        self.average = average

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near, near_weight = compact(scores, positive)
        far, far_weight = compact(scores, negative)
        near_weight = near_weight / near_weight.sum(1, keepdim=True)  # apart: the product of small ones could vanish
        far_weight = far_weight / far_weight.sum(1, keepdim=True)
        cost = F.softplus(far[:, None, :] - near[:, :, None])
        return (near_weight[:, :, None] * far_weight[:, None, :] * cost).sum((1, 2))

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        return positive.to(scores.dtype).sum(1) * negative.to(scores.dtype).sum(1)

    def arrays(self, positives: int) -> float:
        return 8.0 + 4.0 * positives
