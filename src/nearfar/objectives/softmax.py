"""The softmax family: a row's positives against a normalising sum over its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.directions import DIRECTIONS, Directions, checked
from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.paired import Paired
from nearfar.contrast.relation import Relation, candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, grouped_log_sum_exp, log_sum_exp, masked, weighted_mean
from nearfar.objectives.registry import register


class SoftmaxObjective(RowObjective):
    """Base of the family whose cost is ``log sum_{j in denominator} exp(s_ij) - mean_{p near i} s_ip``.

    The denominator holds all positives and negatives, or with ``decoupled`` the negatives alone. Positive weights are
    the target distribution (soft targets, grades) and do not enter the denominator, where a positive counts once;
    negative weights do (importance of a negative). ``softmax_form`` tells
    the engine which closed form of the gradient it may use, "all" or "negative"; None makes it differentiate
    :meth:`rows`. It follows from ``decoupled``, and is None for a subclass that writes a part of the formula anew.
    """

    decoupled: ClassVar[bool] = False
    softmax_form: str | None = "all"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.keys()
        closed_form = "negative" if cls.decoupled else "all"
        if "softmax_form" not in own and {"rows", "denominator", "active", "weights", "join"} & own:
            cls.softmax_form = None
        elif "softmax_form" not in own and "decoupled" in own:
            cls.softmax_form = closed_form
        if cls.softmax_form not in (None, closed_form):
            raise TypeError(f"{cls.__name__}: softmax_form is {cls.softmax_form!r}, decoupled = {cls.decoupled}")

    def denominator(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The weights ``[t, m]`` of the columns in the normalising sum: a positive counts once, whatever its weight."""
        return negative if self.decoupled else candidates(positive, negative)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, self.denominator(positive, negative)) - weighted_mean(scores, positive)


@register
class InfoNCE(SoftmaxObjective):
    """InfoNCE: pick the positive out of all candidates (van den Oord et al., 2018).

    ``L_i = -1/|P(i)| sum_{p in P(i)} log( exp(s_ip/T) / sum_{j in P(i) or N(i)} exp(s_ij/T) )``, mean over the rows
    with a positive. With one positive a row this is cross-entropy over the candidates (sentence-transformers'
    MultipleNegativesRankingLoss, scale 1/T); two-sided it is CLIP's loss; on ``Views(2)`` it is NT-Xent (SimCLR).
    In [0, inf); log(number of candidates) when the scores say nothing.

    Positive weights of the relation are soft targets, taken relative to their sum in a row: under
    ``Explicit(target)`` it is cross-entropy with a target distribution. A negative counts ``weight`` times. Keys near
    to nobody (ids -1 under ``Paired``; a queue: ``torch.cat([key, queue])``) are further negatives of all rows.

    Arguments:
        temperature: T > 0, a number, "learned" (from the default; "learned:0.07" from there, as CLIP does) or a
            :class:`Temperature`; default 0.05 (SimCSE, 2021).
        score: "cosine" (default), "dot", "negative-euclidean", "negative-squared-euclidean" or a :class:`Score`.
        two_sided: average the directions query -> key and key -> query (sentence-transformers' directions
            query_to_doc and doc_to_query with partition_mode "per_direction").
        reduction: "mean" (default), "sum" or "none" (one cost a row).
        label_smoothing: in [0, 1), default 0; the share of the target that is spread evenly over all candidates, as in
            torch's cross_entropy.
        own_denominator: whether each positive competes with the negatives alone, as in pytorch-metric-learning's
            NTXentLoss, and not with the other positives too; default False. Matters where a row has several positives.
        average: over "rows" (default) or over "pairs": a row counts as often as it has positives (the reduction of
            pytorch-metric-learning's NTXentLoss).
        directions: None, or some of "query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc": all candidates of a
            query and of its document in one softmax (GTE, Li et al., 2023; sentence-transformers' partition_mode
            "joint"). Called with (query, key) under ``Paired``, or with ``torch.cat([query, key])`` under
            :class:`~nearfar.contrast.directions.Directions`. One cost a query; the pair itself counts in each
            direction that holds it, as in the peer.

    Raises UsageError for options that exclude each other.
    """

    name = "info-nce"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "nt-xent": {"temperature": 0.5},
        "simclr": {"temperature": 0.5},
        "simcse": {},
        "nt-xent-labels": {"temperature": 0.07, "own_denominator": True, "average": "pairs"},
        "mnrl": {},
        "multiple-negatives-ranking": {},
        "clip": {"two_sided": True, "temperature": "learned:0.07"},
        "gte": {"directions": DIRECTIONS},
    }
    formula = "-log( exp(s_ip/T) / sum_j exp(s_ij/T) )"
    paper = "van den Oord 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748"
    default_temperature = 0.05
    needs_negative = False
    softmax_form: str | None = "all"

    def __init__(
        self,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        own_denominator: bool = False,
        average: str = "rows",
        directions: Sequence[str] | None = None,
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"{self.name}: label_smoothing must lie in [0, 1), got {label_smoothing}")
        if average not in ("rows", "pairs"):
            raise UsageError(f"{self.name}: average must be 'rows' or 'pairs', got {average!r}")
        if label_smoothing and own_denominator:
            raise UsageError(f"{self.name}: label_smoothing spreads over all candidates, own_denominator has none")
        self.label_smoothing = label_smoothing
        self.own_denominator = own_denominator
        self.average = average
        self.directions = None if directions is None else checked(directions)
        if self.directions is not None:
            if two_sided or label_smoothing or self.own_denominator or average == "pairs":
                raise UsageError(f"{self.name}: directions in one softmax go with no other option of the softmax")
            self.joins_rows = True
        elif label_smoothing or self.own_denominator or average == "pairs":
            self.softmax_form = None

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.own_denominator:
            return weighted_mean(own_log_sums(scores, negative) - scores, positive)
        costs = super().rows(scores, positive, negative)
        if self.label_smoothing:
            even = weighted_mean(scores, self.denominator(positive, negative))
            costs = costs + self.label_smoothing * (weighted_mean(scores, positive) - even)
        return costs

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "pairs":
            return positive.to(scores.dtype).sum(1)
        return super().weights(scores, positive, negative)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        if ids is None:
            raise ValueError(f"{self.name}: directions need a relation with ids")
        return grouped_log_sum_exp(costs, ids)

    @property
    def of_rows_alone(self) -> bool:
        return self.directions is None

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
        """How the engine evaluates it: pairs in several directions as one set of items."""
        if self.directions is not None and query is not None and key is not None:
            if relation is not None and not isinstance(relation, Paired):
                raise ValueError(f"{self.name}: directions need a Paired relation, got {type(relation).__name__}")
            relation = Directions(query.shape[0], key.shape[0], relation, self.directions)
            query, key = torch.cat([query, key]), None
        return evaluate_rows(
            self, query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
        )


