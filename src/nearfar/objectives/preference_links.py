"""Links of the preference margin: DPO, IPO, the hinge and others, and any of them as a row objective on any scores."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, compact
from nearfar.objectives.preference import (
    LIKELIHOODS,
    MarginObjective,
    Preferences,
    not_negative,
    one_of,
    positive,
    power_reward,
)
from nearfar.objectives.registry import get, register

DIVERGENCES = ("reverse-kl", "forward-kl", "jensen-shannon", "alpha")


def smoothed_logistic(margin: Tensor, smoothing: float) -> Tensor:
    """``(1 - e) log(1 + exp(-z)) + e log(1 + exp(z))``: the logistic cost when labels are wrong at the rate e."""
    if smoothing == 0:
        return F.softplus(-margin)
    return (1 - smoothing) * F.softplus(-margin) + smoothing * F.softplus(margin)


@register
class DPO(MarginObjective):
    """Direct preference optimisation: the pairwise logistic loss on implicit rewards (Rafailov et al., 2023).

    ``L = log(1 + exp(-beta (d_w - d_l)))``, ``d = log p(y|x) - log p_ref(y|x)``; mean over pairs. It is InfoNCE over
    the two implicit rewards of a prompt at temperature 1/beta, and ``pairwise-logistic`` on them. In [0, inf); log 2
    where policy and reference agree, and for ``y_w = y_l``, whose gradient is 0. Call as :class:`PreferenceObjective`.

    Arguments:
        beta: > 0, default 0.1.
        label_smoothing: e in [0, 0.5), default 0. The conservative form (cDPO, Mitchell 2023)
            ``(1-e) l(z) + e l(-z)`` with ``l(z) = log(1 + exp(-z))``, or with ``robust=True`` the unbiased one (Ray
            Chowdhury et al., 2024, arXiv:2403.00409) ``((1-e) l(z) - e l(-z)) / (1-2e)``, which can be negative.
        divergence: of the policy from the reference (f-DPO, Wang et al., 2023, arXiv:2309.16240); d is replaced by
            f'(exp(d)), which need not be linear in d: "reverse-kl" (default) d; "forward-kl" ``1 - exp(-d)``;
            "jensen-shannon" ``log 2 + logsigmoid(d)``; "alpha" ``(1 - exp(-alpha d)) / alpha``, which at alpha 0 is
            the first and at 1 the second. TRL's coefficient is 1 - alpha.
        alpha: finite, default 0.5; for ``divergence="alpha"``. The paper's lies in (0, 1).
        tokens: "sum" (default) or "mean": each d divided by its completion's length (length-normalised DPO, with a
            larger beta, about 2).
        likelihood_weight: >= 0, default 0: adds the weight times the negative log-likelihood of the chosen (iterative
            reasoning preference optimisation, Pang et al., 2024; ``likelihood="mean"``).
        likelihood: how that is taken over tokens: "mean" (default), "sum", or "pooled" over the batch.
        reduction: "mean" (default), "sum" or "none".

    DNO-Prct (Rosset et al., 2024) is this loss with the *previous iterate* for the reference, not the first model, on
    pairs filtered by their difference in score, with a little likelihood. Traps: the chosen's likelihood may fall while
    the loss falls (watch both); chosen and rejected must share the prompt; dropout off in the reference.
    """

    name = "dpo"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "cdpo": {"label_smoothing": 0.1},
        "robust-dpo": {"label_smoothing": 0.1, "robust": True},
        "robust": {"label_smoothing": 0.1, "robust": True},
        "dpo-norm": {"tokens": "mean", "beta": 2.0},
        "sigmoid-norm": {"tokens": "mean", "beta": 2.0},
        "dpo-nll": {"likelihood_weight": 1.0},
        "dno-prct": {"likelihood_weight": 0.005},
    }
    formula = "log(1 + exp(-beta (d_w - d_l))), d = log p(y|x) - log p_ref(y|x)"
    paper = "Rafailov 2023, Direct Preference Optimization, arXiv:2305.18290"

    def __init__(
        self,
        beta: float = 0.1,
        *,
        label_smoothing: float = 0.0,
        robust: bool = False,
        divergence: str = "reverse-kl",
        alpha: float = 0.5,
        likelihood_weight: float = 0.0,
        likelihood: str = "mean",
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.label_smoothing = not_negative("dpo", "label_smoothing", label_smoothing, below=0.5)
        self.robust = robust
        self.divergence = one_of("dpo", "divergence", divergence, DIVERGENCES)
        if not math.isfinite(alpha):
            raise UsageError(f"dpo: alpha must be a finite number, got {alpha}")
        self.alpha = alpha
        self.likelihood_weight = not_negative("dpo", "likelihood_weight", likelihood_weight)
        self.likelihood = one_of("dpo", "likelihood", likelihood, LIKELIHOODS)

    def reward(self, ratio: Tensor) -> Tensor:
        if self.divergence == "reverse-kl":
            return ratio
        if self.divergence == "jensen-shannon":
            return math.log(2) + F.logsigmoid(ratio)
        return power_reward(ratio, self.alpha if self.divergence == "alpha" else 1.0)

    def link(self, margin: Tensor) -> Tensor:
        if not self.robust:
            return smoothed_logistic(margin, self.label_smoothing)
        e = self.label_smoothing
        return ((1 - e) * F.softplus(-margin) - e * F.softplus(margin)) / (1 - 2 * e)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        cost = super().pairs(pairs)
        if self.likelihood_weight:
            cost = cost + self.likelihood_weight * pairs.negative_log_likelihood(self.likelihood)
        return cost


@register
class IPO(MarginObjective):
    """Identity preference optimisation: the margin is regressed on a target (Azar et al., 2023).

    ``L = (d_w - d_l - 1/(2 beta))^2``, mean over pairs; beta is the paper's tau. In [0, inf); ``1/(2 beta)^2`` where
    policy and reference agree. The target margin grows as beta shrinks (50 nats at 0.01) and values of different beta
    do not compare. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``tokens``: "sum" (default; the paper's formula, as its official ports and
    DiscoPOP's code have it) or "mean": each d is divided by its completion's length first (TRL, whose maintainers
    report that the paper's results used it; alias "ipo-norm"); ``reduction``. A study that calls the target itself beta
    (Tajwar et al., 2024) has beta = 1/(2 x that).
    """

    name = "ipo"
    aliases = {"ipo-norm": {"tokens": "mean"}}  # noqa: RUF012
    formula = "(d_w - d_l - 1/(2 beta))^2"
    paper = "Azar 2023, A General Theoretical Paradigm to Understand Learning from Human Preferences, arXiv:2310.12036"

    def __init__(self, beta: float = 0.1, *, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)

    def link(self, margin: Tensor) -> Tensor:
        return ((margin - 0.5) / self.beta).square()


@register
class Hinge(MarginObjective):
    """Hinge on the implicit rewards' margin: SLiC-norm of statistical rejection sampling (RSO; Liu et al., 2023).

    ``L = max(0, margin - beta (d_w - d_l))``, mean over pairs. In [0, inf); the margin where policy and reference
    agree, 0 with a zero gradient once it holds. This is what peers call "hinge DPO" or "SLiC-norm"; SLiC-HF
    (``slic-hf``) has no reference and adds a likelihood. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1 (0.05 to 0.1 in the paper); ``margin`` > 0, default 1; ``tokens``: "sum"
    (default) or "mean"; ``reduction``.
    """

    name = "hinge"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"slic-norm": {}, "rso": {}}
    formula = "max(0, margin - beta (d_w - d_l))"
    paper = "Liu 2023, Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657"

    def __init__(self, beta: float = 0.1, *, margin: float = 1.0, tokens: str = "sum", reduction: str = "mean") -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.margin = positive("hinge", "margin", margin)

    def link(self, margin: Tensor) -> Tensor:
        return (self.margin - margin).relu()


@register
class EXO(MarginObjective):
    """Efficient exact optimisation of a pair: reverse KL from the policy's choice to the labels (Ji et al., 2024).

    ``L = q log(q / (1-e)) + (1-q) log((1-q) / e)``, ``q = sigmoid(beta (d_w - d_l))``, mean over pairs: the
    Kullback-Leibler divergence of the policy's preference from the smoothed label. In [0, inf), 0 at
    ``beta (d_w - d_l) = log((1-e)/e)``: unlike DPO's its optimum is finite. Call as :class:`PreferenceObjective`.

    Arguments: ``beta`` > 0, default 0.1; ``label_smoothing``: e in (0, 0.5), default 0.001 (TRL's; e = 0 has no finite
    cost); ``tokens``: "sum" (default) or "mean"; ``reduction``.
    """

    name = "exo"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"exo-pair": {}}
    formula = "q log(q / (1-e)) + (1-q) log((1-q) / e), q = sigmoid(beta (d_w - d_l))"
    paper = "Ji 2024, Towards Efficient Exact Optimization of Language Model Alignment, arXiv:2402.00856"

    def __init__(
        self, beta: float = 0.1, *, label_smoothing: float = 1e-3, tokens: str = "sum", reduction: str = "mean"
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        if not 0 < label_smoothing < 0.5:
            raise UsageError(f"exo: label_smoothing must lie in (0, 0.5), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def link(self, margin: Tensor) -> Tensor:
        right = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-self.label_smoothing))
        return right + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(self.label_smoothing))


@register
class PairwiseLink(RowObjective):
    """Any preference link on any scores: the link's cost of each positive above each negative of its row.

    ``L_i = mean_{p in P(i), n in N(i)} link(beta (s_ip - s_in)/T)``, weighted by ``positive * negative``. On the
    implicit rewards of a prompt's responses it is multi-response preference optimisation; on cosines of a query to its
    documents the same link trains retrieval. With "dpo" it is ``pairwise-logistic`` (Burges et al., 2005) at
    temperature T/beta.

    Arguments:
        link: the name of a preference objective whose cost is a link of the margin ("dpo", "ipo", "hinge", "exo",
            "discopop", "cell", "padll", "simpo" ...) or such an objective, whose beta then counts; default "dpo", of
            which only link and beta enter, not its likelihood term. Links that depend on the whole batch ("dbaql",
            "aql", "aqfl", "aot") have no cost of a row alone and raise UsageError.
        average: "rows" (default): mean over rows of their mean; "pairs": mean over all pairs of the batch.
        temperature: T > 0; default 1. ``score``: default "cosine"; ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "pairwise-link"
    formula = "link(beta (s_ip - s_in)/T)"
    paper = "Tang 2024, Generalized Preference Optimization, arXiv:2402.05749"
    default_temperature = 1.0

    def __init__(
        self,
        link: str | MarginObjective = "dpo",
        *,
        average: str = "rows",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        found = get(link) if isinstance(link, str) else link
        if not isinstance(found, MarginObjective) or not found.margin_alone:
            raise UsageError(
                f"pairwise-link: {link!r} is no link of one margin", hint="e.g. 'dpo', 'ipo', 'hinge', 'discopop'"
            )
        self.link = found
        self.average = one_of("pairwise-link", "average", average, ("rows", "pairs"))

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near, near_weight = compact(scores, positive)
        far, far_weight = compact(scores, negative)
        near_weight = near_weight / near_weight.sum(1, keepdim=True)  # apart: the product of small ones could vanish
        far_weight = far_weight / far_weight.sum(1, keepdim=True)
        cost = self.link.link(self.link.margin_of(near[:, :, None], far[:, None, :]))
        return (near_weight[:, :, None] * far_weight[:, None, :] * cost).sum((1, 2))

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.average == "rows":
            return super().weights(scores, positive, negative)
        return positive.to(scores.dtype).sum(1) * negative.to(scores.dtype).sum(1)

    def arrays(self, positives: int) -> float:
        return 8.0 + 12.0 * positives
