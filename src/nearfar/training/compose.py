"""A contrastive method out of its parts: a source of pairs, a regime of keys, a head, a score and an objective."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nearfar import objectives
from nearfar.contrast import Score
from nearfar.encoders.context import Context
from nearfar.encoders.heads import Projection
from nearfar.encoders.quantization import BalancedCodes, ProductQuantizer
from nearfar.encoders.sequence import GRUEncoder
from nearfar.errors import UsageError
from nearfar.objectives import RowObjective
from nearfar.training.keys import Keys, regime
from nearfar.training.method import Batch, Logs, Method
from nearfar.views.pairs import PairSource

HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "identity": lambda features, dimension: nn.Identity(),
    "linear": lambda features, dimension: Projection((features, dimension)),
    "projection": lambda features, dimension: Projection((features, features, dimension)),
    "contextualisation": lambda features, dimension: GRUEncoder(features, hidden=features, dimension=dimension),
    "attention": lambda features, dimension: Context(features, dimension),
    "mean": lambda features, dimension: Context(features, dimension, kind="mean"),
    "quantisation": lambda features, dimension: ProductQuantizer(features, dimension, codes=max(2, 4 * dimension)),
    "prototypes": lambda features, dimension: BalancedCodes(features, dimension),
}
"""Heads by name: ``HEADS[name](features, dimension)`` maps what an encoder gives to what is contrasted."""

_GIVEN = ("encoder", "head", "dimension")
"""What a regime gets from :func:`compose` itself."""


class Composed(Method):
    """The five slots of a contrastive method as one that can be trained.

    ``batch["index"] [n]``: the numbers of the items of a batch; ``batch["generator"]``: what pairs are drawn from,
    optional. The regime's encoder is what is exported, ``keys.embed`` what was contrasted. In a loop of one's own::

        method = compose(source, encoder, features=32, dimension=8, keys="online-offline", objective="info-nce")
        train_steps(lambda index: method({"index": index})[0], [method], batches, after_step=method.after_step)

    Arguments:
        source: where positive pairs come from.
        keys: the regime, with encoder and head.
        objective: a row objective that needs nothing beside queries, keys and their relation.

    Raises :class:`~nearfar.errors.UsageError` for an objective that is none or needs more.
    """

    def __init__(self, source: PairSource, keys: Keys, objective: objectives.Objective) -> None:
        super().__init__()
        if not isinstance(objective, RowObjective) or objective.needs or objective.needs_labels:
            raise UsageError(
                f"{objective.name} cannot be composed",
                hint="a row objective is needed that asks for nothing beside queries, keys and their relation",
            )
        self.source = source
        self.keys = keys
        self.objective = objective

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        query, keys, relation = self.keys(self.source(batch["index"], batch.get("generator")))
        loss: Tensor = self.objective(query, keys, relation=relation)
        return loss, {"keys": len(keys)}

    def after_step(self, step: int) -> None:
        self.keys.after_step(step)


def compose(
    source: PairSource,
    encoder: nn.Module,
    *,
    features: int,
    dimension: int,
    keys: str = "end-to-end",
    head: str = "projection",
    objective: str = "info-nce",
    score: str | Score | None = None,
    temperature: float | None = None,
    **options: Any,
) -> Composed:
    """A method by the names of its parts.

    Arguments:
        source: see :mod:`nearfar.views.pairs`.
        encoder: ``[n, ...] -> [n, features]``, or ``[n, width, features]`` for a contextualising head.
        features, dimension: sizes of what the encoder gives and of what is contrasted.
        keys: one of :data:`nearfar.training.keys.REGIMES`; ``options`` go to it.
        head: one of :data:`HEADS`.
        objective: see :func:`nearfar.objectives.get`; ``score`` and ``temperature`` go to it where they are given.

    Raises :class:`~nearfar.errors.UsageError` for names that do not exist, options that the regime does not
    take or lacks, and parts that do not fit.
    """
    if head not in HEADS:
        raise UsageError(f"there is no head {head!r}", hint=f"choose one of {', '.join(HEADS)}")
    of_objective = {"score": score, "temperature": temperature}
    made = objectives.get(objective, **{name: value for name, value in of_objective.items() if value is not None})
    wanted = regime(keys)
    takes = {name: each for name, each in inspect.signature(wanted).parameters.items() if name not in _GIVEN}
    unknown = [name for name in options if name not in takes]
    if unknown:
        raise UsageError(
            f"the key regime {wanted.name} takes no {', '.join(map(repr, unknown))}",
            hint=f"its options are {', '.join(takes)}",
        )
    missing = [name for name, each in takes.items() if each.default is each.empty and name not in options]
    if missing:
        raise UsageError(f"the key regime {wanted.name} needs {', '.join(missing)}", hint=f"give {missing[0]}=")
    if "dimension" in inspect.signature(wanted).parameters:
        options = {"dimension": dimension, **options}
    return Composed(source, wanted(encoder, HEADS[head](features, dimension), **options), made)
