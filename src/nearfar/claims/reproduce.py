"""Running the experiments of recipes over seeds and judging their claims; what is recorded is not run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar.claims import pool
from nearfar.claims.fingerprint import fingerprint, source_file
from nearfar.claims.judge import Judgement, caught, judge, merged, summary
from nearfar.claims.store import Record, Store, Task
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.seeds import MINIMUM_SEEDS
from nearfar.locking import only_one
from nearfar.recipes import Recipe, Scale

SAID = {
    "holds": ("holds", "hold"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "fails": ("fails", "fail"),
    "error": ("could not be judged", "could not be judged"),
}
"""Verdicts as a reader says them, of one and of several."""


@dataclass
class Outcome:
    """What came out of one recipe's experiment.

    ``errors``: what went wrong, a line each; with any of them there is no verdict. ``claim``: the honest judgement.
    ``sabotage``: the judgement with the sabotage in place; None where it was not run. ``arms``: see
    :func:`~nearfar.claims.judge.summary`.
    """

    recipe: Recipe
    scale: Scale
    seeds: int
    fingerprint: str
    claim: Judgement | None = None
    sabotage: Judgement | None = None
    arms: Mapping[str, Any] = field(default_factory=dict)
    sabotaged_arms: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    finished: str = ""
    warnings: Sequence[str] = ()
    errors: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """``"holds"``, ``"inconclusive"``, ``"fails"`` or ``"error"``."""
        return self.claim.verdict if self.claim is not None and not self.errors else "error"

    @property
    def caught(self) -> bool | None:
        """Whether the sabotage was found out; None where it was not judged (not run, too few seeds, an error)."""
        return None if self.sabotage is None or self.errors else caught(self.sabotage, self.seeds)

    @property
    def is_wrong(self) -> bool:
        """Whether something has to be mended: an experiment erred, or a sabotage passed."""
        return bool(self.errors) or self.caught is False

    def sentence(self) -> str:
        """The outcome in plain words."""
        if self.claim is None or self.errors:
            return f"{self.recipe.id} could not be judged: " + "; ".join(self.errors)
        verdicts = [finding.verdict for finding in self.claim.findings]
        if self.seeds < MINIMUM_SEEDS:
            said = f"{self.recipe.id} is not judged: {self.seeds} of the {MINIMUM_SEEDS} seeds that a verdict needs"
        else:
            said = f"The claim of {self.recipe.id} {SAID[self.verdict][0]} over {self.seeds} seeds"
            if len(verdicts) > 1 and len(set(verdicts)) == 1:
                said += f", in all {len(verdicts)} statements"
            elif len(verdicts) > 1:
                counts = {name: verdicts.count(name) for name in SAID if name in verdicts}
                said += f" (of {len(verdicts)} statements " + ", ".join(
                    f"{count} {SAID[name][count > 1]}" for name, count in counts.items()
                )
                said += ")"
        if self.caught is None:
            return said + "."
        return said + ("; its sabotage is caught." if self.caught else "; but its sabotage passes as well.")

    def to_dict(self) -> dict[str, Any]:
        """The outcome with what the recipe says of itself, ready for JSON."""
        recipe = self.recipe
        return {
            "id": recipe.id,
            "wing": recipe.wing,
            "title": recipe.title,
            "paper": str(recipe.paper),
            "claim": recipe.claim,
            "weak": recipe.weak,
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "scale": self.scale,
            "seeds": self.seeds,
            "statements": [finding.to_dict() for finding in self.claim.findings] if self.claim else [],
            "arms": self.arms,
            "sabotage": {
                "what": recipe.sabotage,
                "caught": self.caught,
                "verdict": self.sabotage.verdict if self.sabotage else None,
                "statements": [finding.to_dict() for finding in self.sabotage.findings] if self.sabotage else [],
                "arms": self.sabotaged_arms,
            },
            "world": recipe.world,
            "not_asserted": recipe.not_asserted,
            "verified": recipe.verified,
            "seconds": dict(self.seconds),
            "finished": self.finished,
            "fingerprint": self.fingerprint,
            "warnings": list(self.warnings),
            "errors": list(self.errors),
        }


def reproduce(
    recipes: Sequence[Recipe],
    output: str | os.PathLike[str],
    *,
    seeds: int = MINIMUM_SEEDS,
    scale: Scale = "quick",
    workers: int | None = None,
    again: bool = False,
    sabotage: bool = True,
    progress: Callable[[int, int], None] | None = None,
    done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run each recipe over the seeds ``0 .. seeds - 1``, honest and sabotaged, and judge it.

    Records are kept in ``output/records`` and used again for the same code, settings and versions unless ``again``.
    ``workers`` processes (by default as many as there are cores) run one task each. ``progress(ended, all)`` is called
    as tasks end, ``done(outcome)`` as recipes do.

    Raises :class:`~nearfar.errors.UsageError` for no seeds, no workers or a recipe named twice,
    :class:`~nearfar.errors.OutputError` when ``output`` cannot be written or another process is at work there. An
    experiment that fails is an outcome with errors.
    """
    if seeds < 1:
        raise UsageError(f"{seeds} seeds cannot be run", hint=f"a verdict needs at least {MINIMUM_SEEDS}")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers cannot do anything", hint="leave --workers out for one for each core")
    if twice := sorted({one.id for one in recipes if sum(other.id == one.id for other in recipes) > 1}):
        raise UsageError(f"{', '.join(twice)} was named twice")
    folder = Path(output)
    with only_one(folder / ".lock", "running experiments into this folder"):
        return _reproduce(
            recipes,
            Store(folder / "records"),
            seeds=seeds,
            scale=scale,
            workers=workers or pool.cores(),
            again=again,
            kinds=(False, True) if sabotage else (False,),
            progress=progress or (lambda ended, of: None),
            done=done or (lambda outcome: None),
        )


