"""Objectives that tell sets of examples apart, each set standing for a meaning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, grouped_log_sum_exp, log_sum_exp, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import own_log_sums


@register
class SetCSE(RowObjective):
    """Inter-set contrastive loss: members of different sets are pushed apart (SetCSE; Liu, 2024).

    ``L = sum_i l_i``, ``l_i = log sum_{m in S_i, n not in S_i} exp(s_mn/T)`` over the sets S_i: no term for two members
    of one set, and every pair across sets counts twice, once for either side. No lower bound of 0. Called as
    ``SetCSE()(z, relation=Labels(y))``, y saying which set each row is in; rows of a label below 0 are in no set, and
    far from all. A single set has no pair across: its loss is 0, with a warning.

    Arguments:
        variant: "push" (default), the formula above; "infonce": each member against the members of other sets,
            ``-mean_{p near m} log( exp(s_mp/T) / (exp(s_mp/T) + sum_{n not in S_i} exp(s_mn/T)) )``, p a fellow member;
            or its second view alone with ``relation=Paired(item, query_exclude=set)``.
        per_pair: "push" alone: subtract the logarithm of the number of pairs from l_i, so that the size of the sets
            does not shift the value; default False.
        temperature: default 0.05 (from memory of the paper).
        reduction: "sum" (default, the paper's) or "mean" over the sets ("infonce": over the members), or "none": one
            cost a set, in ascending order of labels (a member); ``score`` as in :class:`InfoNCE`.

    No code was published and the paper's formula was not at hand; "push" is from memory, "infonce" the safer reading.
    """

    name = "setcse"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "inter-set": {},
        "setcse-infonce": {"variant": "infonce", "reduction": "mean"},
    }
    formula = "sum_i log sum_{m in S_i, n not in S_i} exp(s_mn/T)"
    paper = "Liu 2024, SetCSE: Set Operations using Contrastive Learning of Sentence Embeddings, arXiv:2404.17606"
    default_temperature = 0.05
    needs_labels = True

    def __init__(
        self,
        variant: str = "push",
        *,
        per_pair: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "sum",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if variant not in ("push", "infonce"):
            raise UsageError(f"setcse: variant must be 'push' or 'infonce', got {variant!r}")
        if per_pair and variant != "push":
            raise UsageError("setcse: per_pair is for the variant 'push'")
        self.variant = variant
        self.per_pair = per_pair
        self.joins_rows = variant == "push"
        self.costs_a_row = 2 if self.joins_rows else 1

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (negative > 0).any(1) if self.variant == "push" else super().active(positive, negative)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.variant == "infonce":
            return weighted_mean(own_log_sums(scores, negative) - scores, positive)
        pairs = negative.to(scores.dtype).sum(1)
        return torch.stack([log_sum_exp(scores, negative), pairs.log()], dim=1)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        if ids is None:
            raise ValueError("setcse: sets are told apart by labels: relation=Labels(y)")
        ids, costs = ids[ids >= 0], costs[ids >= 0]
        apart = grouped_log_sum_exp(costs[:, 0], ids)
        if self.per_pair:
            apart = apart - grouped_log_sum_exp(costs[:, 1], ids)
        return apart if len(apart) else costs.new_zeros(1)
