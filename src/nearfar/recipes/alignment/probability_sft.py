"""Probability-based fine-tuning (Li et al., 2025): how far to trust a likelihood depends on what the model knows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from nearfar.data.synthetic.noisy_digits import NoisyDigits
from nearfar.encoders.perceptron import Perceptron
from nearfar.objectives import ProbabilitySFT
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import random_batches, seeded, train_steps

STRONG, WEAK = "accuracy after a strong start", "accuracy after a weak start"
LIKELIHOOD, PROBABILITY, TENTH, UNLIKELY = "-log p", "1 - p", "(1 - p^10) / 10", "-log p where p <= 0.1"
KNOWN, BATCH, RATE, NOISE = 500, 64, 1e-3, 0.4


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Costs of the probability beside the likelihood, after right labels (then noise) and wrong ones (then right)."""
    digits = NoisyDigits()
    images, labels = digits.train_images, digits.train_labels
    before, noisy, clean = at(scale, smoke=(3, 3, 3), quick=(600, 3000, 600), full=(2000, 10_000, 2000))
    with seeded(seed) as generator:
        start = Perceptron((64, 64, 10), flatten=True)
        order = torch.randperm(len(labels), generator=generator)
        spoilt = torch.rand(len(labels), generator=generator) < NOISE
        given = torch.where(spoilt, torch.randint(10, labels.shape, generator=generator), labels)
        batches = int(torch.randint(2**31, (1,), generator=generator))
    first, rest = order[:KNOWN], order[KNOWN:]

    def trained(model: Perceptron, objective: ProbabilitySFT, items: Tensor, target: Tensor, steps: int) -> Perceptron:
        model = copy.deepcopy(model)

        def loss(index: Tensor) -> Tensor:
            chosen = items[index]
            score = model(images[chosen]).log_softmax(1).gather(1, target[chosen, None])[:, 0]
            cost: Tensor = objective(score, torch.ones_like(score))
            return cost

        drawn = torch.Generator().manual_seed(batches)
        train_steps(loss, [model], random_batches(len(items), BATCH, steps, drawn), learning_rate=RATE)
        return model

    def accuracy(model: Perceptron) -> float:
        return float((model(digits.test_images).argmax(1) == digits.test_labels).float().mean())

    strong = trained(start, ProbabilitySFT(0.0), first, labels, before)
    weak = trained(start, ProbabilitySFT(0.0), first, (labels + 1) % 10, before)
    if sabotage:
        costs = {PROBABILITY: ProbabilitySFT(-1.0)}
    else:
        costs = {
            LIKELIHOOD: ProbabilitySFT(0.0),
            PROBABILITY: ProbabilitySFT(1.0),
            TENTH: ProbabilitySFT(10.0),
            UNLIKELY: ProbabilitySFT(0.0, keep="bottom"),
        }
    arms = {
        name: {
            STRONG: accuracy(trained(strong, objective, rest, given, noisy)),
            WEAK: accuracy(trained(weak, objective, rest, labels, clean)),
        }
        for name, objective in costs.items()
    }
    return arms if sabotage else {"as it begins": {STRONG: accuracy(strong), WEAK: accuracy(weak)}, **arms}


RECIPE = Recipe(
    id="probability-sft",
    paper=Paper(
        "Beyond Log Likelihood: Probability-Based Objectives for Supervised Fine-Tuning across the Model Capability "
        "Continuum",
        "Li et al.",
        2025,
        "2510.00526",
    ),
    claim="Where the model already knows the task, costs that trust its probabilities fine-tune better than the "
    "likelihood; where it does not, the likelihood is better.",
    parts={
        "relation": "demonstrations: one target token each",
        "score": "log-probability of the target",
        "objective": "probability-sft: (1 - p^alpha) / alpha, alpha 0 being -log p",
        "evaluation": "accuracy on held-out items",
    },
    defaults={"alpha": 1.0, "threshold": 0.1, "learning_rate": 5e-5, "batch_size": 256, "epochs": 1},
    world="scikit-learn's digits, 64 pixels, a perceptron 64-64-10; 1,297 training and 500 test images. The strong "
    "start has seen 500 right labels for 600 steps, and is then fine-tuned on the other 797 for 3,000 steps, where "
    "40 % of the labels are drawn at random. The weak start has seen 500 labels shifted by one, and is then "
    "fine-tuned on right ones for 600 steps. Adam at 0.001, batches of 64, which all costs share.",
    statements=[
        Statement(STRONG, PROBABILITY, LIKELIHOOD, margin=0.03, because="half of what trials had found"),
        Statement(STRONG, TENTH, LIKELIHOOD, margin=0.03, because="half of what trials had found"),
        Statement(
            STRONG, UNLIKELY, LIKELIHOOD, direction="lower", margin=0.1, because="unlikely targets are the noise"
        ),
        Statement(WEAK, LIKELIHOOD, PROBABILITY, margin=0.2, because="half of what trials had found"),
        Statement(WEAK, LIKELIHOOD, TENTH, margin=0.4, because="half of what trials had found"),
    ],
    experiment=experiment,
    sabotage="the sign of alpha slips: 1/p - 1 in the place of 1 - p",
    not_asserted="The paper's figures (Qwen2.5-Math-1.5B, mean of five mathematics sets: 17.0 with -log p, 32.8 with "
    "-p; the order turned on figlet puzzles), the tie on medical questions between the two ends, and that fine-tuning "
    "under noise beats the strong start itself. The sabotage is caught by little: its model hardly leaves its start, "
    "which is better than what the likelihood makes of it (+0.042 [0.010, 0.073] for the first statement).",
    verified="formula read in the official training script; the paper's figures from notes of others",
    build=ProbabilitySFT,
)
