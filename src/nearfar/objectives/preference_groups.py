"""Preferences over the several responses of a prompt: row objectives on a row of their scores.

A row is a prompt, its columns are its responses, its scores what the policy gives them. Rewards become the relation:
:func:`ranked` grades the responses for the objectives that order them, :func:`group_contrast` weighs the responses that
AMPO selected.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.relation import Explicit, Relation
from nearfar.contrast.score import Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp
from nearfar.objectives.preference import not_negative, one_of
from nearfar.objectives.registry import register


def ranked(rewards: Tensor, mask: Tensor | None = None) -> Relation:
    """The responses ``[n, k]`` of each prompt graded by the rank of their rewards: 0 for the lowest, ties alike.

    ``mask``: bool ``[n, k]``, False where there is no response; such columns weigh nothing. Where all responses
    of a prompt are alike it has no positive.
    """
    present = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    if rewards.dim() != 2 or present.shape != rewards.shape:
        raise ValueError(f"ranked: rewards and mask must be [n, k], got {tuple(rewards.shape)}, {tuple(present.shape)}")
    values = rewards.masked_fill(~present, -torch.inf)
    ordered = values.sort(1).values
    step = torch.zeros_like(ordered)
    step[:, 1:] = ((ordered[:, 1:] > ordered[:, :-1]) & ordered[:, :-1].isfinite()).to(step.dtype)
    grades = step.cumsum(1).gather(1, torch.searchsorted(ordered, values)) * present
    return Explicit(grades, present & (grades == 0))


def _columns(positive: Tensor, negative: Tensor) -> Tensor:
    return (positive > 0) | (negative > 0)


def _present(positive: Tensor, negative: Tensor) -> Tensor:
    """Which rows have any column."""
    return _columns(positive, negative).any(1)


def grades_of(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Grades with -inf where a row has no column."""
    return positive.to(scores.dtype).masked_fill(~_columns(positive, negative), -torch.inf)


def best_share(grades: Tensor) -> Tensor:
    """The weights of the highest grades of a row, which share 1."""
    highest = (grades == grades.amax(1, keepdim=True)).to(grades.dtype)
    return highest / highest.sum(1, keepdim=True)


class _Graded(RowObjective):
    """Base of the objectives on graded responses: scores as they are, neither normalised nor divided."""

    default_score = "dot"

    def arrays(self, positives: int) -> float:
        return 8.0 + 8.0 * positives


@register
class RRHF(_Graded):
    """RRHF: likelihoods in the order of the rewards, and the likelihood of the best response (Yuan et al., 2023).

    ``L = sum_{r_i < r_j} max(0, p_i - p_j) - weight p_best``, ``p = log p(y|x) / |y|``; mean over prompts. Equal
    rewards are no pair. In [0, inf) for log-probabilities. Equally best responses share the likelihood.

    Called as a row objective with ``scores [n, k]``: the average log-probabilities p of each prompt's responses, and a
    relation of grades (:func:`~nearfar.objectives.preference_groups.ranked`); columns with grade 0 are the negatives.
    ``length [n, k]`` turns the likelihood of the best into that of the whole completion, the paper's ``-sum_t log
    p_t``; without it it is the mean over tokens, which official code takes (padding counted in, and the ranking weighed
    100).

    Arguments: ``weight`` >= 0, default 1: of the likelihood; ``score``: default "dot", only for calls on embeddings;
    ``reduction`` over prompts; ``two_sided`` has no use here.
    """

    name = "rrhf"
    formula = "sum_{r_i < r_j} max(0, p_i - p_j) - p_best, p = log p(y|x) / |y|"
    paper = "Yuan 2023, RRHF: Rank Responses to Align Language Models with Human Feedback, arXiv:2304.05302"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        self.weight = not_negative("rrhf", "weight", weight)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return _present(positive, negative)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        grades = grades_of(scores, positive, negative)
        worse = (grades[:, :, None] < grades[:, None, :]) & grades[:, :, None].isfinite()
        wrong = (scores[:, :, None] - scores[:, None, :]).relu() * worse
        return wrong.sum((1, 2)) - self.weight * (best_share(grades) * scores).sum(1)

    def forward(self, *arguments: Any, length: Tensor | None = None, **more: Any) -> Tensor:
        """The cost of the prompts; see the class."""
        loss: Tensor = super().forward(*arguments, **more)
        scores, relation = more.get("scores"), more.get("relation")
        if length is None:
            return loss
        if scores is None or relation is None or length.shape != scores.shape:
            raise ValueError("rrhf: length [n, k] goes with scores [n, k] and a relation")
        positive, negative = relation.bind(*scores.shape, self_contrast=False, device=scores.device).tile(
            slice(0, scores.shape[0])
        )
        active = self.active(positive, negative)
        best = best_share(grades_of(scores, positive, negative)[active])
        rest = torch.zeros_like(scores[:, 0]).masked_scatter(
            active, -self.weight * (best * ((length - 1) * scores)[active]).sum(1)
        )
        if self.reduction == "none":
            return loss + rest
        return loss + rest.sum() / (active.sum().clamp_min(1) if self.reduction == "mean" else 1)


