"""Batches of every kind an objective is called on, whole or as the uneven parts of several processes.

Who is near whom is told by ids, labels and grades, so any rows and any columns of a batch are a batch of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import Graded, Kernel, Labels, Neighbours, Paired, Relation, Views

Index = Sequence[int]

QUERY_IDS = torch.tensor([3, 1, 4, 4, 9, 2, 6, 3, 50, 5, 1])
KEY_IDS = torch.tensor([4, 3, 1, -1, 3, 2, 6, 4, 1, 9, -1, 2, 5, 7, 9, -1, 6])
LABELS = torch.tensor([0, 1, 0, 2, 1, 1, 0, 3, 2, -1, 0])
VIEW_IDS = torch.tensor([7, 2, 5, 2, 0, 7, 3, 1, 5, 0, 1, 3])
GRADES = {
    3: {4: 2.0, 1: 1.0}, 1: {1: 1.0, 7: 0.0, 2: 0.5}, 4: {4: 1.0, 3: 3.0}, 9: {9: 0.5}, 2: {2: 1.0, 6: 2.0},
    6: {6: 0.5, 1: 2.0}, 50: {}, 5: {5: 4.0, 9: 1.0, 4: 1.0},
}  # fmt: skip
NUMBERS = torch.tensor([3.0, 5.0, 4.0, 8.0, 0.0, 5.0, 2.0, 6.5], dtype=torch.float64)
EDGES = torch.tensor([[7, 2], [2, 7], [2, 5], [5, 0], [0, 3], [3, 3], [1, 5], [4, 6], [6, 3], [9, 99], [5, 6], [3, 1]])

PARTS: dict[int, dict[int, list[int]]] = {
    # by the number of rows and of processes: how many rows each process holds, some of them one or none
    11: {1: [11], 2: [10, 1], 4: [4, 1, 6, 0]},
    12: {1: [12], 2: [7, 5], 4: [3, 0, 8, 1]},
    17: {1: [17], 2: [6, 11], 4: [1, 7, 0, 9]},
}


@dataclass(frozen=True)
class Part:
    """What one process holds, and what an objective is called with."""

    query: Tensor
    key: Tensor | None
    relation: Relation


@dataclass(frozen=True)
class Batch:
    query: Tensor
    key: Tensor | None
    """None where the queries are contrasted among themselves."""
    relate: Callable[[Index, Index], Relation]
    """The relation of those queries to those keys."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.query if self.key is None else self.key)

    def take(self, rows: Index, columns: Index) -> Part:
        """Those queries and keys, in that order."""
        return Part(self.query[rows], None if self.key is None else self.key[columns], self.relate(rows, columns))

    def whole(self) -> Part:
        n, m = self.shape
        return self.take(range(n), range(m))

    def among_others(self, times: int) -> Part:
        """The batch among items that are near to nobody, ``times`` as many in all."""
        (n, m), generator = self.shape, torch.Generator().manual_seed(9)
        part = self.relate(range(times * n), range(times * m))
        query, key = (
            None
            if z is None
            else torch.cat([z, torch.randn((times - 1) * len(z), z.shape[1], generator=generator).to(z)])
            for z in (self.query, self.key)
        )
        assert query is not None
        return Part(query, key, part)

    def part(self, rank: int, processes: int) -> Part:
        """The rows of process ``rank`` out of 1, 2 or 4; all parts in the order of ranks are the whole batch."""
        return self.take(*(_share(count, rank, processes) for count in self.shape))


def _share(count: int, rank: int, processes: int) -> range:
    sizes = PARTS[count][processes]
    return range(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def _drawn(seed: int, rows: int, dimension: int = 4) -> Tensor:
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _of(values: Tensor, chosen: Index) -> Tensor:
    """-1, which is near to nobody, beyond the last."""
    return torch.tensor([int(values[i]) if i < len(values) else -1 for i in chosen], dtype=torch.long)


def pairs() -> Batch:
    """Several positives a query, a query near to nobody, keys near to nobody and hard negatives."""
    return Batch(
        _drawn(0, 11), _drawn(1, 17), lambda rows, columns: Paired(_of(QUERY_IDS, rows), _of(KEY_IDS, columns))
    )


def labels() -> Batch:
    """With a label that only one item has, and an unlabelled item."""
    return Batch(_drawn(2, 11), None, lambda rows, columns: Labels(_of(LABELS, rows)))


def views() -> Batch:
    """Two views of each of six items, in any order: on several processes often not on the same one."""
    return Batch(_drawn(3, 12), None, lambda rows, columns: Views(2, ids=_of(VIEW_IDS, rows)))


def graded() -> Batch:
    """Grades of several levels, a query that nothing is relevant to, and pairs judged irrelevant."""

    def relate(rows: Index, columns: Index) -> Relation:
        ids = _of(QUERY_IDS, rows)
        return Graded({int(i): GRADES.get(int(i), {}) for i in ids}, ids, _of(KEY_IDS, columns))

    return Batch(_drawn(4, 11), _drawn(5, 17), relate)


def conditions() -> Batch:
    """Two views of each of six items, in any order, with a number an item; two items have the same."""

    def relate(rows: Index, columns: Index) -> Relation:
        ids = _of(VIEW_IDS, rows)
        return Kernel(NUMBERS[ids], "rbf", bandwidth=4.0, ids=ids)

    return Batch(_drawn(6, 12), None, relate)


def neighbours() -> Batch:
    """Items among themselves, some of them there twice; edges to items that are not there."""
    return Batch(_drawn(7, 12), None, lambda rows, columns: Neighbours(EDGES, _of(VIEW_IDS, rows)))


def neighbours_of_keys() -> Batch:
    """Keys that show the query's item are left out; a query without a neighbour among the keys."""

    def relate(rows: Index, columns: Index) -> Relation:
        return Neighbours(EDGES, _of(QUERY_IDS, rows), _of(KEY_IDS, columns), symmetric=True, own="ignored")

    return Batch(_drawn(8, 11), _drawn(9, 17), relate)


BATCHES: dict[str, Callable[[], Batch]] = {
    "pairs": pairs,
    "labels": labels,
    "views": views,
    "graded": graded,
    "conditions": conditions,
    "neighbours": neighbours,
    "neighbours of keys": neighbours_of_keys,
}
