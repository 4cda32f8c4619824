"""DiscoPOP: preference losses that a language model proposed in a search over losses (Lu et al., 2024).

All are costs of ``z = beta (d_w - d_l)``, beta 0.05, made of three: logistic ``l(z) = log(1 + exp(-z))``, exponential
``exp(-z)`` and hinge ``max(0, 1 - z)``. Where they look at the margin on its own scale they look at ``z / tau`` with
tau 0.05, so that another beta keeps the shape; at beta 0.05 that is the margin itself, as they were discovered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.objectives.preference import MarginObjective, Preferences, exponential, positive
from nearfar.objectives.registry import register

PAPER = "Lu 2024, Discovering Preference Optimization Algorithms with and for Large Language Models, arXiv:2406.08414"


class _Discovered(MarginObjective):
    """Base of the losses that look at ``z / tau``."""

    paper = PAPER

    def __init__(self, beta: float = 0.05, *, tau: float = 0.05, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.tau = positive(self.name, "tau", tau)


@register
class DiscoPOP(_Discovered):
    """DiscoPOP, the log-ratio modulated loss LRML (Lu et al., 2024): logistic and exponential blended by the margin.

    ``L = (1-m) log(1 + exp(-z)) + m exp(-z)``, ``z = beta (d_w - d_l)``, ``m = sigmoid(z / tau)``; mean over pairs, the
    gradient flows through m. In [0, inf); (log 2 + 1)/2 where policy and reference agree. Call as
    :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tau`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean";
    ``reduction``.

    It is not convex: with these defaults a local minimum lies at z = -0.11857 (0.785924) and a local maximum at
    z = 0.072006 (0.878290). At policy = reference the slope in z is +0.784, so that the first step on an isolated pair
    moves the margin the *wrong* way; pairs pushed beyond the bump go on improving. That is the published loss.
    """

    name = "discopop"
    aliases = {"lrml": {}}  # noqa: RUF012
    formula = "(1-m) log(1 + exp(-z)) + m exp(-z), m = sigmoid(z/tau), z = beta (d_w - d_l)"

    def link(self, margin: Tensor) -> Tensor:
        modulation = margin / self.tau
        # m exp(-z) as one exponential: m vanishes faster than exp(-z) grows
        return torch.sigmoid(-modulation) * F.softplus(-margin) + exponential(F.logsigmoid(modulation) - margin)


@register
class DBAQL(_Discovered):
    """Dynamic blended adaptive quantile loss (Lu et al., 2024): blended by how much the batch's margins vary.

    ``L = c log(1 + exp(-z/0.9)) + (1-c) exp(-0.9 z)``, ``c = sigmoid(Var_batch(z / tau))``, the variance unbiased and
    with its gradient; mean over pairs. In [0, inf). A batch of one has variance 0 (the code's is not a number). Call as
    :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tau`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean";
    ``reduction``. The moving quantile in the name is computed by the code and not used.
    """

    name = "dbaql"
    formula = "c log(1 + exp(-z/0.9)) + (1-c) exp(-0.9 z), c = sigmoid(Var(z/tau))"
    margin_alone = False

    def link(self, margin: Tensor) -> Tensor:
        variance = batch_variance(margin / self.tau)
        logistic = torch.sigmoid(variance) * F.softplus(-margin / 0.9)
        return logistic + exponential(F.logsigmoid(-variance) - 0.9 * margin)


@register
class AQL(_Discovered):
    """Adaptive quantile loss (Lu et al., 2024): logistic below a moving quantile of the margin, hinge above.

    ``L = w log(1 + exp(-z)) + (1-w) max(0, 1-z)``, ``w = sigmoid(Q - z/tau)``,
    ``Q = 0.5 + 0.01 (sigmoid(mean_batch(z/tau)) - 0.5)``, with gradient; mean over pairs. In [0, inf). Call as
    :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tau`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean";
    ``reduction``.
    """

    name = "aql"
    formula = "w log(1 + exp(-z)) + (1-w) max(0, 1-z), w = sigmoid(Q - z/tau)"
    margin_alone = False

    def link(self, margin: Tensor) -> Tensor:
        own_scale = margin / self.tau
        quantile = 0.5 + 0.01 * (torch.sigmoid(batch_mean(own_scale)) - 0.5)
        return _blend(torch.sigmoid(quantile - own_scale), margin)


@register
class AQFL(_Discovered):
    """Adaptive quantile feedback loss (Lu et al., 2024): logistic far from a moving quantile, half hinge near it.

    ``L = b log(1 + exp(-z)) + (1-b) max(0, 1-z)``, ``b = sigmoid(0.1 |z/tau - a|)``,
    ``a' = Std_batch(z/tau) mean_batch(sigmoid(-z/tau))``, ``a = a' + 0.05 (sigmoid(mean_batch(z/tau)) - a')``; the
    standard deviation is unbiased, all with gradient; mean over pairs. In [0, inf). A batch of one, or of equal
    margins, has deviation 0 with a zero gradient (the code's is not a number). Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tau`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean";
    ``reduction``.
    """

    name = "aqfl"
    formula = "b log(1 + exp(-z)) + (1-b) max(0, 1-z), b = sigmoid(0.1 |z/tau - a|)"
    margin_alone = False

    def link(self, margin: Tensor) -> Tensor:
        own_scale = margin / self.tau
        quantile = batch_deviation(own_scale) * batch_mean(torch.sigmoid(-own_scale))
        quantile = quantile + 0.05 * (torch.sigmoid(batch_mean(own_scale)) - quantile)
        return _blend(torch.sigmoid(0.1 * (own_scale - quantile).abs()), margin)


@register
class PADLL(MarginObjective):
    """Performance adaptive decay logistic loss (Lu et al., 2024): pairs in the wrong order count half.

    ``L = 0.9 (1 - 0.5 [d_w < d_l]) log(1 + exp(-z))``, ``z = beta (d_w - d_l)``; mean over pairs. In [0, inf), with a
    jump at z = 0, where it is 0.9 log 2. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "padll"
    formula = "0.9 (1 - 0.5 [z < 0]) log(1 + exp(-z)), z = beta (d_w - d_l)"
    paper = PAPER

    def __init__(self, beta: float = 0.05, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)

    def link(self, margin: Tensor) -> Tensor:
        return 0.9 * (1 - 0.5 * (margin < 0).to(margin.dtype)) * F.softplus(-margin)


