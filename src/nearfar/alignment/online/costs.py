"""How an objective of the catalogue costs rollouts: what it contrasts of them, and against what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nearfar.alignment.online.rollouts import Rollouts
from nearfar.alignment.online.selection import STRATEGIES, Pairs, all_pairs, select_group
from nearfar.alignment.policy import ResponseScores
from nearfar.contrast.relation import Explicit, Relation
from nearfar.errors import UsageError
from nearfar.objectives import (
    GRPO,
    DisCO,
    PointObjective,
    PreferenceObjective,
    RowObjective,
    get,
)
from nearfar.objectives.likelihood import divergence_estimate, divergence_penalty, sequence_scores
from nearfar.objectives.preference import one_of
from nearfar.objectives.preference_groups import group_contrast, ranked

SCORED = ("sum", "mean", "ratio", "likelihood-ratio")


class Cost(Protocol):
    """The loss of rollouts, given what the policy says of them now.

    ``tokens``, ``reference``, ``embeddings``: what the rollouts must hold for it.
    """

    tokens: bool
    reference: bool
    embeddings: bool

    def prepare(self, rollouts: Rollouts) -> Rollouts:
        """What is settled once for fresh rollouts, whatever the number of steps on them: the selection."""
        return rollouts

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor: ...


class PairCost(Cost):
    """A preference objective on pairs of the responses to a prompt, the one of the higher reward chosen.

    ``pairs``: which, given rewards ``[n, K]`` (default: all that differ). Rewards go to the objectives that take
    them (``copg``, ``dno``), and to ``sppo`` as the chosen's win rate. The mean is over pairs.
    """

    tokens = embeddings = False

    def __init__(self, objective: PreferenceObjective, pairs: Callable[[Tensor], Pairs] = all_pairs) -> None:
        lacking = set(objective.needs) - {"chosen_reward", "rejected_reward"}
        if lacking:
            raise UsageError(
                f"{objective.name} needs {', '.join(sorted(lacking))}, which sampled responses do not have",
                hint="dpo, ipo, copg and dno take pairs of samples",
            )
        self.objective = objective
        self.pairs = pairs
        self.reference = not objective.reference_free

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor:
        pairs = self.pairs(rollouts.rewards)
        values = {
            "": scores.log_probability,
            "_length": scores.length,
            **({"_reward": rollouts.rewards} if "chosen_reward" in self.objective.extras else {}),
        }
        given: dict[str, Tensor] = {}
        for name, value in values.items():
            given[f"chosen{name}"], given[f"rejected{name}"] = pairs.of(value)
        if self.reference:
            before = _reference(rollouts).log_probability
            given["reference_chosen"], given["reference_rejected"] = pairs.of(before)
        if "win_rate" in self.objective.extras:
            given["win_rate"] = pairs.of(rollouts.rewards)[0]
        loss: Tensor = self.objective(**given)
        return loss


def graded(rollouts: Rollouts) -> Relation:
    """The responses to a prompt graded by the rank of their rewards."""
    return ranked(rollouts.rewards)


def right_and_wrong(rollouts: Rollouts) -> Relation:
    """Rewards of 1 near, of 0 far, anything else neither: DisCO's."""
    return Explicit(rollouts.rewards == 1, rollouts.rewards == 0)


class Selected:
    """AMPO's relation: the best response to a prompt against ``k`` of the rest, chosen once for fresh rollouts.

    ``strategy``, ``k`` (default 7, the paper's), ``generator``: see
    :func:`~nearfar.alignment.online.selection.select_group`; ``alpha``, ``gamma``, ``deviation``: see
    :func:`~nearfar.objectives.preference_groups.group_contrast`.
    """

    def __init__(
        self,
        strategy: str = "bottom-k",
        k: int = 7,
        *,
        alpha: float = 0.0,
        gamma: float = 0.0,
        deviation: str = "absolute",
        generator: torch.Generator | None = None,
    ) -> None:
        self.strategy = one_of("a selection", "strategy", strategy, STRATEGIES)
        self.k = k
        self.alpha, self.gamma, self.deviation = alpha, gamma, deviation
        self.generator = generator
        self.embeddings = strategy in ("coreset", "opt-select")

    def select(self, rollouts: Rollouts) -> Rollouts:
        """The rollouts with their groups."""
        chosen, rejected = select_group(
            rollouts.rewards, self.k, self.strategy, embeddings=rollouts.embeddings, generator=self.generator
        )
        return replace(rollouts, chosen=chosen, rejected=rejected)

    def __call__(self, rollouts: Rollouts) -> Relation:
        held = rollouts if rollouts.chosen is not None else self.select(rollouts)
        assert held.chosen is not None
        assert held.rejected is not None
        return group_contrast(
            held.rewards, held.chosen, held.rejected, alpha=self.alpha, gamma=self.gamma, deviation=self.deviation
        )


