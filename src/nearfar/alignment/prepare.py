"""Before the first step of an alignment run: data read, checked and tokenised, model and objective made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nearfar.alignment import needs
from nearfar.alignment.adapters import with_adapter
from nearfar.alignment.inputs import Mismatched, RowBatches, Table, suited, table
from nearfar.alignment.needs import Need, Option
from nearfar.alignment.scores import is_sharded
from nearfar.alignment.settings import ADAPTER_FACTOR, RATE, SUPERVISED_RATE, AlignmentSettings
from nearfar.data.preferences.rows import DEMONSTRATIONS, UNPAIRED
from nearfar.data.preferences.tokens import Budget, TokenisedPreferences, tokenise
from nearfar.encoders.dropout_rates import without_dropout
from nearfar.encoders.language_model import language_model, model_folder
from nearfar.errors import UsageError
from nearfar.objectives import Objective
from nearfar.training import processes
from nearfar.training.checked import NOT_OF_THE_RUN
from nearfar.training.chunking import BYTES_PER_UNIT, memory_for_activations, shown_size
from nearfar.training.resolved import EVALUATIONS, LOG_LINES
from nearfar.training.seeding import seed_everything

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from nearfar.data import DataCheck
    from nearfar.data.preferences import PreferenceSet


@dataclass(frozen=True)
class Resolved:
    """Settings whose value depends on model, data and objective, as they are used."""

    steps: int
    batches_per_epoch: int
    batch_size: int
    chunk_size: int
    chunk_reason: str
    learning_rate: float
    warmup_steps: int
    precision: str
    evaluate_every: int
    log_every: int
    options: dict[str, Any]
    """How the objective is fed, complete."""
    model: str
    """The folder the model was read from."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))


@dataclass
class Prepared:
    """All that an alignment run consists of."""

    settings: AlignmentSettings
    data: PreferenceSet
    evaluation: PreferenceSet | None
    objective: Objective
    need: Need
    policy: Any
    tokenizer: PreTrainedTokenizerBase
    reference: nn.Module | None
    """Another model that is the reference; None: the policy as it begins."""
    table: Table
    evaluation_table: Table | None
    mismatched: Mismatched | None
    check: DataCheck
    batches: RowBatches
    resolved: Resolved
    fingerprints: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        found: torch.device = next(self.policy.parameters()).device
        return found

    @property
    def sharded(self) -> bool:
        """Whether processes share out the models' weights among them."""
        return is_sharded(self.policy)

    def precision(self) -> AbstractContextManager[Any]:
        """Inside this models compute as they do in training, so that policy and reference agree."""
        if self.resolved.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    @property
    def run(self) -> str:
        """A digest of everything that decides the weights: settings, data, model, what was resolved (hex)."""
        settings = {name: value for name, value in self.settings.to_dict().items() if name not in NOT_OF_THE_RUN}
        for name in ("data", "evaluate", "model", "reference"):
            settings.pop(name)  # where they lie does not matter; their fingerprints do
        resolved = {name: value for name, value in self.resolved.to_dict().items() if name != "model"}
        prints = {name: entry["sha256"] for name, entry in self.fingerprints.items()}
        return hashlib.sha256(json.dumps([settings, prints, resolved], sort_keys=True).encode()).hexdigest()


def read(
    settings: AlignmentSettings, data: PreferenceSet | None, evaluation: PreferenceSet | None
) -> tuple[PreferenceSet, PreferenceSet | None]:
    """The preferences to train and to evaluate on, read where they were not given."""
    from nearfar.data.preferences import read_preferences

    if data is None:
        if settings.data is None:
            raise UsageError("there are no preferences to train on", hint="name a file, or give them")
        data = read_preferences(settings.data, columns=settings.columns, max_bad_rows=settings.max_bad_rows)
    if evaluation is None and settings.evaluate is not None:
        evaluation = read_preferences(settings.evaluate, columns=settings.columns, max_bad_rows=settings.max_bad_rows)
    if evaluation is None and settings.hold_out is not None:
        data, evaluation = data.split(settings.hold_out, settings.seed)
    return data, evaluation


