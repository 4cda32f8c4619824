"""Batches of pairs in which no negative is a positive in disguise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.negatives.batches import Batches, Integers

LEFT_OUT_AT_MOST = 0.1
"""Share of the rows that may be left out of an epoch for want of batches; beyond it there are more, smaller batches."""

_OFTEN = 0.125
"""A text in more than this share of the batches is dealt to them; chance would put too many of its rows together."""

_GUESSES = 16
"""Places tried at random before all free batches are looked up."""

_SEARCHED = 64
"""Free batches looked at, and rows tried in each, before a row is left out of the epoch."""

_PARTNERS = 4


class NoDuplicateBatches(Batches):
    """Batches of pairs in which no two rows share a text: equal anchors, equal positives, or an anchor equal to
    another's positive never meet as negatives.

    ``texts`` holds one array ``[n]`` a column (anchor, positive, ...): a number for each text, equal for texts that
    count as equal (:meth:`nearfar.data.Examples.hashes`).

    The rows are shuffled and cut into batches; where two of a batch share a text, one is exchanged for a row of another
    batch so that neither clashes. A text that is in many rows is dealt out first, one row a batch. Every row keeps its
    one place an epoch and batches keep their size. Only where texts are in (nearly) as many rows as there are batches
    can a row be without a place: it is left out of this epoch and counted in ``left_out``; in the next epoch it is
    another. Where that would concern more than a tenth of the rows (:data:`LEFT_OUT_AT_MOST`), as when all anchors come
    from a short list, a warning says so and the batches are smaller and more. Time is that of a shuffle plus some
    microseconds for each clash.

    Raises :class:`~nearfar.errors.DataError` where no two rows could meet.
    """

    def __init__(
        self,
        texts: Sequence[npt.NDArray[np.integer[Any]]],
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        columns = [np.asarray(column) for column in texts]
        super().__init__(len(columns[0]), batch_size, seed=seed, drop_last=drop_last, rank=rank, processes=processes)
        self._shared = _SharedTexts(columns)
        usual = super().sizes()
        count = _batches_needed(self._shared.counts, len(usual), LEFT_OUT_AT_MOST * self.rows)
        if self.rows < 2 * count:
            raise DataError(
                "hardly any two rows can be contrasted: nearly all hold the same text", hint="remove the duplicates"
            )
        self._sizes = usual
        if count > len(usual):
            self._sizes = [len(part) for part in np.array_split(np.arange(self.rows), count)]
            warnings.warn(
                f"texts repeat so often that batches of {self.batch_size:,} rows without repeats do not exist; they "
                f"have {self._sizes[0]:,} rows",
                UserWarning,
                stacklevel=2,
            )

    def sizes(self) -> list[int]:
        return self._sizes

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "rows_with_repeated_texts": self._shared.rows_bound}

    def plan(self, epoch: int) -> list[Integers]:
        generator = self._generator(epoch)
        sizes = np.array(self.sizes())
        shuffled = generator.permutation(self.rows)
        batch_of = np.full(self.rows, -1, np.int64)
        room = _deal(self._shared, shuffled, sizes, batch_of, generator)
        rest = shuffled[batch_of[shuffled] == -1]
        slots = np.repeat(np.arange(len(sizes)), room)
        batch_of[rest[: len(slots)]] = slots[: len(rest)]
        batch_of[batch_of < 0] = len(sizes)  # without a place
        order = shuffled[np.argsort(batch_of[shuffled], kind="stable")]
        if self._shared.rows_bound:
            _Repair(self._shared, order, batch_of, len(sizes), generator).run()
        return self._collected(order, batch_of, len(sizes))

    def _collected(self, order: Integers, batch_of: Integers, batches: int) -> list[Integers]:
        order = order[np.argsort(batch_of[order], kind="stable")]
        ends = np.cumsum(np.bincount(batch_of, minlength=batches + 1)[:batches])
        self.left_out = self.rows - int(ends[-1])
        return [part.copy() for part in np.split(order[: ends[-1]], ends[:-1])]


def _batches_needed(counts: Integers, least: int, excess: float) -> int:
    """The smallest number of batches >= ``least`` such that texts in more rows than that exceed it by ``excess`` rows
    in all."""
    low, high = least, max(least, int(counts.max(initial=0)))
    while low < high:
        middle = (low + high) // 2
        if np.maximum(counts - middle, 0).sum() <= excess:
            high = middle
        else:
            low = middle + 1
    return low


class _SharedTexts:
    """The texts that more than one row holds, numbered 0..t-1, and who holds them."""

    def __init__(self, columns: list[npt.NDArray[np.integer[Any]]]) -> None:
        rows = len(columns[0])
        values = np.concatenate(columns)
        order = np.argsort(values, kind="stable")
        values, row = values[order], order % rows
        text = np.cumsum(_firsts(values)) - 1
        several = np.bincount(text)[text] > 1
        text, row = text[several], row[several]
        by_row = np.lexsort((row, text))
        text, row = text[by_row], row[by_row]
        once = _firsts(text, row)  # a row may hold a text twice
        text, row = text[once], row[once]
        several = np.bincount(text)[text] > 1
        text, self.row = text[several], row[several]
        self.text: Integers = np.cumsum(_firsts(text)) - 1
        """Text of each (text, row) entry, ascending, with its ``row``."""
        self.counts = np.bincount(self.text)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.rows_bound = len(np.unique(self.row))

    def by_row(self) -> tuple[list[int], list[int]]:
        """``texts, begins``: the shared texts of row r are ``texts[begins[r]:begins[r + 1]]``."""
        order = np.argsort(self.row, kind="stable")
        last = int(self.row.max()) if len(self.row) else -1
        return self.text[order].tolist(), np.searchsorted(self.row[order], np.arange(last + 2)).tolist()


def _firsts(*columns: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Which rows of sorted columns differ from the row before, ``[n]``."""
    first = np.ones(len(columns[0]), bool)
    first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return first


