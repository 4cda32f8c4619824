"""Deep multi-view representations (Wang et al., 2015): correlated codes of two views beside codes that restore them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from nearfar.data.synthetic.noisy_digits import NoisyDigits
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.probes import kmeans_accuracy, linear_accuracy
from nearfar.objectives import DCCA, DCCAE, CorrAE, SplitAE
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import random_batches, seeded, train_steps

LINEAR, CLUSTERS = "linear accuracy", "k-means accuracy"
WIDTHS = (64, 256, 256, 10)
OBJECTIVES = {
    "DCCA": DCCA(ridge=1e-3),
    "DCCAE": DCCAE(0.01, ridge=1e-3),
    "SplitAE": SplitAE(),
    "CorrAE": CorrAE(0.01),
}
CORRELATED = ("DCCA", "DCCAE")


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Codes of view 1 by each objective, from the same start on the same batches, and its pixels."""
    digits = NoisyDigits()
    steps = at(scale, smoke=2, quick=300, full=600)
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    turns = at(scale, smoke=1, quick=4, full=8)  # so often is every image turned for the evaluation
    seen = digits.rotated(digits.train_images.repeat(turns, 1, 1, 1), generator=generator).flatten(1)
    fresh = digits.rotated(digits.test_images.repeat(turns, 1, 1, 1), generator=generator).flatten(1)
    labels, truth = digits.train_labels.repeat(turns), digits.test_labels.repeat(turns)

    def measure(train: Tensor, test: Tensor) -> dict[str, float]:
        return {LINEAR: linear_accuracy(train, labels, test, truth), CLUSTERS: kmeans_accuracy(test, truth)}

    def codes(name: str) -> dict[str, float]:
        # sabotaged: no more rows than dimensions, which correlate perfectly whatever the encoders do
        batch_size = WIDTHS[-1] if sabotage else 300
        with seeded(2_000_003 + seed) as drawn:
            f, g, p, q = (Perceptron(widths) for widths in (WIDTHS, WIDTHS, WIDTHS[::-1], WIDTHS[::-1]))

            def loss(index: Tensor) -> Tensor:
                x, y = (view.flatten(1) for view in digits.views(index, generator=drawn))
                code = f(x)
                objective = OBJECTIVES[name]
                if name == "DCCA":
                    cost: Tensor = objective(code, g(y))
                elif name == "SplitAE":
                    cost = objective(code, inputs=(x, y), reconstructions=(p(code), q(code)))
                else:
                    other = g(y)
                    cost = objective(code, other, inputs=(x, y), reconstructions=(p(code), q(other)))
                return cost

            train_steps(
                loss,
                [f, g, p, q],
                random_batches(len(digits.train_labels), batch_size, steps, drawn),
                learning_rate=1e-3,
            )
        with torch.no_grad():
            return measure(f(seen), f(fresh))

    if sabotage:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rows say little")
            return {name: codes(name) for name in CORRELATED}
    return {"pixels": measure(seen, fresh), **{name: codes(name) for name in OBJECTIVES}}


RECIPE = Recipe(
    id="dccae",
    paper=Paper("On Deep Multi-View Representation Learning", "Wang et al.", 2015, "1602.01024"),
    claim="With a second view at training time, codes whose correlation with it is maximal (DCCA, DCCAE) tell classes "
    "apart better than those of autoencoders of both views.",
    parts={
        "views": "two encoders, one a view; the second one is needed in training alone",
        "head": "decoders of both views for the autoencoders",
        "objective": "dcca, dccae, corrae, splitae, distae",
        "procedure": "batches of many times the dimension",
        "evaluation": "linear classifier and k-means on the codes of view 1",
    },
    defaults={"weight": 0.01, "ridge": 1e-4, "dimension": 10, "batch_size": 800},
    world="The 1,797 digits of scikit-learn, 500 of them for testing, the same ones for every seed: view 1 is an "
    "image turned by up to 45 degrees, view 2 another image of the same digit under uniform noise. Perceptrons "
    "64-256-256-10 (decoders: backwards), 300 steps of Adam at 0.001 on batches of 300, ridge "
    "0.001, reconstruction weight 0.01. Judged on view 1 of the test images, each turned four times, by what is "
    "learned on the training images, turned as often.",
    statements=[
        *(
            Statement(measure, method, baseline)
            for measure in (LINEAR, CLUSTERS)
            for method in CORRELATED
            for baseline in ("pixels", "SplitAE", "CorrAE")
        ),
        *(
            Statement(measure, "DCCAE", "DCCA", margin=-0.01, because="reconstruction costs next to nothing")
            for measure in (LINEAR, CLUSTERS)
        ),
    ],
    experiment=experiment,
    sabotage="batches of as many rows as dimensions, whose total correlation is n - 1 for any codes",
    not_asserted="That reconstruction adds to correlation (k-means 97.0 to 97.5 in the paper): a trial found DCCAE at "
    "DCCA or a little below. That it costs less than a point is stated, and what clusters make of it varies by several "
    "points from one training to the next. DistAE and the kernel methods are left out of the experiment; a trial had "
    "DistAE last, as the paper has.",
    verified="formulas as in the paper; total correlation checked against a closed-form canonical correlation analysis",
    build=DCCAE,
)
