"""Objectives whose positives or negatives are drawn given a condition of the item."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.kernel import ConditionalKernel, Kernel
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, weighted_mean
from nearfar.objectives.registry import register

LEAST = 1e-7
"""The least expectation of the official code's form "weak"."""


@register
class CCLK(RowObjective):
    """CCL-K: contrast given a condition, by a kernel instead of sampling (Tsai et al., 2022).

    Of n pairs (x_i, y_i) with conditions z_i (a sensitive value, an attribute, an embedding) the expectation over
    ``y ~ P(y | z_i)`` is estimated from the whole batch: ``E_i = sum_j W_ji exp(s_ij/T)`` with
    ``W = (K + regularization I)^-1 K``, ``K_ij = k(z_i, z_j)``. Call it with the conditions as relation:
    ``CCLK("fair")(x, y, relation=Kernel(z, "rbf"))``; query i and key i are a pair unless the kernel has ids.

    ``form="weak"``: the condition is weak supervision, items of like condition are near:
    ``L_i = -log( E_i / (E_i + sum_{j != i} exp(s_ij/T)) )``.
    ``form="fair"`` (default): the condition must not be what tells items apart, so negatives are of like condition:
    ``L_i = -log( exp(s_ii/T) / (exp(s_ii/T) + (n - 1) E_i) )``. With z the embeddings themselves these are hard
    negatives (``form="hard"``, the same formula). Mean over rows; in [0, inf).

    A kernel mean may have negative weights W; they count as 0. W is solved once an evaluation from the n x n kernel of
    the conditions (n^2 numbers, n^3 / 3 steps); everything else is linear in n. Its bandwidth matters: with a kernel of
    full rank and little regularization W tends to the identity. Views contrasted among themselves
    (``CCLK()(torch.cat([x, y]), relation=Kernel(torch.cat([z, z]), ids=torch.cat([ids, ids])))``) sum over both views,
    as in the official code.

    Arguments:
        form: "fair" (default), "hard" or "weak".
        regularization: lambda > 0, default 0.01 (the official script's).
        official: as the official code has it: the kernel of an item with itself is 1, an item's weight for itself is 0,
            weights below 1e-6 are 0, and in "weak" the other views of the item are negatives. An item to which no other
            has a weight counts: with E_i = 0 in "fair" and "hard", and in "weak" with E_i = 1e-7, the least there is
            (default False).
        temperature: default 0.5 (the paper's). score, two_sided, reduction: as in
            :class:`~nearfar.objectives.InfoNCE`.

    Raises ValueError where the relation is not a :class:`~nearfar.contrast.Kernel`.
    """

    name = "ccl-k"
    needs = ("relation=Kernel(condition)",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "fair-info-nce-k": {"form": "fair"},
        "weak-sup-info-nce-k": {"form": "weak"},
        "hard-neg-info-nce-k": {"form": "hard"},
    }
    formula = "-log( exp(s_ii/T) / (exp(s_ii/T) + (n-1) sum_j W_ji exp(s_ij/T)) ), W = (K + lambda I)^-1 K"
    paper = "Tsai 2022, Conditional Contrastive Learning with Kernel, arXiv:2202.05458"
    default_temperature = 0.5

    def __init__(
        self,
        form: str = "fair",
        *,
        regularization: float = 0.01,
        official: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("fair", "hard", "weak"):
            raise UsageError(f"ccl-k: form must be 'fair', 'hard' or 'weak', got {form!r}")
        if not 0 < regularization < float("inf"):
            raise UsageError(f"ccl-k: regularization must be a finite number > 0, got {regularization}")
        self.form = form
        self.regularization = regularization
        self.official = official

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.form == "weak":
            near = _log_sum_where_some(scores, positive)
            near = near.clamp_min(math.log(LEAST)) if self.official else near
        else:
            near = weighted_mean(scores, positive)
        return F.softplus(_log_sum_where_some(scores, negative) - near)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        if not self.official:
            return super().active(positive, negative)
        return ((negative if self.form == "weak" else positive) > 0).any(1)

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
        """How the engine evaluates it: with the weights that the conditions give."""
        if not isinstance(relation, Kernel):
            raise ValueError(
                f"{self.name} needs the conditions of the items: relation=Kernel(condition), got "
                f"{type(relation).__name__}"
            )
        given = relation.of_kind(ConditionalKernel)
        given.role = "near" if self.form == "weak" else "far"
        given.regularization, given.official = self.regularization, self.official
        return evaluate_rows(
            self, query, key, relation=given, scores=scores, memory=memory, tile_rows=tile_rows, group=group
        )


def _log_sum_where_some(scores: Tensor, weight: Tensor) -> Tensor:
    """``log sum_j weight_ij exp(s_ij)``; the least number, without a gradient, where a row has no weight."""
    some = (weight > 0).any(1)
    found = log_sum_exp(scores, torch.where(some[:, None], weight, 1))
    return torch.where(some, found, torch.finfo(scores.dtype).min / 2)
