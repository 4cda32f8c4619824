"""Views of token ids beside those of CLEAR: words masked, filled in by a language model, cropped, in another order.

As in :mod:`nearfar.views.text.token_operations` a word is a token that is no special one, and special tokens keep their
place.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.encoders.discriminator import Generator, fill_in
from nearfar.encoders.masked_language import SHARE, is_word
from nearfar.encoders.states import SpecialTokens
from nearfar.errors import ModelError
from nearfar.views.base import uniform
from nearfar.views.sequence import IdsView
from nearfar.views.text.token_operations import TokenOperation, closed_up


class MaskWords(IdsView):
    """Every word [MASK] with probability ``share``, by itself: masks and nothing else, no random words (BERT's share).

    Arguments: ``share``: a number or a range drawn for each text, default 0.15; ``special``: whose ``mask`` is put;
    ``p``: share of the sentences that are changed, default 1. Raises :class:`~nearfar.errors.ModelError` for a
    vocabulary without [MASK].
    """

    def __init__(self, share: float | tuple[float, float] = SHARE, *, special: SpecialTokens, p: float = 1.0) -> None:
        super().__init__(share, padding=special.padding, p=p)
        self.special, self.mark = special, mask_of(special)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.share
        share = uniform(len(items), 1, low=low, high=high, generator=generator)
        drawn = uniform(*items.shape, generator=generator) < share
        return items.masked_fill(is_word(items, self.special) & drawn.to(items.device), self.mark)


class MaskSpan(TokenOperation):
    """A random run of ``max(1, floor(share * words))`` words, each of them [MASK] (Mirror-BERT masks a run of
    characters: :class:`~nearfar.views.text.characters.CharacterMask`).

    Arguments: ``share``: of the words, default 0.15; ``special``, ``padding_side``, ``p``: as of
    :class:`~nearfar.views.text.token_operations.TokenOperation`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = SHARE,
        *,
        special: SpecialTokens,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, padding_side=padding_side, p=p)
        self.mark = mask_of(special)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, number, length = self.counted(items, generator)
        return items.masked_fill(in_run(words, number, length.clamp_min(1), generator), self.mark)


class CropWords(TokenOperation):
    """A random run of ``max(1, floor(share * words))`` words stays (COCO-LM; Meng et al., 2021), with all special
    tokens.

    Arguments: ``share``: of the words, default 0.9 (COCO-LM); ``special``, ``padding_side``, ``p``: as of
    :class:`~nearfar.views.text.token_operations.TokenOperation`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = 0.9,
        *,
        special: SpecialTokens,
        padding_side: Literal["right", "left"] = "right",
        p: float = 1.0,
    ) -> None:
        super().__init__(share, special=special, padding_side=padding_side, p=p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words, number, length = self.counted(items, generator)
        kept = in_run(words, number, length.clamp_min(1), generator) | (~words & (items != self.padding))
        return closed_up(items, kept, self.padding, self.padding_side)


class ShuffleWords(TokenOperation):
    """All words in random order: ConSERT's token shuffling (Yan et al., 2021).

    ConSERT permutes position ids and leaves tokens where they are. To attention the order of the rows is nothing and
    the position vector is all, so that tokens permuted among their places are the same to every encoder with absolute
    positions (its states come in the new order, its pooled embedding does not change); to one with relative positions,
    which has no position ids to permute, this is the only form. Special tokens keep their places.

    Arguments: ``special``, ``padding_side``, ``p``: as of
    :class:`~nearfar.views.text.token_operations.TokenOperation`.
    """

    def __init__(
        self, *, special: SpecialTokens, padding_side: Literal["right", "left"] = "right", p: float = 1.0
    ) -> None:
        super().__init__(1.0, special=special, padding_side=padding_side, p=p)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        words = is_word(items, self.special)
        drawn = uniform(*items.shape, generator=generator).to(items.device).masked_fill(~words, 2.0)
        order = drawn.argsort(1)  # words first, in random order
        source = order.gather(1, (words.cumsum(1) - 1).clamp_min(0))
        return torch.where(words, items.gather(1, source), items)


class LanguageModelSubstitution(IdsView):
    """Words masked and drawn anew from what a masked language model expects in their place (CBERT, Wu et al., 2019;
    COCO-LM).

    Arguments: ``model``: ``model(ids [n, L], mask [n, L]) -> logits [n, L, vocabulary]`` over the same ids, such as
    :class:`~nearfar.encoders.masked_language.MaskedLanguageModel`; ``vocabulary``: how many ids; ``share``: each word's
    probability of being masked, default 0.15; ``special``, ``p``: as of :class:`MaskWords`.
    """

    def __init__(
        self, model: Generator, share: float = SHARE, *, special: SpecialTokens, vocabulary: int, p: float = 1.0
    ) -> None:
        super().__init__(share, padding=special.padding, p=p)
        self.model, self.special, self.vocabulary = model, special, vocabulary
        mask_of(special)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        def words_alone(ids: Tensor, mask: Tensor) -> Tensor:
            logits = self.model(ids, mask)
            none = [each for each in sorted(self.special.all | {self.padding}) if each < logits.shape[-1]]
            return logits.index_fill(-1, torch.tensor(none, device=logits.device), -torch.inf)

        return fill_in(
            items,
            words_alone,
            self.special,
            vocabulary=self.vocabulary,
            share=self.share[0],
            fill="sample",
            places="masked",
            random=generator,
        ).ids


def mask_of(special: SpecialTokens) -> int:
    """The id of [MASK]; ModelError for a vocabulary without it."""
    if special.mask is None:
        raise ModelError("the vocabulary has no token for what is masked", hint="take a view that masks nothing")
    return special.mask


def in_run(words: Tensor, number: Tensor, length: Tensor, generator: torch.Generator | None) -> Tensor:
    """Which places ``[n, t]`` are in a random run of ``length [n, 1]`` of the ``words [n, t]``, numbered ``number``."""
    free = (words.sum(1, keepdim=True) - length + 1).clamp_min(1)
    drawn = uniform(len(words), 1, generator=generator).to(words.device)
    start = torch.minimum((drawn * free).long(), free - 1)
    return words & (number >= start) & (number < start + length)
