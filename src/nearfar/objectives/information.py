"""Bounds of mutual information: a critic's scores of joint pairs (near) against those of product pairs (far).

The loss is minus the bound. With a critic ``T(x, y)``, the near columns of row i hold the y of x_i, the far columns the
y of other items; the scores are the critic's, ready-made (``scores=[n, m]``) or the dot product of two embeddings.
Means over product pairs are means over anchors of the mean over their far columns: with as many in each row, as in a
batch of pairs, the mean over all of them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.contrast.relation import candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


def log_mean_exp(scores: Tensor, weight: Tensor) -> Tensor:
    """``log( sum_j weight_ij exp(s_ij) / sum_j weight_ij )``, ``[t]``."""
    return log_sum_exp(scores, weight) - weight.to(scores.dtype).sum(1).log()


def bounded_exp(values: Tensor) -> Tensor:
    """``exp``, whose value and slope stop growing at the root of what the type can hold, so that neither overflows."""
    limit = math.log(torch.finfo(values.dtype).max) / 2
    largest = math.exp(limit)
    beyond = largest * (1 + values - values.detach())
    return torch.where(values > limit, beyond, values.clamp(max=limit).exp())


def moving_log_average(previous: Tensor, batches: Tensor, present: Tensor, rate: float) -> Tensor:
    """``log( (1 - rate) exp(previous) + rate exp(present) )``; ``present`` where there were no ``batches`` before."""
    if rate == 1:
        return present
    blended = torch.logaddexp(previous.to(present) + math.log1p(-rate), present + math.log(rate))
    return torch.where(batches == 0, present, blended)


def _share(name: str, argument: str, value: float) -> float:
    if not 0 < value <= 1:
        raise UsageError(f"{name}: {argument} must lie in (0, 1], got {value}")
    return value


@register
class MINE(RowObjective):
    """MINE: the Donsker-Varadhan bound, with a gradient that small batches do not bias (Belghazi et al., 2018).

    ``-( mean T(joint) - log mean exp(T(product)) )``. The gradient of the logarithm is that of ``mean exp(T) / a``,
    with ``a <- (1 - rate) a + rate mean exp(T)`` over the batches so far, instead of over this batch alone; the value
    is the batch's own. ``rate`` 1 ("dv") has no memory: the plain bound, whose gradient is its derivative. Unbounded on
    both sides; the variance of the estimate grows with exp(I). A logarithm of a batch's mean is no lower bound in
    expectation.

    The average (``log_average``, of all processes' pairs) changes with every call in training mode and is saved with
    the state; in evaluation mode the gradient is the plain one.

    Arguments:
        rate: in (0, 1], default 0.01 (the paper's).
        score: default "dot". two_sided, reduction: see :class:`InfoNCE`; with "none", one value for the batch.
    """

    name = "mine"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"dv": {"rate": 1.0}, "donsker-varadhan": {"rate": 1.0}}
    formula = "log mean exp(T(product)) - mean T(joint)"
    paper = "Belghazi 2018, Mutual Information Neural Estimation, arXiv:1801.04062"
    default_score = "dot"
    joins_rows = True
    costs_a_row = 2
    log_average: Tensor
    batches: Tensor

    def __init__(
        self,
        rate: float = 0.01,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        self.rate = _share(self.name, "rate", rate)
        self.register_buffer("log_average", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return torch.stack([log_mean_exp(scores, negative), weighted_mean(scores, positive)], 1)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        log_means, pulls = costs.unbind(1)
        log_mean = torch.logsumexp(log_means, 0) - math.log(len(costs))
        if self.rate < 1 and self.training:
            log_average = moving_log_average(self.log_average, self.batches, log_mean.detach(), self.rate)
            self.log_average, self.batches = log_average.to(self.log_average), self.batches + 1
            ratio = (log_mean - log_average).exp()
            log_mean = log_mean.detach() + ratio - ratio.detach()
        return (log_mean - pulls.mean())[None]


@register
class NWJ(RowObjective):
    """NWJ: a bound without a logarithm, so without bias (Nguyen, Wainwright & Jordan, 2010).

    ``-( 1 + mean T(joint) - log a - mean exp(T(product)) / a )`` with the baseline a = e: the MINE-f or f-GAN-KL bound.
    With another ``log_baseline``, or a learned one ("tuba"), it is the bound of Barber and Agakov as Poole et al.
    (2019) write it. Tight for ``T = log a + log p(y|x) / p(y)``. Its variance grows with exp(I), and it explodes when T
    does: ``clip`` holds T within [-clip, clip] inside the exponential. Where exp(T) would overflow, value and gradient
    stop growing.

    Arguments:
        log_baseline: log a, default 1; ``learn_baseline``: whether it is a parameter (default False).
        clip: > 0, default None.
        score: default "dot". two_sided, reduction: see :class:`InfoNCE`.
    """

    name = "nwj"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"tuba": {"learn_baseline": True}, "mine-f": {}}
    formula = "-( mean T(joint) - mean exp(T(product) - 1) )"
    paper = "Nguyen 2010, Estimating divergence functionals and the likelihood ratio, arXiv:0809.0853"
    default_score = "dot"

    def __init__(
        self,
        log_baseline: float = 1.0,
        *,
        learn_baseline: bool = False,
        clip: float | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        _check_baseline(self.name, log_baseline, clip)
        self.log_baseline = log_baseline
        self.learn_baseline = learn_baseline
        self.clip = clip
        self.baseline = nn.Parameter(torch.tensor(float(log_baseline))) if learn_baseline else None

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        log_a = self.log_baseline if self.baseline is None else self.baseline
        inside = scores if self.clip is None else scores.clamp(-self.clip, self.clip)
        return -(1 + weighted_mean(scores, positive) - log_a - bounded_exp(log_mean_exp(inside, negative) - log_a))


@register
class JSD(RowObjective):
    """The Jensen-Shannon bound: is this pair joint or product? (Nowozin et al., 2016; Deep InfoMax, 2019).

    ``-( mean -softplus(-T(joint)) - mean softplus(T(product)) )``: logistic regression of joint against product pairs,
    stable where other bounds are not. It does not bound I, but its best critic is ``T = log p(y|x) / p(y)``, from which
    ``value="nwj"`` reads I: the value is then minus the bound of :class:`NWJ` at T + 1, the gradient stays. In [0,
    inf); 2 log 2 for T = 0.

    Arguments:
        value: "jsd" (default) or "nwj".
        score: default "dot". two_sided, reduction: see :class:`InfoNCE`.
    """

    name = "jsd"
    formula = "mean softplus(-T(joint)) + mean softplus(T(product))"
    paper = "Nowozin 2016, f-GAN, arXiv:1606.00709"
    default_score = "dot"

    def __init__(
        self,
        value: str = "jsd",
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if value not in ("jsd", "nwj"):
            raise UsageError(f"jsd: value must be 'jsd' or 'nwj', got {value!r}")
        self.value = value

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        cost = _logistic(scores, positive, negative)
        if self.value == "jsd":
            return cost
        nwj = -(1 + weighted_mean(scores, positive) - bounded_exp(log_mean_exp(scores, negative)))
        return cost + (nwj - cost).detach()


@register
class SMILE(RowObjective):
    """SMILE: Donsker-Varadhan with a clipped critic, learned by the Jensen-Shannon bound (Song & Ermon, 2020).

    Value ``-( mean T(joint) - log mean exp( clip(T(product), -clip, clip) ) )``, gradient that of :class:`JSD`.
    Clipping trades the variance for a bias; it is no lower bound.

    Arguments:
        clip: > 0, default 5 (the paper compares 1, 5 and none: inf).
        score: default "dot". two_sided, reduction: see :class:`InfoNCE`; with "none", one value for the batch.
    """

    name = "smile"
    formula = "log mean exp( clip(T(product), -c, c) ) - mean T(joint), gradient of jsd"
    paper = "Song 2020, Understanding the Limitations of Variational Mutual Information Estimators, arXiv:1910.06222"
    default_score = "dot"
    joins_rows = True
    costs_a_row = 3

    def __init__(
        self,
        clip: float = 5.0,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if not clip > 0:
            raise UsageError(f"smile: clip must be > 0, got {clip}")
        self.clip = clip

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        log_mean = log_mean_exp(scores.clamp(-self.clip, self.clip), negative)
        return torch.stack(
            [_logistic(scores, positive, negative), log_mean.detach(), weighted_mean(scores, positive).detach()], 1
        )

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        costs, log_means, pulls = costs.unbind(1)
        cost = costs.mean()
        smile = torch.logsumexp(log_means, 0) - math.log(len(log_means)) - pulls.mean()
        return (cost + (smile - cost).detach())[None]


@register
class InterpolatedBound(RowObjective):
    """Between NWJ and InfoNCE: the baseline is partly the batch's own (Poole et al., 2019).

    ``-( 1 + mean_{j far} [ T_ii - log b_ij ] - mean_{j far} exp(T_ij) / b_ii )`` for each row, with
    ``b_ij = alpha mean_{k != j} exp(T_ik) + (1 - alpha) exp(log_baseline)``: the mean over all columns but j. ``alpha``
    0 is :class:`NWJ` (large variance), ``alpha`` 1 is InfoNCE, each far column left out in turn (bias, at most log of
    the number of far columns). Where exp(T) would overflow, value and gradient stop growing.

    Arguments:
        alpha: in [0, 1], default 0.01. ``log_baseline``: default 1; ``learn_baseline``: whether it is a parameter
            (default False).
        score: default "dot". two_sided, reduction: see :class:`InfoNCE`.
    """

    name = "interpolated-bound"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"alpha-bound": {}}
    formula = "-( 1 + mean_j [ T_ii - log b_ij ] - mean_j exp(T_ij) / b_ii ), b = alpha mean exp(T) + (1 - alpha) a"
    paper = "Poole 2019, On Variational Bounds of Mutual Information, arXiv:1905.06922"
    default_score = "dot"

    def __init__(
        self,
        alpha: float = 0.01,
        log_baseline: float = 1.0,
        *,
        learn_baseline: bool = False,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= alpha <= 1:
            raise UsageError(f"{self.name}: alpha must lie in [0, 1], got {alpha}")
        _check_baseline(self.name, log_baseline, None)
        self.alpha = alpha
        self.log_baseline = log_baseline
        self.learn_baseline = learn_baseline
        self.baseline = nn.Parameter(torch.tensor(float(log_baseline))) if learn_baseline else None

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        log_b = self._log_baselines(scores, candidates(positive, negative))
        joint = weighted_mean(scores, positive) - weighted_mean(log_b, negative)
        marginal = bounded_exp(log_mean_exp(scores, negative) + log_mean_exp(-log_b, positive))
        return -(1 + joint - marginal)

    def _log_baselines(self, scores: Tensor, everyone: Tensor) -> Tensor:
        """``log b_ij`` for each column j of each row."""
        fixed = scores.new_tensor(self.log_baseline) if self.baseline is None else self.baseline.to(scores.dtype)
        if self.alpha == 0:
            return fixed.expand(scores.shape)
        total = log_sum_exp(scores, everyone)[:, None]
        weighted = torch.where(everyone > 0, masked(scores, everyone), total.detach() - 1)
        # log(exp(total) - exp(own)) = own + log(expm1(total - own)); a column that is all there is leaves rounding
        gap = (total - weighted).clamp_min(torch.finfo(scores.dtype).eps)
        others = (everyone.to(scores.dtype).sum(1, keepdim=True) - everyone.to(scores.dtype)).clamp_min(
            torch.finfo(scores.dtype).eps
        )
        without = weighted + gap + torch.log(-torch.expm1(-gap)) - others.log()
        if self.alpha == 1:
            return without
        return torch.logaddexp(without + math.log(self.alpha), fixed + math.log1p(-self.alpha))


@register
class InfoNCEBound(SoftmaxObjective):
    """InfoNCE as a bound of mutual information (van den Oord et al., 2018).

    ``-( mean_i [ T_ip - log sum_j exp(T_ij) ] + log m )``, j over all m candidates of a row, its positive included.
    Minus a lower bound of I with little variance, that never exceeds log m: where I does, no critic and no training
    makes it tight. The value is that of :class:`InfoNCE` minus log m, and so is the gradient.

    Arguments: ``temperature`` default 1; ``score`` default "dot"; those of :class:`InfoNCE`.
    """

    name = "infonce-bound"
    formula = "-log( exp(T_ip) / mean_j exp(T_ij) )"
    paper = "van den Oord 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748"
    default_score = "dot"
    default_temperature = 1.0
    needs_negative = False

    def __init__(
        self,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_mean_exp(scores, self.denominator(positive, negative)) - weighted_mean(scores, positive)


def _logistic(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    return weighted_mean(F.softplus(-scores), positive) + weighted_mean(F.softplus(scores), negative)


def _check_baseline(name: str, log_baseline: float, clip: float | None) -> None:
    if not math.isfinite(log_baseline):
        raise UsageError(f"{name}: log_baseline must be finite, got {log_baseline}")
    if clip is not None and not 0 < clip < math.inf:
        raise UsageError(f"{name}: clip must be a finite number > 0, got {clip}")