def own_log_sums(scores: Tensor, negative: Tensor) -> Tensor:
    """``log( exp(s_ip) + sum_n w_in exp(s_in) )`` ``[t, m]``: a normalising sum for each column p as the positive."""
    has_negative = (negative > 0).any(1, keepdim=True)
    # a row without negatives would take logsumexp of nothing, whose gradient is NaN
    far = torch.where(has_negative, masked(scores, negative), scores).logsumexp(1, keepdim=True)
    return torch.where(has_negative, torch.logaddexp(scores, far), scores)


@register
class SupCon(SoftmaxObjective):
    """Supervised contrastive loss: everything of the same label is a positive (Khosla et al., 2020).

    ``form="out"`` (default, the better one in the paper):
    ``-1/|P| sum_{p in P} log( exp(s_ip/T) / sum_{a in A} exp(s_ia/T) )``.
    ``form="in"``: ``-log( 1/|P| sum_{p in P} exp(s_ip/T) / sum_{a in A} exp(s_ia/T) )``; never above "out".
    A: all other items, positives included; only the anchor itself is left out. Mean over anchors with a positive.

    Arguments:
        form: "out" (default) or "in".
        temperature: default 0.1 (the paper's runs); and those of :class:`InfoNCE` up to ``reduction``.
        base_temperature: None (default), or a number that the official code divides by: costs times T / base; 0.07
            there.
        without_positive: "dropped" (default): anchors without a positive do not count; "zero": they count as 0 in the
            mean, as in the official code (alias "supcontrast").

    Called with ``anchors [n]`` (bool), only those items are anchors, all items their candidates: the official code's
    contrast mode "one" has the first views as anchors. The official code gives 0 or NaN for one item; here it is 0.
    """

    name = "supcon"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "supcontrast": {"temperature": 0.07, "base_temperature": 0.07, "without_positive": "zero"},
        "supcl-seq": {"temperature": 0.05, "base_temperature": 0.07},
    }
    formula = "-1/|P| sum_p log( exp(s_ip/T) / sum_a exp(s_ia/T) )"
    paper = "Khosla 2020, Supervised Contrastive Learning, arXiv:2004.11362"
    default_temperature = 0.1
    needs_negative = False
    softmax_form: str | None = "all"

    def __init__(
        self,
        form: str = "out",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
        base_temperature: float | None = None,
        without_positive: str = "dropped",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("out", "in"):
            raise UsageError(f"supcon: form must be 'out' or 'in', got {form!r}")
        if base_temperature is not None and not 0 < base_temperature < float("inf"):
            raise UsageError(f"supcon: base_temperature must be a finite number > 0, got {base_temperature}")
        if without_positive not in ("dropped", "zero"):
            raise UsageError(f"supcon: without_positive must be 'dropped' or 'zero', got {without_positive!r}")
        self.form = form
        self.base_temperature = base_temperature
        self.without_positive = without_positive
        if form == "in" or base_temperature is not None or without_positive == "zero":
            self.softmax_form = None  # what the closed form says is "out" alone

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        has = super().active(positive, negative)
        return has | (negative > 0).any(1) if self.without_positive == "zero" else has

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        candidates = self.denominator(positive, negative)
        lonely = ~(positive > 0).any(1)
        if self.without_positive == "zero":  # measured by all candidates, so that nothing is divided by 0
            positive = torch.where(lonely[:, None], candidates, positive)
        if self.form == "out":
            costs = log_sum_exp(scores, candidates) - weighted_mean(scores, positive)
        else:
            near = log_sum_exp(scores, positive) - positive.to(scores.dtype).sum(1).log()
            costs = log_sum_exp(scores, candidates) - near
        if self.base_temperature is not None and self.temperature is not None:
            costs = costs / (self.temperature.scale() * self.base_temperature)
        return torch.where(lonely, 0, costs)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        anchors: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :func:`nearfar.contrast.evaluate`. ``anchors [n]``: bool, which queries are anchors."""
        if anchors is not None:
            relation = of_anchors(anchors, query if scores is None else scores, relation, group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


def of_anchors(
    anchors: Tensor, rows: Tensor | None, relation: Relation | None, group: dist.ProcessGroup | None
) -> Relation:
    """The relation with the rows of all other queries ignored."""
    if rows is None or anchors.dtype != torch.bool or anchors.shape != rows.shape[:1]:
        wanted = None if rows is None else list(rows.shape[:1])
        raise ValueError(f"anchors must be {wanted} bool, got {list(anchors.shape)} of {anchors.dtype}")
    chosen = anchors.to(rows.device)
    if group is not None:
        chosen = GatheredRows(chosen.shape[0], group, chosen.device).gather(chosen.long()).bool()
    return (Paired() if relation is None else relation).ignore(
        lambda row, column: ~chosen[row][:, None].expand(-1, column.numel())
    )


@register
class DCL(SoftmaxObjective):
    """Decoupled contrastive loss: InfoNCE without the positive in its denominator (Yeh et al., 2022).

    ``L_i = -s_ip/T + log sum_{n in N(i)} exp(s_in/T)``, mean over rows with a positive and a negative. The paper's loss
    of two views is this on ``torch.cat([z1, z2])`` with ``Views(2)``. Its gradient is InfoNCE's divided by
    1 - (probability of the positive), so easy positives in small batches still teach. Can be negative and has no lower
    bound.

    Arguments: ``temperature`` default 0.1 (the paper's), and those of :class:`InfoNCE`.
    """

    name = "dcl"
    formula = "-s_ip/T + log sum_n exp(s_in/T)"
    paper = "Yeh 2022, Decoupled Contrastive Learning, arXiv:2110.06848"
    default_temperature = 0.1
    decoupled = True


@register
class DCLW(DCL):
    """Weighted DCL: far positives pull harder (Yeh et al., 2022).

    ``L_i = -w_i s_ip/T + log sum_{n in N(i)} exp(s_in/T)`` with
    ``w_i = 2 - exp(s_ip/sigma) / mean_j exp(s_jp/sigma)``, the mean over the positive pairs of the whole batch, so that
    the w average 1 (the negative von Mises-Fisher weight). With several positives a row, ``w_ip s_ip`` is averaged over
    them, whatever their weights in the relation. In the paper's loss of two views the mean runs over each direction's
    pairs; they hold the same scores, so both forms agree.

    Arguments:
        sigma: > 0, default 0.5 (the paper's).
        detach_weight: whether w carries no gradient. The paper puts no stop-gradient on it (default False); the
            implementation in lightly does.
        temperature: default 0.1; and those of :class:`InfoNCE`.
    """

    name = "dclw"
    formula = "-w_i s_ip/T + log sum_n exp(s_in/T), w_i = 2 - exp(s_ip/sigma) / mean_j exp(s_jp/sigma)"
    softmax_form = None
    needs_positive_scores = True

    def __init__(
        self,
        sigma: float = 0.5,
        *,
        detach_weight: bool = False,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 < sigma < float("inf"):
            raise UsageError(f"dclw: sigma must be a finite number > 0, got {sigma}")
        self.sigma = sigma
        self.detach_weight = detach_weight

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        basis = scores.detach() if self.detach_weight else scores
        weight = 2 - scores.numel() * torch.softmax(basis / self.sigma, dim=0)
        scale = 1.0 if self.temperature is None else self.temperature.scale()
        pairs = torch.bincount(rows, minlength=count).clamp_min(1)
        return {"pull": scores.new_zeros(count).index_add(0, rows, weight * scores * scale) / pairs}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, negative) - state["pull"]
