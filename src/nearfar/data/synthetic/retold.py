"""Texts that say the same thing several times, in one of two orders: a text that keeps its meaning when words go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.data.synthetic.slot_grammar import PADDING, SlotGrammar

_FUNCTION = (1, 3)


class RetoldTexts(SlotGrammar):
    """Texts of some sentences of a :class:`SlotGrammar` that all say the same concepts, by synonyms drawn for each.

    The order of the words carries one bit: in a forward text all words of concepts come first and all function words
    after them, in a backward one it is the other way round; among themselves words are in random order. Each sentence
    has 1 to 3 function words.

    Arguments: ``sentences_of_text``: how many, default 3; the others as of :class:`SlotGrammar`. ``length``: of rows.
    """

    def __init__(self, sentences_of_text: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.sentences_of_text = sentences_of_text
        self.length = sentences_of_text * (self.slots + _FUNCTION[1])

    def texts(self, concepts: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Texts ``[n, length]`` (int64 ids) that say ``concepts [n, slots]``, padded with 0 on the right, and which of
        them are backward ``[n]`` (int64, 0 or 1, equally likely)."""
        said = [
            self.sentences(concepts, generator=generator, function=_FUNCTION, length=self.slots + _FUNCTION[1])
            for _ in range(self.sentences_of_text)
        ]
        ids = torch.cat(said, 1)
        backward = torch.rand(len(ids), 1, generator=generator) < 0.5
        later = (self.slot[ids] < 0) ^ backward
        place = torch.where(later, 1, 0).masked_fill(ids == PADDING, 2) + torch.rand(ids.shape, generator=generator)
        return ids.gather(1, place.argsort(1)), backward[:, 0].long()

    def text_pairs(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """n pairs of texts and their similarity: ids ``[n, length]``, ids ``[n, length]``, and in how many slots the
        two say the same ``[n]``, drawn uniformly from 0 to all."""
        one, other, overlap = self.pairs(n, generator=generator)
        sides = [self.texts(self.concepts_of(ids), generator=generator)[0] for ids in (one, other)]
        return sides[0], sides[1], overlap

    def concepts_of(self, ids: Tensor) -> Tensor:
        """What sentences or texts ``ids [n, L]`` say, ``[n, slots]``."""
        slot = self.slot[ids]
        found = torch.zeros(len(ids), self.slots + 1, dtype=torch.long)
        found.scatter_(1, torch.where(slot < 0, self.slots, slot), self.concept[ids])
        return found[:, :-1]
