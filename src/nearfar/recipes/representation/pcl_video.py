"""Pretext-contrastive learning of videos (Tao et al., 2020): a pretext task and a contrast of clips, on residuals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.data.synthetic.videos import SHAPES, MovingShapes
from nearfar.encoders.heads import Projection
from nearfar.encoders.vision import ClipEncoder
from nearfar.evaluation.probes import knn_accuracy, linear_accuracy
from nearfar.negatives.bank import MemoryBank
from nearfar.objectives import InfoNCE
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import random_batches, seeded, train_steps
from nearfar.views.image import ColourJitter
from nearfar.views.video import VideoCloze, residual

PROBES, DIRECTION, SHAPE, RETRIEVAL = "mean of both probes", "direction", "shape", "retrieval top-1"
PRETEXT, CONTRAST, JOINT, FRAMES = "pretext task alone", "contrast alone", "both (PCL)", "both, on plain frames"
WORSE = "the worse one alone"
CLIP, GAP, DIMENSION = 8, 4, 64


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """The pretext task, the contrast and both from the same start on residual frames, and both on plain frames."""
    videos = at(scale, smoke=64, quick=512, full=2048)
    steps = at(scale, smoke=2, quick=120, full=1000)
    world = MovingShapes(videos, seed=seed)
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    seen = world.fresh(at(scale, smoke=100, quick=1000, full=2000), generator=generator)
    fresh = world.fresh(at(scale, smoke=100, quick=1000, full=2000), generator=generator)
    task, jitter = VideoCloze(CLIP, GAP), ColourJitter(0.4, 0.4, p=0.8)
    info_nce = InfoNCE(temperature=0.07)

    def measure(*, pretext: float, contrast: float, plain: bool = False) -> dict[str, float]:
        with seeded(seed) as drawn:
            encoder = ClipEncoder(1, (8, 16), DIMENSION, norm="batch")
            classifier = nn.Linear(3 * DIMENSION, task.classes)
            projection = Projection((DIMENSION, DIMENSION, 32), batch_norm=True)
            first, third = (MemoryBank(videos, 32, seed=seed + which) for which in (1, 2))

            def loss(index: Tensor) -> Tensor:
                clips, label = task(world.videos[index], drawn)
                shown = jitter(clips.flatten(0, 1), drawn)
                features = encoder(shown if plain else residual(shown)).unflatten(0, (len(index), 3))
                cost = pretext * F.cross_entropy(classifier(features.flatten(1)), label)
                # sabotaged: what is contrasted is not of one video
                video = torch.randperm(videos)[: len(index)] if sabotage else index
                for view, own, other in ((0, first, third), (2, third, first)):
                    z = projection(features[:, view])
                    scores, relation = other.scores(z, video, 256, generator=drawn)
                    cost = cost + contrast * info_nce(scores=scores, relation=relation)
                    own.remember(video, z)
                return cost

            def after_step(step: int) -> None:
                first.update()
                third.update()

            batches = random_batches(videos, 32, steps, drawn)
            train_steps(
                loss, [encoder, classifier, projection], batches, learning_rate=5e-3, after_step=after_step
            )
        return _judged(encoder, plain, seen, fresh)

    both = measure(pretext=1.0, contrast=0.5)
    if sabotage:
        return {JOINT: both}
    pretext, contrast = measure(pretext=1.0, contrast=0.0), measure(pretext=0.0, contrast=1.0)
    return {
        PRETEXT: pretext,
        CONTRAST: contrast,
        WORSE: min(pretext, contrast, key=lambda arm: arm[PROBES]),
        JOINT: both,
        FRAMES: measure(pretext=1.0, contrast=0.5, plain=True),
    }
