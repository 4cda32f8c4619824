"""Queries and documents without a word in common, and the names of topics that could join them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import UsageError


class BridgedTopics:
    """``T`` topics, each with a name "t0", "t1", ..., words of its own in queries and others in documents.

    A text has ``length`` words: all of its topic's but one, which is another topic's. Queries (words "q0", "q1", ...)
    and documents ("d0", ...) share no word, so that nothing but a name, written into both, could show that they are
    near. ``symbols``: names and words, for a tokenizer.

    Arguments: ``topics``: default 16; ``words``: of each topic and side, default 4; ``length``: default 4.
    """

    def __init__(self, topics: int = 16, *, words: int = 4, length: int = 4) -> None:
        if topics < 2 or words < 1 or length < 2:
            raise UsageError(f"at least 2 topics, 1 word and 2 words a text, got {topics}, {words} and {length}")
        self.topics, self.words, self.length = topics, words, length
        self.names = [f"t{number}" for number in range(topics)]
        count = topics * words
        self.symbols = [*self.names, *(f"q{number}" for number in range(count)), *(f"d{n}" for n in range(count))]

    def texts(self, topic: Tensor, side: str, *, generator: torch.Generator) -> list[str]:
        """A text of each ``topic [n]`` on a ``side``: "q" (query) or "d" (document)."""
        if side not in ("q", "d"):
            raise UsageError(f"side must be 'q' or 'd', got {side!r}")
        of = topic[:, None].repeat(1, self.length)
        other = (topic + 1 + torch.randint(self.topics - 1, topic.shape, generator=generator)) % self.topics
        place = torch.randint(self.length, topic.shape, generator=generator)
        of[torch.arange(len(topic)), place] = other
        drawn = of * self.words + torch.randint(self.words, of.shape, generator=generator)
        return [" ".join(f"{side}{word}" for word in row) for row in drawn.tolist()]

    def bags(self, texts: Sequence[str]) -> Tensor:
        """How often each symbol stands in each text, ``[n, S]``."""
        numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        found = torch.zeros(len(texts), len(numbers))
        for row, text in enumerate(texts):
            for word in text.split():
                found[row, numbers[word]] += 1
        return found

    def rationales(self, topic: Tensor, *, right: float, names: int = 2, generator: torch.Generator) -> list[str]:
        """What a writer who knows little writes about texts of ``topic [n]``: ``names`` names, each that of the topic
        with the chance ``right``, else any topic's."""
        drawn = torch.randint(self.topics, (len(topic), names), generator=generator)
        known = torch.rand(drawn.shape, generator=generator) < right
        found = torch.where(known, topic[:, None], drawn)
        return [" ".join(self.names[number] for number in row) for row in found.tolist()]
