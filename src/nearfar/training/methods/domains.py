"""Methods that carry labels of one domain over to another (CLIM)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nearfar.encoders.classifier_files import PerceptronClassifier
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import DataError, UsageError
from nearfar.negatives.streams import Pools
from nearfar.objectives import CLIM
from nearfar.training.method import Batch, Logs
from nearfar.training.methods import text_views
from nearfar.training.methods.text_views import TextViews
from nearfar.training.text_training import Option, TextSetting

if TYPE_CHECKING:
    import numpy.typing as npt

    from nearfar.data import Examples

SHARE_OF_ENTROPY = 0.53 / math.log(2)
"""The paper's threshold of H(Y), as a share of its largest value: 0.53 of log 2 for two classes."""

OPTIONS: Mapping[str, Option] = {
    "target": "none",
    "view1": "identity",
    "view2": "deletion",
    "temperature": 0.05,
    "weight": 1.0,
    "information_weight": 1.0,
    "information_from": 1,
    "threshold": 0.0,
    "thesaurus": "none",
    "model": "none",
    "there": "none",
    "back": "none",
}
"""Options of :class:`CrossDomain`."""


class CrossDomain(TextViews):
    """Labels of the source, contrast within each domain, and predictions that are sure and varied (CLIM; Li et al.,
    2021); see :class:`~nearfar.objectives.CLIM`.

    Two heads of a layer each: a projection, in which each text is contrasted with its second view among the texts of
    its domain, and a classifier, which is saved beside the encoder (``model/classifier``) and which
    ``nearfar classify predict`` and ``nearfar evaluate`` use. A batch has equally many labelled texts of the source,
    texts of it without a label, and texts of the target (:class:`~nearfar.negatives.streams.Pools`). Labels of the
    target are never looked at. Each third batch of an epoch is trained on without the cross-entropy; the mutual
    information enters in epoch ``information_from``.

    Options:
        target: the name of the target domain; "none" (default): the one without labels.
        view1, view2: what the two views are, see :mod:`nearfar.views.text`; by default the text and the text without a
            tenth of its words. The paper's second view is a back-translation: view2=back-translation with the folders
            of two translation models, there and back.
        temperature: of the contrast, default 0.05; ``weight`` of it, and ``information_weight``, default 1.
        information_from: the epoch, from 0, default 1.
        threshold: of H(Y) in nats; 0 (default): the paper's 0.53 for two classes, the same share of log C for C.
        thesaurus, model, there, back: files of views that need them.

    Logs the share of right answers on the labelled texts of the batch, the entropy of the mean prediction, and the
    predicted share of the target's largest class: where it goes to 1, predictions vary between domains alone, and
    mutual information should enter later (``information_from``) or count less. Raises DataError where the source has
    labels of fewer than two classes, UsageError for views that depend on the loss.
    """

    distributed = False

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        given = {name: value for name, value in options.items() if name in text_views.OPTIONS}
        super().__init__(dataclasses.replace(setting, options={**text_views.OPTIONS, **given}))
        if any(side.adversarial is not None for side in self.sides):
            raise UsageError("a view that follows the loss has no place beside a classifier", hint="take another view")
        self.domain, codes, self.labels = source_and_target(setting.examples, options)
        self.codes = torch.from_numpy(codes)
        classes = len(self.labels)
        self.objective = CLIM(
            float(options["threshold"]) or SHARE_OF_ENTROPY * math.log(classes),
            weight=float(options["weight"]),
            information_weight=float(options["information_weight"]),
            temperature=float(options["temperature"]),
        )
        self.information_from = int(options["information_from"])
        if setting.steps <= self.information_from * setting.steps_per_epoch and self.objective.information_weight:
            warnings.warn(
                f"the run ends before epoch {self.information_from}, from which on predictions for the target count: "
                "train for more epochs, or --set information_from=0",
                UserWarning,
                stacklevel=2,
            )
        d = setting.dimension
        self.projection, self.head = Perceptron((d, d, d)), Perceptron((d, d, classes))
        self.steps_per_epoch = setting.steps_per_epoch
        self.done = torch.nn.Buffer(torch.zeros((), dtype=torch.int64))

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.done.fill_(step)

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        rows, n = batch["rows"].cpu(), len(batch["rows"])
        first, second = self.projection(embeddings).chunk(2)
        logits = self.head(embeddings)
        domain, labels = self.domain[rows].to(embeddings.device), self.codes[rows].to(embeddings.device)
        known = labels >= 0
        logs: Logs = {"labelled right": (logits[:n].argmax(1) == labels)[known].float().mean()}
        terms: dict[str, Tensor] = {}
        done = int(self.done)
        if done % self.steps_per_epoch % 3:
            terms |= {"logits": logits[:n][known], "labels": labels[known]}
        if done // self.steps_per_epoch >= self.information_from:
            unlabelled = torch.cat([logits[:n][~known], logits[n:]])
            terms["unlabelled_logits"] = unlabelled
            mean = unlabelled.detach().softmax(1).mean(0)
            logs["entropy of the mean prediction"] = -torch.special.xlogy(mean, mean).sum()
            # all of a domain may get one class while the mean over both domains stays varied
            logs["largest class of the target"] = logits[:n][domain == 1].detach().softmax(1).mean(0).max()
        loss: Tensor = self.objective(first, second, domain=domain, memory=self.memory, **terms)
        return loss, logs

    def classifier(self) -> PerceptronClassifier:
        """The classifier of embeddings as it is now; it takes them as they are, not normalised."""
        # V, a, W, b: two linear layers
        arrays = (parameter.detach().cpu().numpy() for parameter in self.head.parameters())
        return PerceptronClassifier(tuple(self.labels), *arrays)


def source_and_target(
    examples: Examples, options: Mapping[str, Option]
) -> tuple[Tensor, npt.NDArray[np.int64], list[str]]:
    """The domain of each row ``[n]`` (0 source, 1 target), the labels that are trained on as codes ``[n]`` (those of
    the source, -1 elsewhere), and their names.

    Raises :class:`~nearfar.errors.DataError` where these are fewer than two.
    """
    target = str(options["target"])
    domain, (source, _) = examples.domains(None if target == "none" else target)
    codes, names = examples.labels()
    codes[domain == 1] = -1
    known = np.unique(codes[codes >= 0])
    if len(known) < 2:
        raise DataError(
            f"the source, {source!r}, has labels of {len(known)} classes, so there is nothing to tell apart",
            hint="which domain is the target can be said by --set target=NAME",
        )
    codes[codes >= 0] = np.searchsorted(known, codes[codes >= 0])
    return torch.from_numpy(domain), codes, [names[code] for code in known]


def triples(
    examples: Examples,
    options: Mapping[str, Option],
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Pools:
    """Batches of equally many labelled and unlabelled texts of the source (where there are some) and texts of the
    target."""
    domain, codes, _ = source_and_target(examples, options)
    target = domain.numpy() == 1
    pools = [np.flatnonzero(codes >= 0), np.flatnonzero((codes < 0) & ~target), np.flatnonzero(target)]
    return Pools([pool for pool in pools if len(pool)], batch_size, seed=seed, rank=rank, processes=processes)
