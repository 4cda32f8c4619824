"""What the reference says of every response: computed once, kept as a column of the data on disk.

A column belongs to one set of weights and is looked up by the tokens of prompt and response, so that it serves every
run, order and selection of rows. A tokenizer or template that reads a text otherwise gives other tokens, and asks anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nearfar.alignment.body import architecture, attention, causal_model
from nearfar.alignment.scores import SharedPrefix, response_scores
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.encode import evaluating
from nearfar.errors import DataError, TrainingError, UsageError
from nearfar.files import atomic_path
from nearfar.training.sharding import full

SAVE_EVERY = 30.0
"""Seconds of work that a broken-off computation loses at most."""

Column = dict[bytes, tuple[float, int]]
"""Digest of prompt and response -> log-probability, length."""


@dataclass(frozen=True)
class ReferenceScores:
    """``log_probability [N]`` (float32, or float64 of such a model) and ``length [N]`` (int64) of the responses of all
    rows, one after another, on the CPU; how many of them were ``computed`` now, and not read."""

    log_probability: Tensor
    length: Tensor
    computed: int = 0


def reference_scores(
    model: nn.Module,
    rows: Sequence[TokenisedRow],
    *,
    cache: str | os.PathLike[str] | None = None,
    batch_tokens: int = 8192,
    shared_prefix: SharedPrefix = "auto",
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
    only_reads: bool = False,
) -> ReferenceScores:
    """``log p(response | prompt)`` of all responses of ``rows`` under ``model``, without dropout and gradients.

    Of peft's wrapper the model without its adapters is meant, whose column is that of the bare model. Rows of like
    length share a batch.

    Arguments:
        cache: a folder; the column is ``reference-<digest of the weights>.safetensors`` in it, written every
            :data:`SAVE_EVERY` seconds, so that a computation that was broken off goes on. None: nothing is kept.
        batch_tokens: about how many tokens are in memory at once, padding included; default 8,192. A row is never
            split.
        shared_prefix, temperature: see :func:`nearfar.alignment.scores.response_scores`.
        progress: called with (responses done, responses to be computed) after each batch.
        only_reads: leave the cache as it is: of processes that share out the model's weights, which compute together,
            one writes.

    Raises what :func:`~nearfar.alignment.scores.response_scores` raises, :class:`~nearfar.errors.TrainingError` for a
    score that is not finite, :class:`~nearfar.errors.OutputError` where the column cannot be written.
    """
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens is at least 1, got {batch_tokens}")
    keys = [[_key(row, response) for response in row.responses] for row in rows]
    place = None if cache is None else Path(cache) / f"reference-{_name(model, temperature)}.safetensors"
    column = {} if place is None else _read(place)
    asked = _unknown(rows, keys, column)
    total = sum(len(row.responses) for row in asked)
    done, saved = 0, time.monotonic()
    with evaluating(model), torch.no_grad(), without_adapters(model):
        for batch in _batches(asked, batch_tokens):
            found = response_scores(model, batch, shared_prefix=shared_prefix, temperature=temperature)
            _enter(column, batch, found.log_probability, found.length)
            done += len(found.length)
            if progress is not None:
                progress(done, total)
            if place is not None and not only_reads and time.monotonic() - saved > SAVE_EVERY:
                _write(place, column)
                saved = time.monotonic()
    if place is not None and total and not only_reads:
        _write(place, column)
    pairs = [column[key] for row in keys for key in row]
    wide = torch.float64 if causal_model(model).dtype == torch.float64 else torch.float32
    return ReferenceScores(
        torch.tensor([value for value, _ in pairs], dtype=wide),
        torch.tensor([length for _, length in pairs], dtype=torch.int64),
        total,
    )


def without_adapters(model: Any) -> AbstractContextManager[Any]:
    """Inside the block peft's wrapper is the model that it was put around; other models stay as they are."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


@dataclass(frozen=True)
class StepZero:
    """Policy and reference before the first step: ``difference``, the largest of ``|log p - log p_ref|`` per token of a
    response (nats), and how many responses were compared."""

    difference: float
    responses: int


def check_step_zero(
    model: nn.Module,
    rows: Sequence[TokenisedRow],
    reference: Tensor,
    *,
    tolerance: float | None = None,
    shared_prefix: SharedPrefix = "auto",
    temperature: float = 1.0,
) -> StepZero:
    """Whether the policy, in the mode and precision in which it will be trained, agrees with its reference before
    anything was learned: every log-ratio should be 0, and DPO's loss log 2.

    Arguments:
        rows: a few rows of the data, and ``reference [N]``: the reference's log-probabilities of their responses.
        tolerance: nats per token; default 1e-3 in float32 or more, 0.1 in half precision (whose sums depend on how
            sequences are batched).

    Raises :class:`~nearfar.errors.TrainingError` where they differ by more, which says what that may come from.
    """
    with torch.no_grad():
        found = response_scores(model, rows, shared_prefix=shared_prefix, temperature=temperature)
    if found.log_probability.shape != reference.shape:
        shapes = f"{list(reference.shape)} values for {list(found.log_probability.shape)} responses"
        raise DataError(f"the reference has {shapes}")
    apart = (found.log_probability.cpu() - reference.cpu()).abs() / found.length.cpu().clamp_min(1)
    difference = float(apart.max()) if len(apart) else 0.0
    half = causal_model(model).dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled()
    allowed = (0.1 if half else 1e-3) if tolerance is None else tolerance
    if not difference <= allowed:
        noisy = model.training and any(_drops(module) for module in model.modules())
        raise TrainingError(
            f"policy and reference differ before the first step, by up to {difference:.3g} nats per token",
            hint=(
                "dropout is on: switch it off, or raise the tolerance"
                if noisy
                else "the reference was computed with other weights, another precision or other tokens; where it is "
                "another model on purpose, raise the tolerance"
            ),
        )
    return StepZero(difference, len(apart))


