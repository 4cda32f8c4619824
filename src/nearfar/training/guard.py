"""Stops a run at the first loss or gradient that is not a finite number, before it reaches the weights.

Importing this module imports transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nearfar.contrast.temperature import Temperature
from nearfar.errors import TrainingError
from nearfar.files import write_json
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.method import ContrastiveMethod, Method
from nearfar.training.sharding import clip_gradients, gradient_norm

if TYPE_CHECKING:
    from nearfar.training.trainer import Trainer

_SHOWN_ROWS = 8
_SHOWN_CHARACTERS = 120

Describe = Callable[[int], str]
"""A row of the data -> an excerpt of its text."""


class Guard(TrainerCallback):
    """Before each step of the optimiser: check loss and gradient, and clip the gradient to ``max_norm`` (None: never).

    The check costs little: where the gradient's norm is not needed for clipping and the encoder is a token table, the
    gradient of the embeddings is looked at, of which the table's is a sum of means.

    Raises :class:`TrainingError` with the step, the batch's rows and what to change; ``on_failure(step, report)`` is
    called before, while all weights are still good.
    """

    def __init__(
        self,
        *,
        max_norm: float | None = None,
        describe: Describe | None = None,
        on_failure: Callable[[int, dict[str, Any]], str | None] | None = None,
        only_embeddings: bool = False,
    ) -> None:
        self.trainer: Trainer | None = None
        self.max_norm = max_norm
        self.describe = describe
        self.on_failure = on_failure
        self.only_embeddings = only_embeddings

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self.trainer
        if trainer is None or trainer.batch_loss is None:
            return
        norm = self._norm(trainer)
        checked = trainer.batch_loss.float() if norm is None else trainer.batch_loss.float() + 0 * norm
        if not math.isfinite(float(checked)):
            self._fail(trainer, state.global_step + 1, float(trainer.batch_loss), norm)

    def _norm(self, trainer: Trainer) -> Tensor | None:
        """The gradient's norm, or something that is finite when it is; None where a scaler looks after it."""
        method = trainer.method
        if getattr(trainer.accelerator, "scaler", None) is not None:
            if self.max_norm:
                trainer.accelerator.clip_grad_norm_(method.parameters(), self.max_norm)
            return None
        # over several processes only the parameters' gradients are those of all of them
        alone = processes.world_size() == 1
        if self.only_embeddings and alone and not self.max_norm and isinstance(method, ContrastiveMethod):
            return _sum([method.embedding_gradient, *_squares(method.objective.parameters())])
        parameters = [parameter for parameter in method.parameters() if parameter.grad is not None]
        norm = gradient_norm(parameters)
        if self.max_norm:
            trainer.method_logs["gradient_norm"] = norm
            clip_gradients(parameters, self.max_norm, norm)
        return norm

    def _fail(self, trainer: Trainer, step: int, loss: float, norm: Tensor | None) -> None:
        rows = [] if trainer.batch_rows is None else trainer.batch_rows.tolist()
        suspects = _suspects(trainer.method, rows)
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
        report = {"step": step, "what": what, "rows": rows, "suspects": suspects}
        saved = self.on_failure(step, report) if self.on_failure is not None else None
        raise TrainingError(
            f"{what} at step {step:,}" + (f"; the weights before it are in {saved}" if saved else ""),
            where=self._where(rows, suspects, trainer.method.scored),
            hint=_hint(trainer),
        )

    def _where(self, rows: Sequence[int], suspects: Sequence[int], what: str) -> str:
        chosen = list(suspects or rows)[:_SHOWN_ROWS]
        lead = f"whose {what} are not finite" if suspects else f"of the batch's {len(rows):,}"
        numbers = ", ".join(map(str, chosen)) + (", ..." if len(suspects or rows) > len(chosen) else "")
        text = ""
        if self.describe is not None and chosen:
            excerpt = " ".join(self.describe(chosen[0]).split())
            text = f"; row {chosen[0]}: {excerpt[:_SHOWN_CHARACTERS]!r}"
        return f"data rows {numbers} ({lead}){text}"


def write_last_good(path: Path, report: dict[str, Any], write: Callable[[Path], None]) -> str:
    """What a run in ``path`` leaves that diverges: its weights so far, which ``write`` writes into the folder that is
    returned, and what went wrong. All processes wait for the main one: what ends first ends the others."""
    good = path / run_folder.CHECKPOINTS / run_folder.LAST_GOOD

    def keep() -> str:
        write(good)
        write_json(path / run_folder.FAILURE, {**report, "weights_before": str(good)})
        return str(good)

    kept: str = processes.on_main(keep)
    return kept


def _suspects(method: nn.Module, rows: Sequence[int]) -> list[int]:
    """Rows with an embedding (or whatever the method says) that is not finite, when that is not true of all."""
    if isinstance(method, Method):
        named = method.not_finite()
        if named is not None:
            return named
    embeddings = getattr(method, "embeddings", None)
    if embeddings is None or not rows or len(embeddings) % len(rows):
        return []
    bad = ~torch.isfinite(embeddings).all(dim=1)
    found = sorted({int(index) % len(rows) for index in bad.nonzero().flatten()})
    return [rows[index] for index in found] if len(found) < len(rows) else []


def _hint(trainer: Trainer) -> str:
    rate = trainer.optimizer.param_groups[0]["lr"] if trainer.optimizer is not None else trainer.args.learning_rate
    parts = [f"lower the learning rate (it was {rate:.2g})"]
    temperature = getattr(getattr(trainer.method, "objective", None), "temperature", None)
    if isinstance(temperature, Temperature):
        parts.append(f"raise the temperature (it was {temperature.value:.2g})")
    if trainer.args.fp16:
        parts.append("use bf16 or fp32 instead of fp16")
    parts.append("clip the gradient (max_gradient_norm=1)")
    return "; or ".join(parts)


def _squares(parameters: Any) -> list[Tensor]:
    return [parameter.grad.float().square().sum() for parameter in parameters if parameter.grad is not None]


def _sum(values: Sequence[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present).sum() if present else None
