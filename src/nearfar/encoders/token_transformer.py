"""A small transformer over token ids that can be looked into: the encoder of experiments on sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.prefix import before
from nearfar.encoders.states import KeysAndValues, SpecialTokens, TokenStates
from nearfar.errors import UsageError


class TokenTransformer(nn.Module):
    """Embeddings of token sequences, ``[n, L] -> [n, dimension]``: a trainable table, dropout, layers, pooling.

    A layer is pre-norm: ``x + attention(norm(x))``, then ``x + down(relu(up(norm(x))))``, with dropout on attention
    probabilities and on what each half adds. Without layers it is a bag of words. It is a
    :class:`~nearfar.encoders.states.TokenEncoder`.

    Arguments:
        vocabulary: how many ids. dimension: of a token's vector, a multiple of ``heads``.
        layers: how many, default 1. heads: of attention. hidden: width of the feed-forward half.
        dropout: in [0, 1), default 0.1.
        vectors: ``[vocabulary, dimension]`` to start the table from (copied), default N(0, 1 / dimension).
        pooling: "mean" over the tokens there are, or "first" (the first token's vector).
        positions: learned vectors for so many places; None (default): order does not count.
        special: ids of special tokens; by default padding is 0.

    Padding takes no part in anything; a text without tokens has the embedding 0 under mean pooling.
    Raises UsageError for sizes that do not fit; ValueError for ids that are no integers ``[n, L]``, masks and inputs of
    another shape, and more tokens than positions.
    """

    def __init__(
        self,
        vocabulary: int,
        dimension: int = 64,
        *,
        layers: int = 1,
        heads: int = 4,
        hidden: int = 128,
        dropout: float = 0.1,
        vectors: Tensor | None = None,
        pooling: Literal["mean", "first"] = "mean",
        positions: int | None = None,
        special: SpecialTokens | None = None,
    ) -> None:
        super().__init__()
        if min(vocabulary, dimension, heads, hidden) < 1 or layers < 0 or dimension % heads:
            raise UsageError(
                f"vocabulary, dimension, heads and hidden must be at least 1, dimension a multiple of heads, got "
                f"{vocabulary}, {dimension}, {heads}, {hidden}"
            )
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {dropout}")
        if pooling not in ("mean", "first"):
            raise UsageError(f"pooling must be 'mean' or 'first', got {pooling!r}")
        if vectors is not None and vectors.shape != (vocabulary, dimension):
            raise UsageError(f"vectors must be [{vocabulary}, {dimension}], got {list(vectors.shape)}")
        self.vocabulary, self.dimension, self.pooling = vocabulary, dimension, pooling
        self.special = SpecialTokens(padding=0) if special is None else special
        start = torch.randn(vocabulary, dimension) / dimension**0.5 if vectors is None else vectors.clone()
        self.table = nn.Parameter(start)
        self.places = None if positions is None else nn.Parameter(torch.randn(positions, dimension) / dimension**0.5)
        self.dropout = float(dropout)
        self.layers = nn.ModuleList(_Layer(dimension, heads, hidden, dropout) for _ in range(layers))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The embeddings ``[n, dimension]`` of ``ids [n, L]``."""
        return self.pool(self.states(ids, mask))

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
        """See :meth:`TokenEncoder.states <nearfar.encoders.states.TokenEncoder.states>`."""
        there = ids != self.special.padding if mask is None else mask.bool()
        if there.shape != ids.shape:
            raise ValueError(f"mask must be {tuple(ids.shape)}, got {tuple(there.shape)}")
        x = self.embed(ids) if inputs is None else inputs
        if x.shape != (*ids.shape, self.dimension):
            raise ValueError(f"inputs must be {(*ids.shape, self.dimension)}, got {tuple(x.shape)}")
        if prefix is not None and len(prefix) != len(self.layers):
            raise ValueError(f"a prefix must be of {len(self.layers)} layers, got {len(prefix)}")
        if not len(self.layers):
            return TokenStates(x, there, layers=[x] if layers else None, attentions=[] if attentions else None)
        # what is done token by token is done to the tokens there are: a good third of a batch is padding
        index = there.flatten().nonzero()[:, 0]
        bias = torch.zeros(there.shape, dtype=x.dtype, device=x.device)
        # finite: a row without any token must not become NaN
        bias = bias.masked_fill(~there, torch.finfo(x.dtype).min)[:, None, None, :]
        outputs, maps = [x], []
        tokens = x.flatten(0, 1).index_select(0, index)
        for place, layer in enumerate(self.layers):
            tokens, attention = layer(tokens, index, bias, None if prefix is None else prefix[place])
            maps.append(attention)
            if layers or layer is self.layers[-1]:
                outputs.append(_spread(tokens, index, ids.shape))
        return TokenStates(
            outputs[-1], there, layers=outputs if layers else None, attentions=maps if attentions else None
        )

    def embed(self, ids: Tensor) -> Tensor:
        """What the embedding layer gives, positions and dropout included, ``[n, L, dimension]``."""
        if ids.dim() != 2 or ids.is_floating_point():
            raise ValueError(f"ids must be integers [n, L], got {tuple(ids.shape)} of {ids.dtype}")
        x = F.embedding(ids, self.table)
        if self.places is not None:
            if ids.shape[1] > len(self.places):
                raise ValueError(f"there are {len(self.places)} positions, got {ids.shape[1]} tokens")
            x = x + self.places[: ids.shape[1]]
        return _dropout(x, self.dropout, self.training)

    def pool(self, states: TokenStates) -> Tensor:
        """The embedding of each text, ``[n, dimension]``."""
        return states.mean() if self.pooling == "mean" else states.first()


class _Layer(nn.Module):
    """Tokens ``[t, d] -> [t, d]``, which stand at the places ``index [t]`` of ``[n, L]``, and the attention
    probabilities ``[n, heads, L, L]``; ``bias [n, 1, 1, L]`` is added to the scores of keys. A ``prefix`` is seen
    before them."""

    def __init__(self, dimension: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, float(dropout)
        self.before = nn.LayerNorm(dimension)
        self.projections = nn.Linear(dimension, 3 * dimension)
        self.out = nn.Linear(dimension, dimension)
        self.between = nn.LayerNorm(dimension)
        self.up = nn.Linear(dimension, hidden)
        self.down = nn.Linear(hidden, dimension)

    def forward(
        self, x: Tensor, index: Tensor, bias: Tensor, prefix: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        n, length, width = len(bias), bias.shape[3], x.shape[1] // self.heads
        spread = _spread(self.projections(self.before(x)), index, (n, length))
        query, key, value = spread.view(n, length, 3, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        if prefix is not None:
            key, value = before(key, value, prefix)
            bias = F.pad(bias, (prefix[0].shape[1], 0))
        scores = (query * width**-0.5) @ key.transpose(2, 3) + bias
        attention = _dropout(scores.softmax(3), self.dropout, self.training)
        mixed = (attention @ value).transpose(1, 2).reshape(n * length, x.shape[1]).index_select(0, index)
        x = x + _dropout(self.out(mixed), self.dropout, self.training)
        wide = F.relu(self.up(self.between(x)))
        return x + _dropout(self.down(wide), self.dropout, self.training), attention


def _spread(tokens: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """``tokens [t, d]`` at the places ``index [t]`` of ``[n, L, d]``, 0 elsewhere."""
    n, length = shape
    return tokens.new_zeros(n * length, tokens.shape[1]).index_copy(0, index, tokens).view(n, length, tokens.shape[1])


def _dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Each entry set to 0 with the probability ``rate`` (to 1 / 65536), the others divided by ``1 - rate``.

    Four entries by each random number of 64 bits: on a CPU, masks drawn as torch does are a third of a training.
    """
    if not training or rate == 0:
        return x
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    entries = bits.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(entries, round(rate * 2**16) - 2**15, out=torch.empty_like(x))
    return x * kept.div_(1 - rate)
