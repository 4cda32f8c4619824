"""Ranking over a whole batch: pairs of scores in order, whichever rows they stand in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from nearfar.contrast import relation as relation_module
from nearfar.contrast import score as scores_module
from nearfar.contrast import temperature as temperature_module
from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.objectives.base import PointObjective, RowObjective, compact, weighted_mean
from nearfar.objectives.composed import ComposedObjective, Embedded, Side, Way, nothing
from nearfar.objectives.registry import register

CHUNK = 2**21
"""Differences of scores that :class:`MannWhitney` holds at once."""


@register
class MannWhitney(ComposedObjective):
    """Mann-Whitney loss: every positive of the batch above every negative of the batch, whatever their rows.

    ``L = mean_{(i,p) near} mean_{(j,n) far} log(1 + exp(-(s_ip - s_jn)/T))``: the pairwise logistic loss on all scores
    of the batch laid out as one row (Sheikholeslami et al., 2025). Its value / log 2 is at least 1 - AUC of the pooled
    scores, so that scores can be compared, and cut off, across queries; InfoNCE does not notice a shift of all scores
    of a query, and this does. Pairs weigh the product of their weights. In [0, inf); log 2 when the scores say nothing.

    The paper prints the sum over negatives (and the mean over positives): multiply by the number of negatives. Time
    grows with positives times scores, n^3 for in-batch negatives; memory is linear in n. False negatives count n times
    as often as in InfoNCE. A batch without a positive or without a negative costs 0.

    Arguments: ``temperature`` default 0.01 (the paper's, for cosines); ``score`` as in InfoNCE; ``reduction``: "mean"
    (default); "sum" over pairs; "none": for each row the mean over its negatives.
    """

    name = "mw-loss"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"mann-whitney": {}, "auc": {}}
    formula = "mean_{(i,p) near, (j,n) far} log(1 + exp(-(s_ip - s_jn)/T))"
    paper = (
        "Sheikholeslami 2025, Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval, "
        "arXiv:2510.00137"
    )
    default_temperature = 0.01

    def __init__(
        self,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)

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
        if scores is None or scores.dim() != 2 or query is not None or key is not None:
            where = {"memory": memory, "tile_rows": tile_rows, "group": group}
            return super().evaluation(query, key, relation=relation, scores=scores, **where)  # type: ignore[arg-type]
        relation = Paired() if relation is None else relation
        among = relation.among_themselves and scores.shape[0] == scores.shape[1]
        relation = relation.bind(*scores.shape, self_contrast=among, device=scores.device)
        rows, columns = relation.positive_pairs()
        part = self._against(at_least_float32(scores)[rows, columns], _weights(relation, rows, columns))
        if not rows.numel():
            return nothing(scores)
        return evaluate_rows(
            part, None, None, relation=relation, scores=scores, memory=memory, tile_rows=None, group=group
        )

    def one_side(self, side: Side, way: Way) -> tuple[Tensor, Report]:
        rows, columns = side.near
        near = self.score.paired(side.query[rows], side.keys[columns])
        weight = _weights(side.relation_to_all, rows, columns)
        if way.group is not None:
            all_near = GatheredRows(near.shape[0], way.group, near.device)
            near, weight = all_near.gather_with_gradient(near), all_near.gather(weight)
        if not near.numel():
            return nothing(side.query, side.keys)
        part = self._against(near, weight)
        return way.evaluate(part, side.query, None if side.self_contrast else side.key, side.relation)

    def _against(self, near: Tensor, weight: Tensor) -> _AgainstNear:
        part = _AgainstNear(near, weight.to(near.dtype), temperature=self.temperature, score=Embedded(self.score))
        part.reduction = self.reduction
        return part


class _AgainstNear(RowObjective):
    """The negatives of a row against given scores ``near [p]`` of weight ``weight [p]``, which have a gradient."""

    default_temperature = 1.0

    def __init__(self, near: Tensor, weight: Tensor, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.near = near
        self.near_weight = weight

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """With ``near``, to which the engine brings gradients as it does to parameters."""
        yield from super().parameters(recurse)
        yield self.near  # type: ignore[misc]

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (negative > 0).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        far, weight = compact(scores, negative)
        assert self.temperature is not None
        near = self.near * self.temperature.scale()
        total = self.near_weight.sum()
        cost: Tensor = _MeanLogistic.apply(far, near, self.near_weight / total)  # type: ignore[no-untyped-call]
        return weighted_mean(cost, weight) * (total if self.reduction == "sum" else 1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return negative.to(scores.dtype).sum(1)

    def arrays(self, positives: int) -> float:
        return 16.0


class _MeanLogistic(torch.autograd.Function):
    """``sum_p share_p log(1 + exp(far_j - near_p))`` for ``far [t, c]``, ``near [p]``, a chunk of p at a time.

    Of the differences only their sums are kept; backward makes them again.
    """

    @staticmethod
    def forward(ctx: Any, far: Tensor, near: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(far, near, share)
        cost = torch.zeros_like(far)
        for part, weight in _chunks(far, near, share):
            cost += torch.mv(F.softplus(far[:, :, None] - part).flatten(0, 1), weight).view_as(far)
        return cost

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        far, near, share = ctx.saved_tensors
        to_far, to_near = torch.zeros_like(far), []
        for part, weight in _chunks(far, near, share):
            slope = torch.sigmoid(far[:, :, None] - part).flatten(0, 1)
            to_far = to_far + torch.mv(slope, weight).view_as(far)
            to_near.append(-weight * torch.mv(slope.T, gradient.flatten()))
        return gradient * to_far, torch.cat(to_near), None


def _chunks(far: Tensor, near: Tensor, share: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of ``near [p]`` and ``share [p]`` whose differences from all of ``far`` are :data:`CHUNK` or fewer."""
    size = max(1, CHUNK // max(1, far.numel()))
    return zip(torch.split(near, size), torch.split(share, size), strict=True)


def _weights(relation: Relation, rows: Tensor, columns: Tensor) -> Tensor:
    """The positive weights ``[p]`` of pairs of a bound relation, ordered by row."""
    n, m = relation.shape
    step = max(1, relation_module.PAIRS_AT_ONCE // max(1, m))
    found = [torch.zeros(0, device=rows.device)]
    for start in range(0, n, step):
        here = (rows >= start) & (rows < start + step)
        positive = relation.tile(slice(start, min(n, start + step)))[0]
        found.append(positive[rows[here] - start, columns[here]].to(torch.promote_types(positive.dtype, torch.float32)))
    return torch.cat(found)


class PairScores(PointObjective):
    """Base of objectives on the scores of single pairs that are compared with one another over the whole batch:
    ``objective(score [n], target [n]) -> scalar``.

    :meth:`of_embeddings` makes the scores of two embeddings each by :attr:`score`.
    """

    default_score: ClassVar[str] = "cosine"

    def __init__(self, *, score: str | Score | None = None) -> None:
        super().__init__(reduction="mean")
        self.score = scores_module.get(self.default_score if score is None else score)

    def whole(self, score: Tensor, target: Tensor) -> Tensor:
        """The cost of all pairs, a scalar."""
        raise NotImplementedError

    def forward(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        """The cost of all pairs, a scalar; see the class."""
        if extra:
            raise TypeError(f"{self.name} takes no {', '.join(map(repr, extra))} beside score and target")
        if score.dim() != 1 or score.shape != target.shape or not score.is_floating_point():
            raise ValueError(
                f"{self.name}: score and target must be [n] alike and score floating point, got {tuple(score.shape)} "
                f"of {score.dtype} and {tuple(target.shape)}"
            )
        return self.whole(at_least_float32(score), target)

    def of_embeddings(self, one: Tensor, other: Tensor, target: Tensor) -> Tensor:
        """The cost of pairs of embeddings ``one [n, d]``, ``other [n, d]``."""
        if one.dim() != 2 or one.shape != other.shape:
            raise ValueError(f"{self.name}: embeddings must be [n, d] alike, got {[*one.shape]} and {[*other.shape]}")
        one, other = (self.score.embed(at_least_float32(side)) for side in (one, other))
        return self.forward(self.score.paired(one, other), target)


@register
class CoSENT(PairScores):
    """CoSENT: pairs of texts in the order of their labels (Su, 2022).

    ``L = log(1 + sum_{y_p > y_q} exp((s_q - s_p)/T))`` over all couples of pairs of the batch whose labels differ: one
    number a batch, no mean. In [0, inf); 0 without two different labels. By sorting: n log n time, linear memory. Only
    the order of the labels matters.

    Called with ``score [n]``, the cosine of each pair, and ``target [n]``, its label (any number); or, by
    ``of_embeddings(one [n, d], other [n, d], target)``, with embeddings. Raises ValueError for shapes that differ and
    for labels that are not a number.

    Arguments: ``temperature`` > 0, default 0.05 (the author's scale of 20); ``score`` of embeddings, default "cosine".
    """

    name = "cosent"
    formula = "log(1 + sum_{y_p > y_q} exp((s_q - s_p)/T))"
    paper = "Su 2022, CoSENT: A more efficient sentence vector scheme than Sentence-BERT"

    def __init__(self, temperature: float | str | Temperature = 0.05, *, score: str | Score | None = None) -> None:
        super().__init__(score=score)
        self.temperature = temperature_module.get(temperature, 0.05)

    def whole(self, score: Tensor, target: Tensor) -> Tensor:
        if bool(torch.isnan(target).any()):
            raise ValueError(f"{self.name}: a target is not a number")
        if score.numel() < 2:
            return score.sum() * 0.0
        target, order = target.to(torch.promote_types(target.dtype, torch.int16)).sort(descending=True)
        scaled = score[order] * self.temperature.scale()
        above = torch.logcumsumexp(-scaled, 0)  # over all pairs of a label at least as high as each
        # a label's own pairs are not above it: what counts are those before the first of it
        before = torch.searchsorted(-target, -target)
        inside = before > 0
        terms = scaled[inside] + above[before[inside] - 1]
        return torch.logsumexp(torch.cat([scaled.new_zeros(1), terms]), 0) + score.sum() * 0.0


@register
class AnglE(CoSENT):
    """AnglE's angle objective: CoSENT on the angle of pairs in complex space (Li & Li, 2023).

    ``L = log(1 + sum_{y_p > y_q} exp((a_q - a_p)/T))`` with the score "angle": for normalised ``x = [x_1, x_2]`` and
    ``y = [y_1, y_2]`` as complex vectors ``x_1 + i x_2``, ``a = |sum of real and imaginary parts of x / y| =
    |x.y + x_2.y_1 - x_1.y_2|``; it is not symmetric. That is complex division and the authors' code; equation 3 of the
    paper prints the difference the other way round, which exchanging the two embeddings gives. An odd dimension is
    padded by a zero.

    The paper trains on the sum of this, CoSENT and an in-batch InfoNCE; sentence-transformers' AnglELoss is this alone.

    Called as :class:`CoSENT`, by ``of_embeddings(one [n, d], other [n, d], target [n])``, or with ready-made angles.

    Arguments: ``temperature`` > 0, default 0.05 (a scale of 20); ``score`` of embeddings, default "angle".
    """

    name = "angle"
    formula = "log(1 + sum_{y_p > y_q} exp((a_q - a_p)/T)), a = |x.y + x_2.y_1 - x_1.y_2|"
    paper = "Li 2023, AnglE-optimized Text Embeddings, arXiv:2309.12871"
    default_score = "angle"
