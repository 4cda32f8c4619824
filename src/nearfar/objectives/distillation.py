"""Distillation: the scores of a teacher, learned as margins or as distributions over candidates."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast import score as scores_module
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import PointObjective, RowObjective, log_sum_exp
from nearfar.objectives.registry import register


@register
class MarginMSE(PointObjective):
    """Margin-MSE: the student's margin between positive and negative is to be the teacher's (Hofstätter et al., 2020).

    ``((s_p - s_n) - (t_p - t_n))^2``; of a query with several negatives the mean over them. In [0, inf).

    Called with margins, ``score [n]`` and ``target [n]``; or with lists of scores, the positive first: ``score [n, k]``
    and ``target [n, k]``, the teacher's scores, or ``[n, k - 1]``, its margins. With embeddings:
    ``of_embeddings(query [n, d], documents [n, k, d], target)``, the positive first. Gives ``[n]``, or a scalar by
    ``reduction``. Targets carry no gradient. Raises ValueError for shapes that do not fit.

    Arguments: ``score`` of embeddings, default "dot" (the paper's: cosines cannot hold a cross-encoder's margins);
    ``reduction``: "none" (default), "mean" or "sum" over queries.
    """

    name = "margin-mse"
    formula = "((s_p - s_n) - (t_p - t_n))^2"
    paper = (
        "Hofstätter 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation, "
        "arXiv:2010.02666"
    )

    def __init__(self, *, score: str | Score = "dot", reduction: str = "none") -> None:
        super().__init__(reduction=reduction)
        self.score = scores_module.get(score)

    def forward(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        """The costs ``[n]``, or their mean or sum; see the class."""
        if score.dim() == 1:
            return super().forward(score, target.detach(), **extra)
        if score.dim() != 2 or score.shape[1] < 2 or target.shape not in (
            score.shape,
            (score.shape[0], score.shape[1] - 1),
        ):  # fmt: skip
            raise ValueError(
                f"margin-mse: lists must be [n, k] with k >= 2 and targets [n, k] or [n, k - 1], got {[*score.shape]} "
                f"and {[*target.shape]}"
            )
        score = at_least_float32(score)
        target = at_least_float32(target.detach())
        if target.shape == score.shape:
            target = target[:, :1] - target[:, 1:]
        margins = score[:, :1] - score[:, 1:]
        each = super().forward(margins.reshape(-1), target.reshape(-1), **extra) if self.reduction == "none" else None
        if each is None:
            costs = (margins - target).square().mean(1)
            return costs.mean() if self.reduction == "mean" and len(costs) else costs.sum()
        return each.view_as(margins).mean(1)

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        return (score - target).square()

    def of_embeddings(self, query: Tensor, documents: Tensor, target: Tensor) -> Tensor:
        """The costs of queries ``[n, d]`` and their documents ``[n, k, d]``, the positive first."""
        return self.forward(list_scores(self.score, query, documents), target)


def list_scores(score: Score, query: Tensor, documents: Tensor) -> Tensor:
    """The scores ``[n, k]`` of queries ``[n, d]`` with their own documents ``[n, k, d]``."""
    if query.dim() != 2 or documents.dim() != 3 or documents.shape[::2] != query.shape:
        raise ValueError(
            f"queries must be [n, d] and their documents [n, k, d], got {[*query.shape]} and {[*documents.shape]}"
        )
    n, k, d = documents.shape
    one = score.embed(at_least_float32(query)).repeat_interleave(k, 0)
    other = score.embed(at_least_float32(documents.reshape(n * k, d)))
    return score.paired(one, other).view(n, k)


@register
class KL(RowObjective):
    """Kullback-Leibler distillation: the student's distribution over a row's candidates is to be the teacher's.

    With p the positive weights of a row, divided by their sum (``relation=Taught(...)`` makes them of a teacher's
    scores), and ``q = softmax(s/T)`` over its near and far columns, by ``direction``:

    - "forward" (default): ``KL(p || q) = sum_j p_j log(p_j / q_j)``, the teacher's weights (Hinton et al., 2015);
    - "reverse": ``KL(q || p)``, over the columns that the teacher gives a weight, q normalised over them: the student
      may leave out what the teacher finds near, and must not add anything;
    - "both": their mean.

    times ``T^2``, so that gradients do not fall with it (``scaled``); mean over rows. In [0, inf), 0 where student and
    teacher agree. A far column has p = 0, its weight counts in q. With one near column a row "forward" is InfoNCE.

    Lists: ``KL()(scores=student [n, k], relation=Taught(teacher [n, k]))``. All candidates of a batch, by a teacher
    that embeds: ``KL()(query, key, relation=Taught.of_embeddings(teacher_query, teacher_key))``.

    Arguments:
        direction: see above.
        scaled: whether costs are multiplied by T^2 (without a gradient), T the student's; default True.
        temperature: of the student, default 1; the teacher's is ``Taught``'s.
        score: default "dot"; ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "kl"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "distill-kl": {},
        "distill-kl-div": {},
        "reverse-kl": {"direction": "reverse"},
    }
    formula = "T^2 sum_j p_j log(p_j / softmax(s/T)_j)"
    paper = "Hinton 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531"
    default_temperature = 1.0
    default_score = "dot"
    needs_negative = False

    def __init__(
        self,
        direction: str = "forward",
        *,
        scaled: bool = True,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if direction not in ("forward", "reverse", "both"):
            raise UsageError(f"kl: direction must be 'forward', 'reverse' or 'both', got {direction!r}")
        if self.temperature is not None and self.temperature.individual:
            raise UsageError("kl needs one temperature for all items")
        self.direction = direction
        self.scaled = scaled

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near = positive > 0
        target = positive.to(scores.dtype) / positive.to(scores.dtype).sum(1, keepdim=True)
        log_target = torch.where(near, target, 1).log()
        costs = []
        if self.direction != "reverse":
            log_q = scores - log_sum_exp(scores, candidates(positive, negative))[:, None]
            costs.append((target * (log_target - log_q)).sum(1))
        if self.direction != "forward":
            log_q = (scores - log_sum_exp(scores, near)[:, None]).masked_fill(~near, -torch.inf)
            costs.append((log_q.exp() * (log_q.masked_fill(~near, 0) - log_target)).sum(1))
        cost = torch.stack(costs).mean(0)
        return cost * self._squared_temperature() if self.scaled else cost

    def arrays(self, positives: int) -> float:
        return 14.0

    def _squared_temperature(self) -> Tensor | float:
        assert self.temperature is not None
        scale = self.temperature.scale()
        return (scale.detach() if isinstance(scale, Tensor) else scale) ** -2
