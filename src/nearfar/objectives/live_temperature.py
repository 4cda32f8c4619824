"""Objectives whose temperature follows what the model has learned so far."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.items import ItemTable, log_mean_exp_by_id
from nearfar.contrast.paired import Paired
from nearfar.contrast.relation import Relation, candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import AdaptiveTemperature, IndividualTemperature, Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked, weighted_mean
from nearfar.objectives.registry import register

UNSEEN = -1e9
"""The logarithm that stands for 0 in tables."""


@register
class MACL(RowObjective):
    """Model-aware contrastive loss: T follows the alignment, easy rows do not fade (Huang et al., 2023).

    ``L_i = -V_i log P_i``, ``P_i = exp(s_ip/T) / (exp(s_ip/T) + sum_{n in N(i)} exp(s_in/T))``, ``V_i = 1/(1 - P_i)``
    without a gradient, ``T = T0 (1 + alpha (A - A0))``, A the mean score of the positive pairs of the whole batch,
    without a gradient (:class:`~nearfar.contrast.AdaptiveTemperature`). Mean over rows with a positive and a negative;
    several positives of a row count by their mean score. The loss tends to 1, not 0, as P_i tends to 1; its gradient is
    DCL's at temperature T. In [1, inf) with the weights V, in [0, inf) without.

    The official code divides by 1 - P, which is 0/0 for a converged row in float32; here the quotient is taken in
    closed form. lightly's adds 1e-8 to 1 - P (``eps``).

    Arguments:
        temperature: T0 > 0, default 0.1; or any :class:`~nearfar.contrast.Temperature`, which then counts instead.
        alpha: >= 0, default 0.5. reference: A0, default 0 (the paper's for SimCLR; for SimCSE T0 is 0.05, alpha 2 and
            A0 0.8).
        reweight: whether V is there (default True); False is InfoNCE at T.
        eps: >= 0, added to 1 - P in V; default 0.
        score, two_sided, reduction: as in :class:`~nearfar.objectives.InfoNCE`.
    """

    name = "macl"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"model-aware-contrastive": {}}
    formula = "-V_i log( exp(s_ip/T) / sum_j exp(s_ij/T) ), V_i = 1/(1 - P_i), T = T0 (1 + alpha (A - A0))"
    paper = "Huang 2023, Model-Aware Contrastive Learning, arXiv:2207.07874"
    default_temperature = 0.1

    def __init__(
        self,
        *,
        temperature: float | str | Temperature | None = None,
        alpha: float = 0.5,
        reference: float = 0.0,
        reweight: bool = True,
        eps: float = 0.0,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        if not isinstance(temperature, (Temperature, str)):
            temperature = AdaptiveTemperature(0.1 if temperature is None else temperature, alpha, reference)
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= eps < math.inf:
            raise UsageError(f"macl: eps must be a finite number >= 0, got {eps}")
        self.reweight = reweight
        self.eps = eps

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        behind = log_sum_exp(scores, negative) - weighted_mean(scores, positive)  # -log P = log(1 + exp(behind))
        if not self.reweight:
            return F.softplus(behind)
        wrong = torch.sigmoid(behind.detach())  # 1 - P
        pull = wrong / (wrong + self.eps) if self.eps else torch.ones_like(wrong)
        # below -30 the quotient -log P / (1 - P) is 1 to all digits, and both could vanish
        near = behind.detach().clamp_min(-30)
        value = pull * F.softplus(near) / torch.sigmoid(near)
        # the gradient of -V log P is pull: V takes back what the softmax does
        return pull * behind + (value - pull * behind).detach()


@register
class SogCLR(RowObjective):
    """SogCLR: the global contrastive loss from small batches, by a moving average for each item (Yuan et al., 2022).

    For each item the mean of ``exp(s_ij/T)`` over its negatives is followed from batch to batch,
    ``u_i <- (1 - gamma) u_i + gamma mean_{n in N(i)} exp(s_in/T)``, and
    ``L_i = mean_{n in N(i)} w_in s_in - s_ip`` with ``w_in = exp(s_in/T) / u_i`` without a gradient. Mean over the rows
    with a positive and a negative; call it as
    ``SogCLR()(torch.cat([a, b]), relation=Views(2, ids=torch.cat([ids, ids])))`` or on pairs, ``relation=Paired(ids)``;
    ids are integers from 0, best the rows of the data (under ``Labels`` a class is an item). An item's views share u:
    the mean of theirs.

    The gradient estimates that of the global objective (of DCL over all items, times T); with gamma = 1 it is that of
    the batch. The value is a surrogate, may be negative and need not fall: watch :attr:`log_mass` instead. u is kept as
    its logarithm, so that no temperature overflows; it changes in training mode only and is saved in checkpoints. Over
    processes every process keeps the same.

    The official code adds the losses of both views, which is twice the mean over rows; it begins with ``u = mean`` when
    u is 0 for a whole batch, here when it is for an item; of an item that is twice in a batch it keeps the last u.

    Arguments:
        gamma: in (0, 1], the share of the present batch; default 0.9 (the official code's).
        items: room for that many items at once (default 0: it grows).
        temperature: T > 0, fixed, scheduled or of each item, default 0.1; a learned one raises UsageError: the
            surrogate says nothing of its gradient.
        two_sided: pairs in both directions; each side has its own u. ``score``, ``reduction`` as in
            :class:`~nearfar.objectives.InfoNCE`.

    Raises ValueError where the relation gives no ids.
    """

    name = "sogclr"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"gcl-moving-average": {}}
    formula = "mean_n w_in s_in - s_ip, w_in = exp(s_in/T) / u_i, u_i <- (1 - gamma) u_i + gamma mean_n exp(s_in/T)"
    paper = "Yuan 2022, Provable Stochastic Optimization for Global Contrastive Learning, arXiv:2202.12387"
    default_temperature = 0.1
    needs_row_statistics = True

    def __init__(
        self,
        gamma: float = 0.9,
        *,
        items: int = 0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 < gamma <= 1:
            raise UsageError(f"{self.name}: gamma must lie in (0, 1], got {gamma}")
        assert self.temperature is not None
        if self.temperature.learned:
            raise UsageError(f"{self.name}: the temperature cannot be learned", hint="a number, or 'cosine:...'")
        self.gamma = gamma
        self.log_mass = ItemTable(UNSEEN, items)
        """log u of each item; :data:`UNSEEN` where it has not been seen."""
        self.opposite: SogCLR | None = None
        """What follows the keys of a two-sided objective."""
        if two_sided:
            self.opposite = copy.deepcopy(self)
            self.opposite.two_sided = False
            self.opposite.score = self.score
            if not self.temperature.individual:
                self.opposite.temperature = self.temperature

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return log_sum_exp(scores, negative) - _log_count(scores, negative)

    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]:
        assert self.temperature is not None
        log_mass = self._followed(statistics, ids)
        if isinstance(self.temperature, IndividualTemperature):
            return {"log_mass": log_mass, "temperature": self.temperature.of(ids).to(statistics)}
        return {"log_mass": log_mass, "temperature": statistics.new_tensor(self.temperature.value)}

    def _followed(self, present: Tensor, ids: Tensor, *, from_zero: bool = False) -> Tensor:
        """log of ``(1 - gamma) u + gamma * present``, given the logarithms; written down in training mode."""
        before = self.log_mass(ids).to(present)
        kept = before + (math.log1p(-self.gamma) if self.gamma < 1 else -math.inf)
        blended = torch.logaddexp(kept, present + math.log(self.gamma))
        if not from_zero:
            blended = torch.where(before <= UNSEEN, present, blended)
        if self.training:
            self.log_mass.write(*log_mean_exp_by_id(blended, ids))
        return blended

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        share = _share(scores, negative, state["log_mass"] + _log_count(scores, negative))
        return state["temperature"] * ((share * scores).sum(1) - weighted_mean(scores, positive))

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
        """How the engine evaluates it: each direction of a two-sided one by its own tables."""
        where: dict[str, Any] = {"memory": memory, "tile_rows": tile_rows, "group": group}
        given = relation or Paired()
        sides = (query, key) if scores is None else (scores, scores.T)
        both = all(side is not None and side.dim() == 2 for side in sides)
        if scores is not None and given.among_themselves and len(scores) == len(scores.T):
            both = False  # scores of items among themselves
        if self.opposite is None or not both:
            return evaluate_rows(self, query, key, relation=relation, scores=scores, **where)
        if self.reduction == "none":
            raise ValueError("reduction='none' has no meaning for a two-sided objective: its sides differ in length")
        n, m = (len(side) for side in sides if side is not None)
        like = query if scores is None else scores
        assert like is not None
        given = given.bind(n, m, self_contrast=False, device=like.device)
        there = copy.copy(self)  # shares the tables
        there.two_sided = False
        self.opposite.reduction = self.reduction
        loss, report = evaluate_rows(there, query, key, relation=given, scores=scores, **where)
        turned = None if scores is None else scores.T
        back, of_back = evaluate_rows(self.opposite, key, query, relation=given.transpose(), scores=turned, **where)
        return (loss + back) / 2, report + of_back


@register
class ISogCLR(SogCLR):
    """iSogCLR: SogCLR with a temperature for each item, found by robust optimisation (Qiu et al., 2023).

    Each item's T_i is on its way to the minimiser over T >= ``minimum`` of
    ``T log mean_{n in N(i)} exp((s_in - s_ip)/T) + T rho``: the worst case over distributions of its negatives within a
    Kullback-Leibler ball of radius rho around the uniform one. Items of frequent meaning come to large temperatures,
    rare ones to small. With ``h_in = s_in - s_ip`` and ``u_i`` followed as in :class:`SogCLR`, one evaluation costs
    ``L_i = mean_{n in N(i)} w_in h_in``, ``w_in = exp(h_in/T_i) / u_i`` without a gradient, and, in training mode, then
    moves T_i by the derivative ``log u_i + rho - mean_n w_in h_in / T_i`` (see
    :class:`~nearfar.contrast.IndividualTemperature`). u, T and its momentum are saved in checkpoints.

    Arguments:
        form: "paper" (default), as above. "unimodal": the official code for images, where ``u`` follows
            ``mean_n exp(s_in/T_i)`` and ``L_i = mean_n w_in s_in - s_ip``; the same as "paper" where gamma = 1 and at
            an item's first visit. "bimodal": the official code for images and texts, where u begins at 0, so that w is
            1/gamma too large at first, and the positive is among the terms of the sums, not of the count.
        temperature: where all items begin, or an :class:`~nearfar.contrast.IndividualTemperature`, which also holds
            rho, bounds, rate and momentum. Default: the official code's for CIFAR-100; with "bimodal" 0.07 in
            [0.005, 1], rho 6, rate 0.01, momentum 0.9, clip 5.
        gamma: default 0.8 (the official code's).
        items, score, two_sided, reduction: as in :class:`SogCLR`; each side has temperatures of its own.

    The official codes add both views or both directions: twice the mean over rows. Raises ValueError where the relation
    gives no ids.
    """

    name = "isogclr"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"isogclr-bimodal": {"form": "bimodal", "two_sided": True}}
    formula = "mean_n w_in (s_in - s_ip), w_in = exp((s_in - s_ip)/T_i) / u_i; T_i minimises T log u_i + T rho"
    paper = "Qiu 2023, Not All Semantics are Created Equal: iSogCLR, arXiv:2305.11965"

    def __init__(
        self,
        form: str = "paper",
        *,
        gamma: float = 0.8,
        items: int = 0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        if form not in ("paper", "unimodal", "bimodal"):
            raise UsageError(f"isogclr: form must be 'paper', 'unimodal' or 'bimodal', got {form!r}")
        if temperature is None or (isinstance(temperature, (int, float)) and not isinstance(temperature, bool)):
            options: dict[str, Any] = {"value": 0.1}
            if form == "bimodal":
                options = {"value": 0.07, "minimum": 0.005, "rho": 6.0, "rate": 0.01, "momentum": 0.9, "clip": 5.0}
            if temperature is not None:
                options["value"] = temperature
            temperature = IndividualTemperature(**options, items=items)
        if not isinstance(temperature, IndividualTemperature):
            raise UsageError(
                f"isogclr: the temperature must be a number or an IndividualTemperature, got {temperature!r}"
            )
        super().__init__(
            gamma, items=items, temperature=temperature, score=score, two_sided=two_sided, reduction=reduction
        )
        self.form = form
        if self.opposite is not None:
            assert isinstance(self.opposite, ISogCLR)
            self.opposite.form = form

    def terms(self, scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """``h [t, m]`` and the weights ``[t, m]`` of what is summed."""
        if self.form == "unimodal":
            return scores, negative
        behind = scores - weighted_mean(scores, positive)[:, None]
        return behind, negative if self.form == "paper" else candidates(positive, negative)

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        values, weight = self.terms(scores, positive, negative)
        log_total = log_sum_exp(values, weight)
        expected = (_share(values, weight, log_total) * values).sum(1)
        return torch.stack([log_total - _log_count(scores, negative), expected], dim=1)

    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]:
        assert isinstance(self.temperature, IndividualTemperature)
        present, expected = statistics.unbind(1)
        temperature = self.temperature.of(ids).to(present)
        log_mass = self._followed(present, ids, from_zero=self.form == "bimodal")
        if self.training:
            derivative = log_mass + self.temperature.rho - (present - log_mass).exp() * expected
            self.temperature.update(ids, derivative)
        return {"log_mass": log_mass, "temperature": temperature}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        values, weight = self.terms(scores, positive, negative)
        cost = (_share(values, weight, state["log_mass"] + _log_count(scores, negative)) * values).sum(1)
        if self.form == "unimodal":
            cost = cost - weighted_mean(scores, positive)
        return state["temperature"] * cost


def _log_count(scores: Tensor, negative: Tensor) -> Tensor:
    return negative.to(scores.dtype).sum(1).log()


def _share(scores: Tensor, weight: Tensor, log_total: Tensor) -> Tensor:
    """``weight_ij exp(s_ij) / exp(log_total_i)``, without a gradient."""
    return (masked(scores.detach(), weight) - log_total[:, None]).exp()
