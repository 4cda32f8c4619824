"""Momentum contrast with the hardest entries of the queue and both views as anchors (Hoang et al., 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic import ContentStyle
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.probes import knn_accuracy
from nearfar.negatives.queue import Queue
from nearfar.objectives import MoCo, MoCoDualHard, RowObjective
from nearfar.recipes import content_style
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.momentum import MomentumContrast, fill_at_random
from nearfar.training.steps import random_batches, seeded, train_steps

ACCURACY = "kNN accuracy"
QUEUE, HARDEST, TEMPERATURE = 1024, 128, 0.2


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """The hardest eighth of the queue, in one and in both directions, beside the whole queue."""
    world = ContentStyle(50, spread=0.15, style=1.0, seed=seed)
    steps = at(scale, smoke=3, quick=500, full=1500)
    arms: dict[str, RowObjective] = {
        "MoCo": MoCo(temperature=TEMPERATURE),
        "hardest": MoCoDualHard("query", hardest=HARDEST, temperature=TEMPERATURE),
        "symmetric, hardest": MoCoDualHard("symmetric", hardest=HARDEST, temperature=TEMPERATURE),
    }
    if sabotage:  # the gradient-free key as the anchor
        arms = {"symmetric, hardest": MoCoDualHard("dual", hardest=HARDEST, temperature=TEMPERATURE)}
    return {name: {ACCURACY: trained(world, seed, steps, objective)} for name, objective in arms.items()}


def trained(world: ContentStyle, seed: int, steps: int, objective: RowObjective) -> float:
    """The accuracy of an encoder trained by momentum contrast."""
    with seeded(2_000_003 + seed) as generator:
        encoder = Perceptron(content_style.WIDTHS)
        queue = fill_at_random(Queue(QUEUE, content_style.WIDTHS[-1]))
        contrast = MomentumContrast(encoder, objective, queue, momentum=0.99)

        def loss(index: Tensor) -> Tensor:
            value: Tensor = contrast(*world.views(index, generator=generator))
            return value

        batches = random_batches(len(world.labels), 32, steps, generator)
        train_steps(loss, [contrast], batches, after_step=contrast.after_step)
    with torch.no_grad():
        seen, labels, fresh, truth = content_style.held_out(world, seed=seed, items=2000)
        return knn_accuracy(encoder(seen), labels, encoder(fresh), truth)


RECIPE = Recipe(
    id="moco-dual-hard",
    paper=Paper(
        "Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering",
        "Hoang et al.",
        2025,
        "2501.16360",
    ),
    claim="Momentum contrast needs only the entries of its queue that are most like the anchor, and gains when both "
    "views are anchors.",
    parts={
        "relation": "the same item's key near, far the hardest entries of the queue",
        "encoder": "MomentumCopy: keys of a slow average of the encoder",
        "score": "cosine over a temperature",
        "objective": "moco-dual-hard: InfoNCE over the hardest negatives, with the views exchanged as well",
        "procedure": "MomentumContrast: loss, step, move the copy, push the keys",
        "evaluation": "nearest neighbours on frozen features",
    },
    defaults={"mode": "symmetric", "temperature": 0.07, "momentum": 0.999, "queue": 65536},
    world=content_style.text(fresh=2000)
    + " Fifty classes of spread 0.15, view noise 0.3, style 1; Adam at 0.002, 500 steps of 32 items, a queue of 1,024 "
    "keys of which the hardest 128 count, momentum 0.99, temperature 0.2.",
    statements=[
        Statement(ACCURACY, "hardest", "MoCo", margin=-0.015, because="an eighth of the queue must not cost much"),
        Statement(ACCURACY, "symmetric, hardest", "MoCo", because="both views push; twice the encodings"),
    ],
    experiment=experiment,
    sabotage="the key, which has no gradient, is the second anchor (mode 'dual'): its negatives then push nothing",
    not_asserted="That hardness as such is the gain: where classes are few (3 of spread 0.5) the hardest entries are "
    "mostly of the anchor's own class, and a trial with two seeds lost 1 to 2 points to random ones. The mode that the "
    "abstract's words describe literally, 'dual', trains badly and is the sabotage here; 'symmetric' encodes twice as "
    "much per step as MoCo does. The figures on CIFAR were not seen.",
    verified="an interpretation of the abstract, as neither formulas nor code were at hand; that it is MoCo with all "
    "entries and one direction is a test",
    weak=True,
    build=MoCoDualHard,
)
