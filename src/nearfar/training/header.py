"""What a run is, in a few lines, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.contrast.engine import DENSE_LIMIT
from nearfar.negatives import LabelBatches, LabelPairBatches, NoDuplicateBatches, OrderedBatches
from nearfar.objectives import Objective, ProxyObjective
from nearfar.training import processes
from nearfar.training.results import checks_generally

if TYPE_CHECKING:
    from nearfar.training.prepare import Prepared


def lines(run: Prepared) -> list[str]:
    """The header's lines: rows and batches; encoder; candidates of an anchor and objective, or the recipe; rate;
    memory."""
    return [
        f"batches: {_batches(run)}",
        f"encoder: {_encoder(run)}",
        *_contrast(run),
        f"learning rate: {_rate(run)}",
        f"memory: {_memory(run)}",
        *(["general check: pairs of everyday English, before and after"] if checks_generally(run) else []),
    ]


def _batches(run: Prepared) -> str:
    resolved = run.resolved
    epochs = resolved.steps / resolved.batches_per_epoch
    text = (
        f"{len(run.examples):,} rows in {resolved.batches_per_epoch:,} batches of {max(run.batches.sizes()):,} an epoch"
        f", {epochs:.3g} epochs, {resolved.steps:,} steps"
    )
    if isinstance(run.batches, NoDuplicateBatches):
        return text + "; no text twice in a batch"
    if isinstance(run.batches, LabelBatches):
        return text + "; every class in a batch has at least 2 rows"
    if isinstance(run.batches, OrderedBatches):
        return text + "; the rows of a batch follow each other in one document"
    if isinstance(run.batches, LabelPairBatches):
        return text + f"; {len(run.batches.pairs):,} pairs, two rows each"
    return text


def _encoder(run: Prepared) -> str:
    from nearfar.encoders.sentence_modules import dimension_of, is_static

    count = sum(parameter.numel() for parameter in run.encoder.parameters())
    kind = "static" if is_static(run.encoder) else type(run.encoder[0]).__name__.lower()
    text = f"{kind}, {count / 1e6:.1f} million parameters, {dimension_of(run.encoder)} dimensions"
    if run.resolved.max_length is not None:
        text += f"; training reads {run.resolved.max_length} tokens of a text, as the paper does (--max-length)"
    return text


def _contrast(run: Prepared) -> list[str]:
    if run.objective is not None:
        return [f"candidates: {_candidates(run, run.objective)}", f"objective: {_objective(run, run.objective)}"]
    assert run.recipe is not None
    options = ", ".join(f"{name} {value}" for name, value in run.resolved.options.items())
    return [
        f"recipe: {run.recipe.id} ({run.recipe.paper})",
        f"contrast: {run.recipe.training.shapes[run.examples.shape]}",
        *([f"options: {options}"] if options else []),
    ]


def _candidates(run: Prepared, objective: Objective) -> str:
    shape = run.examples.shape
    rows = max(run.batches.sizes())
    if shape == "scored pairs":
        return "none: each pair against its score"
    if objective.kind == "view":
        return f"none: statistics of {rows:,} items in two views"
    elsewhere = f", {rows - rows // processes.world_size():,} of them gathered" if processes.world_size() > 1 else ""
    if isinstance(objective, ProxyObjective):
        return f"the vectors of {objective.classes:,} classes, {objective.per_class} each, learned with the encoder"
    if shape == "labelled texts":
        return f"the {rows - 1:,} other rows of the batch, near when of one label{elsewhere}"
    if shape == "texts":
        return f"1 positive, 0 hard, {2 * rows - 2:,} in-batch{elsewhere}"
    hard = len(run.examples.negatives)
    others = f"{rows - 1:,} other positives"
    if hard:
        others += f" and {hard * (rows - 1):,} other hard negatives"
    return f"an anchor has 1 positive, {hard} hard, {others} in-batch{elsewhere}"


def _objective(run: Prepared, objective: Objective) -> str:
    parts = [run.settings.objective if "(" in run.settings.objective else objective.name]
    score = getattr(objective, "score", None)
    if score is not None:
        name = type(score).__name__.lower()
        parts.append("cosine (embeddings normalised)" if name == "cosine" else name)
    temperature = getattr(objective, "temperature", None)
    if temperature is not None:
        parts.append(f"temperature {temperature.extra_repr()}")
    if getattr(objective, "two_sided", False):
        parts.append("two-sided")
    return ", ".join(parts)


def _rate(run: Prepared) -> str:
    resolved = run.resolved
    text = f"{resolved.learning_rate:g}, {run.settings.schedule}, {resolved.warmup_steps:,} warm-up steps"
    if resolved.max_gradient_norm:
        text += f", gradient clipped at {resolved.max_gradient_norm:g}"
    return f"{text}, {resolved.precision}"


def _memory(run: Prepared) -> str:
    chunk = run.resolved.chunking
    if chunk.cached:
        text = f"{chunk.size} texts embedded at once, gradients cached ({chunk.reason})"
    else:
        text = f"a whole batch's activations ({chunk.reason})"
    if run.objective is not None and run.objective.kind == "row":
        rows = max(run.batches.sizes()) * (2 if run.examples.shape == "texts" else 1)
        keys = rows * (1 + len(run.examples.negatives))
        tiled = 4 * rows * keys > DENSE_LIMIT
        text += f"; scores {rows:,} x {keys:,} " + ("in tiles" if tiled else "at once")
    return text
