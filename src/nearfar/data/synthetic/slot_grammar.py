"""Sentences with known meaning: one word for each slot, in one of its synonyms, among words that mean nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.encoders.states import SpecialTokens
from nearfar.errors import UsageError

PADDING, FIRST, LAST, MASK, DELETED = range(5)
"""Ids of the tokens that are no words: padding, [CLS], [SEP], [MASK], [DEL]."""

_SPECIALS = 5
_SPECIAL_SCALE = 0.1


class SlotGrammar:
    """Sentences of ids whose meaning is a concept in each of some slots.

    A sentence says one concept per slot, each by one of its synonyms, among function words that follow Zipf's law
    (``p_k`` proportional to ``1 / k``), in random order. How similar two sentences are is known: in how many slots they
    have the same concept. Synonyms, frequent words, lengths that differ and word vectors that all point the same way
    stand between an encoder and this truth, as they do between BERT and judgements of similarity.

    Word vectors ``[dimension]`` are sums of Gaussian vectors of about the lengths given: a word of a concept is the
    concept's vector (length 1) plus ``synonym_noise`` of its own, a function word is ``function_scale`` of its own, and
    to all words one vector of the length ``common`` is added.

    Arguments:
        slots, concepts, synonyms: concepts of a slot, synonyms of a concept.
        function_words: how many there are, at least 1.
        dimension: of word vectors.
        common, synonym_noise, function_scale: lengths, see above.
        seed: of the word vectors. Everything else is drawn from the generators given.

    ``vectors [vocabulary, dimension]`` (0 for padding; short random vectors for the other four special tokens); ``slot
    [vocabulary]`` and ``concept [vocabulary]`` (int64) of every word, -1 where it has none; ``special``: the special
    tokens' ids. Raises UsageError for sizes below 1 and lengths below 0.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        concepts: int = 12,
        synonyms: int = 3,
        function_words: int = 30,
        dimension: int = 64,
        common: float = 1.0,
        synonym_noise: float = 0.6,
        function_scale: float = 1.5,
        seed: int = 0,
    ) -> None:
        if min(slots, concepts, synonyms, function_words, dimension) < 1:
            raise UsageError("slots, concepts, synonyms, function words and dimension must be at least 1")
        if min(common, synonym_noise, function_scale) < 0:
            raise UsageError("common, synonym_noise and function_scale are lengths, at least 0")
        self.slots, self.concepts, self.synonyms = slots, concepts, synonyms
        self.function_words, self.dimension = function_words, dimension
        self.special = SpecialTokens(
            padding=PADDING, first=FIRST, last=LAST, mask=MASK, all=frozenset(range(_SPECIALS))
        )
        words = slots * concepts * synonyms
        self.first_function_word = _SPECIALS + words
        self.vocabulary = self.first_function_word + function_words

        number = torch.arange(slots * concepts).repeat_interleave(synonyms)
        self.slot = torch.full((self.vocabulary,), -1)
        self.concept = torch.full((self.vocabulary,), -1)
        self.slot[_SPECIALS : self.first_function_word] = number // concepts
        self.concept[_SPECIALS : self.first_function_word] = number % concepts

        generator = torch.Generator().manual_seed(seed)

        def gaussian(count: int, length: float) -> Tensor:
            return torch.randn(count, dimension, generator=generator) * (length / math.sqrt(dimension))

        everywhere = gaussian(1, common)
        of_concepts = gaussian(slots * concepts, 1.0)[number] + gaussian(words, synonym_noise)
        specials = gaussian(_SPECIALS, _SPECIAL_SCALE)
        specials[PADDING] = 0
        self.vectors = torch.cat(
            [specials, of_concepts + everywhere, gaussian(function_words, function_scale) + everywhere]
        )
        self._zipf = torch.arange(1, function_words + 1).reciprocal()

    def draw(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Concepts ``[n, slots]`` of n sentences, all equally likely."""
        return torch.randint(self.concepts, (n, self.slots), generator=generator)

    def sentences(
        self,
        concepts: Tensor,
        *,
        generator: torch.Generator,
        function: tuple[int, int] = (2, 10),
        ordered: bool = False,
        length: int = 16,
        first: bool = False,
    ) -> Tensor:
        """Sentences ``[n, length]`` (int64 ids) that say ``concepts [n, slots]``, padded with 0 on the right.

        Arguments:
            function: the least and the largest number of function words, all numbers between equally likely.
            ordered: the words of concepts stand in the order of their slots (function words between them anywhere).
            length: of the rows.
            first: each sentence begins with [CLS].

        Raises UsageError where the longest sentence does not fit.
        """
        least, most = function
        longest = self.slots + most + first
        if not 0 <= least <= most or longest > length:
            raise UsageError(
                f"sentences of {longest} tokens, {least} to {most} function words, do not fit into {length}"
            )
        n = len(concepts)
        said = self.word(concepts, torch.randint(self.synonyms, concepts.shape, generator=generator))
        filler = torch.multinomial(self._zipf, max(n * most, 1), replacement=True, generator=generator)[: n * most]
        count = torch.randint(least, most + 1, (n, 1), generator=generator)
        place = torch.rand(n, self.slots + most, generator=generator)
        if ordered:
            place[:, : self.slots] = place[:, : self.slots].sort(1).values
        unused = torch.arange(self.slots + most) >= self.slots + count
        words = torch.cat([said, filler.view(n, most) + self.first_function_word], 1)
        words = words.masked_fill(unused, PADDING).gather(1, place.masked_fill(unused, 2.0).argsort(1))
        ids = torch.full((n, length), PADDING)
        ids[:, :first] = FIRST
        ids[:, int(first) : longest] = words
        return ids

    def word(self, concepts: Tensor, synonyms: Tensor) -> Tensor:
        """The ids ``[n, slots]`` of the words for ``concepts [n, slots]`` in their synonyms number ``synonyms``."""
        return _SPECIALS + (torch.arange(self.slots) * self.concepts + concepts) * self.synonyms + synonyms

    def edited(self, concepts: Tensor, *, generator: torch.Generator) -> Tensor:
        """``concepts [n, slots]`` with another concept in exactly one slot, slot and concept drawn uniformly."""
        slot = torch.randint(self.slots, (len(concepts), 1), generator=generator)
        return self._others(concepts, torch.arange(self.slots) == slot, generator)

    def pairs(
        self,
        n: int,
        *,
        generator: torch.Generator,
        function: tuple[int, int] = (2, 10),
        ordered: bool = False,
        length: int = 16,
        first: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """n pairs of sentences and their similarity: ids ``[n, length]``, ids ``[n, length]``, and in how many slots
        the two say the same ``[n]``, drawn uniformly from 0 to all. Options as of :meth:`sentences`."""
        one = self.draw(n, generator=generator)
        overlap = torch.randint(self.slots + 1, (n,), generator=generator)
        order = torch.rand(n, self.slots, generator=generator).argsort(1)
        other = self._others(one, order >= overlap[:, None], generator)
        sides = [
            self.sentences(each, generator=generator, function=function, ordered=ordered, length=length, first=first)
            for each in (one, other)
        ]
        return sides[0], sides[1], overlap

    def synonyms_of(self, ids: Tensor, *, generator: torch.Generator) -> Tensor:
        """``ids`` with every word of a concept replaced by another synonym of it, drawn uniformly; the rest stays.

        Raises UsageError where a concept has one word only.
        """
        if self.synonyms < 2:
            raise UsageError("a concept of this grammar has one word only, so there are no synonyms")
        turn = torch.randint(1, self.synonyms, ids.shape, generator=generator)
        start = ids - (ids - _SPECIALS) % self.synonyms
        return torch.where(self.slot[ids] >= 0, start + (ids - start + turn) % self.synonyms, ids)

    def _others(self, concepts: Tensor, where: Tensor, generator: torch.Generator) -> Tensor:
        """``concepts`` with another one, drawn uniformly, ``where`` it is true."""
        if self.concepts < 2:
            raise UsageError("a slot of this grammar has one concept only, so there is no other one")
        turn = torch.randint(1, self.concepts, concepts.shape, generator=generator)
        return torch.where(where, (concepts + turn) % self.concepts, concepts)
