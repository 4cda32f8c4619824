"""Hydra, later SimLAP (Wu et al., 2024): items of any two classes as positives, in a subspace that a gate opens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nearfar.data.synthetic import AttributeCodes
from nearfar.diagnostics import effective_rank
from nearfar.encoders.gates import ClassPairGate
from nearfar.encoders.heads import Projection
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.class_pairs import of_class_pairs
from nearfar.evaluation.order import rank_correlation
from nearfar.negatives.partners import partner_classes
from nearfar.objectives import Hydra
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import random_batches, seeded, train_steps

LOSS = "loss of arbitrary pairs"
RANK = "effective rank"
ORDER = "rank correlation of shared attributes and minus the pair loss"
ORDER_APART = "the same over different classes alone"
GATED, OPEN = "gated", "all dimensions open"

OUTPUT, BATCH = 32, 96

Gates = Callable[[Tensor, Tensor], Tensor]


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Arbitrary pairs with the gates of their classes and with all dimensions open, on the same batches."""
    world = AttributeCodes(seed=seed)
    steps = at(scale, smoke=2, quick=400, full=1500)
    items = at(scale, smoke=200, quick=2000, full=5000)
    objective = Hydra()

    def measured(gated: bool) -> dict[str, float]:
        with seeded(1_000_003 + seed) as generator:
            model = nn.Sequential(
                Perceptron((world.dimension, 64, 64, 32)), nn.ReLU(), Projection((32, 64, OUTPUT), last="layer")
            )
            gate = ClassPairGate(len(world.codes), OUTPUT, embedding=64, hidden=128)

            def gates(labels: Tensor, partners: Tensor) -> Tensor:
                if not gated:
                    return torch.ones(len(labels), OUTPUT)
                # sabotaged: the gates of other rows' pairs
                rows = torch.randperm(len(labels)) if sabotage else slice(None)
                found: Tensor = gate(labels[rows], partners[rows])
                return found

            def loss(index: Tensor) -> Tensor:
                (view,) = world.views(index, 1, generator=generator)
                labels = world.labels[index]
                partners = partner_classes(labels, generator=generator)
                found: Tensor = objective(model(view), gate=gates(labels, partners), labels=labels, partners=partners)
                return found

            train_steps(loss, [model, gate], random_batches(len(world.labels), BATCH, steps, generator))
            fresh, labels = world.fresh(items, generator=torch.Generator().manual_seed(2_000_003 + seed))
            with torch.no_grad():
                return _measures(world, objective, model(fresh), labels, gates)

    return {GATED: measured(True)} if sabotage else {OPEN: measured(False), GATED: measured(True)}


def _measures(
    world: AttributeCodes, objective: Hydra, embeddings: Tensor, labels: Tensor, gates: Gates
) -> dict[str, float]:
    """Over batches of fresh items the loss; over all of them the rank, and the loss of each pair of classes."""

    def cost(rows: Tensor, keys: Tensor, partners: Tensor) -> float:
        one, gate = labels[rows], gates(labels[rows], partners)
        return float(
            objective(
                embeddings[rows], embeddings[keys], gate=gate, labels=one, partners=partners, key_labels=labels[keys]
            )
        )

    drawn = torch.Generator().manual_seed(0)
    losses = [
        cost(rows, rows, partner_classes(labels[rows], generator=drawn))
        for rows in random_batches(len(labels), BATCH, 20, drawn)
    ]
    everything, apart = torch.arange(len(labels)), ~torch.eye(len(world.codes), dtype=torch.bool)
    pairs = of_class_pairs(lambda rows, partners: cost(rows, everything, partners), labels, len(world.codes))
    return {
        LOSS: sum(losses) / len(losses),
        RANK: effective_rank(embeddings),
        ORDER: rank_correlation(world.shared.flatten(), -pairs.flatten()),
        ORDER_APART: rank_correlation(world.shared[apart], -pairs[apart]),
    }


RECIPE = Recipe(
    id="hydra",
    paper=Paper("Rethinking Positive Pairs in Contrastive Learning", "Wu et al.", 2024, "2410.18200"),
    claim="Items of any two classes can be positives, in a subspace that a gate selects by the two classes; the "
    "representation then uses more of its dimensions, and how well two classes can be matched says how alike they are.",
    parts={
        "relation": "items of a partner class near, drawn at will; others than the two classes far",
        "head": "projection with layer normalisation; a gate from the embeddings of the two classes",
        "score": "cosine of gated embeddings, the anchor's gate on both sides",
        "objective": "hydra: each positive against the anchor's negatives in a denominator of its own",
        "evaluation": "loss of pairs, effective rank, order of class pairs",
    },
    defaults={"temperature": 0.1, "dimension": 256, "embedding": 512, "hidden": 1024, "partners": "arbitrary"},
    world="Eight classes are the codes of three binary attributes. Each attribute has four dimensions, in which its "
    "values are opposite unit vectors with noise 0.35; twelve dimensions of style stand beside, all mixed by a random "
    "rotation. One view an item, batches of 96, Adam at 0.002, 400 steps (the trial had 1,500); perceptron "
    "24-64-64-32, projection 32-64-32, gate 64-128-32. The loss is that of batches of fresh items, the pair losses "
    "those of all 64 pairs of classes.",
    statements=[
        Statement(LOSS, GATED, OPEN, "lower", 0.5, "half of the smallest gain in a trial of two seeds"),
        Statement(RANK, GATED, OPEN),
        Statement(ORDER_APART, GATED, 0.2, because="pairs of a class with itself, which share all, left out"),
    ],
    experiment=experiment,
    sabotage="gates that belong to the pairs of other rows of the batch",
    not_asserted="The transfer results (ImageNet: arbitrary pairs as good as same-class pairs or better): linear "
    "probes of the attributes did not differ beyond noise between gated and open in a trial of two seeds. That the "
    "order of class pairs needs the gate: it shows with all dimensions open and with wrong gates as well; with pairs "
    "of a class with itself, the easiest, it is stronger and is measured beside. Gating one side "
    "alone, or with the other row's gate, trains as well; recorded numbers and formulas in the tests exclude it. The "
    "rank correlation over different classes varies from 0.13 to 0.60 with the seed, so that its interval takes in the "
    "0.2 asked for in one run of the five seeds and lies just above it in another, whose arithmetic differed in "
    "nothing but rounding.",
    verified="formula read in the official code; numbers of a transcription of it are matched by the tests; of the "
    "claims only the abstract was seen",
    weak=True,
    build=Hydra,
)
