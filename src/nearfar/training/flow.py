"""When a run logs, evaluates, saves and ends.

Importing this module imports transformers.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nearfar.training.interrupts import Interrupts
from nearfar.training.processes import world_size

if TYPE_CHECKING:
    from nearfar.training.evaluating import Evaluator
    from nearfar.training.trainer import Trainer

SECONDS_BETWEEN = 30.0
"""Shortest time between checkpoints that are made by the clock."""

COST = 0.02
"""Share of the time that checkpoints made by the clock may take."""

ALL_STEPS, EARLY_STOP = "all steps", "early stop"

_AGREE_EVERY = 8
"""Over several processes, steps between agreements about clock and interrupts."""


@dataclass(frozen=True)
class Pace:
    """Steps between logs, evaluations (None: none) and checkpoints (None: by the clock, see :data:`SECONDS_BETWEEN`
    and :data:`COST`)."""

    log_every: int
    evaluate_every: int | None
    checkpoint_every: int | None


class Flow(TrainerCallback):
    """Sets the trainer's flags after each step by :class:`Pace`, and calls the method's hooks.

    A run ends early when an evaluation says so or when an interrupt was asked for; it always ends with a checkpoint.
    ``ended`` says why: :data:`ALL_STEPS`, :data:`EARLY_STOP` or the signal's name; in the first two cases the last
    checkpoint says it too.
    """

    def __init__(self, pace: Pace, *, evaluator: Evaluator | None = None, interrupts: Interrupts | None = None) -> None:
        self.pace = pace
        self.evaluator = evaluator
        self.interrupts = interrupts
        self.trainer: Trainer | None = None
        self.ended: str | None = None
        self.interrupted = False
        self._saved_at = self._began = time.monotonic()
        self._cost = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer is not None:
            per_epoch = math.ceil(len(self.trainer.loader) / args.gradient_accumulation_steps)
            epoch, within = divmod(state.global_step, per_epoch)
            if not within:  # a run that is resumed within an epoch has what was made before it
                self.trainer.method.before_epoch(epoch)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        step = state.global_step
        if self.trainer is not None:
            self.trainer.method.after_step(step)
        last = step >= state.max_steps
        control.should_log = step % self.pace.log_every == 0 or step == 1 or last
        control.should_evaluate = self.evaluator is not None and (
            last or (self.pace.evaluate_every is not None and step % self.pace.evaluate_every == 0)
        )
        save, stop = self._wishes(step)
        if last:
            self._end(ALL_STEPS)
        elif stop:
            self.ended = (self.interrupts.requested if self.interrupts else None) or "interrupt"
            self.interrupted = True
            control.should_training_stop = True
        control.should_save = save or stop or last
        self._began = time.monotonic()
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        # the trainer saves after it evaluates, so a run that stops here leaves a checkpoint
        if self.evaluator is not None and self.evaluator.exhausted and state.global_step < state.max_steps:
            self._end(EARLY_STOP)
            control.should_training_stop = True
            control.should_save = True
        self._began = time.monotonic()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - self._began

    def _wishes(self, step: int) -> tuple[bool, bool]:
        """(whether to save, whether to stop) after this step; all processes agree."""
        planned = self.pace.checkpoint_every is not None and step % self.pace.checkpoint_every == 0
        due = self.pace.checkpoint_every is None and self._since() >= max(SECONDS_BETWEEN, self._cost / COST)
        stop = self.interrupts is not None and self.interrupts.requested is not None
        if world_size() > 1:
            due, stop = self._agreed(due, stop) if step % _AGREE_EVERY == 0 else (False, False)
        return planned or due, stop

    def _since(self) -> float:
        return time.monotonic() - self._saved_at

    def _agreed(self, due: bool, stop: bool) -> tuple[bool, bool]:
        """What any process wishes."""
        wishes = torch.tensor([int(due), int(stop)], device=self.trainer.args.device if self.trainer else "cpu")
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX)
        return bool(wishes[0]), bool(wishes[1])

    def _end(self, why: str) -> None:
        self.ended = why
        if self.trainer is not None:
            self.trainer.manifest["ended"] = why
