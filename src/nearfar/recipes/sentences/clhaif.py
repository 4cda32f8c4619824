"""CLHAIF (Cheng et al., 2023): supervised contrast, in which a pair counts as much as a judge finds it alike."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic import SlotGrammar
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.objectives import CLHAIF
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods.feedback import JudgedContrast
from nearfar.training.text_training import TextTraining

SPEARMAN = "Spearman"
RAW, PLAIN, METHOD, EVERYWHERE = "as it begins", "supervised SimCSE", "smooth positive", "smooth all"
CORRUPT = 0.3


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Triples of which 30 % have a positive that is only half alike, without and with what a judge says of them."""
    grammar = SlotGrammar(seed=seed)
    drawn = slot_grammar.stream(seed)
    concepts = grammar.draw(slot_grammar.SENTENCES, generator=drawn)
    corrupt = torch.rand(len(concepts), generator=drawn) < CORRUPT
    others = grammar.edited(concepts, generator=drawn)
    # in the other half another concept each: two slots agree
    half = torch.rand(concepts.shape, generator=drawn).argsort(1) < grammar.slots // 2
    turned = (concepts + torch.randint(1, grammar.concepts, concepts.shape, generator=drawn)) % grammar.concepts
    positives = torch.where(corrupt[:, None] & half, turned, concepts)
    triples = torch.stack([grammar.sentences(each, generator=drawn) for each in (concepts, positives, others)])
    grade = torch.where(corrupt, 0.5, 1.0)
    if sabotage:
        grade = grade[torch.randperm(len(grade), generator=drawn)]
    steps = at(scale, smoke=3, quick=150, full=600)
    pairs = at(scale, smoke=100, quick=slot_grammar.HELD_OUT, full=10_000)

    def measured(encoder: TokenTransformer) -> dict[str, float]:
        return {SPEARMAN: slot_grammar.spearman(encoder, grammar, seed=seed, pairs=pairs)}

    def trained(objective: CLHAIF, grades: Tensor) -> dict[str, float]:
        encoder, head = slot_grammar.start(grammar, seed=seed), slot_grammar.pooler(grammar.dimension, seed=seed)

        def loss(index: Tensor) -> Tensor:
            embedded = head(encoder(triples[:, index].flatten(0, 1)))
            cost: Tensor = objective(embedded[: len(index)], embedded[len(index) :], grade=grades[index])
            return cost

        slot_grammar.train(loss, [encoder, head], items=len(grades), seed=seed, steps=steps)
        return measured(encoder)

    temperature = slot_grammar.TEMPERATURE
    if sabotage:
        return {METHOD: trained(CLHAIF(temperature=temperature), grade)}
    return {
        RAW: measured(slot_grammar.start(grammar, seed=seed)),
        PLAIN: trained(CLHAIF(temperature=temperature), torch.ones_like(grade)),
        METHOD: trained(CLHAIF(temperature=temperature), grade),
        EVERYWHERE: trained(CLHAIF("smooth-all", temperature=temperature), grade),
    }


RECIPE = Recipe(
    id="clhaif",
    paper=Paper(
        "Improving Contrastive Learning of Sentence Embeddings from AI Feedback", "Cheng et al.", 2023, "2305.01918"
    ),
    claim="Where some labelled positives are not quite alike, a judge's scores of them better supervised contrast.",
    parts={
        "relation": "pairs with hard negatives; positives carry a judge's score in [0, 1]",
        "head": "dense and tanh, dropped after training",
        "score": "cosine over a temperature",
        "objective": "clhaif: InfoNCE with hard negatives, each row weighted by its score",
        "evaluation": "rank correlation of cosine and true similarity",
    },
    defaults={"temperature": 0.05, "form": "smooth-positive", "batch_size": 512, "learning_rate": 5e-5, "epochs": 3},
    world=slot_grammar.text(steps=150)
    + " Sentences come with a paraphrase and a hard negative that says another concept in one slot; 30 % of the "
    "paraphrases say other concepts in two slots, and the judge gives them 0.5, the others 1.",
    statements=[Statement(SPEARMAN, METHOD, PLAIN)],
    experiment=experiment,
    sabotage="each pair has the score of another",
    not_asserted="The paper's figures (STS average 82.1 against 81.6, BERT); 'smooth all', which is measured only.",
    verified="recorded numbers of the official code are matched by the tests",
    build=CLHAIF,
    training=TextTraining(
        method=JudgedContrast,
        shapes={"pairs": "each anchor against all positives and hard negatives, weighted by the judge's score"},
        options={"judge": "minilm", "form": "smooth-positive", "temperature": 0.05},
        settings={"batch_size": 512, "learning_rate": 5e-5, "epochs": 3.0},
    ),
)
