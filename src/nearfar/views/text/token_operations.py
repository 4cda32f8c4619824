"""Four operations on the words of sentences of token ids ``[n, t]``, counted exactly (CLEAR; Wu et al., 2020).

A word here is a token that is no special one (:class:`~nearfar.encoders.states.SpecialTokens`); special tokens keep
their place among the words. A sentence of one or two words stays as it is. Where words go, the rest closes up and
padding fills the row. A share is of a sentence's words, ``floor(share * words)``: 0.7 of 10 words are 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.encoders.masked_language import is_word
from nearfar.encoders.states import SpecialTokens
from nearfar.errors import UsageError
from nearfar.views.base import uniform
from nearfar.views.sequence import IdsView

_TOO_SHORT = 2
"""Words that a sentence may have and stay as it is."""


class TokenOperation(IdsView):
    """Base of views of sentences of token ids ``[n, t]`` that change words and leave special tokens alone.

    Arguments: ``share``: of the words; ``special``: the ids of special tokens, its ``padding`` fills the rows;
    ``padding_side``: where, default "right"; ``p``: share of the sentences that are changed, default 1.
    """

    def __init__(
        self,
        share: float | tuple[float, float],
        *,
        special: SpecialTokens,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, padding=special.padding, padding_side=padding_side, p=p)
        self.special = special

    def counted(self, items: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Which places hold a word ``[n, t]``, its number among the words ``[n, t]``, and ``floor(share * words)``
        ``[n, 1]``."""
        low, high = self.share
        share = uniform(len(items), 1, low=low, high=high, generator=generator).to(items.device)
        words = is_word(items, self.special)
        return words, words.cumsum(1) - 1, (share * words.sum(1, keepdim=True) + 1e-5).long()


class _Deletion(TokenOperation):
    def __init__(
        self,
        share: float | tuple[float, float],
        *,
        special: SpecialTokens,
        mark: int | None,
        padding_side: Literal["right", "left"],
        p: float,
    ) -> None:
        super().__init__(share, special=special, padding_side=padding_side, p=p)
        if mark is not None and mark in (special.mask, special.padding):
            raise UsageError(
                f"{type(self).__name__}: the mark {mark} is that of "
                f"{'masked words' if mark == special.mask else 'padding'}; deleted words need one of their own"
            )
        self.mark = mark

    def without(self, items: Tensor, gone: Tensor) -> Tensor:
        """``items`` without the places ``gone``; in the place of each run of them stands one mark, if there is one."""
        kept = (items != self.padding) & ~gone
        if self.mark is not None:
            begins = gone.clone()
            begins[:, 1:] &= ~gone[:, :-1]
            items, kept = items.masked_fill(begins, self.mark), kept | begins
        return closed_up(items, kept, self.padding, self.padding_side)


