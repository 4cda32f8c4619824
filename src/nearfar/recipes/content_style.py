"""The experiment that most recipes on single vectors share: a small encoder trained on views of a
:class:`~nearfar.data.synthetic.ContentStyle` world, judged by whether neighbours have the same class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.contrast import Views
from nearfar.data.synthetic import ContentStyle
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.probes import knn_accuracy
from nearfar.objectives import RowObjective
from nearfar.training.steps import random_batches, seeded, train_steps

WIDTHS = (16, 64, 64, 16)

HELD_OUT = 5000
"""Fresh items an accuracy is taken of. With 1,000, that of two encoders which differ on one item in ten is apart by
0.01 (standard deviation) for the choice of items alone, more than many methods gain."""

WORLD = (
    "Classes are random unit vectors in R^8, an item is its class plus noise, and a view of it adds fresh noise and "
    "eight dimensions of style redrawn for every view, all mixed by a random rotation."
)
"""What the world is, for :attr:`nearfar.recipes.Recipe.world`; what else an experiment does is :func:`text`."""


def text(*, fresh: int | None = HELD_OUT, seen: str = "2,000", widths: Sequence[int] = WIDTHS) -> str:
    """The world, the encoder and how it is judged, for :attr:`nearfar.recipes.Recipe.world`.

    ``fresh``: how many items :func:`class_accuracy` is taken of; None where it is not. ``seen``: among which items
    their neighbours are sought. ``widths``: the encoder's.
    """
    trained = f"{WORLD} A perceptron {'-'.join(map(str, widths))} is trained on views"
    if fresh is None:
        return f"{trained}."
    near = f"the 15 nearest neighbours (cosine) of {fresh:,} fresh items among {seen}"
    return f"{trained} and judged by the class of {near}."


# one seed gives the world, the training and the held-out items, each of a stream of its own: a generator that starts
# where another did would make weights, noise and class means functions of each other
_TRAINING, _BATCHES, _HELD_OUT = 2_000_003, 3_000_017, 1_000_003

ViewLoss = Callable[[list[Tensor], Tensor], Tensor]
"""``loss([z1 [n, d], z2 [n, d], ...], index [n])``: embeddings of the views of the items ``index``, not normalised."""


def of_items(objective: RowObjective, views: int = 2, *, negatives: str = "all") -> ViewLoss:
    """The loss of a row objective on all views of a batch: those of an item near, all others far (see
    :class:`~nearfar.contrast.Views`)."""
    relation = Views(views, negatives=negatives)

    def loss(embeddings: list[Tensor], index: Tensor) -> Tensor:
        cost: Tensor = objective(torch.cat(embeddings), relation=relation)
        return cost

    return loss


def train_encoder(
    world: ContentStyle,
    loss: ViewLoss,
    *,
    seed: int,
    steps: int = 600,
    batch_size: int = 64,
    views: int = 2,
    widths: Sequence[int] = WIDTHS,
    parts: Sequence[nn.Module] = (),
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    learning_rate: float = 2e-3,
    after_step: Callable[[int], None] | None = None,
    **options: float,
) -> Perceptron:
    """An encoder trained by ``loss``; by ``seed`` alone, initialisation, batches and views are the same for any loss.

    Batches and initialisation do not depend on the number of ``views`` either.

    ``parts``: further modules with parameters to train (a learned temperature, proxies). ``options``: the optimiser's.
    """
    with seeded(_TRAINING + seed) as generator:
        encoder = Perceptron(widths)
        batches = random_batches(len(world.labels), batch_size, steps, torch.Generator().manual_seed(_BATCHES + seed))

        def loss_of(index: Tensor) -> Tensor:
            drawn = world.views(index, views, generator=generator)
            return loss(list(encoder(torch.cat(drawn)).chunk(views)), index)

        train_steps(
            loss_of,
            [encoder, *parts],
            batches,
            optimizer=optimizer,
            learning_rate=learning_rate,
            after_step=after_step,
            **options,
        )
    return encoder


def held_out(world: ContentStyle, *, seed: int, items: int = HELD_OUT) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A view of the training items, their labels, a view of fresh items, their labels; drawn from ``seed`` alone."""
    generator = torch.Generator().manual_seed(_HELD_OUT + seed)
    seen = world.view(world.content, generator=generator)
    return seen, world.labels, *world.fresh(items, generator=generator)


@torch.no_grad()
def class_accuracy(
    encoder: nn.Module, world: ContentStyle, *, seed: int, neighbours: int = 15, items: int = HELD_OUT
) -> float:
    """Share of ``items`` fresh items whose nearest training items by cosine have mostly their class."""
    seen, labels, fresh, truth = held_out(world, seed=seed, items=items)
    return knn_accuracy(encoder(seen), labels, encoder(fresh), truth, neighbours=neighbours)


def accuracy_of_small_steps(objective: RowObjective, *, seed: int, steps: int, batch_size: int) -> float:
    """The accuracy after few steps of SGD with momentum 0.9 and a learning rate of 3e-4, in a quiet world.

    There the size of the gradient counts: NT-Xent's is held back by its factor 1 - P(positive), the more so in small
    batches, and Adam would take the factor out.
    """
    world = ContentStyle(view_noise=0.1, style=0.5, seed=seed)
    encoder = train_encoder(
        world,
        of_items(objective),
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        optimizer="sgd",
        learning_rate=3e-4,
        momentum=0.9,
    )
    return class_accuracy(encoder, world, seed=seed)
