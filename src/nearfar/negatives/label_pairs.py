"""Pairs of labelled items: equal labels near, others far, drawn lazily in memory that grows with the items alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.negatives.batches import Batches, Integers

Strategy = Literal["oversampling", "undersampling", "unique"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

_ROUNDS = 6


class LabelPairs:
    """Pairs ``i <= j`` of ``n`` labelled items, as SetFit takes them (Tunstall et al., 2022, its package's sampler).

    There are ``positives = sum_c n_c (n_c + 1) / 2`` pairs of equal labels, an item with itself included, and
    ``negatives = (n² - sum_c n_c²) / 2`` others. In each epoch both kinds come in a random order of their own, without
    repetition until all have come, and take turns: positive, negative, positive, ... How many of each:

    - ``"oversampling"`` (the package's default): as many as the larger kind has; the smaller is gone through again;
    - ``"undersampling"``: as many as the smaller kind has;
    - ``"unique"``: each pair once; what is left of the larger kind comes at the end;
    - ``iterations`` R, where given, instead of a strategy: R n of each kind (the package's older way, R = 20).

    Arguments:
        labels: ``[n]`` integers.
        most: pairs an epoch at most, half of them positive; each epoch draws its own. None: no bound.
        itself: whether pairs of an item with itself count (the package's default): with dropout they are two views of
            one text, without it they teach nothing. A class of one item has no other positive.
        seed: of the order.

    Memory is O(n): pairs are numbered, the numbers permuted by a Feistel network and turned into pairs when they are
    asked for. Raises :class:`~nearfar.errors.UsageError` for another strategy and numbers that make no pairs,
    :class:`~nearfar.errors.DataError` for labels in which there is no positive or no negative.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer[Any]],
        *,
        strategy: str = "oversampling",
        iterations: int | None = None,
        most: int | None = None,
        itself: bool = True,
        seed: int = 0,
    ) -> None:
        if strategy not in STRATEGIES:
            raise UsageError(f"pairs cannot be drawn by {strategy!r}", hint=f"choose one of {', '.join(STRATEGIES)}")
        if iterations is not None and iterations < 1:
            raise UsageError(f"{iterations} pairs of each kind for an item; at least 1 is needed")
        if most is not None and most < 2:
            raise UsageError(f"at most {most} pairs; at least 2 are needed, one of each kind")
        given = np.asarray(labels)
        if given.ndim != 1 or not len(given):
            raise DataError(f"labels are one an item, [n], not {list(given.shape)}")
        codes, counts = np.unique(given, return_inverse=True, return_counts=True)[1:]
        self.items, self.itself, self.seed = len(given), itself, seed
        self._order = np.argsort(codes, kind="stable")  # items by class
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self._near = np.cumsum(counts * (counts + 1 if itself else counts - 1) // 2)
        own_end = np.repeat(self._ends, counts)
        self._far = np.cumsum(len(given) - own_end)  # partners of an item: those of the classes after its own
        self.positives, self.negatives = int(self._near[-1]), int(self._far[-1])
        if not self.negatives:
            raise DataError("all labels are the same: there is nothing to tell apart")
        if not self.positives:
            raise DataError(
                "no label occurs twice, so no two items are near", hint="let items be paired with themselves"
            )
        self._counts = self._how_many(strategy, iterations, most)

    def _how_many(self, strategy: str, iterations: int | None, most: int | None) -> tuple[int, int]:
        half = sys.maxsize if most is None else most // 2
        if iterations is not None:
            return min(iterations * self.items, half), min(iterations * self.items, half)
        near, far = self.positives, self.negatives
        if strategy == "oversampling":
            near = far = max(near, far)
        elif strategy == "undersampling":
            near = far = min(near, far)
        return min(near, half), min(far, half)

    def __len__(self) -> int:
        """Pairs an epoch."""
        return sum(self._counts)

    def pairs(self, start: int = 0, stop: int | None = None, *, epoch: int = 0) -> tuple[Integers, Integers, Integers]:
        """Pairs ``start`` to ``stop`` of an epoch: first items, second items, and 1 for near or 0 for far, ``[k]``
        each."""
        place = np.arange(start, min(len(self), len(self) if stop is None else stop))
        near, far = self._counts
        turns = 2 * min(near, far)
        is_near = np.where(place < turns, place % 2 == 0, near > far)
        number = np.where(place < turns, place // 2, place - turns // 2)
        first, second = np.empty(len(place), np.int64), np.empty(len(place), np.int64)
        for kind, unrank, count in ((1, self._positive, self.positives), (0, self._negative, self.negatives)):
            chosen = is_near == kind
            drawn = permuted(number[chosen] % count, count, seed=(self.seed, epoch, kind))
            first[chosen], second[chosen] = unrank(drawn)
        return first, second, is_near.astype(np.int64)

    def _positive(self, numbers: Integers) -> tuple[Integers, Integers]:
        group = np.searchsorted(self._near, numbers, side="right")
        inside = numbers - np.where(group > 0, self._near[group - 1], 0)
        # pair (low, high) of a class has the number high (high + 1) / 2 + low; where equal ones do not count, high is
        # one less than the place
        high = ((np.sqrt(8.0 * inside + 1) - 1) / 2).astype(np.int64)
        high -= high * (high + 1) // 2 > inside
        high += (high + 1) * (high + 2) // 2 <= inside
        low = inside - high * (high + 1) // 2
        begin = self._begins[group]
        return self._order[begin + low], self._order[begin + high + (0 if self.itself else 1)]

    def _negative(self, numbers: Integers) -> tuple[Integers, Integers]:
        item = np.searchsorted(self._far, numbers, side="right")
        inside = numbers - np.where(item > 0, self._far[item - 1], 0)
        end = self._ends[np.searchsorted(self._ends, item, side="right")]
        return self._order[item], self._order[end + inside]


class LabelPairBatches(Batches):
    """Batches of rows for pairs of labelled items: first, second, first, second, ... of :class:`LabelPairs`.

    ``batch_size`` counts rows, two a pair; an epoch is the epoch of ``pairs``, in which a row comes as often as its
    pairs do. Several processes share the pairs of a batch.
    """

    def __init__(self, pairs: LabelPairs, batch_size: int, *, rank: int = 0, processes: int = 1) -> None:
        if batch_size < 2:
            raise UsageError(f"a batch of {batch_size} holds no pair", hint="use at least 2 rows")
        super().__init__(
            2 * len(pairs), min(batch_size - batch_size % 2, 2 * len(pairs)), rank=rank, processes=processes
        )
        self.pairs = pairs
        self.seed = pairs.seed
        self._per_batch = self.batch_size // 2

    def sizes(self) -> list[int]:
        whole, rest = divmod(len(self.pairs), self._per_batch)
        return [self.batch_size] * whole + ([2 * rest] if rest else [])

    def iterate(self, start: int = 0) -> Iterator[Integers]:
        for number in range(start, len(self)):
            parts = np.array_split(self._batch(number, self.epoch).reshape(-1, 2), self.processes)
            yield parts[self.rank].reshape(-1)

    def plan(self, epoch: int) -> list[Integers]:
        """All batches of ``epoch`` at once; :meth:`iterate` makes one after the other."""
        return [self._batch(number, epoch) for number in range(len(self))]

    def _batch(self, number: int, epoch: int) -> Integers:
        begin = number * self._per_batch
        first, second, _ = self.pairs.pairs(begin, begin + self._per_batch, epoch=epoch)
        return np.stack([first, second], axis=1).reshape(-1)


def permuted(numbers: Integers, count: int, *, seed: tuple[int, ...]) -> Integers:
    """What a random permutation of ``0 .. count - 1`` makes of ``numbers``, without holding it.

    A Feistel network of six rounds over the next even number of bits; what falls outside goes through again until it
    falls inside (cycle walking; Black and Rogaway, 2002). The same ``seed`` gives the same permutation.
    """
    bits = max(2, (max(count - 1, 1)).bit_length())
    half = np.uint64((bits + 1) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence([each % 2**64 for each in seed]).generate_state(_ROUNDS, np.uint64)
    found = np.asarray(numbers).astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> half, found[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        found[outside] = (left << half) | right
        outside[outside] = found[outside] >= count
    return found.astype(np.int64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
