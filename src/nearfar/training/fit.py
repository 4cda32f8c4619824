"""The part of a run of texts between the first step and the last.

Importing this module imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.training import folder as run_folder
from nearfar.training.evaluating import Evaluator, Judge
from nearfar.training.guard import Guard, write_last_good
from nearfar.training.loading import Loader
from nearfar.training.loop import Course, Outcome, Start, go
from nearfar.training.method import ContrastiveMethod
from nearfar.training.prepare import Prepared
from nearfar.training.progress import MetricsFile
from nearfar.training.text_training import TextMethod, TextSetting

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.encoders.classifier_files import EmbeddingClassifier
    from nearfar.evaluation import Evaluation


CLASSIFIER_MAIN = "classifier_accuracy"


@dataclass
class Fitted(Outcome):
    """``best``: step and measures of the weights that the encoder now has, when they are those of the best evaluation;
    ``main``: the name of the measure it was best by; ``classifier``: of its embeddings, where the method learned
    one."""

    best: dict[str, Any] | None = None
    main: str | None = None
    classifier: EmbeddingClassifier | None = None


def fit(path: Path, run: Prepared, *, main: str | None, console: Console | None, keep: bool = True) -> Fitted:
    """Train ``run`` in the run folder ``path``, from its last complete checkpoint if there is one.

    ``main`` names the evaluation's main measure; None: there is no evaluation. Where the method learns a classifier and
    the evaluation data have labels, its accuracy takes that place. ``keep``: whether a run that diverges leaves the
    weights from before.
    """
    course = _course(path, run)
    start = Start(course)
    method = method_of(run)
    judge = run.judge
    if main is not None and _classifies(method, run):
        main, judge = CLASSIFIER_MAIN, _with_classifier(method, run)
    evaluator = _evaluator(path, run, method, main, judge, start.metrics) if main is not None else None
    if evaluator is not None and main is not None:
        evaluator.resume(start.history(main))
    went = go(
        course,
        start,
        method,
        Loader(run.texts, run.batches, workers=run.settings.workers),
        guard=_guard(path, run, keep),
        evaluator=evaluator,
        console=console,
    )
    fitted = Fitted(went.steps, went.ended, went.seconds, went.interrupted, main=main)
    if evaluator is not None and not fitted.interrupted:
        fitted.best = evaluator.load_best()
    if isinstance(method, TextMethod):
        fitted.classifier = method.classifier()
    return fitted


def _course(path: Path, run: Prepared) -> Course:
    resolved, settings = run.resolved, run.settings
    return Course(
        folder=path,
        run=run.run,
        steps=resolved.steps,
        batch_size=resolved.batch_size,
        learning_rate=resolved.learning_rate,
        objective_learning_rate=resolved.objective_learning_rate,
        warmup_steps=resolved.warmup_steps,
        schedule=settings.schedule,
        weight_decay=settings.weight_decay,
        precision=resolved.precision,
        seed=settings.seed,
        log_every=resolved.log_every,
        evaluate_every=resolved.evaluate_every,
        checkpoint_every=settings.checkpoint_every,
        device=run.encoder.device,
        unused_parameters=not run.texts.tokens.static,
        tensorboard=settings.tensorboard,
    )


def method_of(run: Prepared) -> ContrastiveMethod:
    """What ``run`` trains."""
    chunk = run.resolved.chunking
    size = chunk.size if chunk.cached else None
    if run.recipe is not None:
        setting = TextSetting(
            encoder=run.encoder,
            examples=run.examples,
            options=run.resolved.options,
            batch_size=run.resolved.batch_size,
            steps=run.resolved.steps,
            steps_per_epoch=run.resolved.batches_per_epoch,
            seed=run.settings.seed,
            source=run.source,
        )
        with torch.random.fork_rng():  # heads begin alike whatever was drawn before, as in a run that is resumed
            torch.manual_seed(run.settings.seed)
            method = run.recipe.training.method(setting)
        method.chunk_size = size
        return method.to(run.encoder.device)
    assert run.objective is not None
    return ContrastiveMethod(
        run.encoder,
        run.objective,
        shape=run.examples.shape,
        hard_negatives=len(run.examples.negatives),
        chunk_size=size,
    )


def _evaluator(
    path: Path,
    run: Prepared,
    method: ContrastiveMethod,
    main: str | None,
    judge: Judge | None,
    metrics: MetricsFile,
) -> Evaluator:
    assert run.evaluation is not None
    assert main is not None
    return Evaluator(
        run.encoder,
        run.evaluation,
        method=method,
        folder=path / run_folder.CHECKPOINTS,
        main=main,
        patience=run.settings.early_stop,
        record=lambda step, measures: metrics.append({"step": step, "evaluation": measures}),
        judge=judge,
        seed=run.settings.seed,
    )


def _classifies(method: ContrastiveMethod, run: Prepared) -> bool:
    """Whether what ``method`` has learned of classes can be evaluated."""
    labelled = getattr(run.evaluation, "shape", None) == "labelled texts"
    return labelled and isinstance(method, TextMethod) and method.classifier() is not None


def _with_classifier(method: ContrastiveMethod, run: Prepared) -> Judge:
    """Evaluates as the run does, and the classifier of ``method`` beside."""
    from nearfar import evaluation
    from nearfar.evaluation.classified import classifier_measures

    seed = run.settings.seed

    def judge(encoder: Any, data: Any) -> Evaluation:
        found = run.judge(encoder, data) if run.judge is not None else evaluation.evaluate(encoder, data, seed=seed)
        assert isinstance(method, TextMethod)
        head = method.classifier()
        assert head is not None
        found.measures.update(classifier_measures(encoder, head, data, normalize=False, seed=seed))
        return found

    return judge


def _guard(path: Path, run: Prepared, keep: bool) -> Guard:
    from nearfar import encoders

    def save(step: int, report: dict[str, Any]) -> str | None:
        return write_last_good(path, report, lambda good: encoders.save(run.encoder, good, overwrite=True))

    def describe(row: int) -> str:
        return next(value for value in run.examples[row].values() if isinstance(value, str))

    return Guard(
        max_norm=run.resolved.max_gradient_norm or None,
        describe=describe,
        on_failure=save if keep else None,
        only_embeddings=run.texts.tokens.static and run.recipe is None,
    )
