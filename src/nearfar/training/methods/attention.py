"""Attention maps of two views of a text that are to tell of one another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nearfar.contrast import evaluate
from nearfar.encoders.inside import Inside
from nearfar.errors import UsageError
from nearfar.objectives import MiCSE
from nearfar.training.method import Batch, Logs
from nearfar.training.methods.dropout import DropoutMethod
from nearfar.training.text_training import Option, TextSetting

MICSE_OPTIONS: Mapping[str, Option] = {
    "temperature": 0.05,
    "weight": 5e-4,
    "samples": 150,
    "first_layer": 0,
    "last_layer": 0,
}
"""Options of :class:`AlignedAttention`."""


class AlignedAttention(DropoutMethod):
    """SimCSE, and the mutual information of the attention maps of a text's two dropout views (miCSE; Klein & Nabi,
    2023); see :class:`~nearfar.objectives.MiCSE`.

    ``weight`` of the attention term: the paper's is 5e-4 for 10 % of a million sentences, 1e-4 for 1 %, 1e-3 for less.
    ``first_layer`` to ``last_layer`` (counted from 1, both included) are aligned, an even number of them; 0 and 0: the
    paper's place, see :func:`aligned_layers`. The whole batch is in memory, with its maps.

    Logs the attention term. Raises :class:`~nearfar.errors.UsageError` for layers that the encoder does not have.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        objective = MiCSE(
            float(options["weight"]), temperature=float(options["temperature"]), samples=int(options["samples"])
        )
        super().__init__(setting, objective)
        self.aligned = _chosen(
            int(options["first_layer"]), int(options["last_layer"]), depth=Inside(setting.encoder).depth
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        (chunk,) = batch["chunks"]
        inside = Inside(self.encoder)
        states = inside.states(chunk["input_ids"], chunk["attention_mask"], attentions=True)
        embeddings = inside.pool(states)
        self._remember(embeddings)
        query, key = self.sides(embeddings, batch)
        objective: MiCSE = self.objective
        contrast = evaluate(objective.contrast, query, key, relation=self.relation(batch, len(key)), memory=self.memory)
        first, second = states.maps(self.aligned).chunk(2)
        alignment = objective.attention_term(first, second)
        return contrast + objective.weight * alignment, {"attention term": alignment.detach()}


def aligned_layers(depth: int) -> range:
    """Which layers, from 0, of ``depth`` are aligned: the paper's 7 to 10 of 12 (from 0), and about the same place of
    other depths, an even number: 3 and 4 of 6, both of 2.

    Raises :class:`~nearfar.errors.UsageError` for fewer than two layers.
    """
    if depth < 2:
        raise UsageError(f"two layers of attention are needed, and this encoder has {depth}")
    count = max(2, 2 * round(depth / 6))
    first = min(7 * depth // 12, depth - count)
    return range(first, first + count)


def _chosen(first: int, last: int, *, depth: int) -> range:
    if first == last == 0:
        return aligned_layers(depth)
    if not 1 <= first < last <= depth or (last - first) % 2 == 0:
        raise UsageError(
            f"layers {first} to {last} cannot be aligned: there are {depth}, and an even number is needed",
            where="--set first_layer=... --set last_layer=...",
            hint=f"1 to {depth - depth % 2}, or fewer",
        )
    return range(first - 1, last)
