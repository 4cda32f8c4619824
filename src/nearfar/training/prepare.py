"""Before the first step: data read and checked, encoder and objective made, batches planned, sizes resolved."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nearfar.errors import DataError, ModelError, UsageError
from nearfar.negatives import Batches, LabelBatches, NoDuplicateBatches, OrderedBatches
from nearfar.objectives import Objective, ProxyObjective
from nearfar.training import by_recipe, processes
from nearfar.training.by_recipe import RecipeRun
from nearfar.training.checked import NOT_OF_THE_RUN
from nearfar.training.chunking import Chunking
from nearfar.training.loading import TextBatches
from nearfar.training.resolved import Resolved, resolve, training_length
from nearfar.training.seeding import seed_everything
from nearfar.training.settings import TrainingSettings
from nearfar.training.shapes import KINDS, check_fit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import DataCheck, Examples, RetrievalSet
    from nearfar.training.evaluating import Judge


@dataclass
class Prepared:
    """All that a run consists of."""

    settings: TrainingSettings
    examples: Examples
    evaluation: Examples | RetrievalSet | None
    objective: Objective | None
    """None where a recipe is trained, whose method has its own."""
    encoder: SentenceTransformer
    check: DataCheck
    batches: Batches
    texts: TextBatches
    resolved: Resolved
    data: dict[str, Any]
    judge: Judge | None = None
    """How the evaluation data are evaluated; None: :func:`nearfar.evaluation.evaluate`."""
    recipe: RecipeRun | None = None
    source: Path | None = None
    """The folder that the encoder of a recipe was loaded from; None where it was made."""

    @property
    def run(self) -> str:
        """A digest of everything that decides the weights: settings, data, what was resolved (hex)."""
        settings = {name: value for name, value in self.settings.to_dict().items() if name not in NOT_OF_THE_RUN}
        for name in ("data", "evaluate"):
            settings.pop(name)  # where the data lies does not matter; its fingerprint does
        prints = {name: entry.get("sha256") for name, entry in self.data.items()}
        text = json.dumps([settings, prints, self.resolved.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read(
    settings: TrainingSettings,
    examples: Examples | None,
    evaluation: Examples | RetrievalSet | None,
    shapes: Iterable[str] = KINDS,
) -> tuple[Examples, Examples | RetrievalSet | None]:
    """The data to train and to evaluate on, read where it was not given; ``shapes``: those that can be trained on (a
    recipe's, by default those of objectives). Of documents, captions and domains the texts are taken where nothing
    else is wanted."""
    from nearfar import data

    wanted = tuple(shapes)
    if examples is None:
        if settings.data is None:
            raise UsageError("there is no data to train on", hint="name a file, or give examples")
        examples = data.read(settings.data, columns=settings.columns, shapes=wanted, max_bad_rows=settings.max_bad_rows)
    if evaluation is None and settings.evaluate is not None:
        if data.is_retrieval(settings.evaluate):
            evaluation = data.read_retrieval(settings.evaluate, max_bad_rows=settings.max_bad_rows)
        else:
            evaluation = _read_evaluation(settings.evaluate, settings)
    if evaluation is None and settings.hold_out is not None:
        examples, evaluation = examples.split(settings.hold_out, settings.seed)
    if isinstance(evaluation, data.Examples) and evaluation.shape == "domains":
        evaluation = evaluation.labelled()
    if isinstance(evaluation, data.Examples) and evaluation.shape in ("texts", "documents", "captions"):
        raise DataError(
            f"{evaluation.shape} alone cannot be evaluated on: nothing says which of the texts are near",
            where=settings.evaluate,
            hint="evaluate on pairs, scored pairs, labelled texts or a retrieval set",
        )
    if examples.shape in ("documents", "captions", "domains") and examples.shape not in wanted and "texts" in wanted:
        examples = examples.only("texts")
    return examples, evaluation


def _read_evaluation(path: str, settings: TrainingSettings) -> Examples:
    """Examples in the columns that the training data has, or else in columns with known names."""
    from nearfar import data

    try:
        return data.read(path, columns=settings.columns, shapes=data.PLAIN_SHAPES, max_bad_rows=settings.max_bad_rows)
    except DataError as error:
        if settings.columns is None:
            raise
        try:
            return data.read(path, shapes=data.PLAIN_SHAPES, max_bad_rows=settings.max_bad_rows)
        except DataError:
            raise error from None


def prepare(
    settings: TrainingSettings,
    examples: Examples,
    evaluation: Examples | RetrievalSet | None,
    *,
    encoder: SentenceTransformer | None = None,
    resolved: dict[str, Any] | None = None,
    recipe: RecipeRun | None = None,
) -> Prepared:
    """Make everything a run needs. ``encoder`` and ``resolved``: of a run that is resumed; ``recipe``: what is trained
    in the place of an objective.

    Raises what reading, checking and making raise: :class:`DataError`, :class:`UsageError`,
    :class:`~nearfar.errors.ModelError`.
    """
    from nearfar import data, encoders
    from nearfar.encoders.sentence_modules import dimension_of, is_static

    seed_everything(settings.seed)
    objective: Objective | None = None
    if recipe is not None:
        settings = settings.filled(by_recipe.recommended(recipe))
        by_recipe.check_processes(recipe)
        by_recipe.check_shape(recipe, examples.shape)
    else:
        objective = settings.make_objective()
        check_fit(objective, examples.shape, hard_negatives=len(examples.negatives))
    source = _source(settings, recipe, resumed=encoder is not None)
    if encoder is None:
        encoder = make_encoder(settings, examples)
    encoder.to(_device(settings))
    if recipe is not None:
        by_recipe.check_encoder(recipe, examples.shape, encoder, source)
    if objective is not None:
        check_fit(objective, examples.shape, hard_negatives=len(examples.negatives), encoder=encoder)
        objective = sized(settings, objective, dimension_of(encoder))
    if isinstance(objective, ProxyObjective):
        make_proxies(objective, examples, dimension_of(encoder), settings.seed)
    static = is_static(encoder)
    batch_size = settings.batch_size or (1024 if static else 64)
    length = training_length(settings, recipe, resolved)
    with encoders.reading(encoder, length):
        check = data.check(
            examples,
            batch_size=batch_size,
            evaluation=evaluation,
            token_lengths=encoders.token_lengths(encoder),
            token_limit=encoders.token_limit(encoder),
        )
        check.raise_on_errors()
        if settings.strict:
            check.raise_if_strict()
        batches = make_batches(settings, examples, objective, batch_size, recipe)
        texts = TextBatches(encoder, examples, unique=isinstance(batches, NoDuplicateBatches))
    known = Chunking(**resolved["chunking"]) if resolved is not None else None
    chosen = resolve(settings, static, encoder, batches, texts, known, recipe)
    chosen = replace(chosen, max_length=length)
    texts.chunk_size = chosen.chunking.size
    return Prepared(
        settings=settings,
        examples=examples,
        evaluation=evaluation,
        objective=objective,
        encoder=encoder,
        check=check,
        batches=batches,
        texts=texts,
        resolved=chosen,
        data=_describe_data(settings, examples, evaluation),
        recipe=recipe,
        source=source,
    )


def sized(settings: TrainingSettings, objective: Objective, dimension: int) -> Objective:
    """The objective, made for embeddings of ``dimension`` where it holds vectors as long as they (prototypes)."""
    if objective.kind != "view" or "dimension" not in inspect.signature(type(objective)).parameters:
        return objective
    return replace(settings, parameters={"dimension": dimension, **settings.parameters}).make_objective()


def make_proxies(objective: ProxyObjective, examples: Examples, dimension: int, seed: int) -> None:
    """Give an objective that holds vectors of classes as many as the data has labels, as long as the embeddings.

    Raises UsageError where the objective was made for fewer classes or for another dimension.
    """
    classes = len(examples.labels()[1])
    if objective.classes is None:
        with torch.random.fork_rng():  # the same vectors whatever was drawn before them, as in a run that is resumed
            torch.manual_seed(seed)
            objective.make_proxies(classes, dimension)
    elif objective.classes < classes or objective.dimension != dimension:
        raise UsageError(
            f"{objective.name} was made for {objective.classes} classes and {objective.dimension} dimensions; the data "
            f"has {classes} labels and the encoder {dimension} dimensions",
            hint="leave classes and dimension out: they follow from data and encoder",
        )


def make_batches(
    settings: TrainingSettings,
    examples: Examples,
    objective: Objective | None,
    batch_size: int,
    recipe: RecipeRun | None = None,
) -> Batches:
    """The batches that fit the data: without repeated texts for pairs and texts, with at least two of a class for
    labels; or those of the ``recipe``, its own or rows that follow each other, of one document where the data name
    them."""
    shared: dict[str, Any] = {"seed": settings.seed, "rank": processes.rank(), "processes": processes.world_size()}
    with warnings.catch_warnings():
        if not processes.is_main():
            warnings.simplefilter("ignore")
        if recipe is not None and recipe.training.batches is not None:
            return recipe.training.batches(examples, recipe.options, batch_size, **shared)
        if recipe is not None and recipe.training.in_order:
            offsets = examples.documents() if examples.shape == "documents" else None
            return OrderedBatches(len(examples), batch_size, offsets=offsets, **shared)
        if examples.shape == "labelled texts":
            codes = examples.labels()[0]
            if len(np.unique(codes)) < 2:
                raise DataError("all labels are the same: there is nothing to tell apart")
            return LabelBatches(codes, batch_size, **shared)
        shared["drop_last"] = settings.drop_last
        if settings.duplicates or examples.shape == "scored pairs":
            return Batches(len(examples), batch_size, **shared)
        names = ["anchor", "positive"] if examples.shape == "pairs" else ["text"]
        return NoDuplicateBatches([examples.hashes(name) for name in names], batch_size, **shared)


def make_encoder(settings: TrainingSettings, examples: Examples) -> SentenceTransformer:
    """The encoder as it begins: a new one that learns its vocabulary from ``examples``, or one that is loaded."""
    from nearfar import encoders

    options: dict[str, Any] = {}
    if settings.encoder == "static":
        options = {
            "texts": _Texts(examples),
            "dimension": settings.dimension,
            "vocabulary_size": settings.vocabulary_size,
            "initial": settings.initial,
            "pooling": settings.pooling,
        }
    return encoders.load(
        settings.encoder,
        seed=settings.seed,
        normalize=settings.normalize,
        max_length=settings.max_length,
        device=str(_device(settings)),
        **options,
    )


def _source(settings: TrainingSettings, recipe: RecipeRun | None, *, resumed: bool) -> Path | None:
    """Where the files of the encoder are that a recipe starts from."""
    from nearfar import encoders

    if recipe is None or settings.encoder == "static":
        return None
    try:
        return encoders.folder_of(settings.encoder)
    except ModelError:
        if not resumed or "masked-lm" in recipe.training.needs:
            raise
        return None  # the run folder holds the encoder as it began


class _Texts:
    """All texts of the examples, as often as they are iterated over, without holding them in memory."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __iter__(self) -> Any:
        return self._examples.texts()


def _device(settings: TrainingSettings) -> torch.device:
    if settings.device is not None:
        return torch.device(settings.device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _describe_data(
    settings: TrainingSettings, examples: Examples, evaluation: Examples | RetrievalSet | None
) -> dict[str, Any]:
    from nearfar.data import Examples

    def entry(source: Any, rows: int, shape: str, sha256: str) -> dict[str, Any]:
        paths = [str(Path(path).absolute()) for path in (source if isinstance(source, list) else [source]) if path]
        return {"path": paths[0] if len(paths) == 1 else paths, "rows": rows, "shape": shape, "sha256": sha256}

    found = {"train": entry(examples.source, len(examples), examples.shape, examples.sha256())}
    if isinstance(evaluation, Examples):
        found["evaluation"] = entry(evaluation.source, len(evaluation), evaluation.shape, evaluation.sha256())
    elif evaluation is not None:
        found["evaluation"] = entry(evaluation.source, len(evaluation.queries), "retrieval set", evaluation.sha256())
    return found