class GroupCost(Cost):
    """A row objective on all responses to a prompt, with a relation that their rewards make.

    ``scored``: what a response scores: "sum" (its log-probability), "mean" (per token), "ratio" (less the reference's)
    or "likelihood-ratio" (the mean over tokens of ``p / p_sampled``).
    """

    def __init__(
        self,
        objective: RowObjective,
        relation: Callable[[Rollouts], Relation] = graded,
        *,
        scored: str = "sum",
    ) -> None:
        self.objective = objective
        self.relation = relation
        self.scored = one_of("a cost", "scored", scored, SCORED)
        self.tokens = scored == "likelihood-ratio"
        self.reference = scored == "ratio"
        self.embeddings = isinstance(relation, Selected) and relation.embeddings

    def prepare(self, rollouts: Rollouts) -> Rollouts:
        return self.relation.select(rollouts) if isinstance(self.relation, Selected) else rollouts

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor:
        if self.scored == "sum":
            values = scores.log_probability
        elif self.scored == "mean":
            values = scores.mean
        elif self.scored == "ratio":
            values = scores.log_probability - _reference(rollouts).log_probability
        else:
            now, before, mask = _tokens(scores, rollouts.sampled)
            values = sequence_scores(now, mask, sampled=before, form="likelihood-ratio").view_as(rollouts.rewards)
        loss: Tensor = self.objective(scores=values, relation=self.relation(rollouts))
        return loss


class PointCost(Cost):
    """A point objective on every response by itself, its reward the target (``reward-weighted``, ``copg-group``,
    ``dro-p``); with a log-ratio where the objective takes a reference."""

    tokens = embeddings = False

    def __init__(self, objective: PointObjective) -> None:
        if objective.name not in _BY_REWARD:
            raise UsageError(
                f"{objective.name} does not cost sampled responses by their rewards",
                hint="of the point objectives grpo (and its variants), reward-weighted, copg-group and dro-p do",
            )
        self.objective = objective
        self.reference = "reference" in objective.extras

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor:
        extra: dict[str, Tensor] = {}
        if self.reference:
            extra["reference"] = _reference(rollouts).log_probability.flatten()
        if "group" in self.objective.extras:
            extra["group"] = rollouts.group
        loss: Tensor = self.objective(scores.log_probability.flatten(), rollouts.rewards.flatten(), **extra)
        return loss


class PolicyGradient(Cost):
    """GRPO and its variants on the responses' tokens.

    ``baseline``: whose mean reward an advantage is taken over: that of the responses to the same "prompt" (default), or
    of the whole "batch", as PPO whitens rewards; then what prompts have in common counts as merit.
    """

    tokens = True
    embeddings = False

    def __init__(self, objective: GRPO, *, baseline: str = "prompt") -> None:
        self.objective = objective
        self.baseline = one_of("a policy gradient", "baseline", baseline, ("prompt", "batch"))
        self.reference = objective.kl_weight > 0

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor:
        now, before, mask = _tokens(scores, rollouts.sampled)
        extra: dict[str, Tensor] = {"mask": mask, "sampled": before}
        if self.baseline == "prompt":
            extra["group"] = rollouts.group
        if self.reference:
            extra["reference"] = _tokens(_reference(rollouts), rollouts.sampled)[0]
        loss: Tensor = self.objective(now, rollouts.rewards.flatten(), **extra)
        return loss