class DeleteWords(_Deletion):
    """``del-word``: random words deleted, runs of deleted ones become one [DEL]; at least one word stays.

    Arguments: ``share``: of the words, default 0.7; ``mark``: the id of [DEL], which must not be that of [MASK], None:
    deleted words leave no trace; ``special``, ``padding_side``, ``p``: as of :class:`TokenOperation`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = 0.7,
        *,
        special: SpecialTokens,
        mark: int | None,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, mark=mark, padding_side=padding_side, p=p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, _, count = self.counted(items, generator)
        total = words.sum(1, keepdim=True)
        count = torch.where(total > _TOO_SHORT, torch.minimum(count, total - 1), 0)
        return self.without(items, words & (_shuffled(words, generator) < count))


class DeleteSpans(_Deletion):
    """``del-span``: random spans of words deleted, each (or a run of them) becomes one [DEL]; at least one word stays.

    Spans do not overlap, all such choices are equally likely; a sentence too short for all of them has fewer.

    Arguments: ``share``: of the words in each span, at least one word, default 0.05; ``spans``: how many, default 5;
    ``mark``: as of :class:`DeleteWords`; ``special``, ``padding_side``, ``p``: as of :class:`TokenOperation`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = 0.05,
        *,
        special: SpecialTokens,
        mark: int | None,
        spans: int = 5,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, mark=mark, padding_side=padding_side, p=p)
        self.spans = _at_least_one("DeleteSpans: spans", spans)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, number, length = self.counted(items, generator)
        length, total = length.clamp_min(1), words.sum(1, keepdim=True)
        spans = ((total - 1) // length).clamp(0, self.spans)
        starts, valid = _starts(total, torch.where(total > _TOO_SHORT, spans, 0), length, items.shape[1], generator)
        inside, _ = _members(number, starts, valid, length)
        return self.without(items, words & inside)


class SwapSpans(TokenOperation):
    """``reorder``: pairs of spans of words change places; the words stay the same.

    The spans of all pairs are equally long and do not overlap; a sentence too short for all pairs has fewer.

    Arguments: ``share``: of the words in each span, at least one word, default 0.05; ``pairs``: how many, default 5;
    ``special``, ``padding_side``, ``p``: as of :class:`TokenOperation`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = 0.05,
        *,
        special: SpecialTokens,
        pairs: int = 5,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, padding_side=padding_side, p=p)
        self.pairs = _at_least_one("SwapSpans: pairs", pairs)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, number, length = self.counted(items, generator)
        length, total = length.clamp_min(1), words.sum(1, keepdim=True)
        pairs = (total // (2 * length)).clamp(0, self.pairs)
        spans = torch.where(total > _TOO_SHORT, 2 * pairs, 0)
        starts, valid = _starts(total, spans, length, items.shape[1], generator)
        inside, span = _members(number, starts, valid, length)
        # spans in random order: the first goes with the second, the third with the fourth
        rank = _shuffled(valid, generator)
        partner = rank.argsort(1).gather(1, torch.where(valid, rank ^ 1, rank))
        own, other = starts.gather(1, span), starts.gather(1, partner.gather(1, span))
        source = torch.where(inside, number - own + other, number).clamp_min(0)
        place = closing_order(words).gather(1, source)
        return torch.where(words, items.gather(1, place), items)


class SubstituteWords(TokenOperation):
    """``subs``: random words replaced by similar ones.

    Arguments:
        similar: ``[vocabulary, k]`` (int64), tokens that are similar to each, below 0 for none
            (:func:`similar_tokens`); a word without one is never chosen, and where fewer than the share have one, all
            of these are replaced.
        share: of the words, default 0.3. ``special``, ``p``: as of :class:`TokenOperation`.
    """

    def __init__(
        self,
        similar: Tensor,
        share: float | tuple[float, float] = 0.3,
        *,
        special: SpecialTokens,
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, p=p)
        if similar.dim() != 2 or similar.is_floating_point():
            raise UsageError(f"SubstituteWords: similar must be integers [vocabulary, k], got {tuple(similar.shape)}")
        self.similar = similar.long().sort(1, descending=True).values  # those that are none stand last
        self.known = (self.similar >= 0).sum(1)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, _, count = self.counted(items, generator)
        similar, known = self.similar.to(items.device), self.known.to(items.device)[items]
        chosen = words & (known > 0)
        chosen &= _shuffled(chosen, generator) < count
        which = (uniform(*items.shape, generator=generator).to(items.device) * known).long()
        others = similar[items, torch.minimum(which, known - 1).clamp_min(0)]
        return torch.where(chosen, others.to(items.dtype), items)


OPERATIONS = ("del-word", "del-span", "reorder", "subs")
"""What the four are called in the paper."""


def operation(
    name: str, *, special: SpecialTokens, mark: int | None, similar: Callable[[], Tensor] | None = None
) -> TokenOperation:
    """The operation ``name`` of :data:`OPERATIONS` at the paper's rates; ``similar`` is called for "subs".

    Raises UsageError for another name.
    """
    if name == "del-word":
        return DeleteWords(special=special, mark=mark)
    if name == "del-span":
        return DeleteSpans(special=special, mark=mark)
    if name == "reorder":
        return SwapSpans(special=special)
    if name == "subs" and similar is not None:
        return SubstituteWords(similar(), special=special)
    raise UsageError(f"there is no operation {name!r} on tokens", hint=f"choose from {', '.join(OPERATIONS)}")


@torch.no_grad()
def similar_tokens(vectors: Tensor, special: SpecialTokens, *, count: int = 5, of: Tensor | None = None) -> Tensor:
    """For every token the ``count`` words of the largest cosine, itself left out: ``[vocabulary, count]`` (int64).

    ``vectors [vocabulary, d]``; special tokens are similar to none and none to them (-1). ``of``: tokens to find them
    for, default all; the others have none. Linear memory.
    """
    unit = normalize(vectors.float())
    vocabulary = len(unit)
    words = is_word(torch.arange(vocabulary, device=unit.device), special)
    wanted = words.nonzero()[:, 0] if of is None else torch.unique(of.to(unit.device))
    wanted = wanted[words[wanted]]
    found = torch.full((vocabulary, count), -1, device=unit.device)
    kept = min(count, max(int(words.sum()) - 1, 0))
    for part in wanted.split(1024):
        scores = (unit[part] @ unit.T).masked_fill(~words, -torch.inf)
        scores[torch.arange(len(part), device=unit.device), part] = -torch.inf
        found[part, :kept] = scores.topk(kept, dim=1).indices
    return found


def closed_up(items: Tensor, kept: Tensor, filler: int, side: Literal["right", "left"] = "right") -> Tensor:
    """``items [n, t]`` at the places ``kept``, moved together in their order, and ``filler`` on the other ``side``."""
    return items.masked_fill(~kept, filler).gather(1, closing_order(kept, side))


def closing_order(kept: Tensor, side: Literal["right", "left"] = "right") -> Tensor:
    """The places ``[n, t]`` that :func:`closed_up` takes: the ``kept`` ones together, the others at ``side``."""
    return (~kept if side == "right" else kept).long().argsort(dim=1, stable=True)


def _shuffled(where: Tensor, generator: torch.Generator | None) -> Tensor:
    """The rank ``[n, t]``, from 0, of each place ``where`` it is true in a random order of them; the others follow."""
    drawn = uniform(*where.shape, generator=generator).to(where.device)
    return drawn.masked_fill(~where, 2.0).argsort(1).argsort(1)


def _starts(
    total: Tensor, spans: Tensor, length: Tensor, width: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Where ``spans [n, 1]`` spans of ``length [n, 1]`` words begin, that do not overlap, among ``total [n, 1]`` words:
    ``[n, most]`` in order, and which of them there are; all choices are equally likely.

    Spans shrunk to one word stand on different ones of the remaining words; stretched again they are apart.
    """
    most = min(max(int(spans.max()), 1), width)
    shrunk = torch.arange(width, device=total.device) < total - spans * (length - 1)
    chosen = _shuffled(shrunk, generator) < spans
    order = torch.arange(most, device=total.device)
    return closing_order(chosen)[:, :most] + order * (length - 1), order < spans


def _members(number: Tensor, starts: Tensor, valid: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Which words ``number [n, t]`` are in a span, and in which one ``[n, t]`` (0 where in none)."""
    after = number[:, None] - starts[:, :, None]
    inside = (after >= 0) & (after < length[:, :, None]) & valid[:, :, None]
    return inside.any(1), inside.long().argmax(1)


def _at_least_one(name: str, given: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"{name} must be a whole number, at least 1, got {given!r}")
    return given
