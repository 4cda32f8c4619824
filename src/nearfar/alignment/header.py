"""What an alignment run is, in a few lines, before it starts."""

from __future__ import annotations

import math

from nearfar.alignment.body import architecture
from nearfar.alignment.needs import READINGS
from nearfar.alignment.prepare import Prepared
from nearfar.training import processes


def lines(run: Prepared) -> list[str]:
    """The header's lines: tokens, batches, model, objective, reference, rate, memory."""
    return [
        run.table.tokens.describe(),
        f"batches: {_batches(run)}",
        f"model: {_model(run)}",
        f"objective: {_objective(run)}",
        f"reference: {_reference(run)}",
        f"learning rate: {_rate(run)}",
        f"memory: {_memory(run)}",
    ]


def _batches(run: Prepared) -> str:
    resolved = run.resolved
    epochs = resolved.steps / resolved.batches_per_epoch
    return (
        f"{len(run.table):,} rows ({run.data.kind}, {run.table.responses:,} responses) in "
        f"{resolved.batches_per_epoch:,} batches of {resolved.batch_size:,} an epoch, {epochs:.3g} epochs, "
        f"{resolved.steps:,} steps"
    )


def _model(run: Prepared) -> str:
    parameters = list(run.policy.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    text = f"{architecture(run.policy)}, {count / 1e6:.1f} million parameters"
    if run.settings.lora:
        text += f", {trained / 1e6:.2f} million trained (LoRA of rank {run.settings.rank})"
    return text + ("; dropout is on" if run.settings.dropout else "; dropout is off")


def _objective(run: Prepared) -> str:
    options = ", ".join(f"{name} {value}" for name, value in run.resolved.options.items())
    beta = getattr(run.objective, "beta", None)
    parts = [f"{run.objective.name} on {READINGS[run.need.reading]}"]
    parts += [f"beta {beta:g}"] if isinstance(beta, float) else []
    return ", ".join([*parts, *([options] if options else [])])


def _reference(run: Prepared) -> str:
    if not run.need.reference:
        return "none: the objective has none"
    return run.settings.reference or "the model as it begins, computed once, before the first step"


def _rate(run: Prepared) -> str:
    resolved, settings = run.resolved, run.settings
    text = f"{resolved.learning_rate:g}, {settings.schedule}, {resolved.warmup_steps:,} warm-up steps"
    if settings.max_gradient_norm:
        text += f", gradient clipped at {settings.max_gradient_norm:g}"
    return f"{text}, {resolved.precision}"


def _memory(run: Prepared) -> str:
    resolved = run.resolved
    size = resolved.chunk_size
    text = f"{size:,} row{'s' if size != 1 else ''} at once ({resolved.chunk_reason})"
    if run.sharded:
        text += f"; weights, gradients and optimiser shared out among {processes.world_size()} processes"
    if size < math.ceil(resolved.batch_size / processes.world_size()):
        text += "; scored twice, as the loss is no mean over rows" if run.need.whole else "; gradients are added up"
    return text
