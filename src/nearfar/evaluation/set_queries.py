"""Do sets of a few examples find the rest of their class: the protocol of SetCSE (Liu, 2024, arXiv:2404.17606)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError
from nearfar.search.sets import difference, intersection, order

Tune = Callable[[Sequence[Tensor]], Callable[[Tensor], Tensor]]
"""From the example sets ``[m, d]`` of all classes to what corrects embeddings ``[n, d] -> [n, d]``."""

ACCURACY, INTERSECTION_F1, DIFFERENCE_F1 = "accuracy", "intersection F1", "difference F1"


def set_discrimination(
    embeddings: Tensor,
    labels: Tensor,
    *,
    sample: int = 20,
    draws: int = 5,
    tune: Tune | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How well set operations tell the classes of ``embeddings [n, d]`` apart, ``labels [n]`` (integers).

    Of each class ``sample`` items are drawn as its example set Q_i; U are the rest. For each class i, ``U ∩ Q_i`` says
    i of as many of its first items as U has of class i, and ``U \\ Q_i`` says "not i" of as many of its first as are
    not. Means over classes and ``draws``: "accuracy", the share of U told right; "intersection F1" of the answer i;
    "difference F1" of the answer "not i". By the same embeddings the two operations order U in opposite ways, so that
    their accuracies are one.

    ``tune`` makes of the example sets what corrects all embeddings, e.g. ``nearfar.search.set_tuning.tune_adapter``.
    Defaults are the paper's (its number of draws from memory). ``seed`` decides which examples are drawn. Raises
    :class:`~nearfar.errors.DataError` for fewer than two classes or one of no more than ``sample`` items,
    :class:`~nearfar.errors.UsageError` for numbers below 1.
    """
    if min(sample, draws) < 1:
        raise UsageError(f"sample and draws must be at least 1, got {sample} and {draws}")
    names, codes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError("all labels are the same: there is nothing to tell apart")
    if int(counts.min()) <= sample:
        raise DataError(
            f"label {int(names[counts.argmin()])} has {int(counts.min())} items, and {sample} are drawn as examples",
            hint="draw fewer, or leave the label out",
        )
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[float, float, float]] = []
    for _ in range(draws):
        shuffled = torch.randperm(len(codes), generator=generator)
        chosen = [shuffled[codes[shuffled] == code][:sample] for code in range(len(names))]
        rest = torch.ones(len(codes), dtype=torch.bool)
        rest[torch.cat(chosen)] = False
        sets = [embeddings[rows] for rows in chosen]
        items, truth = embeddings[rest], codes[rest]
        if tune is not None:
            correct = tune(sets)
            with torch.no_grad():
                items, sets = correct(items), [correct(each) for each in sets]
        found += [_told(items, truth == code, members) for code, members in enumerate(sets)]
    means = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return dict(zip((ACCURACY, INTERSECTION_F1, DIFFERENCE_F1), means, strict=True))


def precision_at(scores: Tensor, relevant: Tensor, k: int) -> float:
    """Share of the ``k`` items of the highest ``scores [n]`` that are ``relevant [n]`` (bool), in [0, 1].

    Equal scores count in the order of the items. Raises :class:`~nearfar.errors.UsageError` for k below 1 or above n.
    """
    if not 1 <= k <= len(scores):
        raise UsageError(f"of {len(scores)} items the first {k} cannot be looked at")
    return float(relevant[order(scores)[:k]].double().mean())


def _told(items: Tensor, own: Tensor, members: Tensor) -> tuple[float, float, float]:
    count = int(own.sum())
    taken = own[intersection(items, members)[:count]]
    left = ~own[difference(items, members)[: len(own) - count]]
    # as many are named as there are, so that precision, recall and F1 are one number
    right = int(taken.sum()) + int((~own).sum()) - (count - int(taken.sum()))
    return right / len(own), float(taken.float().mean()), float(left.float().mean())
