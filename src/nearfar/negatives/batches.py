"""Batches of rows: which items meet as negatives, in an order that seed and epoch alone decide."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError

Integers = npt.NDArray[np.int64]


def batch_sizes(rows: int, batch_size: int, *, drop_last: bool = False) -> list[int]:
    """How ``rows`` rows are divided into batches.

    Every batch has ``batch_size`` rows while enough are left. The rest is a smaller last batch if it has at least half
    of them; a smaller rest is shared with the batch before, so that the last two are nearly equal: no batch falls below
    half the size, which would leave its anchors with few negatives. With ``drop_last`` the rest is left out (other
    rows in each epoch). Fewer rows than ``batch_size`` make one batch of them all.

    >>> batch_sizes(2600, 1024), batch_sizes(2100, 1024), batch_sizes(2600, 1024, drop_last=True), batch_sizes(9, 1024)
    ([1024, 1024, 552], [1024, 538, 538], [1024, 1024], [9])
    """
    full, rest = divmod(rows, batch_size)
    if full == 0:
        return [rows] if rows else []
    sizes = [batch_size] * full
    if rest == 0 or drop_last:
        return sizes
    if 2 * rest < batch_size:
        shared = sizes.pop() + rest
        return [*sizes, (shared + 1) // 2, shared // 2]
    return [*sizes, rest]


class Batches:
    """Shuffled batches of the rows 0..n-1 of a data set, each row at most once an epoch; a batch sampler for torch.

    Iterating gives one int64 array of rows a batch, of the present ``epoch`` (see :meth:`set_epoch`). The order depends
    on ``seed`` and epoch only, so a run can be resumed at any batch. There are equally many batches in every epoch,
    :func:`batch_sizes` says how large. Over several ``processes`` each iterates over its part (``rank``) of the same
    global batches; the parts differ by one row at most.

    ``left_out`` is how many rows had no place in the last epoch that was planned.

    Raises :class:`UsageError` for sizes below 1, :class:`DataError` when there are too few rows to be contrasted or to
    give every process one. A ``batch_size`` beyond the number of rows warns and makes one batch of all.
    """

    smallest_batch = 2

    def __init__(
        self, rows: int, batch_size: int, *, seed: int = 0, drop_last: bool = False, rank: int = 0, processes: int = 1
    ) -> None:
        if batch_size < self.smallest_batch:
            raise UsageError(
                f"a batch of {batch_size} has nothing to contrast", hint=f"use at least {self.smallest_batch} rows"
            )
        if processes < 1 or not 0 <= rank < processes:
            raise UsageError(f"process {rank} of {processes} does not exist")
        if rows < max(min(self.smallest_batch, 2), processes):
            raise DataError(
                f"{rows:,} row{'s' if rows != 1 else ''} cannot be contrasted"
                + (f" on {processes} processes" if processes > 1 else ""),
                hint="at least 2 rows are needed, and one for each process",
            )
        if batch_size > rows:
            warnings.warn(
                f"the batch size {batch_size:,} is larger than the data: each batch is all of its {rows:,} rows",
                UserWarning,
                stacklevel=2,
            )
        self.rows = rows
        self.batch_size = min(batch_size, rows)
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.left_out = 0

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch's batches from now on."""
        self.epoch = epoch

    def sizes(self) -> list[int]:
        """Rows of each global batch of an epoch, where none has to be left out."""
        return batch_sizes(self.rows, self.batch_size, drop_last=self.drop_last)

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Iterator[Integers]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[Integers]:
        """This process's part of the batches of the present epoch, from batch ``start`` on."""
        for batch in self.plan(self.epoch)[start:]:
            if len(batch) < self.processes:
                raise DataError(
                    f"a batch has {len(batch)} rows left for {self.processes} processes",
                    hint="most rows hold the same text: remove duplicates, or train on one process",
                )
            yield np.array_split(batch, self.processes)[self.rank]

    def plan(self, epoch: int) -> list[Integers]:
        """The global batches of ``epoch``: arrays of distinct rows."""
        order = self._generator(epoch).permutation(self.rows)
        return self._cut(order)

    def describe(self) -> dict[str, Any]:
        """What is worth writing down of how batches are made."""
        return {"rows": self.rows, "batch_size": self.batch_size, "batches": len(self), "seed": self.seed}

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])

    def _cut(self, order: Integers) -> list[Integers]:
        """``order`` as batches; rows set to -1 are left out."""
        ends = np.cumsum(self.sizes())
        batches = [part[part >= 0] for part in np.split(order[: ends[-1]], ends[:-1])]
        self.left_out = self.rows - sum(map(len, batches))
        return batches


class OrderedBatches(Batches):
    """Batches of rows that follow each other in the data, in their order; the order of the batches is shuffled.

    ``offsets`` ``[k + 1]`` say where documents begin and end (:meth:`nearfar.data.Examples.documents`), where the data
    hold several: no batch mixes documents, each of which is divided by :func:`batch_sizes`. A document of one row has
    no neighbour and is left out. Without ``offsets`` all rows are one.

    Raises :class:`DataError` where no document has two rows (or one for each process).
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        offsets: npt.NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__(rows, batch_size, seed=seed, drop_last=drop_last, rank=rank, processes=processes)
        bounds = [0, rows] if offsets is None else offsets.tolist()
        self._ranges: list[tuple[int, int]] = []
        for start, end in itertools.pairwise(bounds):
            ends = start + np.cumsum(batch_sizes(end - start, self.batch_size, drop_last=drop_last))
            self._ranges += itertools.pairwise([start, *ends.tolist()])
        least = max(self.smallest_batch, processes)
        self._ranges = [(start, end) for start, end in self._ranges if end - start >= least]
        if not self._ranges:
            raise DataError(
                f"no document has {least} rows",
                hint="give the sentences of a document one below the other, under the name of the same document",
            )
        self.left_out = rows - sum(self.sizes())

    def sizes(self) -> list[int]:
        return [end - start for start, end in self._ranges]

    def plan(self, epoch: int) -> list[Integers]:
        order = self._generator(epoch).permutation(len(self._ranges))
        return [np.arange(*self._ranges[place]) for place in order]
