"""Telling, token by token, what was replaced in a sentence, given an embedding of the sentence as it was (DiffCSE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.masked_language import mask_tokens
from nearfar.encoders.states import SpecialTokens, TokenEncoder
from nearfar.errors import UsageError

Generator: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``generator(ids [n, L], mask [n, L]) -> logits [n, L, vocabulary]``: predicts masked tokens."""

SHARE = 0.3
"""Of the words that are masked for the generator (Chuang et al., 2022)."""

_FILLS = ("argmax", "sample")
_PLACES = ("every", "masked")
_OVER = ("positions", "tokens")


@dataclass(frozen=True)
class Edited:
    """Sentences that a generator has edited: ``ids [n, L]``, ``mask [n, L]`` (bool, the tokens there are), and where
    they differ from the sentences before, ``replaced [n, L]`` (bool, False at padding)."""

    ids: Tensor
    mask: Tensor
    replaced: Tensor


@torch.no_grad()
def fill_in(
    ids: Tensor,
    generator: Generator,
    special: SpecialTokens,
    *,
    vocabulary: int,
    mask: Tensor | None = None,
    share: float = SHARE,
    fill: Literal["argmax", "sample"] = "argmax",
    places: Literal["every", "masked"] = "every",
    random: torch.Generator | None = None,
) -> Edited:
    """Sentences ``ids [n, L]`` with words masked and filled in by ``generator``, without a gradient.

    Words are masked as :func:`~nearfar.encoders.masked_language.mask_tokens` does. The first token is put back where
    sentences begin with one ([CLS]), padding stays.

    Arguments:
        mask: which tokens there are; default those that are not padding.
        share: of the words that are masked, default 0.3 (Chuang et al., 2022).
        fill: the generator's likeliest token ("argmax", default: the official code's) or one drawn from its
            probabilities ("sample": the paper's text).
        places: "every" (default, the official code's): the generator's token stands everywhere, also where nothing was
            masked; "masked": only where the mask chose a token, the rest stays.
        random: None: torch's own.

    Raises UsageError for options that do not exist; those of ``mask_tokens``.
    """
    if fill not in _FILLS or places not in _PLACES:
        raise UsageError(f"fill must be one of {_FILLS}, places one of {_PLACES}, got {fill!r} and {places!r}")
    there = ids != special.padding if mask is None else mask.bool()
    masked, chosen = mask_tokens(ids, special, vocabulary=vocabulary, share=share, mask=there, generator=random)
    logits = generator(masked, there)
    where = there if places == "every" else chosen
    edited = ids.clone()
    edited[where] = logits[where].argmax(-1) if fill == "argmax" else _drawn(logits[where], random)
    if special.first is not None:
        first = ids[:, 0] == special.first
        edited[:, 0] = torch.where(first, special.first, edited[:, 0])
    return Edited(edited, there, (edited != ids) & there)


def _drawn(logits: Tensor, random: torch.Generator | None) -> Tensor:
    """A token for each row of logits ``[k, vocabulary]``, drawn from their softmax."""
    if not len(logits):
        return logits.new_zeros(0, dtype=torch.long)
    device = "cpu" if random is None else random.device
    chances = logits.float().softmax(-1).to(device)
    return torch.multinomial(chances, 1, generator=random)[:, 0].to(logits.device)


class ReplacedTokenDiscriminator(nn.Module):
    """Which tokens of a sentence were replaced, given an embedding of the sentence before (Chuang et al., 2022).

    ``D(x'', h)``: an encoder reads the edited sentence x'', but in the place of what its embedding layer gives for the
    first token stands h; a linear map gives two logits for every token, kept and replaced. What x'' alone does not
    tell must come from h, so that the loss teaches the encoder of h what words the sentence had.

    Arguments:
        encoder: trained, of its own (the paper starts it from the same weights as the sentence encoder).

    Called with ``ids [n, L]``, ``condition [n, dimension]`` and ``mask [n, L]``; gives ``[n, L, 2]``. Raises ValueError
    for a condition of another shape.
    """

    def __init__(self, encoder: TokenEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dimension, 2)

    def forward(self, ids: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        if condition.shape != (len(ids), self.encoder.dimension):
            raise ValueError(
                f"the condition must be {(len(ids), self.encoder.dimension)}, one vector a sentence, got "
                f"{tuple(condition.shape)}"
            )
        embedded = self.encoder.embed(ids)
        inputs = torch.cat([condition[:, None].to(embedded.dtype), embedded[:, 1:]], 1)
        logits: Tensor = self.head(self.encoder.states(ids, mask, inputs=inputs).hidden)
        return logits


def replaced_token_loss(
    logits: Tensor, edited: Edited, *, over: Literal["positions", "tokens"] = "positions"
) -> Tensor:
    """The mean of ``-log p(replaced or kept)`` of ``logits [n, L, 2]``; a scalar.

    ``over``: "positions" (default): all n L of them, padding counts as kept, as in the official code, where the weight
    of the loss depends on how much of a batch is padding; "tokens": those that there are.
    Raises UsageError for another ``over``.
    """
    if over not in _OVER:
        raise UsageError(f"over must be one of {_OVER}, got {over!r}")
    costs = F.cross_entropy(logits.flatten(0, 1), edited.replaced.flatten().long(), reduction="none")
    if over == "positions":
        return costs.mean()
    there = edited.mask.flatten()
    return costs[there].sum() / there.sum().clamp_min(1)