def prepare(
    settings: AlignmentSettings,
    data: PreferenceSet,
    evaluation: PreferenceSet | None,
    *,
    objective: Objective | None = None,
    resolved: Mapping[str, Any] | None = None,
) -> Prepared:
    """Make everything a run needs. ``objective``: in the place of the settings' name; ``resolved``: of a run that is
    resumed. Every row is read, checked and tokenised here.

    Raises what reading, checking and making raise: :class:`~nearfar.errors.DataError`, :class:`UsageError`,
    :class:`~nearfar.errors.ModelError`.
    """
    from nearfar.data.preferences.checks import check_preferences

    seed_everything(settings.seed)
    if objective is None:
        objective, options = needs.make(settings.objective, settings.parameters)
    else:
        options = needs.options_of(objective, settings.parameters)
    general = needs.need_of(objective)
    assert general is not None
    made = suited(data, objective, general, pairs_of=settings.pairs_of, reward=settings.reward)
    need = needs.settled(objective, options, several=made.kind not in (UNPAIRED, DEMONSTRATIONS))
    if need.rewards:  # which the way it is fed may ask for
        made = suited(made, objective, need)
    folder = model_folder(resolved["model"] if resolved is not None else settings.model)
    device, sharded = _device(settings), settings.shard and processes.world_size() > 1
    policy, tokenizer = policy_of(settings, folder, device="cpu" if sharded else device)
    reference: Any = None
    if settings.reference is not None and (need.reference or evaluation is not None):
        reference, _ = language_model(settings.reference, device="cpu" if sharded else device)
    tokens = _tokenised(made, tokenizer, settings)
    check = check_preferences(made, tokens)
    check.raise_on_errors()
    made_table = table(made, tokens, need, options, reward=settings.reward)
    evaluation_table = None
    if evaluation is not None:
        evaluation_table = table(evaluation, _tokenised(evaluation, tokenizer, settings), reward=settings.reward)
    fingerprints = _fingerprints(settings, data, evaluation, tokens, folder)
    batches = RowBatches(
        len(tokens),
        settings.batch_size,
        seed=settings.seed,
        rank=processes.rank(),
        processes=processes.world_size(),
    )
    known = None if resolved is None else (int(resolved["chunk_size"]), str(resolved["chunk_reason"]))
    mismatched = Mismatched(tokens, settings.seed) if _mismatches(objective) else None
    decided = _resolve(settings, policy, need, made_table, batches, options, str(folder), known)
    if sharded:
        from nearfar.alignment.sharding import shard

        for model in (policy, reference):
            if model is not None:
                shard(model, device, half=decided.precision == "bf16")
    return Prepared(
        settings=settings,
        data=made,
        evaluation=evaluation,
        objective=objective,
        need=need,
        policy=policy,
        tokenizer=tokenizer,
        reference=reference,
        table=made_table,
        evaluation_table=evaluation_table,
        mismatched=mismatched,
        check=check,
        batches=batches,
        resolved=decided,
        fingerprints=fingerprints,
    )


