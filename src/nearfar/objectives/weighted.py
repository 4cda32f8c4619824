"""Softmax contrasts whose positives carry a weight of their own: grades, ranks, scores of a judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import of_all
from nearfar.contrast.engine import Memory
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation, Weights, candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import check_rows, log_sum_exp
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective

LEAST = 1e-30
"""The weight that stands for 0 where a pair still counts."""


class WeightedSoftmax(SoftmaxObjective):
    """``sum_p w_ip ( log sum_j exp(s_ij) - s_ip )``: the weights of the positives are not divided by their sum."""

    needs_negative = False

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        weight = positive.to(scores.dtype)
        pull = (weight * scores).sum(1)
        return weight.sum(1) * log_sum_exp(scores, self.denominator(positive, negative)) - pull


@register
class GCL(WeightedSoftmax):
    """Generalized contrastive learning: CLIP's loss, each pair weighted by its graded relevance (Zhu et al., 2024).

    ``mean_i w_i ( CE_i(query -> key) + CE_i(key -> query) ) / 2``, ``CE_i = -log( exp(s_ii/T) / sum_j exp(s_ij/T) )``.
    Weights are data: no gradient. w = 1 is CLIP; doubling all w doubles the loss.

    Called with ``query [n, d]``, ``key [m, d]`` and ``weight [n]`` >= 0 (see :func:`relevance_weight`), or with a
    relation whose positive weights they are (``Graded``); without either, w = 1. A pair of weight 0 costs nothing and
    counts in the mean; where a relation gives the weights, it is no pair. Two rows with the same query are false
    negatives of each other unless the relation's ids say so. Raises ValueError for weights that are negative, not
    finite or not ``[n]``.

    Arguments:
        average: "rows" (default): mean over the pairs; "weights": divided by the sum of the weights instead, which no
            scale of the weights changes.
        temperature: default "learned:0.07", bounded by 0.01 (CLIP's); two_sided: default True; ``score``,
            ``reduction`` as in InfoNCE.

    No training code was published; the formula is that of the paper's figure, the reduction our reading.
    """

    name = "gcl"
    needs = ("weight",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"generalized-contrastive": {}}
    formula = "mean_i w_i (CE_i(query -> key) + CE_i(key -> query)) / 2"
    paper = "Zhu 2024, Generalized Contrastive Learning for Multi-Modal Retrieval and Ranking, arXiv:2404.08535"
    default_temperature = 0.07

    def __init__(
        self,
        average: str = "rows",
        *,
        temperature: float | str | Temperature | None = "learned:0.07",
        score: str | Score | None = None,
        two_sided: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if average not in ("rows", "weights"):
            raise UsageError(f"gcl: average must be 'rows' or 'weights', got {average!r}")
        self.average = average

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        costs = super().rows(scores, positive, negative)
        return costs if self.average == "rows" else costs / positive.to(scores.dtype).sum(1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        return positive.to(scores.dtype).sum(1)

    def _times(self, positive: Tensor, negative: Tensor, weight: Tensor) -> Weights:
        if self.average == "rows":  # where a pair of weight 0 counts, and a row without any weight would not
            weight = weight.clamp_min(LEAST)
        return positive * weight, negative

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if weight is not None:
            rows = query if scores is None else scores
            relation = _weighted_by(self.name, weight, rows, relation, self._times, group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


@register
class CLHAIF(WeightedSoftmax):
    """Contrast softened by the scores of an AI judge (CLHAIF; Cheng et al., 2023).

    ``L_i = -sum_j t_ij log( exp(s_ij/T) / sum_k exp(s_ik/T) )`` over the positives and hard negatives of the batch.

    Called with ``query [n, d]``, ``key [m, d]`` and ``grade [n]`` in [0, 1]: how alike the judge finds anchor and
    positive; the judge's score of the hard negative is not used. Without ``grade``, the relation's positive weights are
    the targets. Every row counts in the mean, also one of grade 0. Raises ValueError for other grades.

    Arguments:
        form: "smooth-positive" (default): t = y_i on the own positive, nothing elsewhere, so the grade is a weight of
            the row, not label smoothing; "smooth-all": t = y_i on the own positive and (1 - y_i)/(m - 1) on every other
            candidate, each of which then counts once, whatever its weight as a negative.
        temperature: default 0.05 (the paper's); ``score``, ``reduction`` as in InfoNCE.

    The official code divides by the rows of one process even where it has gathered those of all; here it is the batch.
    """

    name = "clhaif"
    needs = ("grade",)
    formula = "-sum_j t_ij log( exp(s_ij/T) / sum_k exp(s_ik/T) ), t_ii = y_i"
    paper = "Cheng 2023, Improving Contrastive Learning of Sentence Embeddings from AI Feedback, arXiv:2305.01918"
    default_temperature = 0.05

    def __init__(
        self,
        form: str = "smooth-positive",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if form not in ("smooth-positive", "smooth-all"):
            raise UsageError(f"clhaif: form must be 'smooth-positive' or 'smooth-all', got {form!r}")
        self.form = form

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        grade: Tensor | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if grade is not None:
            if not bool((grade <= 1).all()):
                raise ValueError("clhaif: grades must lie in [0, 1]")
            change = _on_own if self.form == "smooth-positive" else _on_all
            relation = _weighted_by(self.name, grade, query if scores is None else scores, relation, change, group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


def relevance_weight(values: Tensor, form: str = "linear", *, maximum: float = 100.0) -> Tensor:
    """Weights of pairs from their relevance, for :class:`GCL` (score-to-weight functions).

    "linear": score / ``maximum``; "inverse": 1 / position; "inverse-log": 1 / log2(1 + position), positions from 1;
    "constant": 1.
    """
    if form == "linear":
        return values / maximum
    if form == "inverse":
        return 1 / values
    if form == "inverse-log":
        return 1 / (1 + values).log2()
    if form == "constant":
        return torch.ones_like(values) if values.is_floating_point() else torch.ones(values.shape)
    raise UsageError(f"relevance_weight: form must be 'linear', 'inverse', 'inverse-log' or 'constant', got {form!r}")


def _weighted_by(
    name: str,
    weight: Tensor,
    rows: Tensor | None,
    relation: Relation | None,
    change: Callable[[Tensor, Tensor, Tensor], Weights],
    group: dist.ProcessGroup | None,
) -> Relation:
    """The relation whose weights ``change`` makes from a weight ``[n]`` of each query."""
    if rows is None:
        raise ValueError(f"{name}: give embeddings or ready-made scores")
    check_rows(name, "weights", weight, rows.shape[0])
    if not weight.is_floating_point() or not bool(((weight >= 0) & torch.isfinite(weight)).all()):
        raise ValueError(f"{name}: weights must be finite floating point numbers >= 0")
    everyone = of_all(at_least_float32(weight), group)

    def weighted(positive: Tensor, negative: Tensor, which: Tensor, columns: Tensor) -> Weights:
        return change(positive, negative, everyone[which][:, None])

    return (Paired() if relation is None else relation).reweight(weighted)


def _on_own(positive: Tensor, negative: Tensor, grade: Tensor) -> Weights:
    near = (positive > 0).to(grade.dtype)
    return grade * near / near.sum(1, keepdim=True).clamp_min(1), candidates(positive, negative)


def _on_all(positive: Tensor, negative: Tensor, grade: Tensor) -> Weights:
    own, everyone = _on_own(positive, negative, grade)
    far = ((everyone > 0) & (positive == 0)).to(grade.dtype)
    return own + (1 - grade) * far / far.sum(1, keepdim=True).clamp_min(1), everyone
