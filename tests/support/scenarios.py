"""Who is near whom, written out by plain loops: what the formulas of row objectives are checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nearfar.contrast import Explicit, Graded, Labels, Paired, Relation, Views

Matrix = list[list[float]]


@dataclass
class Scenario:
    query: Tensor
    key: Tensor | None
    relation: Relation | None
    positive: Matrix
    negative: Matrix
    equal_keys: list[list[int]] = field(default_factory=list)
    """Groups of equal keys: which of them a mining picks is its own affair, so their summed gradient is compared."""


def embeddings(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_ids(query_ids: list[int], key_ids: list[int], *, own: bool = False) -> tuple[Matrix, Matrix]:
    positive = [[0.0] * len(key_ids) for _ in query_ids]
    negative = [[0.0] * len(key_ids) for _ in query_ids]
    for i, one in enumerate(query_ids):
        for j, other in enumerate(key_ids):
            if own and i == j:
                continue
            if one == other and one >= 0:
                positive[i][j] = 1.0
            else:
                negative[i][j] = 1.0
    return positive, negative


def _pairs() -> Scenario:
    return Scenario(embeddings(0, 5, 4), embeddings(1, 5, 4), None, *by_ids([*range(5)], [*range(5)]))


def _hard_negatives() -> Scenario:
    ids = [0, 1, 2, 3, -1, -1, -1, -1, -1]
    return Scenario(embeddings(2, 4, 3), embeddings(3, 9, 3), Paired(), *by_ids([0, 1, 2, 3], ids))


def _several_positives() -> Scenario:
    """Several positives a query, a query whose id no key has, a query near to nobody, hard negatives."""
    queries, keys = [3, 7, 7, 50, -1, 9, 3], [7, 3, -1, 9, 7, 3, -1, 9, 9, 4]
    relation = Paired(torch.tensor(queries), torch.tensor(keys))
    return Scenario(embeddings(4, 7, 4), embeddings(5, 10, 4), relation, *by_ids(queries, keys))


def _excluded() -> Scenario:
    """Keys of equal text are not taken for negatives; values below 0 exclude nothing."""
    queries, keys = [0, 1, 2, 3], [0, 1, 2, 3, -1, -1]
    query_exclude, key_exclude = [10, 10, 12, -1], [10, 10, 12, -1, 12, 13]
    positive, negative = by_ids(queries, keys)
    for i in range(4):
        for j in range(6):
            if not positive[i][j] and query_exclude[i] >= 0 and query_exclude[i] == key_exclude[j]:
                negative[i][j] = 0.0
    assert sum(map(sum, negative)) == 4 * 6 - 4 - 3
    relation = Paired(
        torch.tensor(queries),
        torch.tensor(keys),
        query_exclude=torch.tensor(query_exclude),
        key_exclude=torch.tensor(key_exclude),
    )
    return Scenario(embeddings(6, 4, 3), embeddings(7, 6, 3), relation, positive, negative)


def _one_row() -> Scenario:
    return Scenario(embeddings(8, 1, 3), embeddings(9, 4, 3), None, *by_ids([0], [0, -1, -1, -1]))


def _labels() -> Scenario:
    queries, keys = [0, 1, 1, 2, -1], [1, 0, 0, -1, 1, 3, 1]
    relation = Labels(torch.tensor(queries), torch.tensor(keys))
    return Scenario(embeddings(10, 5, 4), embeddings(11, 7, 4), relation, *by_ids(queries, keys))


def _own_views() -> Scenario:
    return Scenario(embeddings(12, 6, 3), None, Views(2), *by_ids([0, 1, 2] * 2, [0, 1, 2] * 2, own=True))


def _own_three_views() -> Scenario:
    ids = [4, 4, 8, 8, 4, 8]
    return Scenario(embeddings(13, 6, 3), None, Views(3, ids=torch.tensor(ids)), *by_ids(ids, ids, own=True))


def _own_labels() -> Scenario:
    """With a label that only one item has, and an unlabelled item."""
    labels = [0, 1, 0, 2, 1, 0, -1]
    return Scenario(embeddings(14, 7, 4), None, Labels(torch.tensor(labels)), *by_ids(labels, labels, own=True))


def _own_excluded() -> Scenario:
    ids, exclude = [0, 1, 0, 1, 2, 2], [5, 5, 6, 7, 6, 8]
    positive, negative = by_ids(ids, ids, own=True)
    for i in range(6):
        for j in range(6):
            if ids[i] != ids[j] and exclude[i] == exclude[j]:
                negative[i][j] = 0.0
    relation = Paired(torch.tensor(ids), query_exclude=torch.tensor(exclude))
    return Scenario(embeddings(15, 6, 3), None, relation, positive, negative)


def _weights() -> Scenario:
    """Float weights; row 2 has no positive, row 3 no negative, row 4 neither."""
    positive = [[0.5, 0, 0, 2.0, 0, 0], [0, 1.5, 0, 0, 0, 0], [0.0] * 6, [1, 0, 0.25, 0, 0, 0], [0.0] * 6]
    negative = [[0, 1, 0.5, 0, 2.5, 0], [1, 0, 0, 0.125, 0, 3], [1.0] * 6, [0.0] * 6, [0.0] * 6]
    relation = Explicit(torch.tensor(positive).double(), torch.tensor(negative).double())
    return Scenario(embeddings(16, 5, 4), embeddings(17, 6, 4), relation, positive, negative)


def _own_weights() -> Scenario:
    generator = torch.Generator().manual_seed(18)
    positive = torch.rand(5, 5, generator=generator, dtype=torch.float64) * (
        torch.rand(5, 5, generator=generator) < 0.4
    )
    negative = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    relation = Explicit(positive.clone(), negative.clone())
    positive.fill_diagonal_(0)
    negative.fill_diagonal_(0)
    return Scenario(embeddings(19, 5, 3), None, relation, positive.tolist(), negative.tolist())


def _graded() -> Scenario:
    judged = {7: {1: 2.0, 3: 1.0, 5: 0.0}, 8: {2: 0.5}, 9: {}}
    queries, keys = [8, 7, 9, 7], [1, 2, 3, 4, 5, 1]
    positive = [[judged[q].get(k, 0.0) for k in keys] for q in queries]
    negative = [[float(value == 0) for value in row] for row in positive]
    relation = Graded(judged, torch.tensor(queries), torch.tensor(keys))
    return Scenario(embeddings(20, 4, 3), embeddings(21, 6, 3), relation, positive, negative)


def _judged_alone() -> Scenario:
    judged = {0: {0: 2.0, 1: 1.0, 2: 0.0}, 1: {1: 0.5, 3: 0.0, 0: 0.0}, 2: {2: 1.0}}
    positive = [[judged[q].get(k, 0.0) for k in range(4)] for q in range(3)]
    negative = [[float(judged[q].get(k) == 0) for k in range(4)] for q in range(3)]
    relation = Graded(judged, torch.arange(3), torch.arange(4), unjudged="ignored")
    return Scenario(embeddings(22, 3, 3), embeddings(23, 4, 3), relation, positive, negative)


def _reweighted() -> Scenario:
    """Negatives weigh more the farther their number; one pair is ignored by a mask, others by a function."""
    positive, negative = by_ids([0, 1, 2], [0, 1, 2, -1, -1])
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3] = True
    for i in range(3):
        for j in range(5):
            if (i, j) == (0, 3) or i + j == 5:
                positive[i][j] = negative[i][j] = 0.0
            else:
                positive[i][j] *= 2.0 + i
                negative[i][j] *= 1.0 + 0.5 * abs(i - j)

    def weigh(near: Tensor, far: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        apart = (rows[:, None] - columns[None, :]).abs().double()
        return near * (2.0 + rows[:, None].double()), far * (1 + 0.5 * apart)

    relation = Paired().ignore(mask).reweight(weigh).ignore(lambda rows, columns: rows[:, None] + columns == 5)
    return Scenario(embeddings(24, 3, 3), embeddings(25, 5, 3), relation, positive, negative)


def _duplicates() -> Scenario:
    """Equal keys, a key equal to its query, zero vectors on both sides."""
    query, key = embeddings(26, 5, 3), embeddings(27, 7, 3)
    query[1] = query[0]
    query[4] = 0
    key[0] = query[0]
    key[5] = key[2]
    key[6] = 0
    queries, keys = [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, -1, -1]
    relation = Paired(torch.tensor(queries), torch.tensor(keys))
    return Scenario(query, key, relation, *by_ids(queries, keys), equal_keys=[[2, 5]])


def _nobody_near() -> Scenario:
    relation = Paired(torch.tensor([0, 1, 2]), torch.tensor([5, 6, -1, 7]))
    return Scenario(embeddings(28, 3, 3), embeddings(29, 4, 3), relation, *by_ids([0, 1, 2], [5, 6, -1, 7]))


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "pairs": _pairs,
    "hard negatives": _hard_negatives,
    "several positives": _several_positives,
    "excluded": _excluded,
    "one row": _one_row,
    "labels": _labels,
    "own views": _own_views,
    "own three views": _own_three_views,
    "own labels": _own_labels,
    "own excluded": _own_excluded,
    "weights": _weights,
    "own weights": _own_weights,
    "graded": _graded,
    "judged alone": _judged_alone,
    "reweighted": _reweighted,
    "duplicates": _duplicates,
    "nobody near": _nobody_near,
}
