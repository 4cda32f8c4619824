"""MV-DHEL (Koromilas et al., 2025): all pairs of views aligned in one sum, uniformity within each view alone."""

from __future__ import annotations

import torch

from nearfar.data.synthetic import ContentStyle
from nearfar.diagnostics import effective_rank
from nearfar.objectives import MVDHEL, MVInfoNCE, RowObjective
from nearfar.recipes import content_style
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

RANK = "effective rank"
ACCURACY = "kNN accuracy"
TWO, FIVE, COUPLED = "MV-DHEL of 2 views", "MV-DHEL of 5 views", "MV-InfoNCE of 5 views"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """MV-DHEL of two and of five views beside MV-InfoNCE of five, from the same start on the same items."""
    world = ContentStyle(items=1000, seed=seed)
    steps = at(scale, smoke=2, quick=400, full=1500)

    def measured(objective: RowObjective, count: int, negatives: str = "all") -> dict[str, float]:
        loss = content_style.of_items(objective, count, negatives=negatives)
        encoder = content_style.train_encoder(world, loss, seed=seed, steps=steps, views=count)
        with torch.no_grad():
            fresh = encoder(content_style.held_out(world, seed=seed)[2])
        return {
            RANK: effective_rank(torch.nn.functional.normalize(fresh)),
            ACCURACY: content_style.class_accuracy(encoder, world, seed=seed),
        }

    if sabotage:  # the energies of the views are added up, not multiplied
        return {FIVE: measured(MVInfoNCE(temperature=0.2), 5, "same-view")}
    return {
        TWO: measured(MVDHEL(temperature=0.2), 2),
        FIVE: measured(MVDHEL(temperature=0.2), 5),
        COUPLED: measured(MVInfoNCE(temperature=0.2), 5),
    }


RECIPE = Recipe(
    id="mv-dhel",
    paper=Paper("A Principled Framework for Multi-View Contrastive Learning", "Koromilas et al.", 2025, "2507.06979"),
    claim="With five or more views, keeping uniformity within each view and apart from alignment uses nearly all "
    "dimensions of the embedding, which contrast with the other views' negatives does not.",
    parts={
        "relation": "all views of an item near one another; far are the other items in the same view",
        "views": "any number, five here",
        "score": "cosine over a temperature",
        "objective": "mv-dhel: the logarithm of the sum over pairs of views, against the product of each view's energy",
        "evaluation": "effective rank of the embeddings: exp of the entropy of their singular values",
    },
    defaults={"temperature": 0.5, "batch_size": 256},
    world=content_style.text(seen="the training items")
    + " Here 1,000 training items of ten classes; spread and view noise 0.3, style 1.5; temperature 0.2; Adam at "
    "0.002, 400 steps of 64 items. The embedding has 16 dimensions; its effective rank is that of the 5,000 fresh "
    "items, each of length 1.",
    statements=[
        Statement(RANK, FIVE, 15.0, because="nearly all of 16; a trial with two seeds gave 15.9"),
        Statement(RANK, FIVE, COUPLED, margin=4.0, because="above 15 against below 11; a trial gave 15.9 against 10.1"),
        Statement(RANK, FIVE, TWO, because="the more views, the more dimensions: a trial gave 15.9 against 14.8"),
    ],
    experiment=experiment,
    sabotage="one logarithm of the sum of all views' energies in place of the logarithm of their product",
    not_asserted="The paper's gain in accuracy (CIFAR-100, linear, four views: 61.1 to 62.7) is not asserted. Half of "
    "this world's input is style that says nothing of the class, and an embedding of full rank keeps it: a trial gave "
    "a kNN accuracy of 0.57 against 0.65 of MV-InfoNCE. The accuracies are measured and shown all the same.",
    verified="formula read in the official code (its README lacks a sign and counts other pairs); recorded numbers of "
    "the official class are matched by the tests",
    build=MVDHEL,
)
