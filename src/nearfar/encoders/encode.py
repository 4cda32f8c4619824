"""Embedding texts that are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nearfar.encoders.sentence_modules import dimension_of, is_static, module_class
from nearfar.encoders.tokens import Tokenized, pretokenize
from nearfar.encoders.vocabulary import checked_texts
from nearfar.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Task = Literal["query", "document"]
Progress = Callable[[int, int], None]

DTYPES = ("float32", "float16", "int8")
INT8_SCALE = 1 / 127
"""A component x of a unit vector is stored as round(127 x); times this number it is x again, to within 1/254."""

STATIC_BATCH = 2048
TRANSFORMER_BATCH = 64
_TOKENISED_AHEAD = 8192


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    batch_size: int | None = None,
    normalize: bool = True,
    dtype: str = "float32",
    task: Task | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[Any]:
    """The embeddings of ``texts``, ``[n, d]``, in their order. Equal to ``model.encode`` up to rounding, and quicker.

    Texts are tokenised ahead in blocks, sorted by length in tokens inside a block, and embedded without padding
    beyond the batch's longest. The same texts and batch size give the same bytes on the same machine.

    Args:
        model: The encoder; put into evaluation mode meanwhile.
        texts: Any number of texts. An empty one is allowed (a static encoder gives it the zero vector).
        batch_size: Texts embedded at once. Default: 2,048 for a static encoder, 64 for a transformer.
        normalize: Scale each embedding to length 1 (the zero vector stays zero).
        dtype: "float32"; "float16" (rounded); or "int8": round(127 x), for normalised embeddings only, see
            :data:`INT8_SCALE`.
        task: "query" or "document": put the prompt that the model was saved with for this purpose before each text.
            None: its default prompt, if it has one, as ``model.encode`` does.
        progress: Called with (texts done, texts in all) after each batch.

    Raises :class:`UsageError` for a batch size below 1, an unknown dtype or int8 without ``normalize``,
    :class:`~nearfar.errors.DataError` for an item that is not text, :class:`ModelError` when an embedding is not
    finite.
    """
    check_output(batch_size, dtype, normalize)
    texts = list(checked_texts(texts))
    output = np.empty((len(texts), dimension_of(model)), dtype=dtype)
    done = 0
    for rows, embedded in _embedded(model, texts, batch_size, normalize, task):
        output[rows] = as_dtype(embedded, dtype)
        done += len(embedded)
        if progress is not None:
            progress(done, len(texts))
    return output


def check_output(batch_size: int | None, dtype: str, normalize: bool) -> None:
    """Refuse, with a :class:`UsageError`, what :func:`encode` cannot do."""
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    if dtype not in DTYPES:
        raise UsageError(f"embeddings cannot be stored as {dtype!r}", hint=f"choose one of {', '.join(DTYPES)}")
    if dtype == "int8" and not normalize:
        raise UsageError(
            "int8 needs embeddings of length 1, whose components lie in [-1, 1]", hint="leave normalize on"
        )


def as_dtype(embedded: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """``embedded`` as one of :data:`DTYPES`."""
    converted: npt.NDArray[Any]
    if dtype == "int8":
        converted = np.rint(embedded * np.float32(1 / INT8_SCALE)).astype(np.int8)
    else:
        converted = embedded.astype(dtype, copy=False)
    return converted


def _embedded(
    model: SentenceTransformer, texts: list[str], batch_size: int | None, normalize: bool, task: Task | None
) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Batches of (rows, their float32 embeddings)."""
    prompt = _prompt(model, task)
    if prompt and _prompt_needs_care(model):
        yield from _by_the_model(model, texts, batch_size, normalize, prompt)
        return
    static = is_static(model)
    size = batch_size or (STATIC_BATCH if static else TRANSFORMER_BATCH)
    ahead = max(_TOKENISED_AHEAD // size, 1) * size
    for start in range(0, len(texts), ahead):
        block = [prompt + text for text in texts[start : start + ahead]] if prompt else texts[start : start + ahead]
        try:
            tokens = pretokenize(model, block)
        except ModelError:
            yield from _by_the_model(model, texts[start:], batch_size, normalize, prompt, first=start)
            return
        order = np.arange(len(tokens)) if static else np.argsort(-tokens.lengths, kind="stable")
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            yield chosen + start, _forward(model, tokens, chosen, normalize)


def _forward(
    model: SentenceTransformer, tokens: Tokenized, rows: npt.NDArray[np.integer[Any]], normalize: bool
) -> npt.NDArray[np.float32]:
    with torch.inference_mode(), evaluating(model):
        features = {
            name: value.to(model.device) if isinstance(value, torch.Tensor) else value
            for name, value in tokens.batch(rows).items()
        }
        embedded = model(features)["sentence_embedding"].float()
        if (size := getattr(model, "truncate_dim", None)) is not None:
            embedded = embedded[:, :size]
        if normalize:
            embedded = torch.nn.functional.normalize(embedded, dim=1)
        return _finite(embedded.cpu().numpy())


def _by_the_model(
    model: SentenceTransformer,
    texts: list[str],
    batch_size: int | None,
    normalize: bool,
    prompt: str | None,
    first: int = 0,
) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """The model's own ``encode``, for models that do more than pad plain texts."""
    size = batch_size or TRANSFORMER_BATCH
    for start in range(0, len(texts), _TOKENISED_AHEAD):
        block = texts[start : start + _TOKENISED_AHEAD]
        embedded = model.encode(
            block, batch_size=size, prompt=prompt or "", normalize_embeddings=normalize, show_progress_bar=False
        )
        yield slice(first + start, first + start + len(block)), _finite(np.asarray(embedded, dtype=np.float32))


def _finite(embedded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if not np.isfinite(embedded).all():
        row = int(np.flatnonzero(~np.isfinite(embedded).all(axis=1))[0])
        raise ModelError(f"the model gives an embedding that is not finite (row {row} of a batch of {len(embedded)})")
    return embedded


def _prompt(model: SentenceTransformer, task: Task | None) -> str | None:
    prompts = getattr(model, "prompts", None) or {}
    if task is not None and prompts.get(task):
        return str(prompts[task])
    name = getattr(model, "default_prompt_name", None)
    return prompts.get(name) if name is not None else None


def _prompt_needs_care(model: SentenceTransformer) -> bool:
    """Whether the pooling leaves the prompt's tokens out of the mean, which the model's own ``encode`` knows to do."""
    pooling = module_class("Pooling")
    return any(isinstance(module, pooling) and not module.include_prompt for module in model)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside the block; the mode the model was in comes back after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