@register
class CandidateRanking(_Graded):
    """Contrastive reward learning: candidates ranked with margins that grow with the rank (Chern et al., 2023).

    ``L = sum_{i < j} max(0, f_j - f_i + (j - i) margin)``, candidates 1 .. k in descending order of a metric (a
    factuality metric in the paper), ``f = log p(S|D) / |S|^alpha``; mean over documents. In [0, inf). This is BRIO's
    ranking loss (Liu et al., 2022); the paper adds label-smoothed cross-entropy and weighs this by gamma. One candidate
    alone costs 0.

    Called as a row objective with ``scores [n, k]``: the f of each document's candidates (:func:`candidate_scores`),
    and a relation of grades (:func:`~nearfar.objectives.preference_groups.ranked` of the metric).

    Arguments: ``margin`` >= 0, default 0.001; ``ties``: "margin" (default): equal grades keep the order of their
    columns and a margin, as published code has them, or "skip": equals are no pair and j - i counts strictly better
    candidates; ``score``: default "dot", for calls on embeddings; ``reduction`` over documents; ``two_sided`` has no
    use here.
    """

    name = "crl-factuality"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"brio": {}, "candidate-ranking": {}}
    formula = "sum_{i < j} max(0, f_j - f_i + (j - i) margin), f = log p(S|D) / |S|^alpha"
    paper = "Chern 2023, Improving Factuality of Abstractive Summarization via ... Reward Learning, arXiv:2307.04507"

    def __init__(
        self,
        margin: float = 0.001,
        *,
        ties: str = "margin",
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        self.margin = not_negative("crl-factuality", "margin", margin)
        self.ties = one_of("crl-factuality", "ties", ties, ("margin", "skip"))

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return _present(positive, negative)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        grades = grades_of(scores, positive, negative)
        if self.ties == "skip":
            rank = (grades[:, None, :] > grades[:, :, None]).sum(2)
        else:
            rank = torch.argsort(grades, dim=1, descending=True, stable=True).argsort(1)
        distance = (rank[:, None, :] - rank[:, :, None]).to(scores.dtype)  # > 0 where the column comes later
        counted = (distance > 0) & grades[:, None, :].isfinite()
        return ((scores[:, None, :] - scores[:, :, None] + self.margin * distance).relu() * counted).sum((1, 2))


def candidate_scores(log_probability: Tensor, length: Tensor, alpha: float = 2.0) -> Tensor:
    """``log p(S|D) / |S|^alpha``: what CRL and BRIO rank candidates by; alpha 2 (CNN/DailyMail) or 0.6 (XSum).

    Above 1 it makes long candidates' scores less negative.
    """
    return log_probability / length.clamp_min(1).to(log_probability.dtype) ** alpha


@register
class AMPO(RowObjective):
    """Active multi-preference optimisation: a group of good responses against a group of bad ones (Gupta et al., 2025).

    ``L = -log( sum_{i in S+} exp(s_i) / sum_{i in S+ or S-} exp(s_i) )``, ``s_i = log p(y_i|x) + alpha (r_i - mean
    r)``; mean over prompts. Reference-free. In [0, inf). The rewards' part of s enters as weights of the relation,
    ``exp(alpha ...)``, made by :func:`~nearfar.objectives.preference_groups.group_contrast`: a positive's weight counts
    in numerator and denominator. With one positive and no offsets it is ``info-nce``.

    Called as a row objective with ``scores [n, k]``: summed log-probabilities (the printed form), or averages with
    ``temperature`` 1/beta (the SimPO-like form of the ablations: beta 5 to 10, gamma 1 to 3, which
    :func:`group_contrast` adds to the negatives).

    Arguments: ``temperature`` T > 0, default 1; ``score``: default "dot", for calls on embeddings; ``two_sided``,
    ``reduction`` as in InfoNCE. The negatives are chosen by :mod:`nearfar.objectives.preference_selection`.
    """

    name = "ampo"
    formula = "-log( sum_{S+} exp(s_i) / sum_{S+ or S-} exp(s_i) ), s_i = log p(y_i|x) + alpha (r_i - mean r)"
    paper = "Gupta 2025, AMPO: Active Multi Preference Optimization, arXiv:2502.18293"
    default_temperature = 1.0
    default_score = "dot"

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        everyone = positive.to(scores.dtype) + negative.to(scores.dtype)
        return log_sum_exp(scores, everyone) - log_sum_exp(scores, positive)


def group_contrast(
    rewards: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    *,
    alpha: float = 0.0,
    gamma: float = 0.0,
    deviation: str = "absolute",
) -> Relation:
    """AMPO's relation: which responses ``[n, k]`` of each prompt are its S+ and S-, weighted by their rewards.

    ``chosen``, ``rejected``: bool ``[n, k]``. A chosen response weighs ``exp(alpha (r - mean r))``, the mean over all
    k; a rejected one ``exp(alpha |r - mean r| + gamma)``, so that the worst are pushed hardest
    (``deviation="absolute"``, as AMPO's parent SWEPO weighs), or ``exp(alpha (r - mean r) + gamma)`` (``"signed"``, the
    printed formula, under which they are pushed least). A factor common to a row's weights cancels in the loss and is
    divided out against overflow.
    """
    one_of("group_contrast", "deviation", deviation, ("absolute", "signed"))
    if rewards.dim() != 2 or not rewards.shape == chosen.shape == rejected.shape:
        shapes = [tuple(value.shape) for value in (rewards, chosen, rejected)]
        raise ValueError(f"group_contrast: rewards, chosen and rejected must be [n, k] alike, got {shapes}")
    if bool((chosen & rejected).any()):
        raise ValueError("group_contrast: a response cannot be chosen and rejected")
    if not (math.isfinite(alpha) and math.isfinite(gamma)):
        raise UsageError(f"group_contrast: alpha and gamma must be finite, got {alpha} and {gamma}")
    values = rewards if rewards.is_floating_point() else rewards.to(torch.get_default_dtype())
    apart = values - values.mean(1, keepdim=True)
    near = alpha * apart
    far = alpha * (apart.abs() if deviation == "absolute" else apart) + gamma
    exponent = torch.where(chosen, near, far)
    largest = exponent.masked_fill(~(chosen | rejected), -torch.inf).amax(1, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    weight = (exponent - largest).clamp(max=0).exp().clamp_min(torch.finfo(values.dtype).tiny)
    return Explicit(weight * chosen, weight * rejected)


@register
class DisCO(RowObjective):
    """DisCO: right answers' scores above a log-mean-exp of the wrong ones' (Li et al., 2025).

    ``L = -[ mean_{o in P} s(o) - tau log mean_{o in M} exp(s(o)/tau) ]`` of a question with right answers P and wrong
    answers M, mean over questions; ``form="basic"`` (DisCO-b) has the plain mean over M, which is tau -> inf. Unlike
    GRPO's its weight of a question does not depend on how often it is answered rightly. Unbounded: the whole loss adds
    :func:`nearfar.objectives.likelihood.divergence_penalty`, which keeps the policy near the one that sampled.

    Called as a row objective with ``scores [n, k]``, one row a question, from
    :func:`nearfar.objectives.likelihood.sequence_scores` ("log-likelihood" or "likelihood-ratio"), and
    ``relation=Explicit(rewards == 1, rewards == 0)``. Weights of the relation weigh the means.

    Arguments:
        tau: > 0, default 10 (log-likelihood; 1 for the likelihood ratio).
        form: "log-mean-exp" (default) or "basic".
        questions: "all" (default): those without a right or without a wrong answer cost 0 and stay in the mean, as in
            official code; "active": they leave it.
        surrogate: whether the *value* is official code's, whose log-mean-exp is tau E/sg[E], hence tau; the gradient is
            the same. Default False.
        score: default "dot", for calls on embeddings; ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "disco"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"disco-b": {"form": "basic"}}
    formula = "tau log mean_{o in M} exp(s(o)/tau) - mean_{o in P} s(o)"
    paper = "Li 2025, DisCO: Discriminative Constrained Optimization, arXiv:2505.12366"
    default_score = "dot"

    def __init__(
        self,
        tau: float = 10.0,
        *,
        form: str = "log-mean-exp",
        questions: str = "all",
        surrogate: bool = False,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, two_sided=two_sided, reduction=reduction)
        if not 0 < tau < math.inf:
            raise UsageError(f"disco: tau must be a finite number > 0, got {tau}")
        self.tau = tau
        self.form = one_of("disco", "form", form, ("log-mean-exp", "basic"))
        self.questions = one_of("disco", "questions", questions, ("all", "active"))
        self.surrogate = surrogate

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        both = super().active(positive, negative)
        return torch.ones_like(both) if self.questions == "all" else both

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near, far = (_shares(weight, scores) for weight in (positive, negative))
        both = (positive > 0).any(1) & (negative > 0).any(1)
        if self.form == "basic":
            wrong = (far * scores).sum(1)
        else:
            # a row without wrong answers takes its first column, whose cost is then left out
            safe = far + (far.sum(1, keepdim=True) == 0) * (torch.arange(far.shape[1], device=far.device) == 0)
            wrong = self.tau * log_sum_exp(scores / self.tau, safe)
            if self.surrogate:
                wrong = self.tau + (wrong - wrong.detach())
        return torch.where(both, wrong - (near * scores).sum(1), 0)


def _shares(weight: Tensor, like: Tensor) -> Tensor:
    weight = weight.to(like.dtype)
    total = weight.sum(1, keepdim=True)
    return weight / torch.where(total > 0, total, 1)
