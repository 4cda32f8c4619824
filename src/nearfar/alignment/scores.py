"""How probable a language model finds responses: :func:`response_scores`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment.body import architecture, attention, causal_model, head_of, hidden_states, width_of
from nearfar.alignment.head import token_log_probabilities
from nearfar.alignment.packing import Packed, Tokenised, repeated, shared, shared_is_cheaper
from nearfar.alignment.policy import ResponseScores
from nearfar.data.preferences.tokens import TokenisedRow, Tokens
from nearfar.encoders.encode import evaluating
from nearfar.errors import ModelError, UsageError

SharedPrefix = bool | Literal["auto"]

SHARDED = "sharded_scores"
"""The method of a model with shared out weights that is :func:`parts_of_scores` with whole ones (see
:mod:`nearfar.alignment.sharding`)."""


@dataclass(frozen=True)
class HiddenStates:
    """Means of what the last layer gives, after its norm.

    ``response [N, d]``: over the tokens of each response. ``prompt [n, d]``: over those of each prompt. ``end [n, d]``:
    that of the prompt's last token. 0 for a prompt without responses and a response without tokens.
    """

    response: Tensor
    prompt: Tensor
    end: Tensor


@dataclass(frozen=True)
class FlatScores:
    """How probable ``N`` responses are, which may be of any number a prompt: one after another, prompt after prompt.

    ``log_probability [N]``: summed over the tokens of a response, its end included, given the prompt; nats.
    ``length [N]``: how many tokens that is. ``row [N]``: which of the ``rows`` prompts it answers.
    ``tokens [T]``: log-probabilities of the single tokens, response after response; None where not asked for.
    ``hidden``: None where not asked for.
    """

    log_probability: Tensor
    length: Tensor
    row: Tensor
    rows: int
    tokens: Tensor | None = None
    hidden: HiddenStates | None = None

    @property
    def mean(self) -> Tensor:
        """The log-probability per token ``[N]``."""
        return self.log_probability / self.length.clamp_min(1)

    @property
    def offsets(self) -> Tensor:
        """Where the tokens of each response begin, and where the last one's end ``[N + 1]``."""
        return torch.cat([self.length.new_zeros(1), self.length.cumsum(0)])

    @property
    def mask(self) -> Tensor:
        """Which places of :meth:`matrix` are tokens: bool ``[N, longest]``."""
        longest = int(self.length.max()) if len(self.length) else 0
        return torch.arange(longest, device=self.length.device) < self.length.unsqueeze(-1)

    def matrix(self) -> Tensor:
        """The single tokens ``[N, longest]``, 0 beyond a response's end. Raises ValueError where there are none."""
        if self.tokens is None:
            raise ValueError("these scores hold no single tokens")
        return _rows(self.tokens, self.mask)

    def grouped(self) -> ResponseScores:
        """The same as ``[n, K]``. Raises ValueError where prompts differ in how many responses they have."""
        count, left = divmod(len(self.length), max(self.rows, 1))
        expected = torch.arange(self.rows, device=self.row.device).repeat_interleave(count)
        if left or not torch.equal(expected, self.row):
            raise ValueError("the prompts have different numbers of responses")
        shape = (self.rows, count)
        tokens = None if self.tokens is None else self.matrix().reshape(*shape, -1)
        return ResponseScores(self.log_probability.reshape(shape), self.length.reshape(shape), tokens)

    def detach(self) -> FlatScores:
        """The same without a graph."""
        hidden = self.hidden and HiddenStates(*(each.detach() for each in vars(self.hidden).values()))
        tokens = None if self.tokens is None else self.tokens.detach()
        return FlatScores(self.log_probability.detach(), self.length, self.row, self.rows, tokens, hidden)


