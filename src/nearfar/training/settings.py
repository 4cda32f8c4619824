"""Everything that can be set about a training run, checked, and written so that the run can be repeated."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nearfar.errors import UsageError
from nearfar.objectives import Objective, get
from nearfar.training.checked import Checked, wrong

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BASELINES = ("bm25",)
POOLINGS = ("mean", "distinct")

OBJECTIVE, WARMUP, SCHEDULE, WEIGHT_DECAY = "info-nce", 0.1, "linear", 0.0


class UsualNumber(float):
    """The default of a setting that nobody set: equal to the number, but a recipe may set another in its place."""


class UsualWord(str):
    """As :class:`UsualNumber`, of a word."""

    __slots__ = ()


@dataclass
class TrainingSettings(Checked):
    """What ``nearfar train`` offers. Where the default is None, it depends on the encoder or the data:

    ==========================  ================================================  =====================================
    setting                     static encoder                                    transformer
    ==========================  ================================================  =====================================
    ``batch_size``              1,024                                             64
    ``epochs``                  4                                                 1
    ``learning_rate``           0.02 (a table of independent rows takes a         2e-5 (BERT's, Devlin et al., 2019)
                                thousand times a network's rate)
    ``max_gradient_norm``       no clipping                                       1 (as in transformers)
    ==========================  ================================================  =====================================

    A recipe (``recipe``) sets some of these and ``warmup``, ``schedule``, ``weight_decay`` as its paper does; what is
    given here stands before it.

    Data:
        data: file, folder or list of files to train on (see :func:`nearfar.data.read`); None when examples are given.
        columns, max_bad_rows, strict: see :func:`nearfar.data.read`, :func:`nearfar.data.check`.
        evaluate: file or folder to evaluate on (pairs, scored pairs, labelled texts or a retrieval set).
        hold_out: share of the training data, in (0, 1), to evaluate on instead (:meth:`nearfar.data.Examples.split`).
    Model:
        encoder: "static", "minilm", a folder or a hub name (:func:`nearfar.encoders.load`).
        dimension, vocabulary_size, initial, pooling: of a new static encoder.
        max_length: tokens read of a text. normalize: end the encoder with a layer of length 1.
        objective: name of an objective, default "info-nce"; parameters: its arguments (temperature, two_sided, ...).
        recipe: id of a recipe, or a file ``name.py`` with one, in the place of an objective; parameters: its options.
    Training:
        batch_size: rows that are contrasted with each other, over all processes.
        chunk_size: texts embedded at once, with cached gradients (:mod:`nearfar.training.cached`); None: chosen.
        epochs; steps: instead of epochs.
        learning_rate; objective_learning_rate: of the objective's own parameters, e.g. a learned temperature; None: the
            larger of learning_rate and 0.001.
        warmup: share of the steps (default 0.1) over which the rate rises from 0. schedule: how it falls then:
            "linear" (default) or "cosine" to 0, or "constant".
        weight_decay: decoupled (AdamW), default 0. max_gradient_norm: 0 for no clipping.
        duplicates: allow rows with equal texts in a batch (default False).
        drop_last: leave out an incomplete last batch (labelled texts never have one).
        precision: "auto" (bf16 for a transformer on a GPU that has it, else fp32), "fp32", "bf16", "fp16".
        seed: of everything that is random.
    While it goes:
        evaluate_every: steps between evaluations; None: an epoch, but at least three times a run.
        early_stop: evaluations without a better main measure after which to stop; None: never. The weights that were
            best are exported in either case, when there is an evaluation.
        log_every: steps between lines of metrics.jsonl; None: 200 lines a run.
        checkpoint_every: steps between checkpoints; None: by the clock (:mod:`nearfar.training.flow`).
        tensorboard: write events to the run folder's tensorboard/.
    Result:
        output: the run folder. overwrite: replace a run that is there. resume: go on with the run that is there.
        general_check: measure a pretrained encoder on the built-in pairs of general English as well, before and after
            (:func:`nearfar.evaluation.general.general_similarity`).
        baselines: what to hold the model against; "bm25" where the evaluation is retrieval.
        workers: processes that make batches (0: none; batches are cheap once texts are tokenised).
        device: "cpu", or None for a GPU if there is one.

    Raises :class:`UsageError`, naming setting and value, for what cannot be used.
    """

    data: str | list[str] | None = None
    output: str = ""
    columns: str | None = None
    evaluate: str | None = None
    hold_out: float | None = None
    encoder: str = "static"
    dimension: int = 256
    vocabulary_size: int = 30_000
    initial: str | None = None
    pooling: str = "mean"
    max_length: int | None = None
    normalize: bool = False
    recipe: str | None = None
    objective: str = field(default_factory=lambda: UsualWord(OBJECTIVE))
    parameters: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    chunk_size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    objective_learning_rate: float | None = None
    warmup: float = field(default_factory=lambda: UsualNumber(WARMUP))
    schedule: str = field(default_factory=lambda: UsualWord(SCHEDULE))
    weight_decay: float = field(default_factory=lambda: UsualNumber(WEIGHT_DECAY))
    max_gradient_norm: float | None = None
    duplicates: bool = False
    drop_last: bool = False
    precision: str = "auto"
    seed: int = 0
    evaluate_every: int | None = None
    early_stop: int | None = None
    log_every: int | None = None
    checkpoint_every: int | None = None
    tensorboard: bool = False
    general_check: bool = True
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    max_bad_rows: int = 0
    strict: bool = False
    overwrite: bool = False
    resume: bool = False
    workers: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.data, os.PathLike):
            self.data = os.fspath(self.data)
        elif self.data is not None and not isinstance(self.data, str):
            self.data = [os.fspath(path) for path in self.data]
        for name in ("output", "evaluate", "encoder"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, os.fspath(value))
        if self.recipe is not None:
            self._take_recipe(os.fspath(self.recipe))
        self._check()

    def _take_recipe(self, name: str) -> None:
        # files are found again wherever the run is resumed from
        self.recipe = os.path.abspath(name) if name.endswith(".py") else name
        if self.encoder not in ("static", "minilm") and os.path.isdir(self.encoder):
            self.encoder = os.path.abspath(self.encoder)
        if self.objective and not isinstance(self.objective, UsualWord):
            raise UsageError(
                f"a recipe and an objective were both given: {name} and {self.objective}",
                where="--objective",
                hint="leave one of them out; a recipe brings its own objective, and --set its options",
            )
        self.objective = UsualWord()

    def _check(self) -> None:
        for name in ("batch_size", "chunk_size", "steps", "evaluate_every", "early_stop", "log_every"):
            self._at_least(name, 1)
        for name in ("checkpoint_every", "dimension", "max_length"):
            self._at_least(name, 1)
        for name in ("max_bad_rows", "workers", "seed"):
            self._at_least(name, 0)
        self._positive("epochs")
        for name in ("learning_rate", "objective_learning_rate"):
            self._positive(name)
        for name in ("weight_decay", "max_gradient_norm"):
            self._number(name, 0.0, math.inf)
        self._number("warmup", 0.0, 1.0)
        if self.hold_out is not None:
            self._number("hold_out", 0.0, 1.0)
            if self.evaluate is not None:
                raise UsageError("evaluation data and a share to hold out were both given", hint="give one of them")
        self._one_of("schedule", SCHEDULES)
        self._one_of("precision", PRECISIONS)
        self._one_of("pooling", POOLINGS)
        for name in self.baselines:
            if name not in BASELINES:
                raise wrong("baselines", name, f"choose from {', '.join(BASELINES)}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs were both given", hint="give one of them")
        if not isinstance(self.parameters, Mapping):
            raise wrong("parameters", self.parameters, "give a mapping, e.g. {'temperature': 0.05}")
        if self.recipe is None:
            self.make_objective()

    def make_objective(self) -> Objective:
        """The objective these settings name. Raises UsageError as :func:`nearfar.objectives.get` does."""
        return get(self.objective, **self.parameters)

    def filled(self, values: Mapping[str, Any]) -> TrainingSettings:
        """These settings, with ``values`` for those that were not set: what a recipe recommends.

        Steps that were set leave no place for epochs, and the other way round. Raises UsageError for a name that is no
        setting, or one that is never left open.
        """
        plain, taken = TrainingSettings(), dict[str, Any]()
        for name, value in values.items():
            if not _is_open(getattr(plain, name, False)):
                raise UsageError(f"a recipe cannot recommend a setting {name!r}")
            other = {"steps": self.epochs, "epochs": self.steps}.get(name)
            if _is_open(getattr(self, name)) and other is None:
                taken[name] = value
        return replace(self, **taken)


def _is_open(value: Any) -> bool:
    return value is None or isinstance(value, (UsualNumber, UsualWord))
