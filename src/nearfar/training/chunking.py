"""How many texts are embedded at once, and whether a batch needs cached gradients: chosen by itself, and said."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BYTES_PER_UNIT = 34
"""Bytes kept for the backward pass by one transformer layer, for each token and hidden unit, in 16-bit numbers;
twice as many in 32-bit (Korthikanti et al., 2022, equation 1, without the attention matrix, which is not kept)."""

CPU_SHARE, CPU_MOST = 0.25, 4 * 2**30
GPU_SHARE = 0.5
CPU_GROUP, GPU_GROUP = 16, 128
"""Texts of like length that are embedded together where memory allows more. Measured on 64 pairs of a sentence and a
function: groups of 64 are 2.2 times as many tokens as the texts have, padding included, groups of 16 are 1.2 times as
many; on a CPU smaller matrices cost nothing more, a GPU wants larger ones."""

_LEAST = 8


@dataclass(frozen=True)
class Chunking:
    """``size`` texts are embedded at once (None: all of a batch); ``cached``: with cached gradients, so that only one
    chunk's activations are in memory. ``reason`` says why."""

    size: int | None
    cached: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def choose(
    encoder: SentenceTransformer,
    lengths: npt.NDArray[np.integer[Any]],
    texts_per_batch: int,
    *,
    chunk_size: int | None = None,
    half: bool = False,
) -> Chunking:
    """How to embed batches of ``texts_per_batch`` texts, whose lengths in tokens are distributed as ``lengths``.

    - ``chunk_size`` given: so many texts at once, with cached gradients when a batch has more.
    - A static encoder: the whole batch at once; it keeps nothing but token ids.
    - A transformer: activations are estimated at 34 bytes (16-bit; :data:`BYTES_PER_UNIT`) or 68 bytes (32-bit) for
      each layer, hidden unit and token, at the mean length. While those of a whole batch fit in the budget (a quarter
      of the memory, at most 4 GiB, on a CPU; half of a GPU's), no gradients are cached: the batch is embedded in groups
      of like length (:data:`CPU_GROUP`), which saves padding. Otherwise gradients are cached, in chunks that are the
      largest power of two such that a chunk of the longest texts fits in half of the budget, at least 8.

    Only the machine, the encoder and the data decide, so that a run can be repeated. Raises :class:`UsageError` for a
    ``chunk_size`` below 1.
    """
    from nearfar.encoders.sentence_modules import is_static

    if chunk_size is not None:
        if chunk_size < 1:
            raise UsageError(f"chunk_size must be at least 1, got {chunk_size}", where="--chunk-size")
        return Chunking(chunk_size, chunk_size < texts_per_batch, "as asked for")
    if is_static(encoder):
        return Chunking(None, False, "a static encoder keeps no activations")
    per_token = _bytes_per_token(encoder, half)
    budget = memory_for_activations(encoder.device)
    group = CPU_GROUP if encoder.device.type == "cpu" else GPU_GROUP
    needed = texts_per_batch * float(lengths.mean()) * per_token if len(lengths) else 0.0
    if needed <= budget:
        return Chunking(group, False, f"about {shown_size(needed)} of activations fit in {shown_size(budget)}")
    longest = float(np.quantile(lengths, 0.999))
    most = budget / 2 / (per_token * max(longest, 1.0))
    size = max(_LEAST, min(group, 2 ** int(np.log2(max(most, 1.0)))))
    return Chunking(
        size,
        True,
        f"about {shown_size(needed)} of activations do not fit in {shown_size(budget)}, so gradients are cached",
    )


def _bytes_per_token(encoder: SentenceTransformer, half: bool) -> float:
    config = getattr(getattr(encoder[0], "auto_model", None), "config", None)
    layers = getattr(config, "num_hidden_layers", None)
    width = getattr(config, "hidden_size", None)
    if not isinstance(layers, int) or not isinstance(width, int):
        # as if a layer were a square matrix of its parameters (a transformer's has 12 width^2)
        total = sum(parameter.numel() for parameter in encoder.parameters())
        layers, width = 12, max(1, int((total / 144) ** 0.5))
    return BYTES_PER_UNIT * (1 if half else 2) * layers * width


def memory_for_activations(device: torch.device) -> float:
    """Bytes that activations may take: half of a GPU's memory, a quarter of a CPU's, at most 4 GiB."""
    if device.type == "cuda":
        return GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
    return min(CPU_MOST, CPU_SHARE * _memory())


def _memory() -> float:
    """Bytes of memory in this machine, or 8 GiB where it does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 8.0 * 2**30


def shown_size(amount: float) -> str:
    """An amount of bytes as it is read."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"
