"""Labelled texts as sets of examples that are told apart: SetCSE."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from nearfar.contrast import Labels
from nearfar.objectives import SetCSE
from nearfar.training.method import Batch, Logs
from nearfar.training.processes import process_group
from nearfar.training.text_training import TextMethod, TextSetting


class SetContrast(TextMethod):
    """The inter-set loss over the texts of a batch, the texts of one label being a set (SetCSE; Liu, 2024).

    Options: ``variant`` ("push" or "infonce"), ``per_pair``, ``temperature`` of
    :class:`~nearfar.objectives.SetCSE`. Under "infonce" the other texts of the label are the positives, and costs are
    averaged over the texts. ``distributed``: over several processes it is the loss of the global batch.
    """

    distributed: ClassVar[bool] = True
    objective: SetCSE

    def __init__(self, setting: TextSetting) -> None:
        variant = str(setting.options["variant"])
        objective = SetCSE(
            variant,
            per_pair=bool(setting.options["per_pair"]),
            temperature=float(setting.options["temperature"]),
            reduction="sum" if variant == "push" else "mean",
        )
        super().__init__(setting, objective)

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        relation = Labels(batch["labels"])
        return self.objective(embeddings, relation=relation, memory=self.memory, group=process_group()), {}
