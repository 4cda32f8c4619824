"""Paragraphs whose state drifts from sentence to sentence, and conjunctions that follow a rule of how."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError

TIME, CONTRAST, ADDITION = range(3)
"""Kinds of conjunctions: the stage jumps; the polarity changes; neither."""


@dataclass(frozen=True)
class Paragraphs:
    """Sentences in their order: ``words [n, w]`` (int64); ``document [n]``; the state of each, ``topic``, ``stage`` and
    ``polarity [n]``; ``conjunction [n]``: the kind that joins it to the one before, -1 for the first of a paragraph."""

    words: Tensor
    document: Tensor
    topic: Tensor
    stage: Tensor
    polarity: Tensor
    conjunction: Tensor

    def __len__(self) -> int:
        return len(self.words)


class DriftingParagraphs:
    """Paragraphs of sentences about a topic, in stages that go on, and of a polarity that changes now and then.

    A paragraph has one topic. Its first sentence is at stage 0; each of the following is one stage on, or two ("a
    jump", with the probability ``jump``), until the last stage is passed. The polarity changes from a sentence to the
    next with the probability ``flip``. The conjunction between the two is that of time where the stage jumps, else
    that of contrast where the polarity changes, else that of addition; it is not among the words.

    A sentence has ``each`` words of its topic's, of its stage's, of its polarity's and of ``common`` ones that all
    share, drawn uniformly with repetition out of ``words`` of each kind.

    Arguments: as above; ``topics``, ``stages``: how many. Raises UsageError for sizes below 1 (stages: 2) and
    probabilities outside [0, 1].
    """

    def __init__(
        self,
        topics: int = 8,
        stages: int = 10,
        *,
        words: int = 8,
        common: int = 20,
        each: int = 3,
        jump: float = 0.3,
        flip: float = 0.5,
    ) -> None:
        if min(topics, stages - 1, words, common, each) < 1 or not 0 <= jump <= 1 or not 0 <= flip <= 1:
            raise UsageError("sizes must be at least 1, stages 2, jump and flip in [0, 1]")
        self.topics, self.stages, self.words, self.common, self.each = topics, stages, words, common, each
        self.jump, self.flip = jump, flip
        self.vocabulary = (topics + stages + 2) * words + common

    def draw(self, paragraphs: int, *, generator: torch.Generator) -> Paragraphs:
        """``paragraphs`` paragraphs one after the other."""
        shape = (paragraphs, self.stages)  # no paragraph has more sentences than there are stages
        jumps = torch.rand(shape, generator=generator) < self.jump
        flips = torch.rand(shape, generator=generator) < self.flip
        stage = torch.cat([torch.zeros(paragraphs, 1, dtype=torch.long), (1 + jumps.long()).cumsum(1)[:, :-1]], 1)
        there = stage < self.stages
        polarity = (torch.randint(2, (paragraphs, 1), generator=generator) + flips.long().cumsum(1)) % 2
        topic = torch.randint(self.topics, (paragraphs, 1), generator=generator).expand(shape)
        conjunction = torch.full(shape, -1)
        # what leads from a sentence to the next: the jump before it, the flip before it
        kind = torch.where(jumps[:, :-1], TIME, torch.where(flips[:, 1:], CONTRAST, ADDITION))
        conjunction[:, 1:] = kind
        document = torch.arange(paragraphs)[:, None].expand(shape)
        topic, stage, polarity, conjunction, document = (
            values[there] for values in (topic, stage, polarity, conjunction, document)
        )
        group = torch.stack([topic, self.topics + stage, self.topics + self.stages + polarity], 1)
        own = torch.randint(self.words, (len(topic), 3, self.each), generator=generator) + self.words * group[..., None]
        shared = torch.randint(self.common, (len(topic), self.each), generator=generator)
        words = torch.cat([own.flatten(1), shared + self.vocabulary - self.common], 1)
        return Paragraphs(words, document, topic, stage, polarity, conjunction)