def _reproduce(
    recipes: Sequence[Recipe],
    store: Store,
    *,
    seeds: int,
    scale: Scale,
    workers: int,
    again: bool,
    kinds: Sequence[bool],
    progress: Callable[[int, int], None],
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    tasks = {
        recipe.id: [
            Task(recipe.id, str(source_file(recipe)), scale, seed, kind, code)
            for code in [fingerprint(recipe)]
            for seed in range(seeds)
            for kind in kinds
        ]
        for recipe in recipes
    }
    everything = [task for of in tasks.values() for task in of]
    answers: dict[Task, Record | str] = {}
    for task in everything:
        if not again and (record := store.get(task)) is not None:
            answers[task] = record
    outcomes: dict[str, Outcome] = {}

    def settle() -> None:
        progress(len(answers), len(everything))
        for recipe in recipes:
            own = tasks[recipe.id]
            if recipe.id not in outcomes and all(task in answers for task in own):
                outcomes[recipe.id] = conclude(recipe, {task: answers[task] for task in own})
                done(outcomes[recipe.id])

    settle()
    for task, answer in pool.run([task for task in everything if task not in answers], workers):
        answers[task] = answer
        if isinstance(answer, Record):
            store.put(task, answer)
        settle()
    return [outcomes[recipe.id] for recipe in recipes]


def conclude(recipe: Recipe, answers: Mapping[Task, Record | str]) -> Outcome:
    """The outcome of a recipe's tasks: their records, or what went wrong. There must be one task at least."""
    first = next(iter(answers))
    honest = {task.seed: record.arms for task, record in _records(answers).items() if not task.sabotage}
    spoilt = {task.seed: record.arms for task, record in _records(answers).items() if task.sabotage}
    records = _records(answers).values()
    outcome = Outcome(
        recipe,
        first.scale,
        len({task.seed for task in answers}),
        first.fingerprint,
        seconds={kind: sum(record.seconds[kind] for record in records) for kind in ("wall", "cpu")},
        finished=max((record.finished for record in records), default=""),
        warnings=list(dict.fromkeys(warning for record in records for warning in record.warnings)),
        errors=_grouped({task: answer for task, answer in answers.items() if isinstance(answer, str)}),
    )
    if outcome.errors:
        return outcome
    try:
        outcome.claim = judge(recipe, honest)
        outcome.arms = summary(honest)
        if spoilt:
            whole = merged(honest, spoilt)
            outcome.sabotage = judge(recipe, whole)
            outcome.sabotaged_arms = summary(spoilt)
    except DataError as error:
        outcome.errors = [str(error).replace("\n", "; ")]
    return outcome


def _records(answers: Mapping[Task, Record | str]) -> dict[Task, Record]:
    return {task: answer for task, answer in answers.items() if isinstance(answer, Record)}


def _grouped(failed: Mapping[Task, str]) -> list[str]:
    """One line for tasks that failed alike: ``seeds 0, 1 and 0 sabotaged: ...``."""
    texts: dict[str, list[str]] = {}
    for task, text in failed.items():
        texts.setdefault(text, []).append(str(task).partition(", ")[2])
    return [f"{'; '.join(tasks)}: {text}" for text, tasks in texts.items()]
