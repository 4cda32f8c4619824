"""A recipe of one's own in a file, as ``nearfar train --recipe toy_recipe.py`` takes it: in-batch contrast with a head,
a memory and something drawn in each step, so that nothing of a method's state can be forgotten unnoticed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.objectives import InfoNCE
from nearfar.recipes import Arms, Paper, Recipe, Scale, Statement
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import TextMethod, TextSetting, TextTraining


class Toy(TextMethod):
    """InfoNCE behind a linear head, drawn towards a running mean, with noise on the embeddings."""

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting, InfoNCE(temperature=float(setting.options["temperature"])))
        self.noise = float(setting.options["noise"])
        self.head = nn.Linear(setting.dimension, setting.dimension)
        self.centre = nn.Buffer(torch.zeros(setting.dimension))
        self.epochs = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        z = self.head(embeddings) - self.centre
        z = z + self.noise * torch.randn_like(z)
        n = len(batch["rows"])
        self.mean = embeddings.detach().mean(0)
        rows = batch["rows"]
        return self.objective(z[:n], z[n : 2 * n], relation=Paired(rows, rows)), {"noise": self.noise}

    def before_epoch(self, epoch: int) -> None:
        self.epochs += 1

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.centre.lerp_(self.mean, 0.1)


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    return {"toy": {"value": float(not sabotage)}}


RECIPE = Recipe(
    id="toy",
    paper=Paper("Toys", "Nobody et al.", 2020, "2001.00001"),
    claim="It trains.",
    parts={"objective": "InfoNCE"},
    world="none",
    statements=[Statement("value", "toy", 0.5, because="made so")],
    experiment=experiment,
    sabotage="the value is 0",
    training=TextTraining(
        Toy,
        shapes={
            "texts": "each text against itself with other dropout",
            "pairs": "each anchor against the positives of the batch",
        },
        options={"temperature": 0.1, "noise": 0.01, "rounds": 2, "kind": "plain", "fast": False},
        settings={"learning_rate": 1e-3, "batch_size": 20, "warmup": 0.0, "schedule": "constant", "epochs": 2},
        needs=("transformer", "dropout"),
    ),
)