@register
class CELL(MarginObjective):
    """Combined exponential and logistic loss (Lu et al., 2024).

    ``L = 0.5 exp(-z) + 0.5 log(1 + exp(-z))``, ``z = beta (d_w - d_l)``; mean over pairs. In [0, inf);
    (log 2 + 1)/2 where policy and reference agree, as DiscoPOP, but convex. Where ``exp(-z)`` would
    pass the root of what the type can hold it goes on along its tangent. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "cell"
    formula = "0.5 exp(-z) + 0.5 log(1 + exp(-z)), z = beta (d_w - d_l)"
    paper = PAPER

    def __init__(self, beta: float = 0.05, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)

    def link(self, margin: Tensor) -> Tensor:
        return 0.5 * exponential(-margin) + 0.5 * F.softplus(-margin)


@register
class PFL(MarginObjective):
    """Policy-focused loss (Lu et al., 2024): whether the *policy alone* prefers the chosen decides the form.

    ``L = log(1 + exp(-z)) / 2`` where ``log p(y_w|x) > log p(y_l|x)``, else ``2 max(0, 1-z)``,
    ``z = beta (d_w - d_l)``; mean over pairs. In [0, inf), with a jump. Without a reference the policy's order is the
    margin's sign. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.05; ``tokens``: "sum" (default) or "mean" (of the rewards; the order is always
    that of the values as given); ``reduction``.
    """

    name = "pfl"
    formula = "log(1 + exp(-z)) / 2 if log p(y_w) > log p(y_l) else 2 max(0, 1-z)"
    paper = PAPER

    def __init__(self, beta: float = 0.05, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)

    def link(self, margin: Tensor) -> Tensor:
        return self._by_order(margin, margin > 0)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        margin = self.margin_of(pairs.chosen, pairs.rejected)
        return self._by_order(margin, pairs.policy_chosen > pairs.policy_rejected)

    def _by_order(self, margin: Tensor, right: Tensor) -> Tensor:
        return torch.where(right, F.softplus(-margin) / 2, 2 * (1 - margin).relu())


def _blend(logistic: Tensor, margin: Tensor) -> Tensor:
    return logistic * F.softplus(-margin) + (1 - logistic) * (1 - margin).relu()


def batch_mean(values: Tensor) -> Tensor:
    """The mean of all values; 0 for none."""
    return values.sum() / max(1, values.numel())


def batch_variance(values: Tensor) -> Tensor:
    """The unbiased variance of all values; 0 for fewer than two."""
    return (values - batch_mean(values)).square().sum() / max(1, values.numel() - 1)


def batch_deviation(values: Tensor) -> Tensor:
    """The root of :func:`batch_variance`, with the gradient 0 where it is 0."""
    variance = batch_variance(values)
    return torch.where(variance > 0, torch.where(variance > 0, variance, 1).sqrt(), 0)
