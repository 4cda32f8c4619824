"""Prompts on topics, each topic with a taste of its own, their embeddings, and answers of known quality."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError

_WORLDS = 12_000_017


class TopicAnswers:
    """``P`` prompts with ``answers`` each; what is good on one topic need not be on another.

    A prompt is of one of ``topics``. Its ``embedding [P, width]`` is that of the topic, a random unit vector, plus
    ``noise / sqrt(width) N(0, I)``: paraphrases. An answer has ``traits [P, A, F]``, ``N(0, 1)``; its ``quality
    [P, A]`` is ``taste`` times the dot product of the traits with the topic's taste (a vector of length 1) plus
    ``fluency`` times the last trait, which all topics like. ``features [P, A, (width + 1) F]``: the traits, and their
    products with each dimension of the prompt's embedding. All in float64.

    Arguments: ``opposed``: every second topic has the taste of the one before, reversed; ``world`` seeds topics and
    tastes, ``seed`` prompts and answers. Raises UsageError for fewer than 2 topics (an even number where they are
    opposed), 2 answers or 2 traits.
    """

    def __init__(
        self,
        prompts: int = 100,
        topics: int = 8,
        answers: int = 8,
        traits: int = 6,
        *,
        width: int = 16,
        noise: float = 0.5,
        taste: float = 1.5,
        fluency: float = 0.75,
        opposed: bool = False,
        world: int = 0,
        seed: int = 0,
    ) -> None:
        if prompts < 1 or topics < 2 or (opposed and topics % 2) or answers < 2 or traits < 2:
            raise UsageError("there must be a prompt, 2 topics (even where opposed), 2 answers and 2 traits at least")
        of_world = torch.Generator().manual_seed(world + _WORLDS)  # far from the seeds of prompts
        drawn = torch.Generator().manual_seed(seed)
        centres = unit(torch.randn(topics, width, generator=of_world).double())
        tastes = unit(torch.randn(topics, traits, generator=of_world).double())
        if opposed:
            tastes[1::2] = -tastes[::2]
        self.topic: Tensor = torch.randint(topics, (prompts,), generator=drawn)
        apart = torch.randn(prompts, width, generator=drawn).double() * noise / width**0.5
        self.embedding: Tensor = centres[self.topic] + apart
        self.traits: Tensor = torch.randn(prompts, answers, traits, generator=drawn).double()
        liked = (self.traits * tastes[self.topic][:, None]).sum(2)
        self.quality: Tensor = taste * liked + fluency * self.traits[..., -1]
        products = self.embedding[:, None, :, None] * self.traits[:, :, None, :]
        self.features: Tensor = torch.cat([self.traits, products.flatten(2)], dim=2)


def unit(vectors: Tensor) -> Tensor:
    """Vectors ``[n, d]`` divided by their lengths."""
    return torch.nn.functional.normalize(vectors, dim=1)
