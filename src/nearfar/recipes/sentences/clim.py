"""CLIM (Li et al., 2021): labels of one domain carried over to another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.data.synthetic import RotatedDomains
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.domains import domain_distance
from nearfar.objectives import CLIM
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods.domains import OPTIONS, CrossDomain, triples
from nearfar.training.steps import random_batches, seeded, train_steps
from nearfar.training.text_training import TextTraining

ACCURACY, APART, SHARE = "target accuracy", "distance of domain means", "predicted share of a class, from a half"
LABELS, INFORMED, METHOD, JOINT = "labels alone", "with mutual information", "CLIM", "CLIM, negatives of both domains"

_BATCH = 32
# one seed gives items, batches and weights, each of a stream of its own
_ITEMS, _TRAINING = 1_000_003, 2_000_003


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Cross-entropy of the source, with mutual information, with contrast within domains or across them, on the same
    items and batches."""
    world = RotatedDomains()
    drawn = torch.Generator().manual_seed(_ITEMS + seed)
    source, labels = world.draw(1000, 0, generator=drawn)
    target, _ = world.draw(1000, 1, generator=drawn)
    fresh, truth = world.draw(at(scale, smoke=500, quick=5000, full=20_000), 1, generator=drawn)
    steps = at(scale, smoke=3, quick=400, full=2000)
    begins = steps // 4
    domain = torch.tensor([0] * (2 * _BATCH) + [1] * _BATCH)

    def measured(*, weight: float, information: bool, in_domain: bool = True) -> dict[str, float]:
        with seeded(_TRAINING + seed) as generator:
            body = nn.Sequential(Perceptron((20, 32, 32)), nn.ReLU())
            projection, head = Perceptron((32, 32, 32)), Perceptron((32, 32, 2))
            objective, done = CLIM(0.66, weight=weight, in_domain=in_domain, temperature=0.2), [0]

            def loss(index: Tensor) -> Tensor:
                # of the source one half has labels
                known, unknown = (torch.randint(500, (_BATCH,), generator=generator) for _ in range(2))
                items = torch.cat([source[known], source[500 + unknown], target[index]])
                noisy = items.add(torch.randn(items.shape, generator=generator), alpha=0.4)
                hidden = body(torch.cat([items, noisy]))
                logits = head(hidden)
                first, second = projection(hidden).chunk(2)
                cost: Tensor = objective(first, second, domain=domain, logits=logits[:_BATCH], labels=labels[known])
                done[0] += 1
                if information and done[0] > begins:
                    gained = objective.information(logits[_BATCH:])
                    # sabotaged: the wrong way up
                    cost = cost - gained if sabotage else cost + gained
                return cost

            train_steps(loss, [body, projection, head], random_batches(1000, _BATCH, steps, generator))
        with torch.no_grad():
            said = head(body(fresh)).argmax(1)
            apart = domain_distance(body(source), body(target))
        share = float(said.float().mean())
        return {ACCURACY: float((said == truth).float().mean()), APART: apart, SHARE: abs(share - 0.5)}

    if sabotage:
        return {
            INFORMED: measured(weight=0.0, information=True),
            METHOD: measured(weight=0.3, information=True),
        }
    return {
        LABELS: measured(weight=0.0, information=False),
        INFORMED: measured(weight=0.0, information=True),
        METHOD: measured(weight=0.3, information=True),
        JOINT: measured(weight=0.3, information=True, in_domain=False),
    }


RECIPE = Recipe(
    id="clim",
    paper=Paper(
        "Cross-Domain Sentiment Classification with Contrastive Learning and Mutual Information Maximization",
        "Li et al.",
        2021,
        "2010.16088",
    ),
    claim="Labels of one domain serve another better when unlabelled texts of both are contrasted, each domain by "
    "itself, and predictions for them are made sure of every text and varied over all.",
    parts={
        "relation": "a text and its second view near; the texts of its own domain far, those of the other left out",
        "views": "back-translations in the paper; any text view (nearfar views)",
        "head": "a projection for the contrast and a classifier, which is kept",
        "objective": "clim: cross-entropy of the labelled texts, NT-Xent of each domain, mutual information of the "
        "predictions",
        "procedure": "batches of labelled and unlabelled texts of the source and of texts of the target, equally many; "
        "each third batch without labels, the first epoch without mutual information",
        "evaluation": "accuracy on the target",
    },
    defaults={"temperature": 0.05, "threshold": 0.53, "batch_size": 24, "learning_rate": 2e-5, "epochs": 10},
    world="Two classes on either side of the origin, 1.5 away along the first axis in the source; in the target along "
    "a direction turned by 60 degrees and shifted by 1 and 2 along two other axes; noise of deviation 0.6 in R^20. "
    "1,000 items of each domain, half of the source's with labels; a second view adds noise of deviation 0.4. A "
    "perceptron 20-32-32 with heads of one hidden layer, 400 steps of 32 items of each kind, Adam at 0.002; mutual "
    "information from step 100 on with a threshold of 0.66, contrast with a weight of 0.3 and a temperature of 0.2. "
    "Judged on 5,000 fresh items of the target; the distance of domain means is in standard deviations of a dimension.",
    statements=[
        Statement(ACCURACY, INFORMED, LABELS, margin=0.05, because="half of the gain in trials: 0.842 to 0.951"),
        Statement(ACCURACY, METHOD, INFORMED, margin=-0.02, because="not worse; trials: 0.951 and 0.954"),
        Statement(
            APART, METHOD, JOINT, "lower", margin=0.3, because="half of the smallest gap in trials of five seeds"
        ),
        Statement(SHARE, METHOD, 0.05, "lower", because="both classes are equally frequent"),
    ],
    experiment=experiment,
    sabotage="the mutual information with the wrong sign, so that it is made small",
    not_asserted="What mutual information gains over labels alone is 0.078 here (0.044 to 0.111), in every seed, but "
    "not surely beyond the margin of 0.05, which was set from trials. That negatives of the other domain cost "
    "accuracy: in trials they did not (0.960), though they drive the domains apart. That predictions collapse without "
    "the entropy of their mean: after 100 steps of labels they did not on classes of equal size. The paper's "
    "accuracies (Amazon reviews, airlines) need BERT and back-translations. On a user's texts the heads, which start "
    "from nothing, learn at 0.001, where the paper has 0.00002 for everything.",
    verified="losses, batches and schedule read in the official code; recorded numbers of it are matched by the tests; "
    "the paper's figures were not at hand",
    build=CLIM,
    training=TextTraining(
        CrossDomain,
        shapes={
            "domains": "labels of the source for a classifier; each text against its second view among its domain; "
            "predictions for unlabelled texts sure and varied"
        },
        options=OPTIONS,
        settings={
            "batch_size": 24,
            "learning_rate": 2e-5,
            "epochs": 10.0,
            "weight_decay": 0.01,
            "max_length": 256,
        },
        batches=triples,
    ),
)
