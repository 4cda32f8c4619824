"""Tuning to a query: what embeds is taught to tell the query's sets apart, as a correction or a copy of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nearfar.contrast import Labels
from nearfar.encoders.adapters import ResidualAdapter
from nearfar.errors import UsageError
from nearfar.objectives import SetCSE
from nearfar.training.steps import seeded, train_steps

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TOLERANCE = 1e-3
"""The mean fall of the loss a step, over :data:`WINDOW` steps, below which tuning ends."""

WINDOW = 5


def tune_adapter(
    sets: Sequence[Tensor],
    *,
    rank: int = 16,
    objective: SetCSE | None = None,
    steps: int = 100,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> ResidualAdapter:
    """An adapter of frozen embeddings that tells ``sets`` apart, each ``[m, d]``: in a moment, for one query.

    The objective (default :class:`~nearfar.objectives.SetCSE`) sees all members in every step of Adam; tuning ends
    after ``steps``, or earlier, when the loss no longer falls. With fewer than two sets there is nothing to tell apart,
    and the adapter is the identity.

    Raises :class:`~nearfar.errors.UsageError` for sets without members or of different dimensions.
    """
    if not sets or any(each.dim() != 2 or not len(each) or each.shape[1] != sets[0].shape[1] for each in sets):
        raise UsageError(
            f"sets must be embeddings [m, d] of at least one member, got {[list(each.shape) for each in sets]}"
        )
    members = torch.cat([each.detach().float() for each in sets])
    with seeded(seed):
        adapter = ResidualAdapter(members.shape[1], rank).eval()
        _tune(lambda: adapter(members), sets, [adapter], objective, steps, learning_rate)
    return adapter


def tune_encoder(
    model: SentenceTransformer,
    sets: Sequence[Sequence[str]],
    *,
    objective: SetCSE | None = None,
    steps: int = 20,
    learning_rate: float | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """A copy of ``model`` that tells ``sets`` of texts apart; the model itself stays as it is.

    All weights are tuned, with the encoder's dropout, so that everything searched has to be embedded anew.
    ``learning_rate``: default 5e-5, for a static encoder 1e-2. Otherwise as :func:`tune_adapter`.
    """
    from nearfar import encoders
    from nearfar.encoders.sentence_modules import is_static

    if not sets or not all(sets):
        raise UsageError("a set needs at least one text")
    tuned = copy.deepcopy(model)
    features = encoders.tokenize(tuned, [text for each in sets for text in each])
    features = {
        name: value.to(tuned.device) if isinstance(value, Tensor) else value for name, value in features.items()
    }
    rate = (1e-2 if is_static(tuned) else 5e-5) if learning_rate is None else learning_rate

    def embed() -> Tensor:
        embedded: Tensor = tuned(dict(features))["sentence_embedding"]
        return embedded

    with seeded(seed):
        _tune(embed, sets, [tuned], objective, steps, rate)
    return tuned


def _tune(
    embed: Callable[[], Tensor],
    sets: Sequence[Tensor] | Sequence[Sequence[str]],
    parts: Sequence[nn.Module],
    objective: SetCSE | None,
    steps: int,
    learning_rate: float,
) -> None:
    if len(sets) < 2:
        return
    cost = SetCSE() if objective is None else objective
    labels = torch.arange(len(sets)).repeat_interleave(torch.tensor([len(each) for each in sets]))
    losses: list[float] = []

    def loss(index: Tensor) -> Tensor:
        z = embed()
        value: Tensor = cost(z, relation=Labels(labels.to(z.device)))
        losses.append(float(value.detach()))
        return value

    def until_settled() -> Iterator[Tensor]:
        everyone = torch.arange(len(labels))
        for step in range(steps):
            if step > WINDOW and losses[-1 - WINDOW] - losses[-1] < WINDOW * TOLERANCE:
                return
            yield everyone

    train_steps(loss, parts, until_settled(), learning_rate=learning_rate)