def _deal(
    shared: _SharedTexts, shuffled: Integers, sizes: Integers, batch_of: Integers, generator: np.random.Generator
) -> Integers:
    """Give the rows of very frequent texts their batches (-2: none), the emptiest first; returns the room that is
    left."""
    room: Integers = sizes.copy()
    often = np.flatnonzero(shared.counts > max(1, _OFTEN * len(sizes)))
    if not len(often):
        return room
    place = np.empty(len(shuffled), np.int64)
    place[shuffled] = np.arange(len(shuffled))
    for text in often[np.argsort(-shared.counts[often], kind="stable")]:
        rows = shared.row[shared.starts[text] : shared.starts[text + 1]]
        taken = batch_of[rows]
        rows = rows[taken == -1]  # others came with another of their texts
        rows = rows[np.argsort(place[rows])]
        free = room > 0
        free[taken[taken >= 0]] = False
        batches = np.flatnonzero(free)
        share = 1 - room[batches] / sizes[batches] + generator.random(len(batches)) / sizes[batches]
        batches = batches[np.argsort(share, kind="stable")][: len(rows)]
        batch_of[rows[: len(batches)]] = batches
        batch_of[rows[len(batches) :]] = -2
        room[batches] -= 1
    return room


class _Repair:
    """Makes batches free of clashes by exchanging rows; changes ``batch_of``, in which ``batches`` means no place."""

    def __init__(
        self, shared: _SharedTexts, order: Integers, batch_of: Integers, batches: int, generator: np.random.Generator
    ) -> None:
        self.shared = shared
        self.generator = generator
        self.batches = batches
        self.final = batch_of
        self.order = order
        self.rank = np.empty(len(order), np.int64)
        self.rank[order] = np.arange(len(order))
        self.ends = np.cumsum(np.bincount(batch_of, minlength=batches + 1))

    def run(self) -> None:
        clashing = self._clashing()
        if not clashing:
            return
        self.batch_of: list[int] = self.final.tolist()
        self.row_at: list[int] = self.order.tolist()
        self.place: list[int] = self.rank.tolist()
        self.texts, self.begins = self.shared.by_row()
        codes = (self.shared.text * self.batches + self.final[self.shared.row])[
            self.final[self.shared.row] < self.batches
        ]
        codes.sort()
        self.occupied = set(codes.tolist())
        self.more: dict[int, int] = {}  # how many rows beyond the first hold a text in a batch
        for code in codes[1:][codes[1:] == codes[:-1]].tolist():
            self.more[code] = self.more.get(code, 0) + 1
        for row in clashing:
            batch = self.batch_of[row]
            if self._fits(row, batch, row):
                continue
            if not self._by_guess(row, batch) and not self._by_search(row, batch):
                self._move(row, self.batches)
        self.final[:] = self.batch_of

    def _clashing(self) -> list[int]:
        """Rows that share a text with an earlier row of their batch, in the order of their places."""
        text, row = self.shared.text, self.shared.row
        here = self.final[row] < self.batches
        text, row = text[here], row[here]
        together = text * self.batches + self.final[row]
        by_place = np.lexsort((self.rank[row], together))
        together = together[by_place]
        later = np.flatnonzero(together[1:] == together[:-1]) + 1
        rows = np.unique(row[by_place][later])
        return list(rows[np.argsort(self.rank[rows])].tolist())

    def _texts_of(self, row: int) -> list[int]:
        return self.texts[self.begins[row] : self.begins[row + 1]] if row + 1 < len(self.begins) else []

    def _fits(self, row: int, batch: int, without: int) -> bool:
        """Whether ``row`` clashes with nothing in ``batch`` but ``without``, which is there."""
        for text in self._texts_of(row):
            code = text * self.batches + batch
            if code in self.occupied and (self.more.get(code) or text not in self._texts_of(without)):
                return False
        return True

    def _move(self, row: int, batch: int) -> None:
        """Take ``row`` out of its batch and put it into ``batch``."""
        before = self.batch_of[row]
        for text in self._texts_of(row):
            if before < self.batches:
                code = text * self.batches + before
                if self.more.get(code):
                    self.more[code] -= 1
                else:
                    self.occupied.discard(code)
            if batch < self.batches:
                self.occupied.add(text * self.batches + batch)
        self.batch_of[row] = batch

    def _exchange(self, row: int, batch: int, place: int) -> bool:
        """Exchange ``row`` of ``batch`` for the row at ``place``, if neither clashes then."""
        other = self.row_at[place]
        there = self.batch_of[other]
        if there in (batch, self.batches) or not self._fits(row, there, other) or not self._fits(other, batch, row):
            return False
        self._move(other, self.batches)
        self._move(row, there)
        self._move(other, batch)
        self.row_at[place], self.row_at[self.place[row]] = row, other
        self.place[other], self.place[row] = self.place[row], place
        return True

    def _by_guess(self, row: int, batch: int) -> bool:
        guesses = self.generator.integers(0, self.ends[self.batches - 1], _GUESSES).tolist()
        return any(self._exchange(row, batch, place) for place in guesses)

    def _by_search(self, row: int, batch: int) -> bool:
        texts = self._texts_of(row)
        free = [
            other
            for other in range(self.batches)
            if not any(text * self.batches + other in self.occupied for text in texts)
        ]
        for other in self.generator.permutation(free)[:_SEARCHED].tolist():
            start = int(self.ends[other - 1]) if other else 0
            places = self.generator.integers(start, self.ends[other], _PARTNERS).tolist()
            if any(self._exchange(row, batch, place) for place in places):
                return True
        return False
