"""The softmax family: a row's positives against a normalising sum over its columns."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.relation import candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, weighted_mean
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

    Arguments:
        temperature: T > 0, a number, "learned" (from the default; "learned:0.07" from there, as CLIP does) or a
            :class:`Temperature`; default 0.05 (SimCSE, 2021).
        score: "cosine" (default), "dot", "negative-euclidean", "negative-squared-euclidean" or a :class:`Score`.
        two_sided: average the directions query -> key and key -> query.
        reduction: "mean" (default), "sum" or "none" (one cost a row).
    """

    name = "info-nce"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "nt-xent": {"temperature": 0.5},
        "mnrl": {},
        "multiple-negatives-ranking": {},
        "clip": {"two_sided": True, "temperature": "learned:0.07"},
    }
    formula = "-log( exp(s_ip/T) / sum_j exp(s_ij/T) )"
    paper = "van den Oord 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748"
    default_temperature = 0.05
    needs_negative = False


@register
class SupCon(SoftmaxObjective):
    """Supervised contrastive loss: everything of the same label is a positive (Khosla et al., 2020).

    ``form="out"`` (default, the better one in the paper):
    ``-1/|P| sum_{p in P} log( exp(s_ip/T) / sum_{a in A} exp(s_ia/T) )``.
    ``form="in"``: ``-log( 1/|P| sum_{p in P} exp(s_ip/T) / sum_{a in A} exp(s_ia/T) )``; never above "out".
    A: all other items, positives included; only the anchor itself is left out. Mean over anchors with a positive. The
    official code multiplies by T/0.07 and counts anchors without positives as 0 in the mean; the paper does neither.

    Arguments: ``temperature`` default 0.1 (the paper's runs), ``form``, and those of :class:`InfoNCE`.
    """

    name = "supcon"
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
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("out", "in"):
            raise UsageError(f"supcon: form must be 'out' or 'in', got {form!r}")
        self.form = form
        if form == "in":
            self.softmax_form = None  # the closed form pulls towards all positives alike, which "in" does not

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.form == "out":
            return super().rows(scores, positive, negative)
        everyone = log_sum_exp(scores, self.denominator(positive, negative))
        return everyone - log_sum_exp(scores, positive) + positive.to(scores.dtype).sum(1).log()


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
