"""The loop between the first step and the last, whatever is trained: it takes a method, batches and plain values.

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
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from nearfar.errors import MissingExtraError
from nearfar.training import checkpoints, processes
from nearfar.training import folder as run_folder
from nearfar.training.evaluating import Evaluator
from nearfar.training.flow import ALL_STEPS, Flow, Pace
from nearfar.training.guard import Guard
from nearfar.training.interrupts import Interrupts
from nearfar.training.loading import Loader
from nearfar.training.method import Method
from nearfar.training.progress import Look, MetricsFile, Progress, Recorder
from nearfar.training.seeding import seed_everything
from nearfar.training.trainer import Trainer
from nearfar.training.watch import look as look_at_space
from nearfar.training.weights import load_weights

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Course:
    """What the loop goes by.

    ``folder``: the run folder; ``run``: a digest of all that decides the weights, which checkpoints carry;
    ``batch_size``: rows over all processes; ``objective_learning_rate``: of the parameters outside the method's main
    part (None: as those inside); ``evaluate_every``, ``checkpoint_every``: steps, None as in
    :class:`~nearfar.training.flow.Pace`; ``precision``: "fp32", "bf16" or "fp16"; ``unused_parameters``: whether a step
    may leave a trained parameter without a gradient.
    """

    folder: Path
    run: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    schedule: str
    weight_decay: float
    precision: str
    seed: int
    log_every: int
    device: torch.device
    objective_learning_rate: float | None = None
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    unused_parameters: bool = True
    tensorboard: bool = False

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.folder / run_folder.CHECKPOINTS


@dataclass
class Outcome:
    """``steps`` done, why it ``ended``, ``seconds`` of training, and whether it was ``interrupted`` before its end."""

    steps: int
    ended: str
    seconds: float
    interrupted: bool = False


class Start:
    """Where a loop begins: at its run folder's last complete checkpoint, or at step 0.

    ``kept``: the lines of metrics.jsonl up to there; later ones are cut away on the main process.
    """

    def __init__(self, course: Course) -> None:
        self.checkpoint = checkpoints.last(course.checkpoints, course.run)
        manifest = checkpoints.manifest(self.checkpoint) if self.checkpoint is not None else {}
        self.step = int(manifest.get("step", 0))
        self.seconds = float(manifest.get("seconds", 0.0))
        self.ended: str | None = manifest.get("ended")
        self.metrics = MetricsFile(course.folder / run_folder.LINES)
        self.kept: list[dict[str, Any]] = processes.on_main(lambda: self.metrics.cut(self.step))

    def history(self, main: str) -> list[tuple[int, float]]:
        """``(step, value)`` of the measure ``main`` in the evaluations so far."""
        return [(each["step"], each["evaluation"][main]["value"]) for each in self.kept if "evaluation" in each]


def go(
    course: Course,
    start: Start,
    method: Method,
    loader: Loader,
    *,
    guard: Guard,
    evaluator: Evaluator | None = None,
    look: Look = look_at_space,
    console: Console | None = None,
) -> Outcome:
    """Train ``method`` on the batches of ``loader`` from ``start`` to the last step.

    ``guard`` checks loss and gradient; ``evaluator`` evaluates; ``look`` says now and then what is to be seen
    (:func:`nearfar.training.watch.look`); ``console`` shows progress. A loop that had ended only loads its weights.
    """
    if start.checkpoint is not None and start.ended is not None:
        load_weights(method, start.checkpoint / checkpoints.WEIGHTS)
        return Outcome(start.step, start.ended, start.seconds)
    # one number, so that a run and its resumption draw alike whatever was drawn before
    seed_everything(course.seed)
    with Interrupts() as interrupts, _quiet():
        pace = Pace(course.log_every, course.evaluate_every, course.checkpoint_every)
        flow = Flow(pace, evaluator=evaluator, interrupts=interrupts)
        recorder = Recorder(start.metrics if processes.is_main() else None, say=_verdicts(console), look=look)
        callbacks: list[TrainerCallback] = [flow, guard, recorder]
        bar = None
        if console is not None and processes.is_main():
            main = evaluator.main if evaluator else None
            bar = Progress(console, main=main, batch_size=course.batch_size, shown=method.shown)
            callbacks.append(bar)
        if course.tensorboard and processes.is_main():
            callbacks.append(_tensorboard(course.folder))
        trainer = Trainer(
            method,
            _arguments(course),
            loader,
            callbacks=callbacks,
            evaluator=evaluator,
            objective_learning_rate=course.objective_learning_rate,
            manifest={"run": course.run},
        )
        flow.trainer = guard.trainer = recorder.trainer = trainer
        trainer.clock.start(seconds=start.seconds, step=start.step)
        try:
            trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint is not None else None)
        finally:
            if bar is not None:
                bar.close()
    return Outcome(trainer.state.global_step, flow.ended or ALL_STEPS, trainer.clock.seconds, flow.interrupted)


def _arguments(course: Course) -> TrainingArguments:
    on_cpu = course.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(course.checkpoints),
        max_steps=course.steps,
        per_device_train_batch_size=math.ceil(course.batch_size / processes.world_size()),
        learning_rate=course.learning_rate,
        lr_scheduler_type=course.schedule,
        warmup_steps=course.warmup_steps,
        weight_decay=course.weight_decay,
        max_grad_norm=0.0,  # the guard clips
        bf16=course.precision == "bf16",
        fp16=course.precision == "fp16",
        seed=course.seed,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and processes.world_size() > 1 else None,
        ddp_find_unused_parameters=course.unused_parameters,
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
