"""Everything that can be set about the training of a reward model, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nearfar.alignment.reward.contrast import FORMS
from nearfar.alignment.reward.method import META_FORMS
from nearfar.alignment.reward.strength import FLIPS, SMOOTHED
from nearfar.errors import UsageError
from nearfar.training.checked import Checked, wrong
from nearfar.training.settings import SCHEDULES

RATE, ADAPTER_RATE, HEAD_RATE = 1e-5, 1e-4, 1e-3
"""Learning rates of a whole model, of an adapter and of a head alone. The paper has 5e-6 for seven billion parameters
(Wang et al., 2024); smaller models take more."""

CONTRASTS = ("none", *FORMS)


@dataclass
class RewardSettings(Checked):
    """What ``nearfar reward train`` offers.

    Data:
        data: pairs, or lists, whose pairs of different scores are taken (``pairs_of``: "all" or "best-worst",
            ``reward``: the score to go by); None when they are given. columns, max_bad_rows: as of
            :func:`nearfar.data.preferences.read_preferences`.
        evaluate: pairs to evaluate on; hold_out: the share to hold out instead, by prompt; default 0.1.
        max_prompt, max_response: tokens kept, default 512; 0: all. side: from which side prompts are cut.
        chat_template: a file with a template, in the place of the tokenizer's.
    Model:
        model: a causal language model, which gets a head, or a reward model. frozen: train the head alone. lora: train
            the head and an adapter of ``rank`` (default 16), ``lora_alpha`` (default twice the rank), ``lora_dropout``
            (default 0) on all linear layers or ``lora_targets``; it is merged into the model that is written. dropout:
            leave the model's dropout on (default off).
    Noisy labels (Wang et al., 2024), by the margin column of the data, which `nearfar reward strength` makes:
        margin: ask for this difference of rewards. margin_scale: times this, default 1.
        flip: "none" (default), "negative" or "lowest". smoothing: share of doubt in [0, 0.5), default 0; smoothed:
            whose, "negative" (default), "strong" or "all". See :func:`nearfar.alignment.reward.strength.treatment`.
        label_smoothing: the same share for all pairs, without a margin column.
    Contrast of responses:
        contrast: "none" (default), "simcse", "simcse-diff", "swav" or "swav-diff"; contrast_weight: default 0.1;
            contrast_temperature: None: the form's; contrast_dropout: of the two views, default 0.1 (SimCSE's).
    Responses of a policy without labels (MetaRM):
        meta: a file of lists (or pairs), whose responses are put further apart; meta_form: "step" (the paper's) or
            "term"; meta_rate: eta, default the learning rate; meta_rows: prompts a step, default 4.
    Instructions (MAPL):
        mapl: compare prompts and gaps that are made of each pair by instructions that can be checked; mapl_each: of
            each kind a pair, default 1; prompt_weight, gap_weight: default 1.
    Training:
        batch_size: pairs a step, default 32; chunk_size: rows in memory at once, None: all. epochs: default 1; steps:
            instead. learning_rate: default 1e-5, 1e-4 with an adapter, 1e-3 for a head alone. warmup, schedule,
            weight_decay, max_gradient_norm, precision ("fp32" or "bf16"), seed: as in
            :class:`~nearfar.training.TrainingSettings`.
    While it goes and result:
        evaluate_every, early_stop, keep_best, log_every, checkpoint_every, tensorboard, output, overwrite, resume,
        workers, device: as in :class:`~nearfar.alignment.settings.AlignmentSettings`.

    Raises :class:`UsageError`, naming setting and value, for what cannot be used.
    """

    data: str | list[str] | None = None
    output: str = ""
    columns: str | None = None
    max_bad_rows: int = 0
    evaluate: str | None = None
    hold_out: float = 0.1
    reward: str | None = None
    pairs_of: str = "all"
    max_prompt: int = 512
    max_response: int = 512
    side: str = "left"
    chat_template: str | None = None
    model: str = "smollm2"
    frozen: bool = False
    lora: bool = False
    rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: str | None = None
    dropout: bool = False
    margin: bool = False
    margin_scale: float = 1.0
    flip: str = "none"
    smoothing: float = 0.0
    smoothed: str = "negative"
    label_smoothing: float = 0.0
    contrast: str = "none"
    contrast_weight: float = 0.1
    contrast_temperature: float | None = None
    contrast_dropout: float = 0.1
    meta: str | None = None
    meta_form: str = "step"
    meta_rate: float | None = None
    meta_rows: int = 4
    mapl: bool = False
    mapl_each: int = 1
    prompt_weight: float = 1.0
    gap_weight: float = 1.0
    batch_size: int = 32
    chunk_size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    warmup: float = 0.1
    schedule: str = "linear"
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    evaluate_every: int | None = None
    early_stop: int | None = None
    keep_best: bool = False
    log_every: int | None = None
    checkpoint_every: int | None = None
    tensorboard: bool = False
    overwrite: bool = False
    resume: bool = False
    workers: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.data, os.PathLike):
            self.data = os.fspath(self.data)
        elif self.data is not None and not isinstance(self.data, str):
            self.data = [os.fspath(path) for path in self.data]
        for name in ("output", "evaluate", "model", "meta", "chat_template"):
            value: Any = getattr(self, name)
            if value is not None:
                setattr(self, name, os.fspath(value))
        for name in ("model", "meta", "chat_template"):
            value = getattr(self, name)
            if value is not None and os.path.exists(value):
                setattr(self, name, os.path.abspath(value))  # found again wherever the run is resumed from
        self._check()

    def _check(self) -> None:
        for name in ("batch_size", "chunk_size", "steps", "evaluate_every", "early_stop", "log_every", "mapl_each"):
            self._at_least(name, 1)
        self._at_least("rank", 1)
        for name in ("checkpoint_every", "meta_rows"):
            self._at_least(name, 1)
        for name in ("max_prompt", "max_response", "max_bad_rows", "workers", "seed"):
            self._at_least(name, 0)
        for name in ("epochs", "learning_rate", "contrast_temperature", "meta_rate", "margin_scale"):
            self._positive(name)
        for name in ("weight_decay", "max_gradient_norm", "contrast_weight", "prompt_weight", "gap_weight"):
            self._number(name, 0.0, float("inf"))
        self._number("warmup", 0.0, 1.0)
        for name in ("smoothing", "label_smoothing"):
            if not 0 <= getattr(self, name) < 0.5:
                raise wrong(name, getattr(self, name), "give a share of at least 0 and below 0.5")
        self._positive("lora_alpha")
        for name in ("contrast_dropout", "hold_out", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise wrong(name, getattr(self, name), "give a share of at least 0 and below 1")
        self._one_of("side", ("left", "right"))
        self._one_of("pairs_of", ("all", "best-worst"))
        self._one_of("schedule", SCHEDULES)
        self._one_of("precision", ("fp32", "bf16"))
        self._one_of("flip", FLIPS)
        self._one_of("smoothed", SMOOTHED)
        self._one_of("contrast", CONTRASTS)
        self._one_of("meta_form", META_FORMS)
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs were both given", hint="give one of them")
        if self.mapl and (self.margin or self.smoothing or self.label_smoothing):
            raise UsageError(
                "MAPL's costs have no margins and no smoothing", where="--mapl", hint="leave one of them; --flip goes"
            )
        if self.smoothing and self.label_smoothing:
            raise UsageError("smoothing and label_smoothing were both given", hint="give one of them")
        if self.frozen and self.lora:
            raise UsageError("a head alone has no adapter", where="--frozen", hint="leave out --frozen or --lora")
        if self.frozen and self.contrast != "none":
            raise UsageError(
                "a head alone cannot change the states that are contrasted", where="--frozen", hint="leave one of them"
            )

    @property
    def by_strength(self) -> bool:
        """Whether the margin column of the data is needed."""
        return self.margin or self.flip != "none" or self.smoothing > 0
