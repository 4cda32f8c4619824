"""From measurements to verdicts: the differences of each statement over the seeds, judged by the one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.errors import DataError
from nearfar.evaluation.measures import Measure
from nearfar.evaluation.seeds import MINIMUM_SEEDS, Verdict, joint_verdict, seed_interval, verdict
from nearfar.recipes import Arms, Recipe, Statement


@dataclass(frozen=True)
class Finding:
    """A statement, its difference for each seed, their mean with its 95 % interval, and the verdict."""

    statement: Statement
    differences: Sequence[float]
    effect: Measure
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the ends of an unbounded interval (one seed) are None."""
        said = self.statement
        bounded = self.effect.n > 1
        return {
            "statement": str(said),
            "measure": said.measure,
            "method": said.method,
            "baseline": said.baseline,
            "direction": said.direction,
            "margin": said.margin,
            "because": said.because,
            "differences": list(self.differences),
            "effect": self.effect.value,
            "low": self.effect.low if bounded else None,
            "high": self.effect.high if bounded else None,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Judgement:
    """The findings of all statements of a claim, and what they say together."""

    findings: Sequence[Finding]
    verdict: Verdict


def judge(recipe: Recipe, by_seed: Mapping[int, Arms]) -> Judgement:
    """Judge a recipe's claim by the measurements of each seed.

    Raises :class:`~nearfar.errors.DataError` when there is no seed or no statement, an arm or a measure is missing, or
    a value is not finite.
    """
    if not by_seed or not recipe.statements:
        raise DataError(f"{recipe.id}: nothing to judge: {len(by_seed)} seeds, {len(recipe.statements)} statements")
    findings = []
    for statement in recipe.statements:
        differences = [statement.difference(by_seed[seed]) for seed in sorted(by_seed)]
        effect = seed_interval(differences, name=str(statement))
        findings.append(Finding(statement, differences, effect, verdict(effect, statement.margin)))
    return Judgement(findings, joint_verdict([finding.verdict for finding in findings]))


def merged(honest: Mapping[int, Arms], sabotaged: Mapping[int, Arms]) -> dict[int, Arms]:
    """The arms that a sabotage changes over the honest ones of the same seed.

    Raises :class:`~nearfar.errors.DataError` for an arm that the honest experiment does not have, or a seed without
    its counterpart.
    """
    if honest.keys() != sabotaged.keys():
        raise DataError(f"honest seeds are {sorted(honest)}, sabotaged ones {sorted(sabotaged)}")
    for seed, arms in sabotaged.items():
        if unknown := sorted(arms.keys() - honest[seed].keys()):
            raise DataError(
                f"the sabotage measured {', '.join(unknown)}, which the honest experiment does not have",
                hint=f"it has {', '.join(honest[seed])}",
            )
    return {seed: {**honest[seed], **sabotaged[seed]} for seed in honest}


def caught(sabotaged: Judgement, seeds: int) -> bool | None:
    """Whether a sabotage was found out: the claim does not hold with it. None below the seeds that a verdict needs."""
    return None if seeds < MINIMUM_SEEDS else sabotaged.verdict != "holds"


def summary(by_seed: Mapping[int, Arms]) -> dict[str, dict[str, dict[str, Any]]]:
    """By arm and measure: the value of each seed, their mean and its 95 % interval (None for one seed)."""
    seeds = sorted(by_seed)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for arm, measures in by_seed[seeds[0]].items():
        found[arm] = {}
        for name in measures:
            values = [float(by_seed[seed][arm][name]) for seed in seeds if name in by_seed[seed].get(arm, {})]
            mean = seed_interval(values)
            bounded = len(values) > 1
            found[arm][name] = {
                "values": values,
                "mean": mean.value,
                "low": mean.low if bounded else None,
                "high": mean.high if bounded else None,
            }
    return found
