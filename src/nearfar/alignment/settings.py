"""Everything that can be set about an alignment run, checked, and written so that the run can be repeated."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nearfar.errors import UsageError
from nearfar.training.checked import Checked, wrong
from nearfar.training.settings import SCHEDULES

PRECISIONS = ("auto", "fp32", "bf16")
SIDES = ("left", "right")
LAYOUTS = ("auto", "shared", "repeated")

BATCH_SIZE = 8
RATE, SUPERVISED_RATE, ADAPTER_FACTOR = 1e-6, 2e-5, 10.0
"""Learning rates: TRL's for preferences (its DPOConfig) and for supervised fine-tuning (its SFTConfig); a LoRA adapter
takes ten times either (Schulman, 2025, LoRA Without Regret)."""


@dataclass
class AlignmentSettings(Checked):
    """What ``nearfar align`` offers.

    Data:
        data: file, folder or list of files of preferences (:func:`nearfar.data.preferences.read_preferences`); None
            when they are given.
        columns, max_bad_rows: as there.
        evaluate: preferences to evaluate on; hold_out: a share of the data, in (0, 1), to evaluate on instead (by
            prompt).
        reward: the name of the reward to go by, where lists have several.
        pairs_of: which pairs lists become, for objectives of pairs: "all" (default) or "best-worst".
        max_prompt, max_response: tokens kept of a prompt (the end; default 512) and of a response (the beginning;
            default 512), each by itself; 0 for no limit. side: from which side prompts are cut, "left" (default) or
            "right".
        chat_template: a file with a Jinja template, in the place of the tokenizer's.
    Model:
        model: a folder of transformers, "smollm2", a .gguf file (:func:`nearfar.encoders.language_model`).
        reference: the model that log-ratios are taken to; None: ``model`` as it begins.
        lora: train an adapter of ``rank`` (default 16) and ``lora_alpha`` (default twice the rank) with
            ``lora_dropout`` (default 0) on all linear layers, or on ``lora_targets`` (names of layers, with commas).
            merge: write the whole model as well.
        dropout: leave the model's dropout on (default off, so that it agrees with its reference).
    Objective:
        objective: a name of the catalogue (``nearfar objectives``), default "dpo"; parameters: its arguments, and the
            options of how it is fed (:mod:`nearfar.alignment.needs`).
        prompts: what embeds prompts and responses for objectives that ask how alike they are: "minilm", an encoder's
            folder, or "model" (default): the mean of the reference's last hidden states.
    Training:
        batch_size: rows (prompts with their responses) a step, over all processes, default 8. chunk_size: rows in
            memory at once; None: chosen. layout: how a prompt with several responses is computed, "shared" (once),
            "repeated" or "auto".
        epochs: default 1; steps: instead. learning_rate: default 1e-6, for supervised objectives 2e-5, ten times that
            for an adapter. objective_learning_rate: of parameters outside the model (a value head); default 0.001.
        warmup, schedule, weight_decay, max_gradient_norm (default 1; 0: none): as in
            :class:`~nearfar.training.TrainingSettings`.
        shard: share out weights, gradients and optimiser among the processes that torchrun started (FSDP); default off:
            each has all of them.
        checkpointing: recompute activations in the backward pass (slower, less memory).
        precision: "auto" (bf16 on a GPU that has it, else fp32), "fp32", "bf16". seed: of everything that is random.
    While it goes:
        evaluate_every: steps between evaluations; None: an epoch, but at least three times a run. early_stop:
            evaluations without a better main measure after which to stop. keep_best: export the weights of the best
            evaluation (with early_stop always) and not the last ones.
        log_every, checkpoint_every, tensorboard: as in TrainingSettings.
    Result:
        output: the run folder. overwrite, resume, workers, device: as in TrainingSettings.

    Raises :class:`UsageError`, naming setting and value, for what cannot be used.
    """

    data: str | list[str] | None = None
    output: str = ""
    columns: str | None = None
    evaluate: str | None = None
    hold_out: float | None = None
    reward: str | None = None
    pairs_of: str = "all"
    max_prompt: int = 512
    max_response: int = 512
    side: str = "left"
    chat_template: str | None = None
    model: str = "smollm2"
    reference: str | None = None
    lora: bool = False
    rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: str | None = None
    merge: bool = False
    dropout: bool = False
    objective: str = "dpo"
    parameters: dict[str, Any] = field(default_factory=dict)
    prompts: str = "model"
    batch_size: int = BATCH_SIZE
    chunk_size: int | None = None
    layout: str = "auto"
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    objective_learning_rate: float = 1e-3
    warmup: float = 0.1
    schedule: str = "linear"
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    shard: bool = False
    checkpointing: bool = False
    precision: str = "auto"
    seed: int = 0
    evaluate_every: int | None = None
    early_stop: int | None = None
    keep_best: bool = False
    log_every: int | None = None
    checkpoint_every: int | None = None
    tensorboard: bool = False
    max_bad_rows: int = 0
    overwrite: bool = False
    resume: bool = False
    workers: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.data, os.PathLike):
            self.data = os.fspath(self.data)
        elif self.data is not None and not isinstance(self.data, str):
            self.data = [os.fspath(path) for path in self.data]
        for name in ("output", "evaluate", "model", "reference", "prompts", "chat_template"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, os.fspath(value))
        for name in ("model", "reference", "prompts", "chat_template"):
            value = getattr(self, name)
            if value is not None and os.path.exists(value):
                setattr(self, name, os.path.abspath(value))  # found again wherever the run is resumed from
        self._check()

    def _check(self) -> None:
        for name in ("batch_size", "chunk_size", "steps", "rank", "evaluate_every", "early_stop", "log_every"):
            self._at_least(name, 1)
        self._at_least("checkpoint_every", 1)
        for name in ("max_prompt", "max_response", "max_bad_rows", "workers", "seed"):
            self._at_least(name, 0)
        for name in ("epochs", "learning_rate", "objective_learning_rate", "lora_alpha"):
            self._positive(name)
        for name in ("weight_decay", "max_gradient_norm"):
            self._number(name, 0.0, math.inf)
        self._number("warmup", 0.0, 1.0)
        self._number("lora_dropout", 0.0, math.nextafter(1.0, 0.0))
        if self.hold_out is not None:
            self._number("hold_out", 0.0, 1.0)
            if self.evaluate is not None:
                raise UsageError("evaluation data and a share to hold out were both given", hint="give one of them")
        self._one_of("schedule", SCHEDULES)
        self._one_of("precision", PRECISIONS)
        self._one_of("side", SIDES)
        self._one_of("layout", LAYOUTS)
        self._one_of("pairs_of", ("all", "best-worst"))
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs were both given", hint="give one of them")
        if not isinstance(self.parameters, Mapping):
            raise wrong("parameters", self.parameters, "give a mapping, e.g. {'beta': 0.1}")
        if self.merge and not self.lora:
            raise UsageError("there is no adapter to merge", where="--merge", hint="pass --lora as well")
        if (self.early_stop is not None or self.keep_best) and self.evaluate is None and self.hold_out is None:
            raise UsageError(
                "there is nothing to evaluate on, so no weights are the best",
                hint="name evaluation data (--evaluate) or a share to hold out (--hold-out)",
            )
