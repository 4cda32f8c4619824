"""A target network: what a slow copy of the encoder makes of a text is what the encoder's predictor aims at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nearfar.encoders.heads import PredictionBlocks
from nearfar.encoders.momentum import MomentumCopy
from nearfar.objectives import UNSEE
from nearfar.training import static
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting

UNSEE_OPTIONS: Mapping[str, Option] = {
    "form": "vicreg",
    "momentum": 0.999,
    "predictor_blocks": 0,
    "predictor_factor": 10.0,
}
"""Options of :class:`TargetNetwork`."""


class TargetNetwork(TextMethod):
    """``l(p1, t2) + l(p2, t1)``: predictions from a text's dropout views against a slow copy's embeddings of them
    (UNSEE; Cagatan, 2024).

    ``form``: "vicreg", "barlow-twins", "corinfomax" or "byol", see :class:`~nearfar.objectives.UNSEE`; ``momentum`` of
    the copy, which moves after each step and keeps its dropout on; ``predictor_blocks`` (0: 4, or 3 for BYOL, as in the
    official code) and ``predictor_factor``: see :class:`~nearfar.encoders.heads.PredictionBlocks`. With 0.999 the copy
    takes thousands of steps to follow; a short run wants less (0.99).
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        form = str(options["form"])
        blocks = int(options["predictor_blocks"]) or (3 if form == "byol" else 4)
        predictor = PredictionBlocks(setting.dimension, blocks=blocks, factor=float(options["predictor_factor"]))
        super().__init__(setting, UNSEE(form, predictor))
        self.target = MomentumCopy(setting.encoder, float(options["momentum"]))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        (chunk,) = batch["chunks"]
        embeddings = self.embed(chunk)
        self._remember(embeddings)
        loss: Tensor = self.objective(*embeddings.chunk(2), targets=self._targets(chunk).chunk(2))
        return loss, {}

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.target.update()

    def _targets(self, features: dict[str, Any]) -> Tensor:
        copied: Any = self.target.module
        return static.embed(copied, features).detach()
