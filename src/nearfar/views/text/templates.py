"""Templates around texts of token ids: a question that a masked LM answers by one token, and demonstrations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.encoders.states import SpecialTokens
from nearfar.errors import UsageError
from nearfar.views.text.token_operations import closing_order

Piece: TypeAlias = int | Literal["text", "answer"]

_SLOTS = re.compile(r"\{(text|mask)\}")


@dataclass(frozen=True)
class Template:
    """Token ids around a text and the place of its answer, such as ``("text", 2009, 2001, "answer", 1012)``.

    Raises UsageError unless it has one text and one answer.
    """

    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        if self.pieces.count("text") != 1 or self.pieces.count("answer") != 1:
            raise UsageError("a template has one text and one answer", hint="write it as '{text} It was {mask}.'")

    @property
    def tokens(self) -> int:
        """How many tokens it has beside the text's."""
        return len(self.pieces) - 1

    @classmethod
    def parse(cls, written: str, encode: Callable[[str], list[int]]) -> Template:
        """The template written as ``"{text} It was {mask}."``; ``encode`` gives the token ids of what stands between.

        Words after another piece are encoded with the space before them, as in running text. Raises UsageError as the
        class does.
        """
        parts = _SLOTS.split(written.strip())
        pieces: list[Piece] = []
        for number, part in enumerate(parts):
            if number % 2:
                pieces.append("text" if part == "text" else "answer")
            elif part.strip():
                pieces.extend(encode(part.rstrip()))
        try:
            return cls(tuple(pieces))
        except UsageError as error:
            raise UsageError(f"{error.message}, unlike {written!r}", hint=error.hint) from None


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch: ``ids [n, L]``, padded on the right; ``mask [n, L]`` (bool): which tokens there are;
    ``answer [n]``: the place of the token that is asked for."""

    ids: Tensor
    mask: Tensor
    answer: Tensor

    def at_answer(self, states: Tensor) -> Tensor:
        """``[n, d]`` of ``states [n, L, d]``: what stands at the answer."""
        return states[torch.arange(len(states), device=states.device), self.answer]


@dataclass(frozen=True)
class _Columns:
    ids: Tensor
    mask: Tensor
    answer: Tensor

    @classmethod
    def joined(cls, parts: Sequence[_Columns]) -> _Columns:
        return cls(*(torch.cat([getattr(part, name) for part in parts], 1) for name in ("ids", "mask", "answer")))


def prompts(
    ids: Tensor,
    mask: Tensor,
    templates: Sequence[Template],
    special: SpecialTokens,
    *,
    chosen: Tensor | None = None,
    demonstrations: Sequence[tuple[Tensor, Tensor, int]] = (),
    room: int | None = None,
) -> Prompts:
    """Texts ``ids [n, L]``, without special tokens, in templates with [MASK] for the answer, demonstrations after them.

    ``[CLS] template(text, [MASK]) template(demonstration, its answer) ... [SEP]``

    Arguments:
        mask: ``[n, L]`` (bool), which of the ids are the text's; they need not stand together.
        templates: of the batch.
        chosen: ``[n]``, which template each text has, default the first; its demonstrations have the same.
        demonstrations: ids ``[n, K]``, mask ``[n, K]`` and the token that is the answer, one for every class.
        room: tokens of a text, and of each demonstration, that are kept; default all.

    Raises UsageError where the vocabulary has no [MASK].
    """
    if special.mask is None:
        raise UsageError("a prompt needs a token for what is asked, and the vocabulary has none")
    which = torch.zeros(len(ids), dtype=torch.long, device=ids.device) if chosen is None else chosen
    made = [_of_template(template, ids, mask, special.mask, demonstrations, room, special) for template in templates]
    width = max(each.ids.shape[1] for each in made)
    row = torch.arange(len(ids), device=ids.device)

    def taken(parts: Sequence[Tensor]) -> Tensor:
        wide = [F.pad(part, (0, width - part.shape[1])) for part in parts]
        return torch.stack(wide)[which, row]

    there = taken([each.mask for each in made])
    longest = int(there.sum(1).max()) if len(ids) else width
    order = closing_order(there)[:, :longest]
    closed = taken([each.ids for each in made]).gather(1, order)
    inside = there.gather(1, order)
    answer = taken([each.answer for each in made]).gather(1, order)
    return Prompts(closed.masked_fill(~inside, special.padding), inside, answer.long().argmax(1))


def _of_template(
    template: Template,
    ids: Tensor,
    mask: Tensor,
    asked: int,
    demonstrations: Sequence[tuple[Tensor, Tensor, int]],
    room: int | None,
    special: SpecialTokens,
) -> _Columns:
    parts = [_filled(template, ids, mask, asked, room)]
    for shown, there, answer in demonstrations:
        part = _filled(template, shown, there, answer, room)
        parts.append(_Columns(part.ids, part.mask, torch.zeros_like(part.answer)))
    if special.first is not None:
        parts.insert(0, _fixed(special.first, ids))
    if special.last is not None:
        parts.append(_fixed(special.last, ids))
    return _Columns.joined(parts)


def _filled(template: Template, ids: Tensor, mask: Tensor, answer: int, room: int | None) -> _Columns:
    mask = mask.bool()
    if room is not None:
        mask = mask & (mask.cumsum(1) <= room)
    columns = []
    for piece in template.pieces:
        if piece == "text":
            columns.append(_Columns(ids, mask, torch.zeros_like(mask)))
        elif piece == "answer":
            columns.append(_fixed(answer, ids, answer=True))
        else:
            columns.append(_fixed(piece, ids))
    return _Columns.joined(columns)


def _fixed(token: int, like: Tensor, *, answer: bool = False) -> _Columns:
    one = torch.ones(len(like), 1, dtype=torch.bool, device=like.device)
    return _Columns(like.new_full((len(like), 1), token), one, one if answer else ~one)
