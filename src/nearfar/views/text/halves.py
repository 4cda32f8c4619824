"""A sentence of token ids as its two halves."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.encoders.masked_language import is_word
from nearfar.encoders.states import SpecialTokens
from nearfar.views.text.token_operations import closed_up


def halves(
    ids: Tensor, special: SpecialTokens, *, mask: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The two halves ``[n, 2, L]`` of sentences ``ids [n, L]``, and which tokens they hold ``[n, 2, L]`` (bool).

    A sentence of m words is cut after c of them, c uniform among the whole numbers from m / 3 to 2 m / 3, the middle
    third; special tokens stand in both halves, and padding fills up on the right. One word, or none, is both halves.

    Arguments: ``special``: whose tokens are no words; ``mask [n, L]``: which tokens there are, None: all that are not
    padding; ``generator``: None: torch's own.
    """
    there = ids != special.padding if mask is None else mask.bool()
    words = is_word(ids, special, there)
    number = words.cumsum(1)  # from 1
    total = number[:, -1:]
    low, high = (total + 2) // 3, 2 * total // 3
    drawn = torch.rand(total.shape, generator=generator, device="cpu" if generator is None else generator.device)
    cut = low + (drawn.to(ids.device) * (high - low + 1)).long().clamp(max=high - low)
    whole = (total < 2) | ~words
    kept = torch.stack([there & (whole | (number <= cut)), there & (whole | (number > cut))], 1)
    parts = closed_up(ids.repeat_interleave(2, 0), kept.flatten(0, 1), special.padding).view(kept.shape)
    return parts, torch.arange(ids.shape[1], device=ids.device) < kept.sum(2, keepdim=True)
