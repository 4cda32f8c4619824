"""Sentences about topics: strings of words of one topic among words that mean nothing, said or denied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.errors import UsageError

PADDING, NOT = 0, "not"


class Sentences(NamedTuple):
    """``texts``, the topic of each ``[n]`` (int64), and whether it is denied, ``[n]`` (bool)."""

    texts: list[str]
    topic: Tensor
    denied: Tensor


class TopicGrammar:
    """Sentences of a topic's words, in one of their synonyms, and function words, in random order; some hold "not".

    Every topic has ``concepts`` concepts of ``synonyms`` words each, all words by themselves, and a name, which
    sentences hold only where they are asked to. Function words belong to all topics. All are drawn uniformly.

    Arguments: ``topics``, ``concepts``, ``synonyms``: at least 1; ``function_words``: how many there are, at least 1.

    ``words``: all words, whose number in the list is their id; 0 is padding (""), 1 is "not", then come names, topic
    words, function words. Raises UsageError for sizes below 1.
    """

    def __init__(self, *, topics: int = 8, concepts: int = 12, synonyms: int = 2, function_words: int = 20) -> None:
        if min(topics, concepts, synonyms, function_words) < 1:
            raise UsageError("topics, concepts, synonyms and function words must be at least 1")
        self.topics, self.concepts, self.synonyms = topics, concepts, synonyms
        self.names = [f"topic{topic}" for topic in range(topics)]
        self.topic_words = [
            [[f"w{topic}x{concept}x{synonym}" for synonym in range(synonyms)] for concept in range(concepts)]
            for topic in range(topics)
        ]
        self.function_words = [f"f{number}" for number in range(function_words)]
        of_topics = [word for topic in self.topic_words for concept in topic for word in concept]
        self.words = ["", NOT, *self.names, *of_topics, *self.function_words]
        self._ids = {word: number for number, word in enumerate(self.words)}

    @property
    def thesaurus(self) -> dict[str, list[str]]:
        """For each topic word its synonyms."""
        return {
            word: [other for other in concept if other != word]
            for topic in self.topic_words
            for concept in topic
            for word in concept
        }

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator,
        content: int = 6,
        function: int = 4,
        denied: float = 0.0,
        named: float = 0.0,
    ) -> Sentences:
        """n sentences.

        Arguments: ``content``: topic words in each, of concepts that may come again; ``function``: function words;
        ``denied``: each sentence's probability of holding "not"; ``named``: of ending with its topic's name.
        """
        topic = torch.randint(self.topics, (n,), generator=generator)
        concept = torch.randint(self.concepts, (n, content), generator=generator).tolist()
        synonym = torch.randint(self.synonyms, (n, content), generator=generator).tolist()
        filler = torch.randint(len(self.function_words), (n, function), generator=generator).tolist()
        order = torch.rand(n, content + function + 1, generator=generator)
        no, name = (torch.rand(2, n, generator=generator) < torch.tensor([[denied], [named]])).unbind()
        texts = []
        for row, of_row in enumerate(topic.tolist()):
            words = [self.topic_words[of_row][c][s] for c, s in zip(concept[row], synonym[row], strict=True)]
            words += [self.function_words[f] for f in filler[row]] + [NOT]
            places = [place for place in order[row].argsort().tolist() if place < len(words) - 1 or bool(no[row])]
            said = [words[place] for place in places]
            texts.append(" ".join([*said, self.names[of_row]] if bool(name[row]) else said))
        return Sentences(texts, topic, no)

    def ids(self, texts: Sequence[str], *, length: int = 16) -> Tensor:
        """The ids ``[n, length]`` of the words of ``texts``, padded with 0 on the right and cut there."""
        rows = [[self._ids[word] for word in text.split()][:length] for text in texts]
        return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows]).view(len(rows), length)

    def id_of(self, word: str) -> int:
        """The id of a word."""
        return self._ids[word]
