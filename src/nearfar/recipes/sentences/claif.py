"""CLAIF (Cheng et al., 2023): the cosine of two sentences follows the score that a judge gives the pair."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic import SlotGrammar
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.objectives import CLAIF
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods.feedback import JudgedRegression
from nearfar.training.text_training import TextTraining

SPEARMAN = "Spearman"
RAW, SIMCSE, METHOD, BINARY, SHUFFLED = "as it begins", "SimCSE", "CLAIF", "scores cut in two", "scores shuffled"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Regression on a judge's scores beside SimCSE on the same sentences, on scores of 0 and 1, and on other pairs'."""
    grammar = SlotGrammar(common=3.0, seed=seed)
    drawn = slot_grammar.stream(seed)
    first, second, overlap = grammar.pairs(2000, generator=drawn)
    noise = 0.1 * torch.randn(len(overlap), generator=drawn)
    score = (overlap / grammar.slots + noise).clamp(0, 1)
    mixed = score[torch.randperm(len(score), generator=drawn)]
    steps = at(scale, smoke=3, quick=150, full=600)
    pairs = at(scale, smoke=100, quick=slot_grammar.HELD_OUT, full=10_000)

    def measured(encoder: TokenTransformer) -> dict[str, float]:
        return {SPEARMAN: slot_grammar.spearman(encoder, grammar, seed=seed, pairs=pairs)}

    def judged(grade: Tensor) -> dict[str, float]:
        encoder, objective = slot_grammar.start(grammar, seed=seed), CLAIF()

        def loss(index: Tensor) -> Tensor:
            one, other = encoder(torch.cat([first[index], second[index]])).chunk(2)
            cost: Tensor = objective(one, other, grade=grade[index])
            return cost

        slot_grammar.train(loss, [encoder], items=len(grade), seed=seed, steps=steps)
        return measured(encoder)

    if sabotage:
        return {METHOD: judged(mixed)}
    simcse = slot_grammar.simcse(slot_grammar.start(grammar, seed=seed), first, seed=seed, steps=steps)
    return {
        RAW: measured(slot_grammar.start(grammar, seed=seed)),
        SIMCSE: measured(simcse),
        METHOD: judged(score),
        BINARY: judged((score > 0.5).float()),
        SHUFFLED: judged(mixed),
    }


RECIPE = Recipe(
    id="claif",
    paper=Paper(
        "Improving Contrastive Learning of Sentence Embeddings from AI Feedback", "Cheng et al.", 2023, "2305.01918"
    ),
    claim="Fine-grained scores of an AI judge teach sentence embeddings more than contrast without labels, and "
    "more than the same scores as mere positives and negatives.",
    parts={
        "relation": "pairs with a score in [0, 1] from a judge",
        "views": "a language model fills gaps in a text, which changes it a little or a lot",
        "score": "cosine",
        "objective": "claif: the squared difference of cosine and score",
        "procedure": "scores are smoothed to 0.8 y + 0.1, random pairs have 0 (nearfar.data.judged_pairs)",
        "evaluation": "rank correlation of cosine and true similarity",
    },
    defaults={"batch_size": 32, "learning_rate": 2e-5, "epochs": 3},
    world=slot_grammar.text(steps=150)
    + " The part in common is three times as large. The judge scores 2,000 pairs: the share of slots that agree, with "
    "noise of standard deviation 0.1, cut to [0, 1]. SimCSE has the first sentence of each pair.",
    statements=[
        Statement(SPEARMAN, METHOD, SIMCSE, because="the paper's main comparison"),
        Statement(SPEARMAN, METHOD, BINARY, margin=0.02, because="half of what two seeds of a trial had found"),
        Statement(
            SPEARMAN,
            SHUFFLED,
            RAW,
            direction="lower",
            margin=-0.1,
            because="scores of other pairs leave it near its start: in a trial 0.33 and 0.24, from 0.27 and 0.31",
        ),
    ],
    experiment=experiment,
    sabotage="each pair has the score of another",
    not_asserted="The paper's figures (STS average 79.6, BERT) with a language model as writer and judge. That scores "
    "gain more than 0.02 over scores cut in two does not come out: over seeds 0 to 4 the gain was 0.018 to 0.084, in "
    "every seed above 0, and its interval includes the margin, which two seeds of a trial had given.",
    verified="loss read in the official training script; it is sentence-transformers' CosineSimilarityLoss",
    build=CLAIF,
    training=TextTraining(
        method=JudgedRegression,
        shapes={
            "scored pairs": "the cosine of the two texts is drawn to their score, which lies in [0, 1]",
            "texts": "each text with itself without some of its words, scored by the judge, and some with another text",
        },
        options={"judge": "minilm", "smooth": False},
        settings={"batch_size": 32, "learning_rate": 2e-5, "epochs": 3.0},
        cached=False,
    ),
)
