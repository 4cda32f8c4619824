"""Soft prompts: the encoder stays as it is, and a prefix of keys and values in every layer learns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nearfar.encoders.prefix_transformer import add_prefix
from nearfar.objectives import PromCSE
from nearfar.training.method import Batch, Logs
from nearfar.training.methods.dropout import DropoutMethod
from nearfar.training.processes import process_group
from nearfar.training.text_training import Option, TextSetting

PROMCSE_OPTIONS: Mapping[str, Option] = {"temperature": 0.05, "length": 16, "margin": 0.2, "hinge": 10.0}
"""Options of :class:`SoftPrefix`."""


class SoftPrefix(DropoutMethod):
    """A prefix of ``length`` virtual tokens (:class:`~nearfar.encoders.prefix.Prefix`), the only part of the encoder
    that is trained, by InfoNCE, for pairs with an energy-based hinge (PromCSE; Jiang et al., 2022).

    Texts: two dropout views behind BERT's pooler, which is trained as well and dropped afterwards. Pairs: anchors
    against positives and hard negatives as they are exported, plus ``hinge`` times
    ``max(0, margin - s_ip + max_n s_in)``, see :class:`~nearfar.objectives.PromCSE`. Dropout of the frozen layers stays
    on. The prefix is saved with the encoder (:mod:`nearfar.encoders.prefix_transformer`).

    Logs the mean length of the prefix's keys and values.
    Raises :class:`~nearfar.errors.ModelError` for an encoder that cannot be given a prefix.
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        weight = float(options["hinge"]) if setting.examples.shape == "pairs" else 0.0
        super().__init__(setting, PromCSE(float(options["margin"]), weight, temperature=float(options["temperature"])))
        self._prefix = [add_prefix(setting.encoder, int(options["length"]))]  # in a list: it is the encoder's

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        query, key = self.sides(embeddings, batch)
        loss: Tensor = self.objective(
            query, key, relation=self.relation(batch, len(key)), memory=self.memory, group=process_group()
        )
        return loss, {"prefix length": self._prefix[0].table.detach().norm(dim=3).mean()}
