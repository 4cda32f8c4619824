"""The one place where text becomes tensors for a model: a batch at a time, or once for a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.encoders.sentence_modules import is_static
from nearfar.encoders.static import batch_encoder
from nearfar.encoders.vocabulary import checked_texts
from nearfar.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BLOCK = 1024
_NO_LIMIT = 1_000_000
"""Tokenizers that know no limit say 1e30 or infinity."""

Integers = npt.NDArray[np.integer[Any]]


def tokenize(model: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """The features of ``texts`` that ``model(features)["sentence_embedding"]`` embeds, on the CPU.

    A static model gets ``input_ids`` [all tokens] and ``offsets`` [n]; a transformer gets ``input_ids`` and
    ``attention_mask`` [n, longest] (and what else its tokenizer gives), cut at :func:`token_limit`. No prompt is
    added. Raises :class:`~nearfar.errors.DataError` for an item that is not text.
    """
    texts = list(checked_texts(texts))
    if is_static(model):
        return pretokenize(model, texts).batch(np.arange(len(texts)))
    return model_features(model, texts)


def model_features(model: SentenceTransformer, texts: list[str]) -> dict[str, Any]:
    """What the model's own preprocessing gives for ``texts`` (the method has had two names)."""
    preprocess = getattr(model, "preprocess", None) or model.tokenize
    return dict(preprocess(texts))


@dataclass(frozen=True)
class Tokenized:
    """The token ids of many texts in one flat array, so that a batch is a slice and nothing is tokenised twice.

    Attributes:
        ids: All token ids, one text after the other, int32, cut at the model's limit and with its special tokens.
        offsets: Where each text begins, and the end: int64, [n + 1].
        static: Whether batches are for an embedding bag (``offsets``) or a transformer (padded, ``attention_mask``).
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    static: bool
    token_types: npt.NDArray[np.int8] | None = None
    pad_id: int = 0
    pad_type: int = 0
    pad_left: bool = False
    constants: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, [n]."""
        return np.diff(self.offsets)

    def batch(self, indices: Sequence[int] | Integers) -> dict[str, Any]:
        """The features of the texts ``indices`` (any order, repeats allowed), as :func:`tokenize` would give them."""
        rows = np.asarray(indices, dtype=np.int64)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        begins = np.cumsum(lengths) - lengths
        inside = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
        places = inside + np.repeat(starts, lengths)
        if self.static:
            return {
                "input_ids": torch.from_numpy(self.ids[places].astype(np.int64)),
                "offsets": torch.from_numpy(begins),
            }
        width = int(lengths.max(initial=0))
        row = np.repeat(np.arange(len(rows)), lengths)
        column = inside + np.repeat(width - lengths, lengths) if self.pad_left else inside

        def padded(values: Integers, filler: int) -> torch.Tensor:
            table = np.full((len(rows), width), filler, dtype=np.int64)
            table[row, column] = values
            return torch.from_numpy(table)

        features = {"input_ids": padded(self.ids[places], self.pad_id)}
        if self.token_types is not None:
            features["token_type_ids"] = padded(self.token_types[places], self.pad_type)
        features["attention_mask"] = padded(np.ones(len(places), dtype=np.int64), 0)
        return {**features, **self.constants}


def pretokenize(model: SentenceTransformer, texts: Iterable[str]) -> Tokenized:
    """Tokenise ``texts`` once for any number of batches. About 4 bytes a token (a transformer: 5).

    Raises :class:`~nearfar.errors.DataError` for an item that is not text and :class:`ModelError` for a model whose
    preprocessing does not give token ids with a mask (see :func:`pads_texts`).
    """
    checked = checked_texts(texts)
    return _static_tokens(model, checked) if is_static(model) else _padded_tokens(model, checked)


def _static_tokens(model: SentenceTransformer, texts: Iterable[str]) -> Tokenized:
    encode = batch_encoder(model.tokenizer)
    distinct = getattr(model[0], "distinct", False)
    parts: list[npt.NDArray[np.int32]] = []
    lengths: list[int] = []
    for block in _blocks(texts, 4 * _BLOCK):
        tokens = [np.array(encoding.ids, dtype=np.int32) for encoding in encode(block)]
        if distinct:
            tokens = [np.unique(ids) for ids in tokens]
        lengths.extend(map(len, tokens))
        parts.append(np.concatenate(tokens))
    return Tokenized(ids=_joined(parts, np.int32), offsets=_offsets(lengths), static=True)


