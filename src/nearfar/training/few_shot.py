"""A classifier of frozen embeddings of a few items, started from what another has learned of the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar.encoders.transfer import transfer_rows
from nearfar.objectives import CatLIP
from nearfar.training.steps import seeded, train_steps


def few_shot_accuracy(
    pretrained: nn.Module,
    rows: Sequence[int | None],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    steps: int = 100,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> float:
    """Share of ``test`` told right by a :class:`~nearfar.objectives.CatLIP` classifier trained on all of ``train``.

    ``train`` and ``test`` are embeddings ``[n, d]``, which stay as they are, and their classes ``[n]``. Class c starts
    from row ``rows[c]`` of the classifier ``pretrained``, or where that is None from small random numbers (the transfer
    of Mehta et al., 2024, see :func:`~nearfar.encoders.transfer.transfer_rows`). Adam makes ``steps`` steps on the
    whole of ``train``; the class of the largest logit is the answer. In [0, 1]; ``seed`` decides what is random.

    Raises :class:`~nearfar.errors.UsageError` for rows that do not fit, ValueError for labels that are no class.
    """
    (embeddings, labels), (asked, truth) = train, test
    with seeded(seed):
        classifier = CatLIP(len(rows), embeddings.shape[1])
    transfer_rows(classifier, pretrained, rows)
    everything = torch.arange(len(labels))
    train_steps(
        lambda index: classifier(embeddings[index], labels=labels[index]),
        [classifier],
        [everything] * steps,
        learning_rate=learning_rate,
    )
    assert classifier.proxies is not None
    assert classifier.bias is not None
    with torch.no_grad():
        found = (asked @ classifier.proxies.T + classifier.bias).argmax(1)
    return float((found == truth).float().mean())
