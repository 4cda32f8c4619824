"""The experiment that recipes on sentences share: a tiny encoder trained on sentences of a
:class:`~nearfar.data.synthetic.SlotGrammar`, judged by whether it finds alike what says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.data.synthetic import SlotGrammar
from nearfar.diagnostics import uniformity
from nearfar.encoders.heads import Pooler
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.evaluation.order import rank_correlation
from nearfar.objectives import InfoNCE
from nearfar.training.steps import random_batches, seeded, train_steps

SENTENCES = 4000
"""That are trained on."""

HELD_OUT = 2000
"""Fresh pairs a rank correlation is taken of, fresh sentences a uniformity."""

TEMPERATURE = 0.05
"""SimCSE's, and that of its family."""

WORLD = (
    "Sentences say a concept in each of four slots (12 concepts, each with three synonyms) among 2 to 10 function "
    "words that follow Zipf's law, in random order; word vectors in 64 dimensions have a large part in common."
)
"""What the world is, for :attr:`nearfar.recipes.Recipe.world`; what else an experiment does is :func:`text`."""

# one seed gives world, training sentences, weights, batches and held-out sentences, each of a stream of its own: a
# generator that starts where another did would make them functions of each other
_HELD_OUT, _TRAINING, _BATCHES, _START, _SENTENCES, _HEAD = (
    1_000_003,
    2_000_003,
    3_000_017,
    4_000_037,
    5_000_011,
    6_000_011,
)


def text(*, layers: int = 1, steps: int = 300, batch_size: int = 64, learning_rate: float = 1e-3) -> str:
    """The world, the encoder, its training and how it is judged, for :attr:`nearfar.recipes.Recipe.world`."""
    encoder = "a trainable table of word vectors with dropout"
    if layers:
        encoder += f", {'one pre-norm transformer layer' if layers == 1 else f'{layers} pre-norm transformer layers'}"
    return (
        f"{WORLD} The encoder, {encoder} and the mean over tokens, starts from the word vectors and is trained on "
        f"{SENTENCES:,} sentences: AdamW at {learning_rate:g}, {steps} steps of {batch_size}; heads are dropped after "
        f"training. Spearman: of the cosine and the number of slots with the same concept, over {HELD_OUT:,} fresh "
        "pairs, all numbers equally frequent."
    )


def stream(seed: int) -> torch.Generator:
    """For the training sentences of ``seed``: concepts, words, everything drawn before training."""
    return torch.Generator().manual_seed(_SENTENCES + seed)


def start(
    grammar: SlotGrammar, *, seed: int, layers: int = 1, dropout: float = 0.1, **options: Any
) -> TokenTransformer:
    """An encoder that starts from the grammar's word vectors; the same weights for the same seed.

    ``options`` go to :class:`~nearfar.encoders.token_transformer.TokenTransformer`.
    """
    with seeded(_START + seed):
        return TokenTransformer(
            grammar.vocabulary,
            grammar.dimension,
            layers=layers,
            dropout=dropout,
            vectors=grammar.vectors,
            special=grammar.special,
            **options,
        ).eval()


def train(
    loss: Callable[[Tensor], Tensor],
    parts: Sequence[nn.Module],
    *,
    items: int,
    seed: int,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    **options: Any,
) -> list[float]:
    """Minimise ``loss(index [b])`` over batches of ``items`` in the parameters of ``parts`` by AdamW; the losses.

    Batches are drawn from ``seed`` alone, and what torch draws meanwhile (dropout) begins from ``seed`` too.
    ``options`` go to :func:`~nearfar.training.steps.train_steps` (``after_step``, ``weight_decay``).
    """
    batches = random_batches(items, batch_size, steps, torch.Generator().manual_seed(_BATCHES + seed))
    with seeded(_TRAINING + seed):
        return train_steps(loss, parts, batches, optimizer="adamw", learning_rate=learning_rate, **options)


Views = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
"""``views(encoder, ids [n, L])``: two embeddings ``[n, d]`` of each sentence."""


def twice(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings ``[n, d]`` of the same sentences ``ids [n, L]`` by two dropout masks, in one pass."""
    first, second = encoder(ids.repeat(2, 1)).chunk(2)
    return first, second


def simcse(
    encoder: TokenTransformer, ids: Tensor, *, seed: int, views: Views = twice, **options: Any
) -> TokenTransformer:
    """``encoder`` after unsupervised SimCSE on the sentences ``ids``, the baseline of its family: InfoNCE at a
    temperature of 0.05 of two views behind a dense layer and tanh. ``options`` as of :func:`train`."""
    objective = InfoNCE(temperature=TEMPERATURE)
    head = pooler(encoder.dimension, seed=seed)

    def loss(index: Tensor) -> Tensor:
        cost: Tensor = objective(*(head(view) for view in views(encoder, ids[index])))
        return cost

    train(loss, [encoder, head], items=len(ids), seed=seed, **options)
    return encoder


def pooler(dimension: int, *, seed: int) -> Pooler:
    """The head of SimCSE; the same weights for the same seed."""
    with seeded(_HEAD + seed):
        return Pooler(dimension)


@torch.no_grad()
def spearman(
    encoder: Callable[[Tensor], Tensor],
    grammar: SlotGrammar,
    *,
    seed: int,
    pairs: int = HELD_OUT,
    **sentence_options: Any,
) -> float:
    """The rank correlation, in [-1, 1], of the cosine of two fresh sentences and in how many slots they are alike."""
    drawn = grammar.pairs(pairs, generator=torch.Generator().manual_seed(_HELD_OUT + seed), **sentence_options)
    one, other = (encoder(ids) for ids in drawn[:2])
    return rank_correlation(torch.cosine_similarity(one, other), drawn[2])


@torch.no_grad()
def uniformity_of(
    encoder: Callable[[Tensor], Tensor], grammar: SlotGrammar, *, seed: int, items: int = HELD_OUT
) -> float:
    """The :func:`~nearfar.diagnostics.uniformity` of fresh sentences' embeddings."""
    generator = torch.Generator().manual_seed(_HELD_OUT + seed)
    return uniformity(encoder(grammar.sentences(grammar.draw(items, generator=generator), generator=generator)))
