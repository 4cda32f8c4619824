"""Debiased contrastive learning (Chuang et al., 2020): the share of false negatives is taken off the denominator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.data.synthetic import ContentStyle
from nearfar.evaluation.estimates import negative_mass_error
from nearfar.objectives import Debiased
from nearfar.recipes import content_style
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

ACCURACY = "kNN accuracy"
ERROR = "error of the estimate"
NEGATIVES = (4, 256)
SHRINKS = "error that more negatives take away"
BIASED, DEBIASED = "all are negatives", "a third is not"


class ShareAdded(Debiased):
    """Debiased with a slip of the sign: the positive's share is added to the negatives' mass."""

    def of_true_negatives(self, far: Tensor, near: Tensor) -> Tensor:
        return (far + self.tau_plus * near) / (1 + self.tau_plus)


def drawn_scores(world: ContentStyle, negatives: int, anchors: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cosines ``[anchors, 1 + negatives]`` of contents of the world with a positive and others; which are true ones."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(len(world.means), (anchors, 1 + negatives), generator=generator)
    items = normalize(world.draw_content(classes, generator=generator), dim=2).double()
    positive = normalize(world.draw_content(classes[:, :1], generator=generator), dim=2).double()
    scores = torch.einsum("ad,and->an", items[:, 0], torch.cat([positive, items[:, 1:]], 1))
    return scores, classes[:, 1:] != classes[:, :1]


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Debiased with the true share of false negatives beside none, in training and in what it estimates."""
    world = ContentStyle(3, spread=0.5, seed=seed)
    steps = at(scale, smoke=3, quick=600, full=2000)
    anchors = at(scale, smoke=20, quick=2000, full=10_000)
    items = at(scale, smoke=500, quick=10_000, full=20_000)
    shares = {DEBIASED: 1 / 3} if sabotage else {BIASED: 0.0, DEBIASED: 1 / 3}

    def measured(share: float) -> dict[str, float]:
        kind = ShareAdded if sabotage else Debiased
        objective, estimator = kind(share, temperature=0.2), kind(share, temperature=0.5, reduction="none")
        encoder = content_style.train_encoder(world, content_style.of_items(objective), seed=seed, steps=steps)
        few, many = (negative_mass_error(estimator, *drawn_scores(world, count, anchors, seed)) for count in NEGATIVES)
        return {
            ACCURACY: content_style.class_accuracy(encoder, world, seed=seed, items=items),
            ERROR: many,
            SHRINKS: few - many,
        }

    return {name: measured(share) for name, share in shares.items()}


RECIPE = Recipe(
    id="debiased",
    paper=Paper("Debiased Contrastive Learning", "Chuang et al.", 2020, "2007.00224"),
    claim="Taking the expected share of false negatives off the negatives' mass estimates that of true negatives, and "
    "learns better representations than taking all for negatives does.",
    parts={
        "relation": "two views of an item near, all others of the batch far",
        "score": "cosine over a temperature",
        "objective": "debiased: (mean over negatives - tau_plus x positive) / (1 - tau_plus) in the denominator",
        "evaluation": "nearest neighbours on frozen features; the estimate against the mean over true negatives",
    },
    defaults={"tau_plus": 0.1, "temperature": 0.5, "batch_size": 256},
    world=content_style.text(fresh=10_000) + " Three classes of spread 0.5, so that a third of the "
    "negatives is false; view noise 0.3, style 1.5; temperature 0.2; Adam at 0.002, 600 steps of 64 items. The "
    "estimate needs no training: it is what the cost says of items of this world on the sphere, averaged over 2,000 "
    "anchors with 4 and with 256 negatives, temperature 0.5.",
    statements=[
        Statement(ERROR, DEBIASED, BIASED, "lower"),
        Statement(SHRINKS, DEBIASED, 0.0, because="the error of the estimate falls with the number of negatives"),
        Statement(ACCURACY, DEBIASED, BIASED, because="a trial with three seeds gave 0.772 against 0.764"),
    ],
    experiment=experiment,
    sabotage="tau_plus with its sign turned: the positive is added to the negatives' mass",
    not_asserted="The statement on accuracy did not come out. A trial with three seeds and 1,000 held-out items had "
    "found 0.772 against 0.764, ahead on each; with 10,000 the mean difference over five seeds is 0.000 (interval "
    "-0.007 to 0.006), no larger than that of the sabotage. The loss itself gives the official code's recorded numbers "
    "and the estimate is right: it is the gain that is too small for this world, in which knowing all labels (SupCon) "
    "gains 0.01. The paper's gains (CIFAR-10 91.1 to 92.1, STL-10 80.2 to 84.3) are out of reach.",
    verified="formula read in the official code; recorded numbers of the official loss are matched by the tests",
    build=Debiased,
)
