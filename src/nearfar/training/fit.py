"""The part of a run between the first step and the last.

Importing this module imports transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_model
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from nearfar.errors import MissingExtraError
from nearfar.files import write_json
from nearfar.training import checkpoints, processes
from nearfar.training import folder as run_folder
from nearfar.training.evaluating import Evaluator, Judge
from nearfar.training.flow import ALL_STEPS, Flow, Pace
from nearfar.training.guard import Guard
from nearfar.training.interrupts import Interrupts
from nearfar.training.loading import Loader
from nearfar.training.method import ContrastiveMethod
from nearfar.training.prepare import Prepared, seed_everything
from nearfar.training.progress import MetricsFile, Progress, Recorder
from nearfar.training.text_training import TextMethod, TextSetting
from nearfar.training.trainer import Trainer

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.encoders.classifier_files import EmbeddingClassifier
    from nearfar.evaluation import Evaluation


CLASSIFIER_MAIN = "classifier_accuracy"


@dataclass
class Fitted:
    """``steps`` done, why it ``ended``, ``seconds`` of training; ``best``: step and measures of the weights that the
    encoder now has, when they are those of the best evaluation; ``main``: the name of the measure it was best by;
    ``classifier``: of its embeddings, where the method learned one."""

    steps: int
    ended: str
    seconds: float
    interrupted: bool = False
    best: dict[str, Any] | None = None
    main: str | None = None
    classifier: EmbeddingClassifier | None = None


def fit(path: Path, run: Prepared, *, main: str | None, console: Console | None, keep: bool = True) -> Fitted:
    """Train ``run`` in the run folder ``path``, from its last complete checkpoint if there is one.

    ``main`` names the evaluation's main measure; None: there is no evaluation. Where the method learns a classifier and
    the evaluation data have labels, its accuracy takes that place. ``keep``: whether a run that diverges leaves the
    weights from before.
    """
    place = path / run_folder.CHECKPOINTS
    start = checkpoints.last(place, run.run)
    before = checkpoints.manifest(start) if start is not None else {}
    step, seconds = int(before.get("step", 0)), float(before.get("seconds", 0.0))
    metrics = MetricsFile(path / run_folder.LINES)
    kept: list[dict[str, Any]] = processes.on_main(lambda: metrics.cut(step))
    method = method_of(run)
    judge = run.judge
    if main is not None and _classifies(method, run):
        main, judge = CLASSIFIER_MAIN, _with_classifier(method, run)
    evaluator = _evaluator(path, run, method, main, judge, metrics) if main is not None else None
    if evaluator is not None:
        evaluator.resume([(each["step"], each["evaluation"][main]["value"]) for each in kept if "evaluation" in each])
    if start is not None and "ended" in before:
        load_model(method, str(start / checkpoints.WEIGHTS))
        fitted = Fitted(step, before["ended"], seconds)
    else:
        fitted = _train(path, run, method, evaluator, metrics, console, start, (seconds, step), keep)
    if evaluator is not None and not fitted.interrupted:
        fitted.best = evaluator.load_best()
    fitted.main = main
    if isinstance(method, TextMethod):
        fitted.classifier = method.classifier()
    return fitted


def _train(
    path: Path,
    run: Prepared,
    method: ContrastiveMethod,
    evaluator: Evaluator | None,
    metrics: MetricsFile,
    console: Console | None,
    start: Path | None,
    clock: tuple[float, int],
    keep: bool,
) -> Fitted:
    resolved = run.resolved
    # one number, so that a run and its resumption draw alike whatever was drawn before
    seed_everything(run.settings.seed)
    with Interrupts() as interrupts, _quiet():
        pace = Pace(resolved.log_every, resolved.evaluate_every, run.settings.checkpoint_every)
        flow = Flow(pace, evaluator=evaluator, interrupts=interrupts)
        guard = _guard(path, run, keep)
        recorder = Recorder(metrics if processes.is_main() else None, say=_verdicts(console))
        callbacks: list[TrainerCallback] = [flow, guard, recorder]
        bar = None
        if console is not None and processes.is_main():
            bar = Progress(console, main=evaluator.main if evaluator else None, batch_size=resolved.batch_size)
            callbacks.append(bar)
        if run.settings.tensorboard and processes.is_main():
            callbacks.append(_tensorboard(path))
        trainer = Trainer(
            method,
            _arguments(path, run),
            Loader(run.texts, run.batches, workers=run.settings.workers),
            callbacks=callbacks,
            evaluator=evaluator,
            objective_learning_rate=resolved.objective_learning_rate,
            manifest={"run": run.run},
        )
        flow.trainer = guard.trainer = recorder.trainer = trainer
        trainer.clock.start(seconds=clock[0], step=clock[1])
        try:
            trainer.train(resume_from_checkpoint=str(start) if start is not None else None)
        finally:
            if bar is not None:
                bar.close()
    return Fitted(trainer.state.global_step, flow.ended or ALL_STEPS, trainer.clock.seconds, flow.interrupted)


def _arguments(path: Path, run: Prepared) -> TrainingArguments:
    resolved, settings = run.resolved, run.settings
    arguments = TrainingArguments(
        output_dir=str(path / run_folder.CHECKPOINTS),
        max_steps=resolved.steps,
        per_device_train_batch_size=math.ceil(resolved.batch_size / processes.world_size()),
        learning_rate=resolved.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=resolved.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=0.0,  # the guard clips
        bf16=resolved.precision == "bf16",
        fp16=resolved.precision == "fp16",
        seed=settings.seed,
        use_cpu=run.encoder.device.type == "cpu",
        ddp_backend="gloo" if run.encoder.device.type == "cpu" and processes.world_size() > 1 else None,
        ddp_find_unused_parameters=not run.texts.tokens.static,
        ddp_broadcast_buffers=False,
        ddp_timeout=int(processes.PATIENCE.total_seconds()),
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        save_total_limit=1,
        logging_nan_inf_filter=False,  # the guard stops instead
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        log_level_replica="error",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one GPU: several take torchrun
    return arguments


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
        good = path / run_folder.CHECKPOINTS / run_folder.LAST_GOOD
        if processes.is_main():
            encoders.save(run.encoder, good, overwrite=True)
            write_json(path / "failure.json", {**report, "weights_before": str(good)})
        return str(good)

    def describe(row: int) -> str:
        return next(value for value in run.examples[row].values() if isinstance(value, str))

    return Guard(
        max_norm=run.resolved.max_gradient_norm or None,
        describe=describe,
        on_failure=save if keep else None,
        only_embeddings=run.texts.tokens.static and run.recipe is None,
    )


def _tensorboard(path: Path) -> TrainerCallback:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
    from transformers import integrations

    written: Any = integrations  # the name is exported lazily
    callback: TrainerCallback = written.TensorBoardCallback(SummaryWriter(log_dir=str(path / "tensorboard")))
    return callback


def _verdicts(console: Console | None) -> Any:
    if console is None:
        return None
    return lambda text: console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers keeps its own counsel inside the block."""
    before = transformers_logging.get_verbosity()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
