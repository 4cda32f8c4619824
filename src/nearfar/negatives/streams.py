"""Batches out of several kinds of rows: each batch of one kind, or each of as many of every kind."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.negatives.batches import Batches, Integers


class Interleaved(Batches):
    """The batches of several streams, each batch of one of them, as evenly mixed as their numbers allow.

    ``streams``: for each the rows ``[n]`` of the data that it is about, and :class:`~nearfar.negatives.Batches` of the
    places in that list. Of s streams with b_1, ..., b_s batches, batch i of stream k stands at ``(i + 1/2) / b_k`` of
    an epoch (MCSE, 2022: the two streams of captions and of texts alone).

    Raises :class:`~nearfar.errors.UsageError` for no stream or lengths that do not fit.
    """

    def __init__(
        self, streams: Sequence[tuple[npt.NDArray[np.integer[Any]], Batches]], *, rank: int = 0, processes: int = 1
    ) -> None:
        if not streams or any(len(rows) != batches.rows for rows, batches in streams):
            raise UsageError("each stream needs its rows and as many places to draw from")
        self.streams = [(np.asarray(rows, np.int64), batches) for rows, batches in streams]
        largest = max(batches.batch_size for _, batches in streams)
        super().__init__(
            sum(len(rows) for rows, _ in streams),
            largest,
            seed=streams[0][1].seed,
            rank=rank,
            processes=processes,
        )
        place = np.concatenate([(np.arange(len(batches)) + 0.5) / len(batches) for _, batches in self.streams])
        self._order = np.argsort(place, kind="stable")

    def sizes(self) -> list[int]:
        every = [size for _, batches in self.streams for size in batches.sizes()]
        return [every[place] for place in self._order]

    def plan(self, epoch: int) -> list[Integers]:
        every = [rows[batch] for rows, batches in self.streams for batch in batches.plan(epoch)]
        self.left_out = sum(batches.left_out for _, batches in self.streams)
        return [every[place] for place in self._order]


class Pools(Batches):
    """Batches of equally many rows of each of several pools, the first pool's first: labelled and unlabelled texts, two
    domains.

    ``pools``: the rows ``[n_k]`` of each. Every pool is drawn from in turns of its own: its rows in random order, in
    whole shares of a batch, then again in another order. An epoch has as many batches as the first pool has shares, the
    last of which may be a part of one. A batch has ``batch_size`` rows, or so many fewer that they are equally many; no
    row comes twice in it, and a pool smaller than its share makes batches smaller, with a warning. Everything depends
    on ``seed`` and epoch alone.

    Raises :class:`~nearfar.errors.UsageError` for a batch that has less than a row for each pool,
    :class:`~nearfar.errors.DataError` for a pool without rows.
    """

    def __init__(
        self,
        pools: Sequence[npt.NDArray[np.integer[Any]]],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.pools = [np.asarray(pool, np.int64) for pool in pools]
        sizes = [len(pool) for pool in self.pools]
        if not sizes or min(sizes) < 1:
            raise DataError("a pool of rows is empty, so that no batch has some of each")
        self.share = batch_size // len(sizes)
        if self.share < 1:
            raise UsageError(f"a batch of {batch_size} has no row for each of {len(sizes)} pools")
        if min(sizes) < self.share:
            warnings.warn(
                f"a pool has {min(sizes):,} rows, fewer than its share of {self.share:,} of a batch: batches have "
                f"{min(sizes) * len(sizes):,} rows",
                UserWarning,
                stacklevel=2,
            )
            self.share = min(sizes)
        super().__init__(sum(sizes), self.share * len(sizes), seed=seed, rank=rank, processes=processes)

    def sizes(self) -> list[int]:
        return [self.batch_size] * -(-len(self.pools[0]) // self.share)

    def plan(self, epoch: int) -> list[Integers]:
        count = len(self)
        dealt = [
            _turns(pool, number, self.seed, epoch * count * self.share, count * self.share, self.share)
            for number, pool in enumerate(self.pools)
        ]
        self.left_out = self.rows - len(np.unique(np.concatenate([part.ravel() for part in dealt])))
        return [np.concatenate([part[batch] for part in dealt]) for batch in range(count)]


def _turns(pool: Integers, number: int, seed: int, start: int, count: int, share: int) -> Integers:
    """``count`` rows of ``pool`` from place ``start`` of its endless order, ``[count / share, share]``; none comes
    twice within a share."""
    # a turn ends with a whole share: what is left over of it waits for the next, in another order
    per_turn = len(pool) // share * share
    turns = range(start // per_turn, (start + count - 1) // per_turn + 1)
    order = np.concatenate([np.random.default_rng([seed, number, turn]).permutation(pool)[:per_turn] for turn in turns])
    first = start - turns[0] * per_turn
    return order[first : first + count].reshape(-1, share)
