"""Ranking by points and by whole lists: the grades of a row's columns, and the order they make."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked, weighted_mean
from nearfar.objectives.graded_columns import Listed, has_order, listed
from nearfar.objectives.registry import register


class PointwiseObjective(RowObjective):
    """Base of costs of single columns of a row, given its grade: ``cost(s_ij / T, y_ij)``.

    Every near column counts once and every far one by its weight. ``average="rows"``: the mean over rows of the mean
    over their columns; ``"items"``: the mean over all columns of the batch (``reduction="sum"``: their sum).
    """

    default_temperature = 1.0
    needs_negative = False

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
        if average not in ("rows", "items"):
            raise UsageError(f"{self.name}: average must be 'rows' or 'items', got {average!r}")
        self.average = average

    def cost(self, scores: Tensor, grade: Tensor) -> Tensor:
        """The cost of columns of grade >= 0."""
        raise NotImplementedError

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        scores, grade, weight = listed(scores, positive, negative)
        return weighted_mean(self.cost(scores, grade), weight)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        return listed(scores, positive, negative).weight.sum(1)


@register
class PointMSE(PointwiseObjective):
    """Point-wise regression: the score of a column is to equal its grade (Cossock & Zhang, 2006; LiPO, 2024).

    ``mean_j (s_ij / T - y_ij)^2`` over the near and far columns of a row, y the positive weight, 0 for far columns.
    Rows without a near column count too. In [0, inf); 0 where every score is the grade.

    Alias: "lipo-point-mse" (mean over all columns of the batch, as in rax; the paper sums over a list).

    Arguments: ``average``: "rows" (default) or "items", the mean over all columns of the batch; ``temperature``
    default 1; ``score``, ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "point-mse"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"lipo-point-mse": {"average": "items"}}
    formula = "(s_ij/T - y_ij)^2"
    paper = "Cossock 2006, Subset Ranking using Regression; Liu 2024, LiPO, arXiv:2402.01878"

    def cost(self, scores: Tensor, grade: Tensor) -> Tensor:
        return (scores - grade).square()


@register
class PointSigmoid(PointwiseObjective):
    """Point-wise logistic loss: the sigmoid of a score is the probability of relevance (LiPO, 2024).

    ``mean_j -y_ij log sigmoid(s_ij/T) - (1 - y_ij) log(1 - sigmoid(s_ij/T))`` over the near and far columns of a row, y
    the positive weight in [0, 1], 0 for far columns. Rows without a near column count too. On the difference of the
    logits of "yes" and "no" it is how rerankers are fine-tuned. In [0, inf).

    Alias: "lipo-point-sigmoid" (mean over all columns of the batch, as in rax; the paper sums over a list).

    Arguments: ``average``: "rows" (default) or "items", the mean over all columns of the batch; ``temperature``
    default 1; ``score``, ``two_sided``, ``reduction`` as in InfoNCE. Raises ValueError for grades above 1.
    """

    name = "point-sigmoid"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"lipo-point-sigmoid": {"average": "items"}}
    formula = "-y_ij log sigmoid(s_ij/T) - (1 - y_ij) log(1 - sigmoid(s_ij/T))"
    paper = "Liu 2024, LiPO: Listwise Preference Optimization through Learning-to-Rank, arXiv:2402.01878"

    def cost(self, scores: Tensor, grade: Tensor) -> Tensor:
        if bool((grade > 1).any()):
            raise ValueError(f"point-sigmoid: grades are probabilities in [0, 1], got one of {float(grade.max()):g}")
        return F.softplus(scores) - grade * scores


