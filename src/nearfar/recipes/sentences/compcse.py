"""CompCSE (Chanchani & Huang, 2023): a sentence against the composition of the vectors of its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic import SlotGrammar
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.objectives import CompCSE
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods.dropout import COMPCSE_OPTIONS, ComposedHalves
from nearfar.training.text_training import TextTraining
from nearfar.views.text.halves import halves

SPEARMAN = "Spearman"
RAW, METHOD = "as it begins", "CompCSE"
WORDS_SIMCSE, WORDS = "words, SimCSE", "words, CompCSE"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """A transformer before and after CompCSE; bags of words after SimCSE and after CompCSE."""
    grammar = SlotGrammar(seed=seed)
    drawn = slot_grammar.stream(seed)
    ids = grammar.sentences(grammar.draw(slot_grammar.SENTENCES, generator=drawn), generator=drawn, length=14)
    steps = at(scale, smoke=3, quick=300, full=1000)
    pairs = at(scale, smoke=100, quick=slot_grammar.HELD_OUT, full=10_000)

    def spearman(encoder: TokenTransformer) -> dict[str, float]:
        return {SPEARMAN: slot_grammar.spearman(encoder, grammar, seed=seed, pairs=pairs)}

    def composed(layers: int, learning_rate: float) -> dict[str, float]:
        encoder = slot_grammar.start(grammar, seed=seed, layers=layers)
        objective = CompCSE(head=slot_grammar.pooler(grammar.dimension, seed=seed))

        def loss(index: Tensor) -> Tensor:
            whole = ids[index]
            parts = halves(whole, grammar.special)[0]
            if sabotage:
                parts = parts.roll(1, 0)
            embedded = encoder(torch.cat([whole[:, None], parts], 1).flatten(0, 1)).view(len(index), 3, -1)
            cost: Tensor = objective(embedded[:, 0], embedded[:, 1:])
            return cost

        parts = [encoder, objective]
        slot_grammar.train(loss, parts, items=len(ids), seed=seed, steps=steps, learning_rate=learning_rate)
        return spearman(encoder)

    if sabotage:
        return {WORDS: composed(0, 3e-3)}
    simcse = slot_grammar.start(grammar, seed=seed, layers=0)
    slot_grammar.simcse(simcse, ids, seed=seed, steps=steps, learning_rate=3e-3)
    return {
        RAW: spearman(slot_grammar.start(grammar, seed=seed)),
        METHOD: composed(1, 1e-3),
        WORDS_SIMCSE: spearman(simcse),
        WORDS: composed(0, 3e-3),
    }


RECIPE = Recipe(
    id="compcse",
    paper=Paper("Composition-contrastive Learning for Sentence Embeddings", "Chanchani & Huang", 2023, "2307.07380"),
    claim="A sentence contrasted with the composition of the vectors of its parts gives better embeddings than one "
    "contrasted with itself, without further parameters or data.",
    parts={
        "relation": "a sentence and the composition of its own two halves",
        "views": "halves by a cut in the middle third, each encoded alone; dropout masks",
        "head": "BERT's pooler, after the composition, dropped after training",
        "score": "cosine of the first coordinates over a temperature",
        "objective": "compcse: InfoNCE in one direction",
        "evaluation": "Spearman's correlation with judgements of similarity",
    },
    defaults={"temperature": 0.05, "compose": "avg", "width": 256},
    world=slot_grammar.text()
    + " The composition is the mean, all coordinates are contrasted. Against SimCSE it stands "
    "as a bag of words: without the transformer layer, at a learning rate of 0.003.",
    statements=[
        Statement(SPEARMAN, METHOD, RAW, margin=0.15, because="trials with two seeds: 0.29 to 0.520 and 0.30 to 0.602"),
        Statement(SPEARMAN, WORDS, WORDS_SIMCSE, because="trials: 0.394 against 0.378 and 0.406 against 0.379"),
    ],
    experiment=experiment,
    sabotage="the halves of another sentence of the batch, as where their order is lost",
    not_asserted="That it is better than SimCSE with a transformer layer (trials: 0.520 against 0.528, 0.602 against "
    "0.554). That it makes embeddings additive: the cosine of a sentence and the mean of its halves is 0.96 to 0.99 "
    "after SimCSE as well (trials). Parts by discourse trees and phrases as further anchors are not tried. The paper's "
    "figures need a pretrained encoder, and were not seen.",
    verified="formula and compositions read in the official code, recorded numbers of which are matched by the tests "
    "(its element-wise maximum fails there); the paper's variants from its abstract",
    build=CompCSE,
    training=TextTraining(
        ComposedHalves,
        shapes={"texts": "each text against the composition of its halves, the other texts' halves are far"},
        options=COMPCSE_OPTIONS,
        settings={
            "batch_size": 64,
            "epochs": 1.0,
            "learning_rate": 3e-5,
            "objective_learning_rate": 3e-5,
            "max_length": 32,
            "warmup": 0.0,
            "schedule": "linear",
        },
        needs=("transformer", "dropout"),
        cached=False,
    ),
)
