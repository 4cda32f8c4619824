"""Preferences without a reference: rewards are the policy's own log-probabilities, kept in place by a likelihood."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.objectives.preference import (
    LIKELIHOODS,
    MarginObjective,
    PreferenceObjective,
    Preferences,
    not_negative,
    one_of,
    positive,
    power_reward,
)
from nearfar.objectives.preference_links import smoothed_logistic
from nearfar.objectives.registry import register

LARGEST_LOG_PROBABILITY = -1e-7
"""Odds are taken of averages at most this: the odds of certainty are infinite."""


@register
class SimPO(MarginObjective):
    """Simple preference optimisation: average log-probabilities with a target margin (Meng et al., 2024).

    ``L = log(1 + exp(-(beta (a_w - a_l) - gamma)))``, ``a = log p(y|x) / |y|``; mean over pairs. No reference. In
    [0, inf). Call as :class:`PreferenceObjective`, with lengths.

    Arguments:
        beta: > 0, default 2 (2 to 10 in the paper).
        gamma: >= 0, default 0.5 (0.3 to 1.6 in the paper). It is subtracted *after* beta multiplies; official code's
            ``gamma_beta_ratio`` is gamma/beta.
        alpha: default 0: the score is a itself. AlphaPO (Gupta et al., 2025, arXiv:2501.03884) has
            ``(1 - exp(-alpha a)) / alpha``, of any sign.
        label_smoothing: in [0, 0.5), default 0.
        likelihood_weight: >= 0, default 0; 1 in CPO-SimPO: adds the weight times the chosen's negative log-likelihood.
        likelihood: how that is taken over tokens: "pooled" over the batch (default, as TRL does), "mean" or "sum".
        tokens: "mean" (default), or "sum" for values that are averages already (or not to be averaged).
        reduction: "mean" (default), "sum" or "none".
    """

    name = "simpo"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "cpo-simpo": {"likelihood_weight": 1.0},
        "alphapo": {"alpha": 0.25},
    }
    formula = "log(1 + exp(-(beta (a_w - a_l) - gamma))), a = log p(y|x) / |y|"
    paper = "Meng 2024, SimPO: Simple Preference Optimization with a Reference-Free Reward, arXiv:2405.14734"
    reference_free = True

    def __init__(
        self,
        beta: float = 2.0,
        gamma: float = 0.5,
        *,
        alpha: float = 0.0,
        label_smoothing: float = 0.0,
        likelihood_weight: float = 0.0,
        likelihood: str = "pooled",
        tokens: str = "mean",
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.gamma = not_negative("simpo", "gamma", gamma)
        self.alpha = alpha
        self.label_smoothing = not_negative("simpo", "label_smoothing", label_smoothing, below=0.5)
        self.likelihood_weight = not_negative("simpo", "likelihood_weight", likelihood_weight)
        self.likelihood = one_of("simpo", "likelihood", likelihood, LIKELIHOODS)

    def reward(self, ratio: Tensor) -> Tensor:
        return power_reward(ratio, self.alpha)

    def link(self, margin: Tensor) -> Tensor:
        return smoothed_logistic(margin - self.gamma, self.label_smoothing)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        cost = super().pairs(pairs)
        if self.likelihood_weight:
            cost = cost + self.likelihood_weight * pairs.negative_log_likelihood(self.likelihood)
        return cost


@register
class CPO(MarginObjective):
    """Contrastive preference optimisation: DPO without a reference, and the chosen's likelihood (Xu et al., 2024).

    ``L = log(1 + exp(-beta (log p(y_w|x) - log p(y_l|x)))) - alpha log p(y_w|x)``, mean over pairs. In (0, inf).
    Without the likelihood nothing keeps the chosen's probability from falling. Nothing normalises lengths. Call as
    :class:`PreferenceObjective`.

    Arguments:
        beta: > 0, default 0.1.
        alpha: >= 0, default 1: weight of the negative log-likelihood.
        form: "logistic" (default), "hinge": ``max(0, 1-z)``, or "ipo": ``((z - 1/2)/beta)^2``, ``z = beta x margin``
            (which wants ``tokens="mean"``).
        label_smoothing: in [0, 0.5), default 0; of the logistic form.
        likelihood: over tokens "sum" (default; the paper: per sequence), "mean", or "pooled" over the batch (the
            official code and TRL).
        tokens: "sum" (default) or "mean", of the margin; ``reduction``.

    The official repository's present loss is another one (ARPO, which weighs the rejected adaptively).
    """

    name = "cpo"
    formula = "log(1 + exp(-beta (log p(y_w) - log p(y_l)))) - alpha log p(y_w)"
    paper = "Xu 2024, Contrastive Preference Optimization, arXiv:2401.08417"
    reference_free = True

    def __init__(
        self,
        beta: float = 0.1,
        alpha: float = 1.0,
        *,
        form: str = "logistic",
        label_smoothing: float = 0.0,
        likelihood: str = "sum",
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.alpha = not_negative("cpo", "alpha", alpha)
        self.form = one_of("cpo", "form", form, ("logistic", "hinge", "ipo"))
        self.label_smoothing = not_negative("cpo", "label_smoothing", label_smoothing, below=0.5)
        self.likelihood = one_of("cpo", "likelihood", likelihood, LIKELIHOODS)

    def link(self, margin: Tensor) -> Tensor:
        if self.form == "hinge":
            return (1 - margin).relu()
        if self.form == "ipo":
            return ((margin - 0.5) / self.beta).square()
        return smoothed_logistic(margin, self.label_smoothing)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        cost = super().pairs(pairs)
        if self.alpha:
            cost = cost + self.alpha * pairs.negative_log_likelihood(self.likelihood)
        return cost


@register
class ORPO(PreferenceObjective):
    """Odds-ratio preference optimisation: likelihood, and the odds of chosen over rejected (Hong et al., 2024).

    ``L = -a_w + weight log(1 + exp(-(o(a_w) - o(a_l))))``, ``a = log p(y|x) / |y|``, ``o(a) = a - log(1 - exp(a))`` the
    log-odds; mean over pairs. No reference. In (0, inf). Odds are of *averages*: of sums 1 - exp(a) is 1 and the odds
    are the probabilities. ``log(1 - exp(a))`` is exact from a = -1e-7, where a is clamped, to -inf. Call as
    :class:`PreferenceObjective`, with lengths.

    Arguments:
        weight: the paper's lambda >= 0, default 0.1; peers call it beta.
        likelihood_weight: >= 0, default 1; 0 leaves the odds term alone.
        likelihood: over tokens "mean" (default, the paper), "sum" or "pooled" over the batch (TRL, which pools the
            prompt's tokens as well).
        tokens: "mean" (default), or "sum" for values that are averages already; ``reduction``.
    """

    name = "orpo"
    formula = "-a_w + weight log(1 + exp(-(o(a_w) - o(a_l)))), o(a) = a - log(1 - exp(a)), a = log p(y|x) / |y|"
    paper = "Hong 2024, ORPO: Monolithic Preference Optimization without Reference Model, arXiv:2403.07691"
    reference_free = True

    def __init__(
        self,
        weight: float = 0.1,
        *,
        likelihood_weight: float = 1.0,
        likelihood: str = "mean",
        tokens: str = "mean",
        reduction: str = "mean",
    ) -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.weight = not_negative("orpo", "weight", weight)
        self.likelihood_weight = not_negative("orpo", "likelihood_weight", likelihood_weight)
        self.likelihood = one_of("orpo", "likelihood", likelihood, LIKELIHOODS)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        cost = self.weight * F.softplus(log_odds(pairs.rejected) - log_odds(pairs.chosen))
        if self.likelihood_weight:
            given = "sum" if self.tokens == "sum" and self.likelihood == "mean" else self.likelihood
            cost = cost + self.likelihood_weight * pairs.negative_log_likelihood(given)
        return cost


def log_odds(log_probability: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of a log-probability, clamped to at most -1e-7, accurate at both ends."""
    value = log_probability.clamp(max=LARGEST_LOG_PROBABILITY)
    near_one = value > -math.log(2)
    # each branch is kept away from where the other is used: its gradient there would not be a number
    complement = torch.where(
        near_one,
        (-torch.expm1(torch.where(near_one, value, -1.0))).log(),
        torch.log1p(-torch.where(near_one, -1.0, value).exp()),
    )
    return value - complement


@register
class SLiCHF(PreferenceObjective):
    """Sequence likelihood calibration from human feedback (Zhao et al., 2023).

    ``L = max(0, delta - log p(y_w|x) + log p(y_l|x)) - weight log p(y_t|x)``, mean over pairs; y_t is the target of
    supervised fine-tuning. No reference. In [0, inf). Call as :class:`PreferenceObjective`, with ``target`` ``[n]``:
    the log-probabilities of the targets; without it the chosen are the targets, as in ports of this loss. Its margin
    acts on sums of log-probabilities and its calibration term has no gradient once it holds.

    Arguments: ``delta`` > 0, default 1; ``weight`` >= 0, default 0.1 (ports); ``tokens``: "sum" (default) or "mean", of
    the margin; ``likelihood`` of the chosen over tokens: "sum" (default), "mean" or "pooled"; ``reduction``.
    """

    name = "slic-hf"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"slic": {}}
    formula = "max(0, delta - log p(y_w) + log p(y_l)) - weight log p(y_t)"
    paper = "Zhao 2023, SLiC-HF: Sequence Likelihood Calibration with Human Feedback, arXiv:2305.10425"
    extras = ("target",)
    reference_free = True

    def __init__(
        self,
        delta: float = 1.0,
        *,
        weight: float = 0.1,
        likelihood: str = "sum",
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.delta = positive("slic-hf", "delta", delta)
        self.weight = not_negative("slic-hf", "weight", weight)
        self.likelihood = one_of("slic-hf", "likelihood", likelihood, LIKELIHOODS)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        cost = (self.delta - pairs.chosen + pairs.rejected).relu()
        if not self.weight:
            return cost
        target = extra.get("target")
        return cost + self.weight * (-target if target is not None else pairs.negative_log_likelihood(self.likelihood))