class Constrained(Cost):
    """A cost plus DisCO's penalty on the divergence of the policy from the one that sampled.

    ``limit``, ``weight``, ``form``: see :func:`nearfar.objectives.likelihood.divergence_penalty`; ``estimate``: of
    :func:`~nearfar.objectives.likelihood.divergence_estimate`, "plain" (default) or "low-variance".
    """

    tokens = True

    def __init__(
        self,
        cost: Cost,
        *,
        limit: float = 1e-4,
        weight: float = 1e3,
        form: str = "squared-hinge",
        estimate: str = "plain",
    ) -> None:
        self.cost = cost
        self.limit, self.weight, self.form, self.estimate = limit, weight, form, estimate
        self.reference, self.embeddings = cost.reference, cost.embeddings

    def prepare(self, rollouts: Rollouts) -> Rollouts:
        return self.cost.prepare(rollouts)

    def __call__(self, scores: ResponseScores, rollouts: Rollouts) -> Tensor:
        now, before, mask = _tokens(scores, rollouts.sampled)
        divergence = divergence_estimate(now, before, mask, self.estimate)
        penalty = divergence_penalty(divergence, limit=self.limit, weight=self.weight, form=self.form)
        return self.cost(scores, rollouts) + penalty


def cost_of(
    objective: str,
    *,
    pairs: Callable[[Tensor], Pairs] = all_pairs,
    relation: Callable[[Rollouts], Relation] | None = None,
    scored: str | None = None,
    baseline: str = "prompt",
    constrained: bool | None = None,
    **options: Any,
) -> Cost:
    """The cost of rollouts by an objective of the catalogue, by what kind it is.

    A preference objective costs ``pairs``; a row objective the whole group under ``relation`` (default: DisCO's right
    and wrong, AMPO's best against the bottom 7, grades for all others) on scores as ``scored`` says (default: "mean"
    for ``disco``, ``rrhf``, ``crl-factuality``, "sum" for ``ampo`` and ``best-of-n``, which have no reference, and
    "ratio" for all others); ``grpo`` and its variants are policy gradients with ``baseline``; other point objectives
    cost each response. ``constrained`` (default: for ``disco`` alone) adds the penalty of :class:`Constrained`.
    ``options`` make the objective. Raises :class:`~nearfar.errors.UsageError` where it does not cost samples.
    """
    made = get(objective, **_averaged(objective, options))
    cost: Cost
    if isinstance(made, PreferenceObjective):
        cost = PairCost(made, pairs)
    elif isinstance(made, GRPO):
        cost = PolicyGradient(made, baseline=baseline)
    elif isinstance(made, RowObjective):
        usual = right_and_wrong if made.name == "disco" else Selected() if made.name == "ampo" else graded
        cost = GroupCost(
            made, usual if relation is None else relation, scored=scored or _SCORED.get(made.name, "ratio")
        )
    elif isinstance(made, PointObjective):
        cost = PointCost(made)
    else:
        raise UsageError(f"{made.name} does not cost responses", hint="`nearfar objectives` lists what does")
    if isinstance(made, DisCO) if constrained is None else constrained:
        return Constrained(cost)
    return cost


_BY_REWARD = ("reward-weighted", "copg-group", "dro-p")
_SCORED = {"disco": "mean", "rrhf": "mean", "crl-factuality": "mean", "ampo": "sum", "best-of-n": "sum"}


def _averaged(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Point objectives that give a cost each by default are averaged."""
    from nearfar.objectives import find

    cls, preset = find(name)
    if issubclass(cls, PointObjective) and "reduction" not in {**preset, **options}:
        return {**options, "reduction": "mean"}
    return options


def _reference(rollouts: Rollouts) -> ResponseScores:
    if rollouts.reference is None:
        raise ValueError("this cost takes log-ratios, and the rollouts hold no reference")
    return rollouts.reference


def _tokens(scores: ResponseScores, sampled: ResponseScores) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the tokens now and when sampled, and which count: all ``[n K, T]``."""
    if scores.tokens is None or sampled.tokens is None:
        raise ValueError("this cost takes single tokens, and the scores hold none")
    width = sampled.tokens.shape[-1]
    return (
        scores.tokens.reshape(-1, width),
        sampled.tokens.reshape(-1, width),
        sampled.mask.reshape(-1, width),
    )
