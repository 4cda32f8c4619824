"""Objectives made of another one: in both directions, over several views, with hard negatives weighted up."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.engine import Memory
from nearfar.contrast.paired import Views
from nearfar.errors import UsageError
from nearfar.objectives.base import Objective, RowObjective, ViewObjective
from nearfar.objectives.registry import get, register


def objective_of(objective: str | Objective) -> Objective:
    """The objective itself, or the one of that name."""
    return get(objective) if isinstance(objective, str) else objective


class WrappedRows(RowObjective):
    """A row objective that hands everything to ``objective``; a subclass changes what it wants.

    Raises UsageError for another kind of objective, and for one that is not evaluated by its rows alone (one of several
    contrasts, one with proxies): what a row costs is then not all of it.
    """

    def __init__(self, objective: str | Objective) -> None:
        inner = objective_of(objective)
        if not isinstance(inner, RowObjective):
            raise UsageError(f"{self.name} wraps row objectives, and {inner.name} is a {inner.kind} objective")
        if not inner.of_rows_alone:
            raise UsageError(f"{self.name} wraps objectives of rows alone, and {inner.name} is more than its rows")
        super().__init__(score=inner.score, two_sided=inner.two_sided, reduction=inner.reduction)
        self.objective = inner
        self.temperature = inner.temperature
        self.needs_negative = inner.needs_negative  # type: ignore[misc]
        self.needs_positive_scores = inner.needs_positive_scores
        self.needs_row_statistics = inner.needs_row_statistics
        self.joins_rows = inner.joins_rows
        self.costs_a_row = inner.costs_a_row

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return self.objective.rows(scores, positive, negative, **state)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return self.objective.active(positive, negative)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.objective.weights(scores, positive, negative)

    def arrays(self, positives: int) -> float:
        return self.objective.arrays(positives)

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        return self.objective.prepare(scores, rows, count)

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.objective.statistic(scores, positive, negative)

    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return self.objective.remember(statistics, ids)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        return self.objective.join(costs, ids)

    def extra_repr(self) -> str:
        return super().extra_repr()


@register
class Symmetric(WrappedRows):
    """Any row objective in both directions: ``(L(query, key) + L(key, query)) / 2`` (CLIP, Radford et al., 2021).

    The same as ``two_sided=True`` of the objective, for objectives made already or by somebody else; the softmax family
    shares the scores of both directions. A batch contrasted among itself (one set of items) has one direction only.

    Arguments: ``objective``: a row objective or its name.
    """

    name = "symmetric"
    formula = "( L(query, key) + L(key, query) ) / 2"
    paper = "Radford 2021, Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020"

    def __init__(self, objective: str | Objective = "info-nce") -> None:
        super().__init__(objective)
        self.two_sided = True
        self.softmax_form = self.objective.softmax_form


@register
class HardnessWeighted(WrappedRows):
    """Any row objective with its hard negatives weighted up (Robinson et al., 2021; Lan et al., 2025).

    A negative's weight is multiplied by ``h_in = exp(strength * s_in)``, s the similarity before the temperature, and,
    ``normalized``, by what makes the h of a row average 1 over its negatives (importance sampling, Robinson), so that
    the positive keeps its share of a denominator. The weights carry no gradient unless ``detached`` is False.
    Objectives that only ask whether a pair is a negative (triplet "hard", for one) do not change.

    Arguments:
        objective: a row objective or its name; default "info-nce".
        strength: >= 0; default 1. LLaVE (Lan et al., arXiv:2503.04812) uses 9 on cosines without normalisation.
        normalized: default True. False is sentence-transformers' ``hardness_mode="all_negatives"``.
        detached: default True.

    Raises UsageError for a negative strength, and for objectives whose items have temperatures of their own.
    """

    name = "hardness-weighted"
    formula = "L with w_in -> w_in exp(strength s_in) / mean_n exp(strength s_in)"
    paper = "Robinson 2021, Contrastive Learning with Hard Negative Samples, arXiv:2010.04592"

    def __init__(
        self,
        objective: str | Objective = "info-nce",
        *,
        strength: float = 1.0,
        normalized: bool = True,
        detached: bool = True,
    ) -> None:
        super().__init__(objective)
        if not 0 <= strength < float("inf"):
            raise UsageError(f"{self.name}: the strength must be a finite number >= 0, got {strength}")
        if self.temperature is not None and self.temperature.individual:
            raise UsageError(f"{self.name} needs one temperature for all items")
        self.strength = strength
        self.normalized = normalized
        self.detached = detached

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return self.objective.rows(scores, positive, self._harder(scores, negative), **state)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.objective.weights(scores, positive, self._harder(scores, negative))

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.objective.statistic(scores, positive, self._harder(scores, negative))

    def arrays(self, positives: int) -> float:
        return self.objective.arrays(positives) + 3.0

    def _harder(self, scores: Tensor, negative: Tensor) -> Tensor:
        similarity = scores if self.temperature is None else scores / self.temperature.scale()
        hardness = self.strength * (similarity.detach() if self.detached else similarity)
        far = negative > 0
        # from the hardest negative down, so that nothing overflows; without normalisation 0 is where weights stay
        peak = hardness.masked_fill(~far, -torch.inf).amax(1, keepdim=True) if self.normalized else 0.0
        weight = (hardness - torch.nan_to_num(torch.as_tensor(peak), neginf=0.0)).masked_fill(~far, -torch.inf).exp()
        if self.normalized:
            weight = weight * far.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-30)
        return negative * weight


@register
class MultiView(ViewObjective):
    """Any row or view objective over more than two views of the same items (Tian et al., 2020; Chen et al., 2020).

    ``views="pairs"``: the mean over all pairs of views of the objective on the two; ``"first"``: over the pairs of the
    first view with each other (CMC's core view; crops against one image); ``"all"``: all views contrasted among
    themselves at once, every other view of an item near it. A row objective contrasts the 2 n (or V n) views among
    themselves, as NT-Xent does, or with ``across`` one view against the other.

    Called with ``z1 [n, d], ..., zV [n, d]``, V >= 2, and ``memory``, ``group`` as row objectives are.

    Arguments:
        objective: a row or view objective or its name; default "info-nce".
        views: "pairs" (default), "first" or "all"; "all" needs a row objective.
        across: whether a pair of views is contrasted as queries and keys, view against view, instead of among
            themselves; row objectives only. Default False.
    """

    name = "multi-view"
    formula = "mean over pairs of views L(z_v, z_w)"
    paper = "Tian 2020, Contrastive Multiview Coding, arXiv:1906.05849"

    def __init__(self, objective: str | Objective = "info-nce", *, views: str = "pairs", across: bool = False) -> None:
        super().__init__()
        inner = objective_of(objective)
        if inner.kind not in ("row", "view") or inner.needs:
            raise UsageError(f"{self.name} takes a row or view objective of embeddings alone, and not {inner.name}")
        if views not in ("pairs", "first", "all"):
            raise UsageError(f"{self.name}: views must be 'pairs', 'first' or 'all', got {views!r}")
        if inner.kind == "view" and (views == "all" or across):
            raise UsageError(f"{self.name}: views='all' and across need a row objective, and {inner.name} is none")
        self.objective = inner
        self.choice = views
        self.across = across

    def forward(self, *views: Tensor, memory: Memory = "auto", group: dist.ProcessGroup | None = None) -> Tensor:
        if len(views) < 2:
            raise ValueError(f"{self.name}: give at least two views, got {len(views)}")
        if group is not None and self.objective.kind == "view":
            raise ValueError(f"{self.name}: {self.objective.name} sees the batch of one process; give no group")
        given = self.views(*views, minimum=1)
        where: dict[str, Any] = {"memory": memory, "group": group}
        if self.choice == "all":
            return self._among(given, where)
        pairs = list(itertools.combinations(given, 2)) if self.choice == "pairs" else [(given[0], z) for z in given[1:]]
        return torch.stack([self._of_two(*pair, where) for pair in pairs]).mean()

    def _of_two(self, one: Tensor, other: Tensor, where: dict[str, Any]) -> Tensor:
        loss: Tensor
        if self.objective.kind == "view":
            loss = self.objective(one, other)
        elif self.across:
            loss = self.objective(one, other, **where)
        else:
            loss = self._among([one, other], where)
        return loss

    def _among(self, views: list[Tensor], where: dict[str, Any]) -> Tensor:
        loss: Tensor = self.objective(torch.cat(views), relation=Views(len(views)), **where)
        return loss

    def extra_repr(self) -> str:
        return f"views={self.choice!r}, across={self.across}"
