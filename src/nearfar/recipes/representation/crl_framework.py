"""Contrastive representation learning as a framework (Le-Khac et al., 2020): what is paired decides what is kept.

The paper's taxonomy, and what stands in each of its cells here, is :mod:`nearfar.recipes.taxonomy`.
"""

from __future__ import annotations

import torch
from torch import nn

from nearfar.contrast import normalize
from nearfar.data.synthetic import Sensors
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.probes import linear_accuracy
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.compose import compose
from nearfar.training.steps import random_batches, seeded, train_steps

CLASS, SENSOR = "class accuracy", "sensor accuracy"
PAIRS = {
    "random pairs": "random",
    "sensor pairs": "multisensory",
    "temporal pairs": "sequential",
    "transformation pairs": "transformation",
    "class pairs": "clustering",
}
JUDGED = ("untrained", "random pairs", "sensor pairs", "temporal pairs")


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """One encoder, head and objective under several relations, and untrained."""
    world = Sensors(seed=seed)
    honest = at(scale, smoke=JUDGED, quick=JUDGED, full=("untrained", *PAIRS))
    arms = ("sensor pairs",) if sabotage else honest
    return {arm: _read(_train(arm, world, seed, scale, before_head=sabotage), world, seed, scale) for arm in arms}


def _train(arm: str, world: Sensors, seed: int, scale: Scale, *, before_head: bool) -> nn.Module:
    # a stream of its own for each: generators that start alike make world, weights and batches functions of each other
    batching, pairing = (torch.Generator().manual_seed(start + seed) for start in (3_000_017, 4_000_037))
    with seeded(2_000_003 + seed):
        source = world.pairs(PAIRS.get(arm, "random"))
        method = compose(source, Perceptron((24, 64, 32)), features=32, dimension=8, temperature=0.2)
        steps = at(scale, smoke=3, quick=500, full=2000) if arm in PAIRS else 0
        batches = random_batches(len(world), 128, steps, batching)
        train_steps(lambda index: method({"index": index, "generator": pairing})[0], [method], batches)
    keys = method.keys
    return keys.encoder if before_head else nn.Sequential(keys.encoder, keys.head)


@torch.no_grad()
def _read(encoder: nn.Module, world: Sensors, seed: int, scale: Scale) -> dict[str, float]:
    drawn = torch.Generator().manual_seed(1_000_003 + seed)
    items = at(scale, smoke=200, quick=2000, full=10_000)
    (seen, classes, sensors), (fresh, true_classes, true_sensors) = (
        (normalize(encoder(measured)), labels, sensor)
        for measured, labels, sensor in (world.fresh(items, generator=drawn) for _ in range(2))
    )
    # as the score sees it: standardising would undo what training has shrunk
    return {
        CLASS: linear_accuracy(seen, classes, fresh, true_classes, standardize=False),
        SENSOR: linear_accuracy(seen, sensors, fresh, true_sensors, standardize=False),
    }


RECIPE = Recipe(
    id="crl-framework",
    paper=Paper("Contrastive Representation Learning: A Framework and Review", "Le-Khac et al.", 2020, "2010.05113"),
    claim="Every contrastive method is a source of pairs, an encoder, a head and a loss; the source of pairs decides "
    "what the embedding is invariant to and what it keeps.",
    parts={
        "relation": "pairs of two sensors, of neighbouring steps, or of no relation",
        "encoder": "end to end, shared by queries and keys",
        "head": "projection, dropped after training",
        "score": "cosine over a temperature",
        "objective": "info-nce",
        "evaluation": "a linear classifier on the metric embedding",
    },
    defaults={"temperature": 0.2},
    world="A state in R^12 is the mean of its class plus noise 0.6; its class, one of 10, stays for 10 of 2,000 steps. "
    "Two sensors measure it at every step: linear maps to R^24, an offset each, noise 0.3. A perceptron 24-64-32 with "
    "head 32-32-8 is trained by InfoNCE at temperature 0.2 for 500 steps of 128 measurements. Class and sensor are "
    "read off the metric embedding, of unit length and otherwise as it is, by logistic regression on 2,000 "
    "fresh measurements, for 2,000 others.",
    statements=[
        Statement(SENSOR, "sensor pairs", 0.6, "lower", because="guessing one of two sensors gives 0.5"),
        Statement(CLASS, "sensor pairs", 0.85, because="guessing one of ten classes gives 0.1"),
        Statement(SENSOR, "temporal pairs", 0.95, because="telling the sensors apart gives 1"),
        Statement(CLASS, "random pairs", "untrained", "lower"),
    ],
    experiment=experiment,
    sabotage="the representation before the head is read in place of the metric embedding: it still tells the sensors "
    "apart, which is why a head is there",
    not_asserted="That random pairs lose the class holds of the embedding as its distances show it: they shrink what "
    "they cannot use. A classifier on standardised features finds nearly as much of the class after random pairs as "
    "before training (0.50 against 0.54 on average over five seeds), so "
    "nothing is said of what could be recovered. Pairs by transformation and by class are measured at full scale and "
    "not judged. That the taxonomy is a partition and that every combination of its cells trains are tests, not "
    "statistics.",
    verified="definitions and kinds of heads agree with two published summaries of the paper; the experiment is ours, "
    "the paper has none",
)
