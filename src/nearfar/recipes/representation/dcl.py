"""Decoupled contrastive learning (Yeh et al., 2022): InfoNCE without the positive in its denominator."""

from __future__ import annotations

from torch import Tensor

from nearfar.objectives import DCL, InfoNCE, RowObjective
from nearfar.recipes import content_style
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

ACCURACY = "kNN accuracy"
GAIN = "gain over NT-Xent"
BATCHES = (4, 16, 64)


class NextColumnLeftOut(InfoNCE):
    """DCL with a mask that is off by one: the positive stays in the denominator, a negative beside it leaves."""

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return super().rows(scores, positive, negative & ~positive.roll(1, 1), **state)


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """DCL beside NT-Xent at three batch sizes, from the same start on the same batches, in small steps."""
    steps = at(scale, smoke=2, quick=150, full=300)

    def accuracy(objective: RowObjective, batch_size: int) -> float:
        return content_style.accuracy_of_small_steps(objective, seed=seed, steps=steps, batch_size=batch_size)

    coupled = InfoNCE(temperature=0.1)
    decoupled = NextColumnLeftOut(temperature=0.1) if sabotage else DCL(temperature=0.1)
    found: dict[str, dict[str, float]] = {}
    for size in BATCHES:
        before, after = accuracy(coupled, size), accuracy(decoupled, size)
        if not sabotage:
            found[f"NT-Xent, B = {size}"] = {ACCURACY: before}
        found[f"DCL, B = {size}"] = {ACCURACY: after, GAIN: after - before}
    return found


RECIPE = Recipe(
    id="dcl",
    paper=Paper("Decoupled Contrastive Learning", "Yeh et al.", 2022, "2110.06848"),
    claim="Without the positive in the denominator small batches learn faster, and the gain shrinks as batches grow.",
    parts={
        "relation": "two views of an item near, all others of the batch far",
        "score": "cosine over a temperature",
        "objective": "dcl: the denominator holds the negatives alone",
        "procedure": "small batches, plain SGD with momentum",
        "evaluation": "nearest neighbours on frozen features",
    },
    defaults={"temperature": 0.1, "batch_size": 256},
    world=content_style.text()
    + " Ten classes of spread 0.3, view noise 0.1, style 0.5; temperature 0.1; SGD with momentum 0.9 and "
    "the small learning rate 3e-4 for 150 steps, at which NT-Xent is held back by the factor 1 - P(positive) of its "
    "gradient.",
    statements=[
        Statement(ACCURACY, "DCL, B = 4", "NT-Xent, B = 4", because="a trial with four seeds gave 0.694 against 0.655"),
        Statement(ACCURACY, "DCL, B = 16", "NT-Xent, B = 16", because="that trial gave 0.750 against 0.718"),
        Statement(GAIN, "DCL, B = 4", "DCL, B = 64"),
    ],
    experiment=experiment,
    sabotage="a mask off by one column: the positive stays in the denominator, and a negative leaves it",
    not_asserted="The gain is one of speed: it is asserted for few, small steps alone. In a trial it was gone at "
    "learning rates from 1e-3 with B = 4 (0.708 against 0.701 of NT-Xent at 1e-3, 0.550 against 0.637 at 0.015 with "
    "B = 8), and with Adam, which takes the factor out by itself. That both directions are decoupled: with one of them "
    "alone the claim holds as well (five seeds: a gain of 0.03 at B = 4), which is left to tests of the gradient. The "
    "paper's weighted form, DCLW, is not asserted: a re-implementation found it below DCL.",
    verified="formula read in two re-implementations, which agree with the paper; recorded numbers of both are matched "
    "by the tests",
    build=DCL,
)
