"""What goes on inside an encoder of token sequences, for methods that look there: states, layers, attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

KeysAndValues: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""For each layer keys and values ``[n, P, d]`` that its attention sees before those of the n texts."""


@dataclass(frozen=True)
class TokenStates:
    """One forward pass over token sequences.

    ``hidden [n, L, d]``: the last layer; ``mask [n, L]`` (bool): which tokens there are; ``layers``: where asked for,
    what each layer gave ``[n, L, d]``, the output of the embedding layer first, ``hidden`` last; ``attentions``: where
    asked for, each layer's attention probabilities after dropout ``[n, heads, L, L]``.
    """

    hidden: Tensor
    mask: Tensor
    layers: Sequence[Tensor] | None = None
    attentions: Sequence[Tensor] | None = None

    def mean(self, of: Tensor | None = None) -> Tensor:
        """The mean of the token vectors ``[n, d]``, of ``hidden`` or of another ``[n, L, d]``; 0 for an empty text."""
        values = self.hidden if of is None else of
        there = self.mask[..., None].to(values.dtype)
        return (values * there).sum(1) / there.sum(1).clamp_min(1)

    def first(self, of: Tensor | None = None) -> Tensor:
        """The vector of the first token ``[n, d]``."""
        return (self.hidden if of is None else of)[:, 0]

    def max(self, of: Tensor | None = None) -> Tensor:
        """The largest value of each dimension over the tokens ``[n, d]``; 0 for an empty text."""
        values = self.hidden if of is None else of
        peak = values.masked_fill(~self.mask[..., None], -torch.inf).amax(1)
        return torch.where(self.mask.any(1)[:, None], peak, 0)

    def maps(self, layers: Sequence[int]) -> Tensor:
        """The attention maps of ``layers`` (counted from 0), ``[n, layers, heads, L, L]``; 0 in the rows of padding,
        where a model computes something without a meaning. Raises ValueError where none were asked for."""
        if self.attentions is None:
            raise ValueError("the pass was made without attention maps")
        chosen = torch.stack([self.attentions[layer] for layer in layers], 1)
        return chosen.masked_fill(~self.mask[:, None, None, :, None], 0)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that methods ask for; None where a vocabulary lacks one. ``all``: those that stand for no word.

    ``first`` begins every text ([CLS]), ``last`` ends it ([SEP]), ``mask`` is [MASK], ``padding`` fills up.
    """

    padding: int
    first: int | None = None
    last: int | None = None
    mask: int | None = None
    all: frozenset[int] = frozenset()


class TokenEncoder(Protocol):
    """An encoder of token ids whose inside can be seen: :class:`~nearfar.encoders.token_transformer.TokenTransformer`,
    and every transformer of sentence-transformers through :class:`~nearfar.encoders.inside.Inside`."""

    dimension: int
    """Of a token's vector."""
    vocabulary: int
    """How many ids there are."""
    special: SpecialTokens

    def states(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        layers: bool = False,
        attentions: bool = False,
        inputs: Tensor | None = None,
        prefix: KeysAndValues | None = None,
    ) -> TokenStates:
        """The pass over ``ids [n, L]`` with ``mask [n, L]`` (bool; None: all that are not padding).

        ``inputs [n, L, d]`` takes the place of what the embedding layer gives (:meth:`embed`), for methods that change
        it: cutoff, noise, an embedding in the place of the first token. ``prefix`` stands before the keys and values of
        every layer (:class:`~nearfar.encoders.prefix.Prefix`); attention maps are then ``[n, heads, L, P + L]``.
        """

    def embed(self, ids: Tensor) -> Tensor:
        """What the embedding layer gives, positions, normalisation and dropout included, ``[n, L, d]``."""

    def pool(self, states: TokenStates) -> Tensor:
        """The embedding of each text, ``[n, d]``, as the encoder is used after training."""
