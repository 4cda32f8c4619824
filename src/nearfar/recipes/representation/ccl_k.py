"""CCL-K (Tsai et al., 2022): negatives of like condition, weighed by a kernel instead of drawn."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.contrast import Kernel
from nearfar.data.synthetic.nuisance import ContentNuisance
from nearfar.evaluation.probes import knn_accuracy, ridge_r2
from nearfar.objectives import CCLK, InfoNCE
from nearfar.recipes import content_style
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

ACCURACY, LEAK = "kNN accuracy", "R2 of the nuisance"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """The fair form given the nuisance beside NT-Xent from the same start on the same batches."""
    world = ContentNuisance(style=1.0, seed=seed)
    steps = at(scale, smoke=3, quick=500, full=1500)
    form: Literal["weak", "fair"] = "weak" if sabotage else "fair"
    cclk = CCLK(form, temperature=0.5, regularization=0.1)
    nt_xent = InfoNCE(temperature=0.5)

    def given_nuisance(views: list[Tensor], index: Tensor) -> Tensor:
        condition, ids = world.nuisance[index].repeat(2), index.repeat(2)
        loss: Tensor = cclk(torch.cat(views), relation=Kernel(condition, "rbf", bandwidth=0.1, ids=ids))
        return loss

    arms = (
        {"CCL-K": given_nuisance} if sabotage else {"NT-Xent": content_style.of_items(nt_xent), "CCL-K": given_nuisance}
    )
    return {
        name: measured(
            content_style.train_encoder(
                world, loss, seed=seed, steps=steps, batch_size=128, widths=(world.dimension, 64, 64, 16)
            ),
            world,
            seed,
        )
        for name, loss in arms.items()
    }


@torch.no_grad()
def measured(encoder: nn.Module, world: ContentNuisance, seed: int) -> dict[str, float]:
    """Whether neighbours have the same class, and what a regression finds of the nuisance."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    labels = torch.randint(len(world.means), (1000,), generator=generator)
    content = world.draw_content(labels, generator=generator)
    seen, fresh = (
        nn.functional.normalize(encoder(world.view(shown, generator=generator))) for shown in (world.content, content)
    )
    return {
        ACCURACY: knn_accuracy(seen, world.labels, fresh, labels),
        LEAK: ridge_r2(seen, world.nuisance, fresh, content[:, -1]),
    }


RECIPE = Recipe(
    id="ccl-k",
    paper=Paper("Conditional Contrastive Learning with Kernel", "Tsai et al.", 2022, "2202.05458"),
    claim="Contrasting an item with others of like condition, weighed by a kernel over the whole batch instead of "
    "drawn, takes the condition out of the representation and leaves the rest.",
    parts={
        "relation": "Kernel: a continuous condition that travels with the items",
        "score": "cosine over a temperature",
        "objective": "ccl-k: the conditional mean embedding of the negatives (fair, hard) or of the positives (weak)",
        "evaluation": "nearest neighbours by class; ridge regression of the condition",
    },
    defaults={"form": "fair", "temperature": 0.5, "regularization": 0.01, "bandwidth": 1.0, "batch_size": 512},
    world=content_style.text(fresh=1000, widths=(20, 64, 64, 16))
    + " Spread and view noise 0.3, style 1. Every item has a nuisance value from N(0, 1) besides, which all of its "
    "views show in four more dimensions with noise 0.2. Ten classes, Adam at 0.002, 500 steps (a trial had 800) of "
    "128 items, temperature 0.5; CCL-K with a Gaussian kernel of bandwidth 0.1 and regularization 0.1, in the paper's "
    "form (the official code takes an item's weight for itself to be 0). Ridge regression tells how much of the "
    "nuisance is left.",
    statements=[
        Statement(LEAK, "CCL-K", 0.3, "lower", because="NT-Xent keeps nine tenths"),
        Statement(LEAK, "CCL-K", "NT-Xent", "lower"),
        Statement(ACCURACY, "CCL-K", "NT-Xent", margin=-0.03, because="fairness must not cost the class"),
    ],
    experiment=experiment,
    sabotage="the kernel's weights go to the positives (the form for weak supervision) instead of to the negatives",
    not_asserted="The weak form (accuracy on CUB and UT-Zappos above discrete conditioning) and the hard one (ImageNet-"
    "100) are not run; both are in the library. That accuracy rises, as it does here, is not what the form promises.",
    verified="formula read in the official code, whose recorded numbers of all forms and kernels are matched by the "
    "tests; that a kernel which is 1 where conditions are equal gives the mean over equal conditions is a test",
    build=CCLK,
)