def policy_of(
    settings: AlignmentSettings, folder: Path, *, device: str | torch.device
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The policy as a run with these settings begins, from the model in ``folder``, and its tokenizer."""
    policy: Any
    policy, tokenizer = language_model(folder, device=device)
    if not settings.dropout:
        without_dropout(policy)
    if settings.lora:
        policy = with_adapter(policy, settings, base=str(folder))
    if settings.checkpointing:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return policy, tokenizer


def _mismatches(objective: Objective) -> bool:
    return "mismatched" in objective.needs and getattr(objective, "reference_point", None) == "mismatched"


def _tokenised(
    data: PreferenceSet, tokenizer: PreTrainedTokenizerBase, settings: AlignmentSettings
) -> TokenisedPreferences:
    template = None
    if settings.chat_template is not None:
        try:
            template = Path(settings.chat_template).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"the chat template cannot be read: {error.strerror}", where=settings.chat_template
            ) from error
    budget = Budget(settings.max_prompt or None, settings.max_response or None, settings.side)
    return tokenise(data, tokenizer, budget=budget, chat_template=template)


def _resolve(
    settings: AlignmentSettings,
    policy: nn.Module,
    need: Need,
    made: Table,
    batches: RowBatches,
    options: Mapping[str, Option],
    folder: str,
    known: tuple[int, str] | None,
) -> Resolved:
    per_epoch = len(batches)
    epochs = settings.epochs if settings.epochs is not None else 1.0
    steps = settings.steps if settings.steps is not None else max(1, math.ceil(epochs * per_epoch))
    rate = settings.learning_rate
    if rate is None:
        rate = (SUPERVISED_RATE if need.supervised else RATE) * (ADAPTER_FACTOR if settings.lora else 1.0)
    precision = settings.precision
    if precision == "auto":
        on_gpu = _device(settings).type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if on_gpu else "fp32"
    size, reason = known or _chunk(settings, policy, made, batches, half=precision == "bf16")
    every = settings.evaluate_every or max(1, min(per_epoch, math.ceil(steps / EVALUATIONS)))
    return Resolved(
        steps=steps,
        batches_per_epoch=per_epoch,
        batch_size=batches.batch_size,
        chunk_size=size,
        chunk_reason=reason,
        learning_rate=rate,
        warmup_steps=round(settings.warmup * steps),
        precision=precision,
        evaluate_every=every,
        log_every=settings.log_every or max(1, steps // LOG_LINES),
        options=dict(options),
        model=folder,
    )


def _chunk(
    settings: AlignmentSettings, policy: nn.Module, made: Table, batches: RowBatches, *, half: bool
) -> tuple[int, str]:
    """Rows in memory at once, and why."""
    whole = math.ceil(batches.batch_size / processes.world_size())
    if settings.chunk_size is not None:
        return min(settings.chunk_size, whole), "as asked for"
    from nearfar.alignment.body import causal_model

    config = causal_model(policy).config.get_text_config()
    kept = 2.0 if settings.checkpointing else BYTES_PER_UNIT  # a state a layer, in 16 bits
    per_token = kept * (1 if half else 2) * config.num_hidden_layers * config.hidden_size
    budget = memory_for_activations(_device(settings))
    longest = float(np.quantile(made.sizes, 0.999))
    fitting = max(1, int(budget / (per_token * max(longest, 1.0))))
    longest_row = shown_size(longest * per_token)
    return min(whole, fitting), f"the longest keep {longest_row} for the backward pass, of {shown_size(budget)}"


def _device(settings: AlignmentSettings) -> torch.device:
    if settings.device is not None:
        return torch.device(settings.device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _fingerprints(
    settings: AlignmentSettings,
    data: PreferenceSet,
    evaluation: PreferenceSet | None,
    tokens: TokenisedPreferences,
    folder: Path,
) -> dict[str, Any]:
    def entry(given: PreferenceSet, rows: int) -> dict[str, Any]:
        paths = [str(path.absolute()) for path in given.source]
        return {
            "path": paths[0] if len(paths) == 1 else paths,
            "rows": rows,
            "shape": given.kind,
            "sha256": given.sha256(),
        }

    found: dict[str, Any] = {"train": entry(data, len(data))}
    if evaluation is not None:
        found["evaluation"] = entry(evaluation, len(evaluation))
    found["tokens"] = {"path": str(folder), "sha256": tokens.sha256()}
    found["model"] = {"path": str(folder), "sha256": folder_sha256(folder)}
    if settings.reference is not None:
        other = model_folder(settings.reference)
        found["reference"] = {"path": str(other), "sha256": folder_sha256(other)}
    return found


def folder_sha256(folder: Path) -> str:
    """A digest of a model's folder: names and content of its weights and settings."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja"):
            whole.update(path.name.encode())
            with open(path, "rb") as file:
                while piece := file.read(1 << 22):
                    whole.update(piece)
    return whole.hexdigest()