def _padded_tokens(model: SentenceTransformer, texts: Iterable[str]) -> Tokenized:
    ids: list[npt.NDArray[np.int32]] = []
    types: list[npt.NDArray[np.int8]] = []
    lengths: list[int] = []
    constants: dict[str, Any] = {}
    for block in _blocks(texts, _BLOCK):
        features = model_features(model, block)
        mask = features.pop("attention_mask", None)
        input_ids = features.pop("input_ids", None)
        token_types = features.pop("token_type_ids", None)
        constants = {name: value for name, value in features.items() if not isinstance(value, torch.Tensor)}
        if mask is None or input_ids is None or mask.shape != input_ids.shape or len(constants) < len(features):
            raise ModelError(
                "this model's preprocessing does not give padded token ids, so texts cannot be tokenised ahead"
            )
        kept = mask.bool()
        ids.append(input_ids[kept].numpy().astype(np.int32))
        if token_types is not None:
            types.append(token_types[kept].numpy().astype(np.int8))
        lengths.extend(kept.sum(dim=1).tolist())
    tokenizer = model.tokenizer
    return Tokenized(
        ids=_joined(ids, np.int32),
        offsets=_offsets(lengths),
        static=False,
        token_types=_joined(types, np.int8) if types else None,
        pad_id=int(getattr(tokenizer, "pad_token_id", None) or 0),
        pad_type=int(getattr(tokenizer, "pad_token_type_id", None) or 0),
        pad_left=getattr(tokenizer, "padding_side", "right") == "left",
        constants=constants,
    )


def pads_texts(model: SentenceTransformer) -> bool:
    """Whether the model is static or reads plain texts as padded token ids, so that :func:`pretokenize` serves it."""
    try:
        pretokenize(model, ["a", "a b"])
    except ModelError:
        return False
    return True


def token_lengths(model: SentenceTransformer) -> Callable[[Sequence[str]], list[int]]:
    """``texts -> tokens of each text`` as the model counts them, special tokens included, before any cut."""
    if is_static(model):
        from tokenizers import Tokenizer

        whole = Tokenizer.from_str(model.tokenizer.to_str())
        whole.no_truncation()
        encode = batch_encoder(whole)
        return lambda texts: [len(encoding.ids) for encoding in encode(list(checked_texts(texts)))]
    tokenizer = model.tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        checked = list(checked_texts(texts))
        tokens = tokenizer(checked, truncation=False, padding=False, return_attention_mask=False, verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    return count


def token_limit(model: SentenceTransformer) -> int | None:
    """How many tokens of a text the model reads (special tokens included), or None when it reads all."""
    if is_static(model):
        truncation = model.tokenizer.truncation
        return int(truncation["max_length"]) if truncation else None
    limit = model.max_seq_length
    return int(limit) if limit is not None and limit < _NO_LIMIT else None


def set_token_limit(model: SentenceTransformer, limit: int) -> None:
    """Let ``model`` read the first ``limit`` tokens of a text; saved with it.

    Raises :class:`~nearfar.errors.UsageError` when the limit is below 1 (a transformer: below 3, for its two special
    tokens) or beyond the positions a transformer has.
    """
    from nearfar.errors import UsageError

    if is_static(model):
        if limit < 1:
            raise UsageError(f"max_length must be at least 1, not {limit}")
        model.tokenizer.enable_truncation(limit)
        return
    if limit < 3:
        raise UsageError(f"max_length must be at least 3 (two special tokens and one of the text), not {limit}")
    most = _positions(model)
    if most is not None and most < limit:
        raise UsageError(f"max_length {limit} is beyond the {most} positions of this model", hint=f"use {most} or less")
    model.max_seq_length = limit


@contextmanager
def reading(model: SentenceTransformer, limit: int | None) -> Iterator[None]:
    """``model`` reads at most ``limit`` tokens of a text (None: as many as ever) inside the block, and as before
    after it. A limit that it has already stays where it is smaller."""
    before = token_limit(model)
    if limit is None or (before is not None and before <= limit):
        yield
        return
    static = is_static(model)
    kept: Any = model.tokenizer.truncation if static else model.max_seq_length
    most = None if static else _positions(model)
    set_token_limit(model, limit if most is None else min(limit, most))
    try:
        yield
    finally:
        if not static:
            model.max_seq_length = kept
        elif kept is None:
            model.tokenizer.no_truncation()
        else:
            model.tokenizer.enable_truncation(**kept)


def _positions(model: SentenceTransformer) -> int | None:
    """How many tokens a transformer's position table serves; None when it has none (relative or rotary positions)."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    if config is None or not isinstance(positions, int) or positions <= 0:
        return None
    if any(family in str(config.model_type) for family in ("roberta", "camembert", "mpnet")):
        return positions - int(config.pad_token_id or 0) - 1  # these count positions from the padding id on
    return positions


def _blocks(texts: Iterable[str], size: int) -> Iterable[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _offsets(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.asarray(lengths, dtype=np.int64), dtype=np.int64)])
