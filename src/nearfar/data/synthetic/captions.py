"""Images and their captions with known truth: an image is a sum of concepts, its caption names them among others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nearfar.errors import UsageError

CONCEPTS: tuple[str, ...] = (
    *("apple", "bear", "bench", "bicycle", "bird", "boat", "book", "bottle", "bus", "camera"),
    *("cat", "chair", "child", "church", "clock", "cow", "cup", "dog", "flower", "fox"),
    *("glass", "goose", "guitar", "horse", "house", "knife", "lamp", "leaf", "mountain", "mouse"),
    *("person", "pizza", "river", "sheep", "ship", "shoe", "train", "tree", "umbrella", "wolf"),
)
"""Forty nouns, some with plurals that no rule forms."""

PLURALS = {
    "bench": "benches",
    "bus": "buses",
    "child": "children",
    "church": "churches",
    "fox": "foxes",
    "glass": "glasses",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "mouse": "mice",
    "person": "people",
    "sheep": "sheep",
    "wolf": "wolves",
}

FILLERS: tuple[str, ...] = (
    *("a", "the", "some", "one", "of", "in", "on", "near", "with", "and", "at", "by", "under", "over", "this", "that"),
    *("very", "beautiful", "old", "small", "big", "red", "blue", "early", "late", "quietly", "photo", "picture"),
    *("view", "seen", "taken", "here", "there"),
)


class CaptionedImages:
    """Images as noisy sums of concept vectors, captions that name the concepts among filler words.

    A concept is a random unit vector in ``dimension`` dimensions; an image shows one to ``most`` of them,
    ``image = sum of concepts + noise N(0, I)``; its caption names each once, in the singular or the plural, between
    filler words, in random order.

    Arguments:
        items: how many images.
        concepts: how many, at most 40 (:data:`CONCEPTS`).
        dimension, noise: of an image.
        most: concepts an image shows at most.
        seed: of everything random here.

    ``images [items, dimension]``, ``captions`` and ``shown [items, concepts]`` (0 or 1) belong together; ``nouns`` are
    the names of the concepts.
    """

    def __init__(
        self,
        items: int = 4096,
        concepts: int = 40,
        *,
        dimension: int = 64,
        noise: float = 0.1,
        most: int = 4,
        seed: int = 0,
    ) -> None:
        if not 1 <= most <= concepts <= len(CONCEPTS) or items < 1:
            raise UsageError(
                f"most <= concepts <= {len(CONCEPTS)} and an item are needed, got {most}, {concepts}, {items}"
            )
        self.noise, self.most = noise, most
        self.nouns = list(CONCEPTS[:concepts])
        self.generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(concepts, dimension, generator=self.generator)
        self.vectors: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
        self.shown = self.draw_shown(items)
        self.images = self.image_of(self.shown)
        self.captions = self.describe(self.shown)

    def draw_shown(self, items: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Which concepts ``[items, concepts]`` fresh images show: from one to ``most``, all equally likely."""
        drawn = self.generator if generator is None else generator
        count = torch.randint(1, self.most + 1, (items, 1), generator=drawn)
        order = torch.rand(items, len(self.nouns), generator=drawn).argsort(1).argsort(1)
        return (order < count).float()

    def image_of(self, shown: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images ``[n, dimension]`` of the concepts ``shown [n, concepts]``, with fresh noise."""
        drawn = self.generator if generator is None else generator
        clean = shown @ self.vectors
        noise = torch.randn(clean.shape, generator=drawn)
        return clean.add(noise, alpha=self.noise)

    def image_of_one(self, concept: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images ``[n, dimension]`` that show one concept each, by its number ``[n]``."""
        return self.image_of(one_hot(concept, len(self.nouns)).float(), generator=generator)

    def describe(self, shown: Tensor, *, generator: torch.Generator | None = None) -> list[str]:
        """A caption of each image."""
        drawn = self.generator if generator is None else generator
        captions = []
        for row in shown:
            named = [self._name(int(concept), drawn) for concept in row.nonzero()[:, 0]]
            fillers = torch.randint(len(FILLERS), (len(named) + 4,), generator=drawn)
            together = [*named, *(FILLERS[filler] for filler in fillers.tolist())]
            captions.append(" ".join(together[i] for i in torch.randperm(len(together), generator=drawn).tolist()))
        return captions

    def _name(self, concept: int, generator: torch.Generator) -> str:
        noun = self.nouns[concept]
        if int(torch.randint(2, (), generator=generator)):
            return PLURALS.get(noun, f"{noun}s")
        return noun


def bags_of_words(captions: list[str]) -> tuple[Tensor, list[str]]:
    """How often each caption holds each word ``[n, words]``, and the words in alphabetical order."""
    split = [caption.split() for caption in captions]
    vocabulary = sorted({word for words in split for word in words})
    number = {word: i for i, word in enumerate(vocabulary)}
    table = torch.zeros(len(captions), len(vocabulary))
    for row, words in enumerate(split):
        for word in words:
            table[row, number[word]] += 1
    return table, vocabulary
