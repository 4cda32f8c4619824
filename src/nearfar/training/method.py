"""Methods: what is trained. A module whose ``forward(batch)`` gives a loss and what is worth logging."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.contrast import Labels, Paired, Relation
from nearfar.contrast.distributed import GatheredRows, sum_over_processes
from nearfar.contrast.engine import Memory
from nearfar.contrast.temperature import ScheduledTemperature, Temperature
from nearfar.objectives import Objective
from nearfar.objectives.matryoshka import Matryoshka
from nearfar.objectives.ranking_batch import PairScores
from nearfar.training import static
from nearfar.training.cached import loss_of_chunks
from nearfar.training.processes import process_group, world_size
from nearfar.training.shapes import check_fit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Batch = dict[str, Any]
"""What a loader gives: see :class:`nearfar.training.loading.TextBatches`."""

Logs = dict[str, Any]
"""Scalars by name: numbers, or 0-dimensional tensors that are read only when they are logged."""


class Method(nn.Module):
    """Base of all methods. The trainer calls ``forward`` once a step, back-propagates the loss and calls the hooks.

    Over several processes the loss is that of the global batch (every process gives its value), and its gradient is
    scaled by the number of processes, whose mean the distributed wrapper takes.
    """

    accepts_loss_kwargs = False  # told to the trainer: the loss is a mean over this batch alone
    main_part = "encoder"
    """The module that is what the run is about; parameters outside it have a learning rate of their own."""
    keeps_frozen = False
    """Whether parameters that are not trained can be had from the model as it began, so that checkpoints leave them
    out."""
    shown: Mapping[str, str] = MappingProxyType({})
    """What of the logs the progress line shows: name in the logs -> name to show."""
    scored = "embeddings"
    """What the loss is a function of, in a word."""

    @property
    def sharded(self) -> bool:
        """Whether its weights are shared out among the processes (:mod:`nearfar.training.sharding`)."""
        return False

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch (a scalar) and what is worth logging."""
        raise NotImplementedError

    def not_finite(self) -> list[int] | None:
        """Rows of the last batch whose scores are not finite numbers, where those of others are; None: not known."""
        return None

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (from 1): momentum updates, queues, schedules."""

    def before_epoch(self, epoch: int) -> None:
        """Called before epoch number ``epoch`` (from 0): mining, clustering. Not again where a run is resumed within
        the epoch: what is made here has to be a buffer."""


class ContrastiveMethod(Method):
    """Contrast texts that one encoder embeds, by an objective of the catalogue.

    What is near follows from the shape of the data:

    ====================  ===========================================================================================
    shape                 contrast
    ====================  ===========================================================================================
    ``"pairs"``           row objectives: each anchor against all positives and hard negatives of the batch
                          (:class:`~nearfar.contrast.Paired`, ids are the rows of the data; a candidate whose text
                          equals the positive is ignored); view objectives: anchors and positives are the two views
    ``"labelled texts"``  row objectives: same label near, others far (:class:`~nearfar.contrast.Labels`)
    ``"texts"``           each text is embedded twice with different dropout (SimCSE, Gao et al., 2021): row objectives
                          contrast all 2 n embeddings; view objectives take the two views
    ``"scored pairs"``    point objectives: the dot product of the two embeddings against the score; those that compare
                          the pairs of a batch with one another (CoSENT) have a score of their own
    ====================  ===========================================================================================

    Arguments:
        encoder: its embedding is contrasted and is what is exported.
        objective: see :func:`nearfar.objectives.get`.
        shape: the shape of the data.
        chunk_size: texts a loader puts into one chunk, when gradients are to be cached; None: whole batches in memory.
        memory: how the engine holds scores, see :func:`nearfar.contrast.evaluate`.

    Raises :class:`~nearfar.errors.UsageError` when objective, shape and encoder do not fit together, with what does.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        objective: Objective,
        *,
        shape: str = "pairs",
        hard_negatives: int = 0,
        chunk_size: int | None = None,
        memory: Memory = "auto",
    ) -> None:
        super().__init__()
        check_fit(objective, shape, hard_negatives=hard_negatives, encoder=encoder)
        self.encoder = encoder
        self.objective = objective
        self.shape = shape
        self.chunk_size = chunk_size
        self.memory = memory
        self.embeddings: Tensor | None = None
        """The last batch's embeddings, without a graph, in the order of its texts."""
        self.embedding_gradient: Tensor | None = None
        """The squared norm of the loss's gradient with respect to the last batch's embeddings (a scalar)."""

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        chunks = batch["chunks"]
        logs: Logs = {}

        def loss_of(embedded: Tensor) -> Tensor:
            embeddings = embedded if batch["order"] is None else embedded[batch["order"]]
            self._remember(embeddings)
            loss, more = self.contrast(embeddings, batch)
            logs.update(more)
            return loss

        if self.chunk_size is not None and len(chunks) > 1:
            loss = loss_of_chunks(self.embed, chunks, loss_of, list(self.parameters()))
        else:
            parts = [self.embed(chunk) for chunk in chunks]
            loss = loss_of(parts[0] if len(parts) == 1 else torch.cat(parts))
        return scale_gradient(loss, world_size()), logs

    def after_step(self, step: int) -> None:
        for part in self.objective.modules():
            if isinstance(part, ScheduledTemperature):
                part.set_step(step)

    def embed(self, features: dict[str, Any]) -> Tensor:
        """The embeddings ``[n, d]`` of tokenised texts."""
        return static.embed(self.encoder, features)

    def _remember(self, embeddings: Tensor) -> None:
        self.embeddings = embeddings.detach()
        self.embedding_gradient = None
        if embeddings.requires_grad:
            embeddings.register_hook(self._remember_gradient)  # type: ignore[no-untyped-call]

    def _remember_gradient(self, gradient: Tensor) -> None:
        self.embedding_gradient = gradient.detach().float().square().sum()

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of embeddings ``[n, d]`` by column (all anchors, all positives, ...), and what is worth logging."""
        kind = self.objective.kind
        if self.shape == "scored pairs":
            return self._points(embeddings, batch), {}
        if kind == "view":
            first, second = embeddings.chunk(2)
            return self._views(first, second), {}
        return self._rows(embeddings, batch)

    def _rows(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        rows, group = batch["rows"], process_group()
        query, key = embeddings, None
        relation: Relation
        if self.shape == "labelled texts":
            relation = Labels(batch["labels"])
        elif self.shape == "texts":
            relation = Paired(torch.cat([rows, rows]), query_exclude=batch.get("exclude"))
        else:
            query, key = embeddings[: len(rows)], embeddings[len(rows) :]
            relation = paired(batch, len(key))
        loss = self.objective(query, key, relation=relation, memory=self.memory, group=group)
        logs: Logs = {}
        temperature: Temperature | None = getattr(self.objective, "temperature", None)
        if temperature is not None and temperature.log_scale is not None:
            logs["temperature"] = temperature.log_scale.detach().neg().exp()
        elif temperature is not None and temperature.varies:
            logs["temperature"] = temperature.value
        return loss, logs

    def _views(self, first: Tensor, second: Tensor) -> Tensor:
        group = process_group()
        if group is None:
            loss: Tensor = self.objective(first, second)
            return loss
        rows = GatheredRows(first.shape[0], group, first.device)
        # every process computes the loss of the global batch; their shares add up to it
        share = self.objective(rows.gather_with_gradient(first), rows.gather_with_gradient(second)) / world_size()
        return sum_over_processes(share, group)

    def _points(self, embeddings: Tensor, batch: Batch) -> Tensor:
        first, second = embeddings.chunk(2)
        targets, group = batch["targets"].to(first.dtype), process_group()
        if group is not None:  # some of these compare the pairs of the whole batch with one another
            rows = GatheredRows(first.shape[0], group, first.device)
            first, second = rows.gather_with_gradient(first), rows.gather_with_gradient(second)
            targets = rows.gather(targets)
        if isinstance(self.objective, (PairScores, Matryoshka)):
            costs = self.objective.of_embeddings(first, second, targets)
        else:
            costs = self.objective((first * second).sum(1), targets)
        return sum_over_processes(costs.mean() / world_size(), group)


def paired(batch: Batch, keys: int, *, columns: int = 0) -> Paired:
    """Query i and key i of a batch belong together, further ones of the ``keys`` are hard negatives.

    Keys with the text of a query's positive are ignored, as far as the batch says which texts are equal;
    ``columns``: how many columns of what it says come before those of the keys (1 for texts, which come twice).
    """
    rows, exclude = batch["rows"], batch.get("exclude")
    n = len(rows)
    ids = torch.cat([rows, rows.new_full((keys - n,), -1)])
    if exclude is None:
        return Paired(rows, ids)
    known = exclude[columns * n :]
    known = torch.cat([known, known.new_full((keys - len(known),), -1)])
    return Paired(rows, ids, query_exclude=known[:n], key_exclude=known)


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """``value``, whose gradient is multiplied by ``factor`` (for 1, itself)."""
    if factor == 1:
        return value
    scaled = value * factor
    return scaled + (value - scaled).detach()
