"""The part of an alignment run between the first step and the last.

Importing this module imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.adapters import write_trained
from nearfar.alignment.exporting import trained_policy
from nearfar.alignment.inputs import ResponseBatches, Table
from nearfar.alignment.judging import judge
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.prepare import Prepared
from nearfar.alignment.readings import reading_of
from nearfar.alignment.watch import look
from nearfar.data.preferences.rows import plain
from nearfar.training.evaluating import Evaluator
from nearfar.training.guard import Guard, write_last_good
from nearfar.training.loading import Loader
from nearfar.training.loop import Course, Outcome, Start, go

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.evaluation import Evaluation


@dataclass
class Fitted(Outcome):
    """``best``: step and measures of the weights that the policy now has, where those of the best evaluation were
    wanted."""

    best: dict[str, Any] | None = None


def method_of(run: Prepared, states: int | None) -> AlignmentMethod:
    """What ``run`` trains; ``states``: the width of the prompts' states, where there are any."""
    with torch.random.fork_rng():  # a value head begins alike whatever was drawn before, as in a run that is resumed
        torch.manual_seed(run.settings.seed)
        reading = reading_of(run.objective, run.need, run.resolved.options, states=states)
    layout: Any = {"auto": "auto", "shared": True, "repeated": False}[run.settings.layout]
    return AlignmentMethod(run.policy, reading, adapter=run.settings.lora, shared_prefix=layout).to(run.device)


def fit(path: Path, run: Prepared, method: AlignmentMethod, *, main: str | None, console: Console | None) -> Fitted:
    """Train ``method`` in the run folder ``path``, from its last complete checkpoint if there is one; ``main`` names
    the evaluation's main measure (None: there is no evaluation)."""
    course = _course(path, run)
    start = Start(course)
    wants_best = run.settings.keep_best or run.settings.early_stop is not None
    evaluator = None
    if main is not None:
        evaluator = Evaluator(
            method,
            run.evaluation_table,
            method=method,
            folder=course.checkpoints,
            main=main,
            patience=run.settings.early_stop,
            record=lambda step, measures: start.metrics.append({"step": step, "evaluation": measures}),
            judge=judge_of(run),
            seed=run.settings.seed,
            keep=wants_best,
        )
        evaluator.resume(start.history(main))
    batches = ResponseBatches(run.table, chunk_size=run.resolved.chunk_size, mismatched=run.mismatched)
    went = go(
        course,
        start,
        method,
        Loader(batches, run.batches, workers=run.settings.workers),
        guard=_guard(path, run, method),
        evaluator=evaluator,
        look=look,
        console=console,
    )
    fitted = Fitted(went.steps, went.ended, went.seconds, went.interrupted)
    if evaluator is not None and wants_best and not fitted.interrupted:
        fitted.best = evaluator.load_best()
    return fitted


def judge_of(run: Prepared, *, before: bool = False) -> Any:
    """How the run's evaluation data are evaluated; ``before``: before the first step."""
    assert run.evaluation is not None
    kind, seed = run.evaluation.kind, run.settings.seed
    unchanged = before and run.need.reference and run.reference is None

    def judged(method: AlignmentMethod, made: Table) -> Evaluation:
        with run.precision():
            return judge(method, made, kind, seed=seed, unchanged=unchanged)

    return judged


def _course(path: Path, run: Prepared) -> Course:
    resolved, settings = run.resolved, run.settings
    return Course(
        folder=path,
        run=run.run,
        steps=resolved.steps,
        batch_size=resolved.batch_size,
        learning_rate=resolved.learning_rate,
        objective_learning_rate=settings.objective_learning_rate,
        warmup_steps=resolved.warmup_steps,
        schedule=settings.schedule,
        weight_decay=settings.weight_decay,
        precision=resolved.precision,
        seed=settings.seed,
        log_every=resolved.log_every,
        evaluate_every=resolved.evaluate_every,
        checkpoint_every=settings.checkpoint_every,
        device=run.device,
        unused_parameters=False,
        tensorboard=settings.tensorboard,
    )


def _guard(path: Path, run: Prepared, method: AlignmentMethod) -> Guard:
    def save(step: int, report: dict[str, Any]) -> str | None:
        policy = trained_policy(run, method)
        adapter = run.settings.lora
        return write_last_good(path, report, lambda good: write_trained(policy, run.tokenizer, good, adapter=adapter))

    def describe(row: int) -> str:
        return plain(run.data[int(run.table.tokens.index[row])].prompt)

    return Guard(max_norm=run.settings.max_gradient_norm or None, describe=describe, on_failure=save)
