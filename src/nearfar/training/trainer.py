"""The trainer: Hugging Face's, with batches in our order, checkpoints that are whole, and no needless work in a step.

Importing this module imports transformers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from nearfar.training import checkpoints
from nearfar.training.loading import Loader
from nearfar.training.method import Batch, Logs, Method
from nearfar.training.processes import barrier
from nearfar.training.sharding import average_gradients, optimiser_part, whole
from nearfar.training.weights import gather_weights, load_weights, save_weights


class Trainer(transformers.Trainer):
    """``transformers.Trainer`` for a :class:`~nearfar.training.Method` and a :class:`~nearfar.training.loading.Loader`.

    What differs:

    - The loader is used as it is: its batches are of this process already.
    - The rate rises and falls by :func:`rate`, which is above 0 in every step.
    - Optimiser: AdamW, fused where torch can; parameters outside the method's main part, the encoder (a learned
      temperature), have ``objective_learning_rate`` and no weight decay.
    - Checkpoints are made aside and put in place when complete (:mod:`nearfar.training.checkpoints`); ``manifest`` goes
      with them. Weights are safetensors; no pickle of the arguments is written.
    - The weights of a method that is sharded are not wrapped again; its checkpoints hold them, and what the optimiser
      keeps of them, whole, as those of other methods do.
    - ``evaluate`` calls ``evaluator(step)``, which returns ``{measure: value}``; logs hold the rate and the method's.
    - The norm of the gradient is computed where it is needed (see :class:`nearfar.training.guard.Guard`), not always.
    """

    def __init__(
        self,
        method: Method,
        args: TrainingArguments,
        loader: Loader,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        evaluator: Any = None,
        objective_learning_rate: float | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.loader = loader
        self.folder = Path(args.output_dir or "trainer_output")
        self.evaluator = evaluator
        self.objective_learning_rate = objective_learning_rate
        self.manifest = dict(manifest or {})
        self.batch_rows: Tensor | None = None
        """Rows of the data in the batch of this step (of this process)."""
        self.batch_loss: Tensor | None = None
        self.method_logs: Logs = {}
        self.clock = Clock()
        super().__init__(model=method, args=args, train_dataset=loader.dataset, callbacks=list(callbacks))
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)
        self._gathered: dict[str, Tensor] | None = None
        if method.sharded:  # the method owns its weights: mixed precision is set up, and nothing is wrapped
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    # -- data, loss, optimiser ------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Loader:
        return self.loader

    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor
        loss, self.method_logs = model(inputs)
        self.batch_rows, self.batch_loss = inputs["rows"], loss.detach()
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.method.sharded:
            average_gradients(self.method.parameters())
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                self._parameter_groups(self.method if model is None else model),
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                fused=self.args.device.type in ("cpu", "cuda"),
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            kind = transformers.trainer_utils.SchedulerType(self.args.lr_scheduler_type).value
            warmup = int(self.args.warmup_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.create_optimizer(), lambda done: rate(done, num_training_steps, kind, warmup)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model)) if self.args.weight_decay else set()
        groups: dict[str, list[nn.Parameter]] = {"decayed": [], "plain": [], "objective": []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                of_encoder = f"{self.method.main_part}." in name or self.objective_learning_rate is None
                kind = ("decayed" if name in decayed else "plain") if of_encoder else "objective"
                groups[kind].append(parameter)
        options: dict[str, dict[str, Any]] = {
            "decayed": {"weight_decay": self.args.weight_decay},
            "plain": {"weight_decay": 0.0},
            "objective": {"weight_decay": 0.0, "lr": self.objective_learning_rate},
        }
        return [{"params": group, **options[kind]} for kind, group in groups.items() if group]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return grad_norm  # transformers would compute it in every step, whether anybody looks or not

    # -- logging and evaluation -----------------------------------------------------------------------------------

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs:
            steps, seconds = self.clock.lap(self.state.global_step)
            rows = self.loader.batches.batch_size * self.args.gradient_accumulation_steps
            if seconds > 0:
                logs["examples_per_second"] = steps * rows / seconds
            logs["seconds"] = self.clock.seconds
            logs.update({name: float(value) for name, value in self.method_logs.items()})
        super().log(logs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """``{"eval_<measure>": value}`` by the evaluator; the time it takes does not count as training."""
        with self.clock.stopped():
            measures = self.evaluator(self.state.global_step) if self.evaluator is not None else {}
        logs = {f"{metric_key_prefix}_{name}": value for name, value in measures.items()}
        self.log(dict(logs))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(checkpoints.unfinished(self.folder, self.state.global_step))

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        folder = self.folder
        step, manifest = self.state.global_step, {**self.manifest, "seconds": self.clock.seconds}
        with self.clock.stopped(), checkpoints.writing(folder, step):
            os.makedirs(self._get_output_dir(), exist_ok=True)
            self._gathered = gather_weights(self.method)
            super()._save_checkpoint(model, trial)
            barrier()
            if self.args.should_save:
                checkpoints.put_in_place(folder, step, manifest)
                checkpoints.thin_out(folder, max(1, self.args.save_total_limit or 1))
            barrier()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        gathered, self._gathered = self._gathered, None
        if not self.args.should_save:
            return
        target = Path(output_dir) if output_dir else self.folder
        target.mkdir(parents=True, exist_ok=True)
        save_weights(self.method, target / checkpoints.WEIGHTS, gathered)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.method, Path(resume_from_checkpoint) / checkpoints.WEIGHTS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.method.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole(self.create_optimizer().state_dict())
        assert self.lr_scheduler is not None
        if self.args.should_save:
            torch.save(state, Path(output_dir) / checkpoints.OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / checkpoints.SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.method.sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, place = self.create_optimizer(), Path(checkpoint)
        state = torch.load(place / checkpoints.OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        optimizer.load_state_dict(optimiser_part(state, optimizer))
        assert self.lr_scheduler is not None
        self.lr_scheduler.load_state_dict(torch.load(place / checkpoints.SCHEDULER, weights_only=True))


class Clock:
    """Seconds of training, without evaluations and checkpoints; starts when it is first looked at."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None
        self._lap = 0.0
        self._lap_step = 0

    def start(self, *, seconds: float = 0.0, step: int = 0) -> None:
        """Run from ``seconds`` on, at ``step``."""
        self._before, self._since = seconds, time.perf_counter()
        self._lap, self._lap_step = seconds, step

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def lap(self, step: int) -> tuple[int, float]:
        """Steps and seconds since the last lap."""
        now = self.seconds
        passed = step - self._lap_step, now - self._lap
        self._lap, self._lap_step = now, step
        return passed

    def stopped(self) -> _Stopped:
        """A context in which time does not count."""
        return _Stopped(self)


class _Stopped:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        self.clock._before, self._running = self.clock.seconds, self.clock._since is not None
        self.clock._since = None

    def __exit__(self, *_: Any) -> None:
        if self._running:
            self.clock._since = time.perf_counter()


def rate(done: int, steps: int, kind: str, warmup: int) -> float:
    """The share of the learning rate that the step after ``done`` of ``steps`` steps has.

    It rises linearly, ``(done + 1) / (warmup + 1)``, over ``warmup`` steps. Then it stays 1 ("constant"), or falls to
    reach 0 where the run ends: linearly (``"linear"``) or as half a cosine (``"cosine"``).
    """
    if done < warmup:
        return (done + 1) / (warmup + 1)
    if kind == "constant" or done >= steps:
        return 1.0 if kind == "constant" else 0.0
    left = (steps - done) / (steps - warmup)
    return left if kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))
