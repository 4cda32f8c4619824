"""CatLIP (Mehta et al., 2024): images learn from captions as classes to tell, without a text encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.data.nouns import NounVocabulary, listed
from nearfar.data.synthetic.captions import CaptionedImages, bags_of_words
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.probes import mean_average_precision
from nearfar.objectives import CatLIP, InfoNCE
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.few_shot import few_shot_accuracy
from nearfar.training.steps import random_batches, seeded, train_steps
from nearfar.training.timing import cpu_seconds

PRECISION, SPEED, TRANSFER = "mAP", "times as fast as CLIP", "accuracy from few images"
CLIP, CATLIP = "CLIP", "CatLIP"
ROWS, RANDOM_ROWS, OTHER_ROWS = "rows of CatLIP", "random rows", "rows of other classes"
IMAGE = (64, 256, 64)
DOWNSTREAM = 10


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """CatLIP beside CLIP on the same images; then a few images of ten concepts, from its rows and from random ones."""
    world = CaptionedImages(at(scale, smoke=200, quick=4096, full=16384), noise=0.18, seed=seed)
    steps = at(scale, smoke=2, quick=150, full=600)
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    truth = world.draw_shown(at(scale, smoke=100, quick=2000, full=4000), generator=generator)
    fresh = world.image_of(truth, generator=generator)

    def batches() -> list[Tensor]:
        drawn = torch.Generator().manual_seed(seed)
        return list(random_batches(len(world.images), at(scale, smoke=64, quick=1024, full=1024), steps, drawn))

    def precision(encoder: nn.Module) -> float:
        with torch.no_grad():
            return mean_average_precision(encoder(world.images), world.shown, encoder(fresh), truth)

    vocabulary = NounVocabulary.mine(
        world.captions, listed(world.nouns), at_least=at(scale, smoke=1, quick=50, full=50)
    )
    targets = vocabulary.multi_hot(world.captions)
    with seeded(3_000_017 + seed):
        encoder, by_class = Perceptron(IMAGE), CatLIP(len(vocabulary), IMAGE[-1])

    def of_classes(index: Tensor) -> Tensor:
        loss: Tensor = by_class(encoder(world.images[index]), labels=targets[index])
        return loss

    train_steps(of_classes, [encoder, by_class], batches())
    rows = vocabulary.rows(world.nouns[:DOWNSTREAM])
    if sabotage:  # the index into the vocabulary is off by one
        rows = [None if row is None else (row + 1) % len(vocabulary) for row in rows]
    drawn = torch.Generator().manual_seed(2_000_003 + seed)

    def few_images(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(DOWNSTREAM).repeat(count)
        with torch.no_grad():
            return encoder(world.image_of_one(labels, generator=drawn)), labels

    tasks = [few_images(count + 1) for count in range(at(scale, smoke=1, quick=5, full=5))]
    test = few_images(200)

    def transferred(rows: list[int | None]) -> dict[str, float]:
        found = [few_shot_accuracy(by_class, rows, task, test, seed=4_000_037 + seed) for task in tasks]
        return {TRANSFER: sum(found) / len(found)}

    from_rows = {ROWS: transferred(rows)}
    if sabotage:
        return from_rows
    # before the steps that are timed, which train on
    from_rows[OTHER_ROWS] = transferred(vocabulary.rows(world.nouns[DOWNSTREAM : 2 * DOWNSTREAM]))
    from_rows[RANDOM_ROWS] = transferred([None] * DOWNSTREAM)

    words, spelled = bags_of_words(world.captions)
    with seeded(3_000_017 + seed):
        beside = Perceptron(IMAGE)
        text, by_caption = Perceptron((len(spelled), *IMAGE[1:])), InfoNCE(temperature="learned:0.07", two_sided=True)

    def of_captions(index: Tensor) -> Tensor:
        loss: Tensor = by_caption(beside(world.images[index]), text(words[index]))
        return loss

    train_steps(of_captions, [beside, text, by_caption], batches())
    clip, catlip = {PRECISION: precision(beside)}, {PRECISION: precision(encoder)}
    one = batches()[:1]
    seconds = cpu_seconds(
        {
            CLIP: lambda: train_steps(of_captions, [beside, text, by_caption], one),
            CATLIP: lambda: train_steps(of_classes, [encoder, by_class], one),
        },
        rounds=at(scale, smoke=1, quick=11, full=31),
    )
    catlip[SPEED] = seconds[CLIP] / seconds[CATLIP]
    return {CLIP: clip, CATLIP: catlip, **from_rows}


RECIPE = Recipe(
    id="catlip",
    paper=Paper(
        "CatLIP: CLIP-level Visual Recognition Accuracy with 2.7x Faster Pre-training on Web-scale Image-Text Data",
        "Mehta et al.",
        2024,
        "2404.15653",
    ),
    claim="Classifying images by the nouns of their captions learns about as much as contrasting them with the "
    "captions, at a fraction of the time, and its classifier rows are a start for the classes of other tasks.",
    parts={
        "relation": "an image is near the nouns of its caption and far from all others (nearfar.data.nouns, Tagged)",
        "encoder": "of images alone",
        "head": "a linear classifier over the vocabulary",
        "objective": "catlip: binary cross-entropy, summed over classes",
        "procedure": "transfer of classifier rows (nearfar.encoders.transfer)",
        "evaluation": "ridge probe, macro mean average precision; few-shot accuracy; CPU time of steps",
    },
    defaults={"at_least": 500, "learning_rate": 1e-3, "weight_decay": 0.2, "batch_size": 65536},
    world="4,096 images in 64 dimensions, each the sum of one to four of 40 random unit vectors (concepts) and noise "
    "of deviation 0.18; a caption names the concepts, singular or plural, among filler words. The image encoder is "
    "64-256-64 for both; CLIP has a text encoder of the same hidden sizes on bags of words and a learned temperature. "
    "150 steps of 1,024 images, Adam at 0.002. mAP of a ridge probe on 2,000 fresh images. The CPU time of a step "
    "(loss, gradient, Adam) is the median of 11 in turns. Transfer: images of one of ten of the concepts, one to five "
    "of each (mean over the five), classifier alone trained for 100 steps of Adam at 0.01, from the rows of these "
    "concepts, from those of ten other ones or from random rows.",
    statements=[
        Statement(PRECISION, CATLIP, CLIP, margin=-0.02, because="matching accuracy: at most 2 points behind"),
        Statement(
            SPEED, CATLIP, 1.5, because="2.7 times in the paper; here the text encoder is as small as the image's"
        ),
        Statement(TRANSFER, ROWS, RANDOM_ROWS),
        Statement(TRANSFER, ROWS, OTHER_ROWS, because="rows of any class are a better start than random ones"),
    ],
    experiment=experiment,
    sabotage="classifier rows looked up in a vocabulary whose index is off by one",
    not_asserted="The paper's 2.7 times is of a ViT-B/16 beside a text transformer on accelerators; the ratio here is "
    "of two perceptrons. Its accuracies after fine-tuning on ImageNet need web-scale data.",
    verified="label mining, loss and configuration read in the official code; the figure 2.7 from the abstract",
    build=CatLIP,
)