@register
class ListNet(RowObjective):
    """ListNet: the softmax of the scores is to be that of the grades (Cao et al., 2007).

    ``L_i = -sum_j t_ij log( exp(s_ij/T) / sum_k exp(s_ik/T) )``, cross-entropy over the near and far columns of a row,
    mean over rows. The target t is, by ``target``,

    - "softmax" (default, the paper's): ``softmax_j(y_ij)``. Far columns have grade 0 and so a share of ``exp(0)`` each:
      among many in-batch negatives the target is nearly flat; give larger grades, or another target.
    - "normalized": ``y_ij / sum_k y_ik`` (equation 11 of LiPO; the softmax loss of rax with normalised labels).
    - "raw": ``y_ij`` as it stands (rax' softmax loss).

    At least the entropy of the target. Rows need a near column. A far column counts by its weight, as so many columns.

    Alias: "lipo-softmax" ("raw").

    Arguments: ``target``; ``temperature`` default 1; ``score``, ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "listnet"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"lipo-softmax": {"target": "raw"}}
    formula = "-sum_j softmax(y)_j log softmax(s/T)_j"
    paper = "Cao 2007, Learning to Rank: From Pairwise Approach to Listwise Approach"
    default_temperature = 1.0
    needs_negative = False

    def __init__(
        self,
        target: str = "softmax",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if target not in ("softmax", "normalized", "raw"):
            raise UsageError(f"listnet: target must be 'softmax', 'normalized' or 'raw', got {target!r}")
        self.target = target

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        lists = listed(scores, positive, negative)
        target = self._target(lists)
        return target.sum(1) * log_sum_exp(lists.scores, lists.weight) - (target * lists.scores).sum(1)

    def _target(self, lists: Listed) -> Tensor:
        if self.target == "softmax":
            return torch.softmax(masked(lists.grade, lists.weight), 1)
        return lists.grade / lists.grade.sum(1, keepdim=True) if self.target == "normalized" else lists.grade


@register
class ListMLE(RowObjective):
    """ListMLE: the likelihood of the order of the grades under Plackett and Luce (Xia et al., 2008).

    With the columns of a row in the order of their grades, highest first,
    ``L_i = sum_k [ log sum_{l >= k} exp(s_(l)/T) - s_(k)/T ]``; the mean over rows. In [0, inf).

    The paper knows no ties. ``ties="together"`` (default): columns of equal grade are not ordered among themselves;
    each competes with all of an equal or lower grade, and those of the lowest grade (all far columns) stand above
    nothing and add no term. It does not depend on the order of the columns. ``ties="columns"``: equal grades in the
    order of their columns, as in rax and allRank (which shuffles them first); in-batch negatives are then trained into
    an arbitrary order. Both are the paper's without ties.

    Aliases: "plackett-luce" and "lipo-list-mle" (``ties="columns"``, as in rax).

    Arguments:
        ties: see above.
        divide: divide a row's cost by its number of terms (default False: the log-likelihood).
        temperature: default 1; ``score``, ``two_sided``, ``reduction`` as in InfoNCE.

    Rows need two columns of different grades ("columns": a near column). A far column counts by its weight, as so many.
    """

    name = "listmle"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"plackett-luce": {}, "lipo-list-mle": {"ties": "columns"}}
    formula = "sum_k [ log sum_{l >= k} exp(s_(l)/T) - s_(k)/T ]"
    paper = "Xia 2008, Listwise Approach to Learning to Rank: Theory and Algorithm"
    default_temperature = 1.0

    def __init__(
        self,
        ties: str = "together",
        *,
        divide: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if ties not in ("together", "columns"):
            raise UsageError(f"listmle: ties must be 'together' or 'columns', got {ties!r}")
        self.ties = ties
        self.divide = divide

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return has_order(positive, negative) if self.ties == "together" else (positive > 0).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        lists = listed(scores, positive, negative)
        descending = -lists.grade.masked_fill(~lists.inside, -torch.inf)  # outside the list: last
        order = descending.sort(dim=1, stable=True)
        lists = lists.take(order.indices)
        rest = sums_from(lists)
        term = lists.weight
        if self.ties == "together":
            rest = rest.gather(1, torch.searchsorted(order.values, order.values))
            lowest = lists.grade.masked_fill(~lists.inside, torch.inf).amin(1, keepdim=True)
            term = term * (lists.grade > lowest)
        cost = (term * (rest - lists.scores).masked_fill(term == 0, 0)).sum(1)
        return cost / term.sum(1) if self.divide else cost

    def arrays(self, positives: int) -> float:
        return 24.0


def sums_from(lists: Listed) -> Tensor:
    """``log sum_{l >= k} w_l exp(s_l)`` ``[t, c]`` over the columns of a list from each one on.

    Columns outside the list stand at the end, where they hold a number that no sum notices, since a cumulative
    log-sum-exp that begins with -inf has no gradient.
    """
    nothing = torch.finfo(lists.scores.dtype).min / 4
    weighted = masked(lists.scores, lists.weight).masked_fill(~lists.inside, nothing)
    return torch.logcumsumexp(weighted.flip(1), 1).flip(1)
