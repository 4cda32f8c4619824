"""SimCSE (Gao et al., 2021): a sentence and itself with other dropout, or pairs of which one entails the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.data.synthetic import SlotGrammar
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.objectives import InfoNCE
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods.dropout import SIMCSE, SimCSE
from nearfar.training.text_training import TextTraining

SPEARMAN, UNIFORMITY = "Spearman", "uniformity"
RAW, UNSUPERVISED = "as it begins", "SimCSE"
WITHOUT, USUAL, HIGH = "words, no dropout", "words, dropout 0.1", "words, dropout 0.3"
SUPERVISED, HARD = "supervised", "supervised, hard negatives"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """A transformer before and after unsupervised and supervised SimCSE; bags of words by three rates of dropout."""
    grammar = SlotGrammar(seed=seed)
    drawn = slot_grammar.stream(seed)
    concepts = grammar.draw(slot_grammar.SENTENCES, generator=drawn)
    ids, paraphrases = (grammar.sentences(concepts, generator=drawn, length=14) for _ in range(2))
    edits = grammar.sentences(grammar.edited(concepts, generator=drawn), generator=drawn, length=14)
    steps = at(scale, smoke=3, quick=300, full=1000)
    pairs = at(scale, smoke=100, quick=slot_grammar.HELD_OUT, full=10_000)

    def spearman(encoder: TokenTransformer) -> dict[str, float]:
        return {SPEARMAN: slot_grammar.spearman(encoder, grammar, seed=seed, pairs=pairs)}

    def both(encoder: TokenTransformer) -> dict[str, float]:
        return {**spearman(encoder), UNIFORMITY: slot_grammar.uniformity_of(encoder, grammar, seed=seed, items=pairs)}

    def words(dropout: float) -> dict[str, float]:
        encoder = slot_grammar.start(grammar, seed=seed, layers=0, dropout=dropout)
        views = same_view if sabotage else slot_grammar.twice
        slot_grammar.simcse(encoder, ids, seed=seed, views=views, steps=steps, learning_rate=3e-3)
        return spearman(encoder)

    def supervised(negatives: Tensor | None) -> dict[str, float]:
        encoder = slot_grammar.start(grammar, seed=seed)
        columns = torch.stack([ids, paraphrases] if negatives is None else [ids, paraphrases, negatives])
        objective, head = InfoNCE(temperature=slot_grammar.TEMPERATURE), slot_grammar.pooler(64, seed=seed)

        def loss(index: Tensor) -> Tensor:
            embedded = head(encoder(columns[:, index].flatten(0, 1)))
            cost: Tensor = objective(embedded[: len(index)], embedded[len(index) :])
            return cost

        slot_grammar.train(loss, [encoder, head], items=len(ids), seed=seed, steps=steps)
        return spearman(encoder)

    if sabotage:
        return {USUAL: words(0.1), HIGH: words(0.3)}
    encoder = slot_grammar.start(grammar, seed=seed)
    arms = {RAW: both(encoder)}
    arms[UNSUPERVISED] = both(slot_grammar.simcse(encoder, ids, seed=seed, steps=steps))
    arms |= {name: words(rate) for name, rate in ((WITHOUT, 0.0), (USUAL, 0.1), (HIGH, 0.3))}
    return {**arms, SUPERVISED: supervised(None), HARD: supervised(edits)}


def same_view(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """One pass, and so one dropout mask, for both views."""
    once = encoder(ids)
    return once, once


RECIPE = Recipe(
    id="simcse",
    paper=Paper("SimCSE: Simple Contrastive Learning of Sentence Embeddings", "Gao, Yao & Chen", 2021, "2104.08821"),
    claim="Dropout alone makes views of a sentence from which good embeddings are learnt without labels, and pairs of "
    "which one entails the other, with contradictions as hard negatives, make far better ones.",
    parts={
        "relation": "a sentence and itself; or labelled pairs, with a hard negative each",
        "views": "dropout masks",
        "head": "BERT's pooler, a dense layer and tanh; without labels it is dropped after training",
        "score": "cosine over a temperature",
        "objective": "InfoNCE in one direction: rows are anchors, columns the second views (and hard negatives)",
        "evaluation": "Spearman's correlation with judgements of similarity; alignment and uniformity",
    },
    defaults={"temperature": 0.05, "dropout": 0.1, "hard_negative_weight": 1.0, "mlm_weight": 0.1},
    world=slot_grammar.text() + " Paraphrases say the same concepts by synonyms and function words drawn anew; hard "
    "negatives are edits, with one concept of four another one. The bags of words have no transformer layer and a "
    "learning rate of 0.003, because a layer finds enough to do where dropout is 0 as well.",
    statements=[
        Statement(
            SPEARMAN, UNSUPERVISED, RAW, margin=0.15, because="trials with two seeds: 0.29 to 0.53 and 0.30 to 0.55"
        ),
        Statement(
            UNIFORMITY,
            UNSUPERVISED,
            RAW,
            "lower",
            margin=1.5,
            because="trials: -0.4 to -2.6; without dropout it is -2.1, so that the margin tells the two apart",
        ),
        Statement(SPEARMAN, USUAL, WITHOUT, because="trials: 0.343 to 0.378 and 0.355 to 0.379"),
        Statement(SPEARMAN, HIGH, USUAL, because="trials: 0.378 to 0.458 and 0.379 to 0.441"),
        Statement(SPEARMAN, SUPERVISED, 0.8, because="trials: 0.899 and 0.905"),
        Statement(SPEARMAN, HARD, SUPERVISED, because="trials: 0.899 to 0.917 and 0.905 to 0.923"),
    ],
    experiment=experiment,
    sabotage="one forward pass for both views, so that they share their dropout mask",
    not_asserted="That dropout is what teaches a transformer: with a layer, Spearman without dropout is about that "
    "with dropout 0.1 (trials: 0.53 and 0.53, 0.56 and 0.55), only uniformity is worse; hence the bags of words. The "
    "paper's rate of 0.1 is the best one on STS-B; here 0.3 is better than 0.1. The figures of the paper (BERT-base, "
    "average of seven STS tasks: 76.25 without, 81.57 with labels) need a pretrained encoder and are not asserted.",
    verified="formula, weights of hard negatives and the head read in the official code; recorded numbers of the "
    "official code are matched by the tests; the paper's figures for rates of dropout are from memory",
    build=InfoNCE,
    training=TextTraining(
        SimCSE,
        shapes={
            "texts": "each text against itself with other dropout, the other texts of the batch are far",
            "pairs": "each anchor against its positive, the others' positives and all hard negatives are far",
        },
        options=SIMCSE,
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
    ),
)
