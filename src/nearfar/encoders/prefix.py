"""Soft prefixes: trained keys and values in front of those of every layer, while the transformer stays as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.states import KeysAndValues
from nearfar.errors import ModelError, UsageError


class Prefix(nn.Module):
    """P virtual tokens before every layer's own keys and values (P-tuning v2; PromCSE, Jiang et al., 2022).

    One table ``[P, layers, 2, d]``, the same for all texts; called with the number n of texts it gives for each layer
    the keys and values ``[n, P, d]``, with dropout drawn for each text anew. The prefix is attended to by every token
    and attends to nothing; it has no place of its own, no output, and is not pooled.

    Arguments:
        layers, dimension: of the transformer.
        length: P; default 16 (the paper's unsupervised BERT; its supervised RoBERTa-large: 10).
        dropout: default 0.1, that of BERT's hidden layers, as in the official code.

    The table starts as N(0, 0.02^2), BERT's own start. The official code counts the places of a text's tokens from P on
    (a consequence of how its cache is made); here they are counted from 0, as the frozen transformer has learned them.
    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or a dropout outside [0, 1).
    """

    def __init__(self, layers: int, dimension: int, length: int = 16, *, dropout: float = 0.1) -> None:
        super().__init__()
        if min(layers, dimension, length) < 1:
            raise UsageError(
                f"a prefix needs at least one layer, dimension and token, got {layers}, {dimension} and {length}"
            )
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {dropout}")
        self.table = nn.Parameter(0.02 * torch.randn(length, layers, 2, dimension))
        self.dropout = nn.Dropout(dropout)

    @property
    def length(self) -> int:
        """How many virtual tokens there are."""
        return len(self.table)

    def forward(self, n: int) -> list[tuple[Tensor, Tensor]]:
        drawn = self.dropout(self.table.expand(n, *self.table.shape))
        return [(layer[:, :, 0], layer[:, :, 1]) for layer in drawn.unbind(2)]


class Prefixed(nn.Module):
    """An encoder of tokens with a prefix, ``ids [n, L] -> [n, d]``: the two as one module.

    For a user's transformer see :func:`~nearfar.encoders.prefix_transformer.add_prefix`.
    """

    def __init__(self, encoder: nn.Module, prefix: Prefix) -> None:
        super().__init__()
        self.encoder, self.prefix = encoder, prefix

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        encoder: Any = self.encoder
        pooled: Tensor = encoder.pool(encoder.states(ids, mask, prefix=self.prefix(len(ids))))
        return pooled


def before(keys: Tensor, values: Tensor, prefix: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """``keys, values [n, heads, L, width]`` of a layer with its ``prefix [n, P, heads * width]`` in front of them."""
    n, heads, _, width = keys.shape

    def split(part: Tensor) -> Tensor:
        if part.shape[0] != n or part.shape[2] != heads * width:
            raise ValueError(f"a prefix of {n} texts must be [{n}, P, {heads * width}], got {tuple(part.shape)}")
        return part.to(keys.dtype).reshape(n, -1, heads, width).transpose(1, 2)

    return torch.cat([split(prefix[0]), keys], 2), torch.cat([split(prefix[1]), values], 2)


# -- transformers of the transformers library --------------------------------------------------------------------------


@contextmanager
def attending_to(model: Any, prefix: KeysAndValues, *, maps: bool = False) -> Iterator[None]:
    """Inside the block one pass of a transformer attends to ``prefix`` as well.

    Its attention is exchanged for one that puts the prefix in front of keys and values and then does as before;
    weights, configuration and mode are untouched. With ``maps`` it is computed step by step, and maps are
    ``[n, heads, L, P + L]``.

    Raises :class:`~nearfar.errors.ModelError` for a model whose attention cannot be exchanged or that has not as many
    attending layers as the prefix, and for one that computes its layers again when it differentiates (gradient
    checkpointing), where the prefix would be missing.
    """
    if not getattr(model, "_supports_attention_backend", False) or not model._can_set_attn_implementation():
        raise ModelError(
            f"{type(model).__name__} has an attention of its own, which cannot be given a prefix",
            hint="BERT, MiniLM, RoBERTa, DistilBERT and ModernBERT can be given one",
        )
    if any(getattr(part, "gradient_checkpointing", False) for part in model.modules()):
        raise ModelError(
            "a prefix does not go with gradient checkpointing", hint="switch it off: gradient_checkpointing_disable()"
        )
    _register()
    usual = model.config._attn_implementation
    ahead = iter(prefix)
    token = _AHEAD.set(ahead)
    model.set_attn_implementation(_STEPWISE if maps else _FUSED)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
        _AHEAD.reset(token)
    if next(ahead, None) is not None:
        raise ModelError(f"{type(model).__name__} has fewer attending layers than the {len(prefix)} of the prefix")


_AHEAD: ContextVar[Iterator[tuple[Tensor, Tensor]]] = ContextVar("nearfar_prefix")
"""The prefixes of the layers that a pass has yet to come to."""

_FUSED, _STEPWISE = "nearfar_prefix", "nearfar_prefix_maps"


def _register() -> None:
    """Make both attentions known to transformers, once."""
    from transformers import AttentionInterface, AttentionMaskInterface

    masks = AttentionMaskInterface()  # type: ignore[no-untyped-call]
    if _FUSED not in masks.valid_keys():
        for name, usual, chosen in ((_FUSED, "sdpa", _fused), (_STEPWISE, "eager", _stepwise)):
            AttentionInterface.register(name, _with_prefix(chosen))
            AttentionMaskInterface.register(name, masks[usual])


def _with_prefix(chosen: Callable[[nn.Module], Callable[..., Any]]) -> Callable[..., Any]:
    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **named: Any
    ) -> Any:
        own = next(_AHEAD.get(), None)
        if own is None:
            raise ModelError("the transformer has more attending layers than the prefix")
        key, value = before(key, value, own)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = F.pad(attention_mask, (own[0].shape[1], 0), value=seen)
        return chosen(module)(module, query, key, value, attention_mask, **named)

    return attend


def _fused(module: nn.Module) -> Callable[..., Any]:
    from transformers import AttentionInterface

    found: Callable[..., Any] = AttentionInterface()["sdpa"]  # type: ignore[no-untyped-call]
    return found


def _stepwise(module: nn.Module) -> Callable[..., Any]:
    """What the file that a model is written in computes step by step."""
    found: Callable[..., Any] | None = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if found is None:
        raise ModelError(f"{type(module).__name__} gives no maps of its attention beside a prefix")
    return found
