"""Running text with a hidden topic that changes now and then: neighbours are alike because their topic is."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class TopicChain:
    """Sentences of words from their topic and of words that all topics share; the topic is a sticky Markov chain.

    The topic stays with the probability ``stay`` from a sentence to the next, else it is drawn anew from all topics. A
    sentence has ``own`` words of its topic's and ``shared`` of the common ones, all drawn uniformly with repetition.
    Words alone do not say which of them belong together: that is in the order of the sentences.

    Arguments:
        topics, words, common_words: topics, words of each, words of all.
        own, shared: words of a sentence.
        stay: in [0, 1].

    Ids of words are 0 .. ``vocabulary`` - 1, those of topic k from ``k words`` on, the common ones last. Raises
    UsageError for sizes below 1 and a ``stay`` outside [0, 1].
    """

    def __init__(
        self,
        topics: int = 10,
        *,
        words: int = 30,
        common_words: int = 30,
        own: int = 6,
        shared: int = 6,
        stay: float = 0.9,
    ) -> None:
        if min(topics, words, common_words, own, shared) < 1 or not 0 <= stay <= 1:
            raise UsageError("sizes must be at least 1 and stay in [0, 1]")
        self.topics, self.words, self.common_words = topics, words, common_words
        self.own, self.shared, self.stay = own, shared, stay
        self.vocabulary = topics * words + common_words

    def draw(self, sentences: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Running text: words ``[sentences, own + shared]`` (int64) and the topics ``[sentences]``."""
        fresh = torch.randint(self.topics, (sentences,), generator=generator)
        changes = torch.rand(sentences, generator=generator) >= self.stay
        changes[:1] = True
        topics = fresh[changes][changes.cumsum(0) - 1] if sentences else fresh
        own = torch.randint(self.words, (sentences, self.own), generator=generator) + topics[:, None] * self.words
        shared = torch.randint(self.common_words, (sentences, self.shared), generator=generator)
        return torch.cat([own, shared + self.topics * self.words], 1), topics