def _drops(module: nn.Module) -> bool:
    rates = (getattr(module, name, 0.0) for name in ("p", "attention_dropout", "dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _key(row: TokenisedRow, response: npt.NDArray[np.int32]) -> bytes:
    return TokenisedRow(row.prompt, (response,)).digest()


def _unknown(rows: Sequence[TokenisedRow], keys: Sequence[Sequence[bytes]], column: Column) -> list[TokenisedRow]:
    """The rows with those of their responses that the column lacks, each once."""
    met: set[bytes] = set(column)
    found = []
    for row, names in zip(rows, keys, strict=True):
        missing = []
        for name, response in zip(names, row.responses, strict=True):
            if name not in met:
                met.add(name)
                missing.append(response)
        if missing:
            found.append(TokenisedRow(row.prompt, tuple(missing)))
    return found


def _batches(rows: Sequence[TokenisedRow], batch_tokens: int) -> Iterator[list[TokenisedRow]]:
    """The longest first: where memory does not suffice, that shows at once."""
    size = [(max(map(len, row.responses)) + len(row.prompt)) for row in rows]
    batch: list[TokenisedRow] = []
    longest = held = 0
    for place in sorted(range(len(rows)), key=lambda each: -size[each]):
        count = len(rows[place].responses)
        if batch and (held + count) * longest > batch_tokens:
            yield batch
            batch, held = [], 0
        if not batch:
            longest = size[place]
        batch.append(rows[place])
        held += count
    if batch:
        yield batch


def _enter(column: Column, batch: Sequence[TokenisedRow], values: Tensor, lengths: Tensor) -> None:
    found = iter(zip(values.tolist(), lengths.tolist(), strict=True))
    for row in batch:
        for response in row.responses:
            value, length = next(found)
            if not np.isfinite(value):
                raise TrainingError(
                    f"the reference gives a response the log-probability {value}",
                    where=f"a response of {length} tokens to a prompt of {len(row.prompt)}",
                    hint="its weights are damaged, or overflow in this precision; try float32",
                )
            column[_key(row, response)] = (value, length)


def _name(model: nn.Module, temperature: float) -> str:
    """A digest of what decides the scores: architecture, settings and weights, adapters left out."""
    inner = causal_model(model)
    settings = sorted((name, value) for name, value in inner.config.to_dict().items() if not _is_incidental(name))
    kind = ("nearfar reference 1", architecture(inner), attention(inner), temperature, settings)
    whole = hashlib.blake2b(repr(kind).encode(), digest_size=16)
    for name, value in sorted(_own_weights(inner)):
        tensor = full(value.detach()).cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _own_weights(inner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under the names that they have without adapters."""
    for name, value in inner.state_dict().items():
        if re.search(r"\.(lora_|modules_to_save\.|ia3_|hada_|lokr_|oft_|vera_)", name):
            continue
        yield re.sub(r"\.(base_layer|original_module)\.", ".", name), value


def _is_incidental(name: str) -> bool:
    return name.startswith("_") or name in ("transformers_version", "use_cache", "dtype", "architectures")


def _read(place: Path) -> Column:
    """The column so far; what cannot be read is computed anew."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not place.is_file():
        return {}
    try:
        held = load_file(place)
        digests, values, lengths = held["digest"], held["log_probability"], held["length"]
    except (SafetensorError, KeyError, OSError):
        return {}
    if digests.shape != (len(values), 16) or len(values) != len(lengths):
        return {}
    names = digests.astype(np.uint8).tobytes()
    return {
        names[16 * row : 16 * row + 16]: (value, length)
        for row, (value, length) in enumerate(zip(values.tolist(), lengths.tolist(), strict=True))
    }


def _write(place: Path, column: Column) -> None:
    from safetensors.numpy import save

    held: dict[str, npt.NDArray[Any]] = {
        "digest": np.frombuffer(b"".join(column), np.uint8).reshape(-1, 16),
        "log_probability": np.array([value for value, _ in column.values()], np.float64),
        "length": np.array([length for _, length in column.values()], np.int64),
    }
    with atomic_path(place) as temporary:
        temporary.write_bytes(save(held))