def response_scores(
    model: nn.Module,
    rows: Sequence[Tokenised],
    *,
    shared_prefix: SharedPrefix = "auto",
    tokens: bool = False,
    hidden: bool = False,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> FlatScores:
    """``log p(response | prompt) = sum_t log p(y_t | x, y_<t)`` of every response, with a graph where gradients are
    enabled, all rows in one pass of the layers.

    Sums are of float32 (float64 for models of float64), and the logits of the batch never exist
    (:mod:`nearfar.alignment.head`).

    Arguments:
        model: a causal language model of transformers, or peft's wrapper around one; its mode (dropout) stays.
        rows: prompts with their responses as token ids.
        shared_prefix: compute each prompt once (:mod:`nearfar.alignment.packing`): True, False, or "auto" (default):
            where the model allows it and it costs less.
        tokens: also the single tokens. hidden: also means of hidden states.
        temperature: of the distribution, > 0, default 1.
        chunk: tokens whose logits exist at once; default by :data:`nearfar.alignment.head.CHUNK_BYTES`.

    Raises :class:`ModelError` for what is no causal language model, or does not allow the shared prefix that is asked
    for; :class:`~nearfar.errors.DataError` for a prompt without tokens.
    """
    packed = _layout(model, rows, shared_prefix)(rows).to(next(model.parameters()).device)
    asked: dict[str, Any] = {"tokens": tokens, "hidden": hidden, "temperature": temperature, "chunk": chunk}
    if not is_sharded(model):
        return scores_of(model, packed, len(rows), **asked)
    sharded: Any = model
    *found, means = getattr(sharded, SHARDED)(packed, len(rows), **asked)
    if not torch.is_grad_enabled():
        sharded.reshard()  # which a backward pass does otherwise
    log_probability, length, row, of_tokens = found
    states = None if means is None else HiddenStates(*means)
    return FlatScores(log_probability, length, row, len(rows), of_tokens, states)


def is_sharded(model: nn.Module) -> bool:
    """Whether processes share out the weights of ``model`` among them (:func:`nearfar.alignment.sharding.shard`)."""
    return hasattr(model, SHARDED)


def _layout(model: nn.Module, rows: Sequence[Tokenised], shared_prefix: SharedPrefix) -> Any:
    if shared_prefix == "auto":
        return shared if shared_is_cheaper(rows, width_of(model)) and supports_shared_prefix(model) else repeated
    if not isinstance(shared_prefix, bool):
        raise UsageError(f'shared_prefix is True, False or "auto", got {shared_prefix!r}')
    if shared_prefix and not supports_shared_prefix(model):
        raise ModelError(
            f"{architecture(model)} with {attention(causal_model(model))!r} attention cannot compute a "
            "prompt once for several responses",
            hint='use shared_prefix="auto"; attn_implementation="sdpa" and full attention in all layers allow it',
        )
    return shared if shared_prefix else repeated


def scores_of(
    model: nn.Module,
    packed: Packed,
    rows: int,
    *,
    tokens: bool = False,
    hidden: bool = False,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> FlatScores:
    """:func:`response_scores` of ``rows`` rows that are packed already."""
    head = head_of(model)
    # positions that only count from 0 are left to the model, which may have its own way to count
    positions = None if packed.mask is None else packed.positions
    states = hidden_states(model, packed.ids, positions, packed.mask)
    flat = states.reshape(-1, states.shape[-1])
    found = token_log_probabilities(
        flat[packed.predictor],
        head.weight,
        packed.target,
        bias=head.bias,
        scale=head.scale,
        soft_cap=head.soft_cap,
        temperature=temperature,
        chunk=chunk,
    )
    scores = FlatScores(found, packed.length, packed.row, rows, found)
    total = scores.matrix().sum(1)
    means = _means(flat, packed, scores.mask, rows) if hidden else None
    return FlatScores(total, packed.length, packed.row, rows, found if tokens else None, means)


def parts_of_scores(model: nn.Module, packed: Packed, rows: int, **asked: Any) -> tuple[Any, ...]:
    """:func:`scores_of` as tensors: log-probabilities, lengths, rows, tokens, and the means of hidden states. Torch has
    to find those with a gradient in what a sharded model gives, and looks into tuples alone."""
    found = scores_of(model, packed, rows, **asked)
    means = None if found.hidden is None else tuple(vars(found.hidden).values())
    return found.log_probability, found.length, found.row, found.tokens, means


def _rows(values: Tensor, mask: Tensor) -> Tensor:
    """``values [T]`` row by row where ``mask [N, L]`` is true, 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _means(flat: Tensor, packed: Packed, mask: Tensor, rows: int) -> HiddenStates:
    wide = flat if flat.dtype == torch.float64 else flat.float()
    ends = torch.bincount(packed.prompt_row, minlength=rows)
    last = packed.prompt_place[(ends.cumsum(0) - 1).clamp_min(0)] if len(packed.prompt_place) else packed.prompt_place
    there = (ends > 0).unsqueeze(-1)
    return HiddenStates(
        response=_mean(wide, packed.place, packed.length),
        prompt=_mean(wide, packed.prompt_place, ends),
        end=wide[last] * there if len(last) else wide.new_zeros(rows, wide.shape[1]),
    )


def _mean(states: Tensor, place: Tensor, length: Tensor) -> Tensor:
    owner = torch.arange(len(length), device=length.device).repeat_interleave(length)
    total = states.new_zeros(len(length), states.shape[1]).index_add(0, owner, states[place])
    return total / length.clamp_min(1).unsqueeze(-1)


_allowed: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


def supports_shared_prefix(model: nn.Module) -> bool:
    """Whether ``model`` gives the same scores when each prompt is computed once for all its responses.

    It needs attention that takes a mask of its own ("sdpa" or "eager") in every layer, over all that came before (no
    sliding window), and positions that can be given. What says so is tried once, on a few tokens, against the plain
    computation.
    """
    inner = causal_model(model)
    kind = attention(inner)
    known = _allowed.setdefault(inner, {})
    if kind not in known:
        known[kind] = _looks_back_fully(inner) and kind in ("sdpa", "eager") and _agrees(inner)
    return known[kind]


def _looks_back_fully(inner: Any) -> bool:
    config = inner.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return all(kind == "full_attention" for kind in kinds)
    return not getattr(config, "sliding_window", None) or getattr(config, "use_sliding_window", True) is False


def _agrees(inner: Any) -> bool:
    generator = np.random.default_rng(0)
    vocabulary = inner.get_input_embeddings().weight.shape[0]

    def drawn(length: int) -> Tokens:
        return generator.integers(0, vocabulary, length, np.int32)

    rows = [TokenisedRow(drawn(4), (drawn(3), drawn(2))), TokenisedRow(drawn(2), (drawn(1), drawn(4)))]
    device = inner.get_input_embeddings().weight.device
    wide = inner.dtype in (torch.float32, torch.float64)
    try:
        with evaluating(inner), torch.no_grad(), torch.autocast(device.type, enabled=False):
            plain, once = (scores_of(inner, layout(rows).to(device), 2, tokens=True) for layout in (repeated, shared))
    except (TypeError, ValueError, RuntimeError, IndexError):  # an architecture without positions or such masks
        return False
    assert plain.tokens is not None
    assert once.tokens is not None
    return bool(torch.allclose(plain.tokens, once.tokens, rtol=0, atol=1e-3 if wide else 0.2))
