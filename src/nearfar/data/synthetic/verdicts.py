"""Sentences with a class, and verdicts on them: what a masked LM can learn from much text and be asked for later."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.data.synthetic.slot_grammar import PADDING, SlotGrammar
from nearfar.errors import UsageError
from nearfar.views.text.templates import Piece


class Verdicts(SlotGrammar):
    """Sentences of a :class:`SlotGrammar` without their last slot, whose words are verdicts instead.

    The class of a sentence is its concept in the first slot modulo ``classes``, so that some concepts, each with some
    synonyms, are of one class. A verdict is one of the synonyms of the last slot's concept that has the number of the
    class; ``answers [classes]`` are the first of them.

    A corpus need not tell the verdicts on everything: those on concepts of the first slot from ``known`` on are of any
    class.

    ``frames``: four templates around a sentence and its verdict, made of rare function words
    (:class:`~nearfar.views.text.templates.Template`). Arguments: ``classes``, default 4; ``known``, default 8; the
    others as of :class:`SlotGrammar`. Raises UsageError for fewer than three slots, more classes than concepts or too
    few function words.
    """

    def __init__(self, classes: int = 4, known: int = 8, **options: Any) -> None:
        super().__init__(**options)
        if self.slots < 3 or not 2 <= classes <= self.concepts or self.function_words < 20:
            raise UsageError(
                "verdicts need three slots, two classes at least and at most as many as concepts, and 20 function words"
            )
        self.classes, self.known = classes, known
        self.answers = self._verdict(torch.arange(classes), torch.zeros(classes, dtype=torch.long))
        rare = self.vocabulary - 10
        self.frames: list[tuple[Piece, ...]] = [
            ("text", rare, rare + 1, "answer"),
            ("text", rare + 2, "answer", rare + 3),
            (rare + 4, "answer", "text"),
            ("text", rare + 5, rare + 6, "answer", rare + 7),
        ]

    def labels(self, concepts: Tensor) -> Tensor:
        """The classes ``[n]`` of sentences that say ``concepts [n, slots]``."""
        return concepts[:, 0] % self.classes

    def opinions(self, concepts: Tensor, *, generator: torch.Generator, function: tuple[int, int] = (2, 6)) -> Tensor:
        """Sentences ``[n, L]`` (int64 ids) that say ``concepts [n, slots]`` but for the last slot; 0 where there is no
        word, which may be between others."""
        ids = self.sentences(concepts, generator=generator, function=function, length=self.slots + function[1])
        return torch.where(self.slot[ids] == self.slots - 1, PADDING, ids)

    def verdicts(self, concepts: Tensor, *, certainty: float, generator: torch.Generator) -> Tensor:
        """A verdict ``[n]`` (a word's id) on sentences that say ``concepts [n, slots]``: for concepts that are known,
        with probability ``certainty``, that of the class, else that of any class; a random synonym."""
        n = len(concepts)
        sure = (torch.rand(n, generator=generator) < certainty) & (concepts[:, 0] < self.known)
        other = torch.randint(self.classes, (n,), generator=generator)
        synonym = torch.randint(self.synonyms, (n,), generator=generator)
        return self._verdict(torch.where(sure, self.labels(concepts), other), synonym)

    def _verdict(self, concept: Tensor, synonym: Tensor) -> Tensor:
        every = (each[:, None].expand(-1, self.slots) for each in (concept, synonym))
        return self.word(*every)[:, -1]
