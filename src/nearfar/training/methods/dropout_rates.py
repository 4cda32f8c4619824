"""Views of a text that differ in how much the encoder drops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nearfar.contrast import Labels
from nearfar.encoders.dropout_rates import dropout_rate, dropout_rates
from nearfar.errors import UsageError
from nearfar.objectives import SupCon
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting

SUPCL_SEQ_OPTIONS: Mapping[str, Option] = {"temperature": 0.05, "base_temperature": 0.07, "rates": "0, 0.05, 0.2"}
"""Options of :class:`DropoutRates`."""


class DropoutRates(TextMethod):
    """SupCon over all views of all texts of a batch, each view with a dropout rate of its own (SupCL-Seq; Sedghamiz et
    al., 2021).

    The first view has the encoder's own rates, then comes one for each of ``rates``, which every dropout of the encoder
    is set to. Near are all views of a text and of texts with its label. ``temperature`` and ``base_temperature`` are
    those of :class:`~nearfar.objectives.SupCon` (the loss is multiplied by their ratio).

    Raises :class:`~nearfar.errors.UsageError` for rates that are none, and where two views would be the same: a rate of
    0 stands in the list twice, or once where the encoder has no dropout of its own.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        objective = SupCon(
            temperature=float(options["temperature"]), base_temperature=float(options["base_temperature"])
        )
        super().__init__(setting, objective)
        self.rates = read_rates(str(options["rates"]))
        still = self.rates.count(0.0) + (not any(dropout_rates(setting.encoder)))
        if still > 1:
            raise UsageError(
                f"{still} views have no dropout and are the same", where="--set rates=...", hint="name 0 once at most"
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        (chunk,) = batch["chunks"]
        views = [self.embed(chunk)]
        for rate in self.rates:
            with dropout_rate(self.encoder, rate):
                views.append(self.embed(chunk))
        embeddings = torch.cat(views)
        self._remember(embeddings)
        loss: Tensor = self.objective(
            embeddings, relation=Labels(batch["labels"].repeat(len(views))), memory=self.memory
        )
        return loss, {}


def read_rates(text: str) -> Sequence[float]:
    """The dropout rates in a list like ``"0, 0.05, 0.2"``. Raises UsageError for what is no rate in [0, 1)."""
    try:
        rates = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        rates = [-1.0]
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise UsageError(
            f"rates must be numbers in [0, 1), got {text!r}", where="--set rates=...", hint="--set rates='0, 0.05, 0.2'"
        )
    return rates
