"""Preferences with an anchor: costs that say for each response by itself whether it should become likelier."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.distributed import total_over_processes
from nearfar.objectives.base import PointObjective
from nearfar.objectives.preference import (
    MarginObjective,
    PreferenceObjective,
    Preferences,
    log_ratio,
    not_negative,
    one_of,
    positive,
)
from nearfar.objectives.preference_links import smoothed_logistic
from nearfar.objectives.registry import register


class _Anchored(PreferenceObjective):
    """Base of the losses with a beta that are no link of the margin alone."""

    def __init__(self, beta: float = 0.1, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.beta = positive(self.name, "beta", beta)


@register
class APOZero(_Anchored):
    """Anchored preference optimisation, zero: chosen up, rejected down (D'Oosterlinck et al., 2024).

    ``L = 1 - sigmoid(beta d_w) + sigmoid(beta d_l)``, mean over pairs; for chosen responses that are *better* than what
    the model writes. In (0, 2); 1 where policy and reference agree (the paper leaves out the 1). The gradient always
    raises the chosen and lowers the rejected, and vanishes by design once ``beta |d|`` is large. Unpaired feedback:
    ``kto`` with ``reference_point="zero"``. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "apo-zero"
    formula = "1 - sigmoid(beta d_w) + sigmoid(beta d_l)"
    paper = "D'Oosterlinck 2024, Anchored Preference Optimization and Contrastive Revisions, arXiv:2408.06266"

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        return torch.sigmoid(-self.beta * pairs.chosen) + torch.sigmoid(self.beta * pairs.rejected)


@register
class APODown(_Anchored):
    """Anchored preference optimisation, down: both down, the rejected more (D'Oosterlinck et al., 2024).

    ``L = sigmoid(beta d_w) + 1 - sigmoid(beta (d_w - d_l))``, mean over pairs; for chosen responses that are *worse*
    than what the model writes. In (0, 2); 1 where policy and reference agree, where the chosen's gradient is 0. It
    pushes the chosen down as soon as ``|d_w - d_l| > |d_w|``. It is not zero's with the signs swapped. Call as
    :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "apo-down"
    formula = "sigmoid(beta d_w) + 1 - sigmoid(beta (d_w - d_l))"
    paper = "D'Oosterlinck 2024, Anchored Preference Optimization and Contrastive Revisions, arXiv:2408.06266"

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        margin = pairs.chosen - pairs.rejected
        return torch.sigmoid(self.beta * pairs.chosen) + torch.sigmoid(-self.beta * margin)


@register
class KTO(PointObjective):
    """Kahneman-Tversky optimisation: single responses, desirable or not (Ethayarajh et al., 2024).

    ``L = lambda_D (1 - sigmoid(beta (d - z)))`` of a desirable response, ``lambda_U (1 - sigmoid(beta (z - d)))`` of an
    undesirable one; mean over all. ``z = max(0, mean(d'))``, without a gradient, over responses d' paired with prompts
    that are not theirs: an estimate of the policy's divergence from the reference. In (0, max(lambda)).

    Called with ``score [n]``: the log-ratios d = log p(y|x) - log p_ref(y|x), or log p(y|x) beside ``reference [n]``;
    ``target [n]``: 1 or True where desirable, else 0; ``mismatched``: the log-ratios d' ``[n]``, or their mean as a
    scalar (over several processes that of :func:`kto_reference_point`, so that it is averaged before it is clamped).
    Raises ValueError without it, unless the reference point is zero, and for targets other than 0 and 1.

    Arguments:
        beta: > 0, default 0.1.
        desirable_weight, undesirable_weight: lambda_D, lambda_U >= 0, default 1; the paper wants
            ``lambda_D n_D / (lambda_U n_U)`` in [1, 4/3].
        reference_point: "mismatched" (default), or "zero": z = 0, which is APO-zero for unpaired feedback.
        reduction: "mean" (default), "sum" or "none".
    """

    name = "kto"
    takes = "log-probabilities"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "kto-zero": {"reference_point": "zero"},
        "apo-zero-unpaired": {"reference_point": "zero"},
    }
    formula = "lambda_D (1 - sigmoid(beta (d - z))) or lambda_U (1 - sigmoid(beta (z - d)))"
    paper = "Ethayarajh 2024, KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306"
    extras = ("reference", "mismatched")
    needs = ("mismatched",)

    def __init__(
        self,
        beta: float = 0.1,
        *,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        reference_point: str = "mismatched",
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.beta = positive("kto", "beta", beta)
        self.desirable_weight = not_negative("kto", "desirable_weight", desirable_weight)
        self.undesirable_weight = not_negative("kto", "undesirable_weight", undesirable_weight)
        self.reference_point = one_of("kto", "reference_point", reference_point, ("mismatched", "zero"))

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        desirable = target.to(score.dtype)
        if not bool(((desirable == 0) | (desirable == 1)).all()):
            raise ValueError("kto: targets must be 1 for desirable and 0 for undesirable responses")
        ratio = log_ratio(score, extra)
        point: Tensor | float = 0.0
        if self.reference_point == "mismatched":
            if "mismatched" not in extra:
                raise ValueError(
                    "kto: give the log-ratios of mismatched responses, or make it with reference_point='zero'"
                )
            point = kto_reference_point(extra["mismatched"]).to(score.dtype)
        weight = self.desirable_weight * desirable + self.undesirable_weight * (1 - desirable)
        return weight * torch.sigmoid(self.beta * (point - ratio) * (2 * desirable - 1))


def kto_reference_point(mismatched: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """KTO's z: the mean of the mismatched responses' log-ratios (over all processes of ``group``), at least 0.

    Without a gradient. 0 where there are none.
    """
    values = mismatched.detach().reshape(-1)
    values = values.float() if values.element_size() < 4 else values
    count = total_over_processes(torch.full_like(values.sum(), values.numel()), group)
    return (total_over_processes(values.sum(), group) / count.clamp_min(1)).clamp_min(0)


@register
class KTOPair(_Anchored):
    """KTO on pairs: each side's reference point is the other side's mean (Ethayarajh et al., 2024).

    ``L = [1 - sigmoid(beta (d_w - z_l)) + 1 - sigmoid(beta (z_w - d_l))] / 2``, ``z_l = max(0, mean_batch d_l)`` and
    ``z_w = max(0, mean_batch d_w)``; the mean over pairs is the mean over all 2n responses. One of the four losses that
    DiscoPOP's search started from. In (0, 1); 1/2 where policy and reference agree. Call as
    :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``detach``: whether the reference points carry no gradient, default False (the
    published code of the report and of DiscoPOP lets it through; unpaired ``kto`` never does); ``tokens``: "sum"
    (default) or "mean"; ``reduction``.
    """

    name = "kto-pair"
    formula = "[1 - sigmoid(beta (d_w - z_l)) + 1 - sigmoid(beta (z_w - d_l))] / 2"
    paper = "Ethayarajh 2024, KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306"

    def __init__(
        self, beta: float = 0.1, *, detach: bool = False, tokens: str = "sum", reduction: str = "mean"
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.detach = detach

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        count = max(1, pairs.chosen.numel())
        points = [(side.sum() / count).clamp_min(0) for side in (pairs.chosen, pairs.rejected)]
        of_chosen, of_rejected = [point.detach() for point in points] if self.detach else points
        up = torch.sigmoid(self.beta * (of_rejected - pairs.chosen))
        return (up + torch.sigmoid(self.beta * (pairs.rejected - of_chosen))) / 2


@register
class NCAPair(_Anchored):
    """Noise-contrastive alignment of a pair: each implicit reward against zero (Chen et al., 2024).

    ``L = l(r_w) + l(-r_w)/2 + l(-r_l)/2``, ``r = beta d``, ``l(r) = log(1 + exp(-r))``; mean over pairs. It keeps the
    chosen's likelihood from falling, which a cost of the margin does not. In (0, inf); 2 log 2 where policy and
    reference agree. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "nca-pair"
    formula = "l(r_w) + l(-r_w)/2 + l(-r_l)/2, r = beta d, l(r) = log(1 + exp(-r))"
    paper = "Chen 2024, Noise Contrastive Alignment of Language Models with Explicit Rewards, arXiv:2402.05369"

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        chosen, rejected = self.beta * pairs.chosen, self.beta * pairs.rejected
        return F.softplus(-chosen) + 0.5 * F.softplus(chosen) + 0.5 * F.softplus(rejected)


@register
class BCOPair(_Anchored):
    """Binary classifier optimisation on pairs: chosen above a shift, rejected below it (Jung et al., 2024).

    ``L = l(r_w - delta) + l(delta - r_l)``, ``r = beta d``, ``l(r) = log(1 + exp(-r))``; mean over pairs. An upper
    bound of DPO's loss for any shift. In (0, inf). Call as :class:`PreferenceObjective`, with ``shift`` (a scalar or
    ``[n]``, default 0, as TRL's DPO has it): the paper's delta is a running mean of the rewards of both sides, kept by
    the caller.

    Arguments: ``beta`` > 0, default 0.1; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "bco-pair"
    formula = "l(r_w - delta) + l(delta - r_l), r = beta d, l(r) = log(1 + exp(-r))"
    paper = "Jung 2024, Binary Classifier Optimization for Large Language Model Alignment, arXiv:2404.04656"
    extras = ("shift",)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        shift: Tensor | float = extra.get("shift", 0.0)
        return F.softplus(shift - self.beta * pairs.chosen) + F.softplus(self.beta * pairs.rejected - shift)


@register
class SPPO(_Anchored):
    """Self-play preference optimisation: each log-ratio is regressed on its win rate (Wu et al., 2024).

    ``L = (d_w - (P - 1/2)/beta)^2 + (d_l - (1/2 - P)/beta)^2``, P the chosen's win rate over the policy; mean over
    pairs. In [0, inf). Call as :class:`PreferenceObjective`, with ``win_rate`` (``[n]`` or a scalar in [0, 1]); without
    it P is 1 (the hard form, ``(d_w - 1/(2 beta))^2 + (d_l + 1/(2 beta))^2``).

    Arguments: ``beta`` > 0, default 0.1 (the paper's eta is 1/beta, 1000); ``tokens``: "sum" (default) or "mean";
    ``reduction``.
    """

    name = "sppo"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"sppo-hard": {}}
    formula = "(d_w - (P - 1/2)/beta)^2 + (d_l - (1/2 - P)/beta)^2"
    paper = "Wu 2024, Self-Play Preference Optimization for Language Model Alignment, arXiv:2405.00675"
    extras = ("win_rate",)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        win_rate: Tensor | float = extra.get("win_rate", 1.0)
        target = (win_rate - 0.5) / self.beta
        return (pairs.chosen - target).square() + (pairs.rejected + target).square()


@register
class AOT(MarginObjective):
    """Alignment by optimal transport: the *distribution* of margins should dominate (Melnyk et al., 2024).

    ``L = l(beta (a_(i) - b_(i)))``, ``l(z) = log(1 + exp(-z))``, mean over ranks i of two sorted samples: the policy's
    margins ``log p(y_w) - log p(y_l)`` against the reference's (paired, default), or the implicit rewards of chosen
    against those of rejected responses (``paired=False``), which then need not share prompts. In [0, inf). With one
    pair it is DPO. Call as :class:`PreferenceObjective`; without a reference the reference's margins are 0.

    Arguments: ``beta`` > 0, default 0.1; ``paired``; ``label_smoothing`` in [0, 0.5), default 0; ``reduction``.
    """

    name = "aot"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"aot-pair": {}, "aot-unpaired": {"paired": False}}
    formula = "log(1 + exp(-beta (a_(i) - b_(i)))), a, b sorted"
    paper = "Melnyk 2024, Distributional Preference Alignment of LLMs via Optimal Transport, arXiv:2406.05882"
    margin_alone = False

    def __init__(
        self,
        beta: float = 0.1,
        *,
        paired: bool = True,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, reduction=reduction)
        self.paired = paired
        self.label_smoothing = not_negative("aot", "label_smoothing", label_smoothing, below=0.5)

    def link(self, margin: Tensor) -> Tensor:
        return smoothed_logistic(margin, self.label_smoothing)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        upper, lower = pairs.chosen, pairs.rejected
        if self.paired:
            upper = pairs.policy_chosen - pairs.policy_rejected
            lower = upper - (pairs.chosen - pairs.rejected)
        return self.link(self.margin_of(upper.sort().values, lower.sort().values))
