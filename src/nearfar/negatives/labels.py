"""Batches of labelled items in which every item finds another of its class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.negatives.batches import Batches, Integers


class LabelBatches(Batches):
    """Batches in which each class that is present has at least 2 rows, so that no anchor is without a positive
    (supervised contrastive objectives: SupCon, triplet, ...).

    ``labels [n]`` are integers. In each epoch the rows of a class are shuffled and taken in twos (one three where the
    class is odd); these are shuffled and dealt to the batches. Every row has its place once an epoch. Batches have at
    most ``batch_size`` rows and are equal in size to within 5; there are as few as this bound allows. A class of one
    row cannot have a positive: its row comes along as a negative and is counted in ``lonely``.
    """

    smallest_batch = 4

    def __init__(
        self,
        labels: npt.NDArray[np.integer[Any]],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        labels = np.asarray(labels)
        super().__init__(len(labels), batch_size, seed=seed, rank=rank, processes=processes)
        self._labels = np.unique(labels, return_inverse=True)[1]
        counts = np.bincount(self._labels)
        self.lonely = int((counts == 1).sum())
        groups = np.concatenate(
            [
                np.full(int(((counts % 2 == 1) & (counts > 1)).sum()), 3),
                np.full(int((counts[counts > 1] // 2).sum() - ((counts % 2 == 1) & (counts > 1)).sum()), 2),
                np.full(self.lonely, 1),
            ]
        )
        self._sizes = _dealt(groups, self.batch_size)

    def sizes(self) -> list[int]:
        return self._sizes

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "classes_of_one_row": self.lonely}

    def plan(self, epoch: int) -> list[Integers]:
        generator = self._generator(epoch)
        shuffled = generator.permutation(self.rows)
        rows = shuffled[np.argsort(self._labels[shuffled], kind="stable")]
        counts = np.bincount(self._labels)
        inside = np.arange(self.rows) - np.repeat(np.cumsum(counts) - counts, counts)
        own = np.repeat(counts, counts)
        number = np.minimum(inside // 2, np.maximum(own // 2 - 1, 0))  # the odd one joins the last two
        begins = np.concatenate([[True], (np.diff(number) != 0) | (np.diff(self._labels[rows]) != 0)])
        group = np.cumsum(begins) - 1
        sizes = np.bincount(group)
        dealt = generator.permutation(len(sizes))
        dealt = dealt[np.argsort(-sizes[dealt], kind="stable")]
        batch_of_group = np.empty(len(sizes), np.int64)
        batch_of_group[dealt] = generator.permutation(len(self))[np.arange(len(sizes)) % len(self)]
        batch = batch_of_group[group]
        order = np.argsort(batch, kind="stable")
        ends = np.cumsum(np.bincount(batch, minlength=len(self)))
        self.left_out = 0
        return [generator.permutation(part) for part in np.split(rows[order], ends[:-1])]


def _dealt(groups: npt.NDArray[np.integer[Any]], limit: int) -> list[int]:
    """Sizes of the fewest batches of at most ``limit`` rows when ``groups`` are dealt out in turn."""
    batches = -(-int(groups.sum()) // limit)
    while True:
        sizes = np.bincount(np.arange(len(groups)) % batches, weights=groups, minlength=batches).astype(int)
        if sizes.max() <= limit:
            return [int(size) for size in sizes]
        batches += 1
