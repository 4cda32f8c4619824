"""Settings that depend on the encoder, the data and the recipe, as they are used."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from nearfar.errors import UsageError
from nearfar.negatives import Batches
from nearfar.training import chunking, processes
from nearfar.training.by_recipe import RecipeRun
from nearfar.training.chunking import Chunking
from nearfar.training.loading import TextBatches
from nearfar.training.settings import TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LOG_LINES = 200
EVALUATIONS = 3


@dataclass(frozen=True)
class Resolved:
    """Settings whose value depends on encoder and data, as they are used."""

    batch_size: int
    steps: int
    batches_per_epoch: int
    learning_rate: float
    objective_learning_rate: float
    warmup_steps: int
    max_gradient_norm: float
    precision: str
    evaluate_every: int
    log_every: int
    chunking: Chunking
    options: dict[str, Any] = field(default_factory=dict)
    """Of the recipe, complete."""
    max_length: int | None = None
    """Tokens read of a text in training where the recipe says so; the encoder itself reads what it did."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "chunking": self.chunking.to_dict()}


def resolve(
    settings: TrainingSettings,
    static: bool,
    encoder: SentenceTransformer,
    batches: Batches,
    texts: TextBatches,
    known: Chunking | None,
    recipe: RecipeRun | None,
) -> Resolved:
    """The settings as they are used; ``known``: the chunks of a run that is resumed.

    Raises :class:`UsageError` for fp16 without a GPU, and for chunks where a recipe cannot have them.
    """
    per_epoch = len(batches)
    epochs = settings.epochs if settings.epochs is not None else (4.0 if static else 1.0)
    steps = settings.steps if settings.steps is not None else max(1, math.ceil(epochs * per_epoch))
    rate = settings.learning_rate if settings.learning_rate is not None else (2e-2 if static else 2e-5)
    norm = settings.max_gradient_norm if settings.max_gradient_norm is not None else (0.0 if static else 1.0)
    precision = settings.precision
    if precision == "auto":
        half = encoder.device.type == "cuda" and not static and torch.cuda.is_bf16_supported()
        precision = "bf16" if half else "fp32"
    if precision == "fp16" and encoder.device.type != "cuda":
        raise UsageError("fp16 needs a GPU", where="--precision fp16", hint="use fp32 or bf16")
    every = settings.evaluate_every or max(1, min(per_epoch, math.ceil(steps / EVALUATIONS)))
    return Resolved(
        batch_size=batches.batch_size,
        steps=steps,
        batches_per_epoch=per_epoch,
        learning_rate=rate,
        objective_learning_rate=settings.objective_learning_rate or max(rate, 1e-3),
        warmup_steps=round(settings.warmup * steps),
        max_gradient_norm=norm,
        precision=precision,
        evaluate_every=every,
        log_every=settings.log_every or max(1, steps // LOG_LINES),
        chunking=known or _chunking(settings, encoder, batches, texts, recipe, half=precision != "fp32"),
        options=dict(recipe.options) if recipe is not None else {},
    )


def _chunking(
    settings: TrainingSettings,
    encoder: SentenceTransformer,
    batches: Batches,
    texts: TextBatches,
    recipe: RecipeRun | None,
    *,
    half: bool,
) -> Chunking:
    if recipe is not None and not recipe.training.cached:
        if settings.chunk_size is not None:
            raise UsageError(
                f"{recipe.id} needs more of a text than its embedding, so gradients cannot be cached in chunks",
                where="--chunk-size",
                hint="leave it out; where memory does not suffice, take a smaller --batch-size or --max-length",
            )
        return Chunking(None, False, f"{recipe.id} needs more of a text than its embedding")
    count = texts.texts_per_row * math.ceil(batches.batch_size / processes.world_size())
    count *= recipe.training.passes if recipe is not None else 1
    return chunking.choose(encoder, texts.tokens.lengths, count, chunk_size=settings.chunk_size, half=half)


def training_length(
    settings: TrainingSettings, recipe: RecipeRun | None, resolved: dict[str, Any] | None
) -> int | None:
    """How many tokens of a text the recipe reads, unless the user said it of the encoder."""
    if resolved is not None:
        length: int | None = resolved["max_length"]
        return length
    return recipe.training.settings.get("max_length") if recipe is not None and settings.max_length is None else None
