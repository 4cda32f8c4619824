"""Methods that learn what holds a text together: order, continuation, conjunctions (DiscSent)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.data import Examples
from nearfar.data.conjunctions import KINDS, without_conjunction
from nearfar.encoders.discourse import Discourse
from nearfar.errors import DataError, UsageError
from nearfar.negatives.discourse import next_sentences, ordered_pairs, swapped
from nearfar.training import static
from nearfar.training.loading import TextBatches
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting

TASKS = ("order", "next", "conjunction")

DISCSENT: Mapping[str, Option] = {"tasks": ",".join(TASKS), "context": 3, "candidates": 5}
"""Options of :class:`DiscourseTraining`."""


class DiscourseTasks(nn.Module):
    """The three tasks of DiscSent on the sentences of a batch of running text (Jernite et al., 2017).

    - order: ``BCE`` of whether the left of two neighbours comes first; half of the pairs are the other way around.
    - next: ``CE`` of which of ``candidates`` follows ``context`` sentences
      (:func:`~nearfar.negatives.discourse.next_sentences`).
    - conjunction: ``CE`` of which kind of conjunction opened a sentence, given the one before and it without that.

    Called with ``embeddings [n, d]``, ``document [n]`` and ``position [n]`` (see
    :func:`~nearfar.negatives.discourse.ordered_pairs`), the ``kind [n]`` of each sentence's conjunction (-1: none) and
    ``without [m, d]``, the embeddings of the m sentences that have one, without it. Returns the sum of the tasks'
    losses, each a mean over what there is in the batch, and by task the share of right answers. A batch without a task
    gives 0. What is drawn comes from ``generator``, or from torch's own.

    Arguments: ``dimension``, ``conjunctions``, ``context``, ``symmetric``: of :class:`~nearfar.encoders.Discourse`;
    ``tasks``: which; ``candidates``: default 5 (the paper's).
    """

    def __init__(
        self,
        dimension: int,
        conjunctions: int = len(KINDS),
        *,
        tasks: Sequence[str] = TASKS,
        context: int = 3,
        candidates: int = 5,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks:
            raise UsageError(
                f"there is no task {unknown[0]!r}" if unknown else "there is no task to learn",
                hint=f"choose from {', '.join(TASKS)}",
            )
        if context < 1 or candidates < 2:
            raise UsageError(f"a context of 1 and 2 candidates are needed at least, got {context} and {candidates}")
        self.tasks, self.context, self.candidates = tuple(tasks), context, candidates
        self.heads = Discourse(dimension, conjunctions, context=context, symmetric=symmetric)

    def forward(
        self,
        embeddings: Tensor,
        document: Tensor,
        position: Tensor | None = None,
        *,
        kind: Tensor | None = None,
        without: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, right = 0.0 * embeddings.sum(), {}
        first, second = ordered_pairs(document, position)
        if "order" in self.tasks and len(first):
            left, behind, before = swapped(first, second, generator=generator)
            logits = self.heads.order(embeddings[left], embeddings[behind])
            loss = loss + F.binary_cross_entropy_with_logits(logits, before.to(logits.dtype))
            right["order"] = ((logits > 0) == (before > 0)).float().mean()
        if "next" in self.tasks:
            context, shown, place = next_sentences(
                document, position, context=self.context, candidates=self.candidates, generator=generator
            )
            if len(place):
                scores = self.heads.next(embeddings[context], embeddings[shown])
                loss = loss + F.cross_entropy(scores, place)
                right["next"] = (scores.argmax(1) == place).float().mean()
        if "conjunction" in self.tasks and kind is not None and without is not None:
            of = torch.full_like(kind, -1)
            of[kind >= 0] = torch.arange(len(without), device=kind.device)
            joined = of[second] >= 0
            if bool(joined.any()):
                scores = self.heads.conjunction(embeddings[first[joined]], without[of[second[joined]]])
                loss = loss + F.cross_entropy(scores, kind[second[joined]])
                right["conjunction"] = (scores.argmax(1) == kind[second[joined]]).float().mean()
        return loss, right

    @torch.no_grad()
    def order_accuracy(self, embeddings: Tensor, document: Tensor) -> float:
        """The share of neighbours ``(s1, s2)`` and ``(s2, s1)`` of which it is said rightly whether the first comes
        first: every pair both ways around."""
        first, second = ordered_pairs(document)
        forward = self.heads.order(embeddings[first], embeddings[second]) > 0
        backward = self.heads.order(embeddings[second], embeddings[first]) > 0
        return float(torch.cat([forward, ~backward]).float().mean())


class DiscourseTraining(TextMethod):
    """Order, continuation and conjunctions of the sentences of documents, on one encoder (DiscSent; Jernite et al.,
    2017); see :class:`DiscourseTasks`.

    Conjunctions are those of English that open a sentence (:mod:`nearfar.data.conjunctions`); such a sentence is
    embedded a second time, without it. Options: ``tasks``: which, by default all three; ``context``, ``candidates``.

    Logs the share of right answers by task. A task that the data do not give (no conjunction; no document of
    ``context + 1`` sentences) is left out with a warning; raises DataError where none is left, UsageError for tasks
    that do not exist.
    """

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting)
        options, examples = setting.options, setting.examples
        tasks = [task.strip() for task in str(options["tasks"]).split(",") if task.strip()]
        context = int(options["context"])
        self.kinds, stripped = _conjunctions(examples)
        left_out = {
            "conjunction": None if len(stripped) else "no sentence opens with a conjunction that is known",
            "next": None
            if (np.diff(examples.documents()) > context).any()
            else f"no document has {context + 1} sentences",
        }
        for task, why in left_out.items():
            if task in tasks and why is not None:
                warnings.warn(f"{task} is not learned: {why}", UserWarning, stacklevel=2)
                tasks.remove(task)
                if not tasks:
                    raise DataError(f"there is nothing to learn from: {why}")
        # "encoder" is in no name here: heads learn at the rate of heads
        self.discourse = DiscourseTasks(
            setting.dimension, tasks=tasks, context=context, candidates=int(options["candidates"])
        )
        self.place = torch.cumsum(self.kinds >= 0, 0) - 1
        self.stripped = TextBatches(setting.encoder, stripped) if "conjunction" in tasks else None

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        rows = batch["rows"].cpu()
        kind, without = self.kinds[rows], None
        if self.stripped is not None and bool((kind >= 0).any()):
            made = self.stripped.batch(self.place[rows][kind >= 0].numpy())["chunks"][0]
            features = {
                name: value.to(embeddings.device) if isinstance(value, Tensor) else value
                for name, value in made.items()
            }
            without = static.embed(self.encoder, features)
        device = embeddings.device
        loss, right = self.discourse(
            embeddings,
            batch["documents"].to(device),
            rows.to(device),
            kind=kind.to(device),
            without=without,
        )
        return loss, {f"{task} right": value for task, value in right.items()}


def _conjunctions(examples: Examples) -> tuple[Tensor, Examples]:
    """The kind of conjunction of every sentence ``[n]``, -1 for none, and those that have one without it."""
    kinds = torch.full((len(examples),), -1)
    stripped: list[str] = []
    for row, text in enumerate(examples.texts()):
        found = without_conjunction(text)
        if found is not None:
            kinds[row] = found[0]
            stripped.append(found[1])
    return kinds, Examples.from_columns({"text": stripped, "document": range(len(stripped))})
