"""Objectives against plain loops over scalars in float64: value and every gradient, dense and tiled.

The loops are written from the papers' formulas and call nothing of nearfar; their gradients are those of autograd on
scalar operations. Who is near whom is written out by loops too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Graded, Labels, Paired, Relation, Temperature, Views, evaluate
from nearfar.objectives import (
    DCL,
    DCLW,
    Alignment,
    BarlowTwins,
    InfoNCE,
    PairwiseLogistic,
    RowObjective,
    SupCon,
    Triplet,
    VICReg,
    ViewObjective,
)

Matrix = list[list[float]]
Scalars = list[list[Tensor]]


# -- scenarios: who is near whom, in plain loops -----------------------------------------------------------------------


@dataclass
class Scenario:
    query: Tensor
    key: Tensor | None
    relation: Relation | None
    positive: Matrix
    negative: Matrix
    equal_keys: list[list[int]] = field(default_factory=list)
    """Groups of equal keys: which of them a mining picks is its own affair, so their summed gradient is compared."""


def _embeddings(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_ids(query_ids: list[int], key_ids: list[int], *, own: bool = False) -> tuple[Matrix, Matrix]:
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
    return Scenario(_embeddings(0, 5, 4), _embeddings(1, 5, 4), None, *_by_ids([*range(5)], [*range(5)]))


def _hard_negatives() -> Scenario:
    ids = [0, 1, 2, 3, -1, -1, -1, -1, -1]
    return Scenario(_embeddings(2, 4, 3), _embeddings(3, 9, 3), Paired(), *_by_ids([0, 1, 2, 3], ids))


def _several_positives() -> Scenario:
    """Several positives a query, a query whose id no key has, a query near to nobody, hard negatives."""
    queries, keys = [3, 7, 7, 50, -1, 9, 3], [7, 3, -1, 9, 7, 3, -1, 9, 9, 4]
    relation = Paired(torch.tensor(queries), torch.tensor(keys))
    return Scenario(_embeddings(4, 7, 4), _embeddings(5, 10, 4), relation, *_by_ids(queries, keys))


def _excluded() -> Scenario:
    """Keys of equal text are not taken for negatives; values below 0 exclude nothing."""
    queries, keys = [0, 1, 2, 3], [0, 1, 2, 3, -1, -1]
    query_exclude, key_exclude = [10, 10, 12, -1], [10, 10, 12, -1, 12, 13]
    positive, negative = _by_ids(queries, keys)
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
    return Scenario(_embeddings(6, 4, 3), _embeddings(7, 6, 3), relation, positive, negative)


def _one_row() -> Scenario:
    return Scenario(_embeddings(8, 1, 3), _embeddings(9, 4, 3), None, *_by_ids([0], [0, -1, -1, -1]))


def _labels() -> Scenario:
    queries, keys = [0, 1, 1, 2, -1], [1, 0, 0, -1, 1, 3, 1]
    relation = Labels(torch.tensor(queries), torch.tensor(keys))
    return Scenario(_embeddings(10, 5, 4), _embeddings(11, 7, 4), relation, *_by_ids(queries, keys))


def _own_views() -> Scenario:
    return Scenario(_embeddings(12, 6, 3), None, Views(2), *_by_ids([0, 1, 2] * 2, [0, 1, 2] * 2, own=True))


def _own_three_views() -> Scenario:
    ids = [4, 4, 8, 8, 4, 8]
    return Scenario(_embeddings(13, 6, 3), None, Views(3, ids=torch.tensor(ids)), *_by_ids(ids, ids, own=True))


def _own_labels() -> Scenario:
    """With a label that only one item has, and an unlabelled item."""
    labels = [0, 1, 0, 2, 1, 0, -1]
    return Scenario(_embeddings(14, 7, 4), None, Labels(torch.tensor(labels)), *_by_ids(labels, labels, own=True))


def _own_excluded() -> Scenario:
    ids, exclude = [0, 1, 0, 1, 2, 2], [5, 5, 6, 7, 6, 8]
    positive, negative = _by_ids(ids, ids, own=True)
    for i in range(6):
        for j in range(6):
            if ids[i] != ids[j] and exclude[i] == exclude[j]:
                negative[i][j] = 0.0
    relation = Paired(torch.tensor(ids), query_exclude=torch.tensor(exclude))
    return Scenario(_embeddings(15, 6, 3), None, relation, positive, negative)


def _weights() -> Scenario:
    """Float weights; row 2 has no positive, row 3 no negative, row 4 neither."""
    positive = [[0.5, 0, 0, 2.0, 0, 0], [0, 1.5, 0, 0, 0, 0], [0.0] * 6, [1, 0, 0.25, 0, 0, 0], [0.0] * 6]
    negative = [[0, 1, 0.5, 0, 2.5, 0], [1, 0, 0, 0.125, 0, 3], [1.0] * 6, [0.0] * 6, [0.0] * 6]
    relation = Explicit(torch.tensor(positive).double(), torch.tensor(negative).double())
    return Scenario(_embeddings(16, 5, 4), _embeddings(17, 6, 4), relation, positive, negative)


def _own_weights() -> Scenario:
    generator = torch.Generator().manual_seed(18)
    positive = torch.rand(5, 5, generator=generator, dtype=torch.float64) * (
        torch.rand(5, 5, generator=generator) < 0.4
    )
    negative = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    relation = Explicit(positive.clone(), negative.clone())
    positive.fill_diagonal_(0)
    negative.fill_diagonal_(0)
    return Scenario(_embeddings(19, 5, 3), None, relation, positive.tolist(), negative.tolist())


def _graded() -> Scenario:
    judged = {7: {1: 2.0, 3: 1.0, 5: 0.0}, 8: {2: 0.5}, 9: {}}
    queries, keys = [8, 7, 9, 7], [1, 2, 3, 4, 5, 1]
    positive = [[judged[q].get(k, 0.0) for k in keys] for q in queries]
    negative = [[float(value == 0) for value in row] for row in positive]
    relation = Graded(judged, torch.tensor(queries), torch.tensor(keys))
    return Scenario(_embeddings(20, 4, 3), _embeddings(21, 6, 3), relation, positive, negative)


def _judged_alone() -> Scenario:
    judged = {0: {0: 2.0, 1: 1.0, 2: 0.0}, 1: {1: 0.5, 3: 0.0, 0: 0.0}, 2: {2: 1.0}}
    positive = [[judged[q].get(k, 0.0) for k in range(4)] for q in range(3)]
    negative = [[float(judged[q].get(k) == 0) for k in range(4)] for q in range(3)]
    relation = Graded(judged, torch.arange(3), torch.arange(4), unjudged="ignored")
    return Scenario(_embeddings(22, 3, 3), _embeddings(23, 4, 3), relation, positive, negative)


def _reweighted() -> Scenario:
    """Negatives weigh more the farther their number; one pair is ignored by a mask, others by a function."""
    positive, negative = _by_ids([0, 1, 2], [0, 1, 2, -1, -1])
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
    return Scenario(_embeddings(24, 3, 3), _embeddings(25, 5, 3), relation, positive, negative)


def _duplicates() -> Scenario:
    """Equal keys, a key equal to its query, zero vectors on both sides."""
    query, key = _embeddings(26, 5, 3), _embeddings(27, 7, 3)
    query[1] = query[0]
    query[4] = 0
    key[0] = query[0]
    key[5] = key[2]
    key[6] = 0
    queries, keys = [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, -1, -1]
    relation = Paired(torch.tensor(queries), torch.tensor(keys))
    return Scenario(query, key, relation, *_by_ids(queries, keys), equal_keys=[[2, 5]])


def _nobody_near() -> Scenario:
    relation = Paired(torch.tensor([0, 1, 2]), torch.tensor([5, 6, -1, 7]))
    return Scenario(_embeddings(28, 3, 3), _embeddings(29, 4, 3), relation, *_by_ids([0, 1, 2], [5, 6, -1, 7]))


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


# -- scores and formulas, in plain loops -------------------------------------------------------------------------------


def _dot(q: Tensor, k: Tensor) -> Tensor:
    total = q[0] * k[0]
    for a, b in zip(q[1:], k[1:], strict=True):
        total = total + a * b
    return total


def _cosine(q: Tensor, k: Tensor) -> Tensor:
    product, squares = _dot(q, k), _dot(q, q) * _dot(k, k)
    return product * 0 if squares == 0 else product / squares.sqrt()


def _negative_squared(q: Tensor, k: Tensor) -> Tensor:
    return -_dot(q - k, q - k)


def _negative_euclidean(q: Tensor, k: Tensor) -> Tensor:
    squared = _dot(q - k, q - k)
    return squared * 0 if squared == 0 else -squared.sqrt()


LOOP_SCORES = {
    "cosine": _cosine,
    "dot": _dot,
    "negative-euclidean": _negative_euclidean,
    "negative-squared-euclidean": _negative_squared,
}

Rows = list[tuple[Tensor, float] | None]
"""Of each row its cost and its weight in the mean, or None where the formula does not apply."""

Formula = Callable[[Scalars, Matrix, Matrix, Tensor], Rows]
"""From the scores (not divided by T), the weights of near and far pairs, and 1/T."""


def _near(positive: list[float]) -> list[int]:
    return [j for j, weight in enumerate(positive) if weight > 0]


def info_nce(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not _near(near):
            rows.append(None)
            continue
        candidates = sum((near[j] + far[j]) * (s[j] * scale).exp() for j in range(len(s)))
        cost = sum(-near[p] * ((s[p] * scale).exp() / candidates).log() for p in _near(near))
        rows.append((cost / sum(near), 1.0))
    return rows


def supcon_in(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not _near(near):
            rows.append(None)
            continue
        everyone = sum((near[j] + far[j]) * (s[j] * scale).exp() for j in range(len(s)))
        mean_near = sum(near[p] * (s[p] * scale).exp() for p in _near(near)) / sum(near)
        rows.append((-(mean_near / everyone).log(), 1.0))
    return rows


def dcl(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not _near(near) or not _near(far):
            rows.append(None)
            continue
        pull = sum(near[p] * s[p] * scale for p in _near(near)) / sum(near)
        rows.append((-pull + sum(far[j] * (s[j] * scale).exp() for j in _near(far)).log(), 1.0))
    return rows


def dclw(sigma: float, *, weight_has_gradient: bool) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        pairs = [(i, p) for i in range(len(scores)) for p in _near(positive[i])]
        kernel = {(i, p): (scores[i][p] / sigma).exp() for i, p in pairs}
        if not weight_has_gradient:
            kernel = {pair: value.detach() for pair, value in kernel.items()}
        rows: Rows = []
        for i, (s, near, far) in enumerate(zip(scores, positive, negative, strict=True)):
            if not _near(near) or not _near(far):
                rows.append(None)
                continue
            average = sum(kernel.values()) / len(pairs)
            pull = sum((2 - kernel[i, p] / average) * s[p] * scale for p in _near(near)) / len(_near(near))
            rows.append((-pull + sum(far[j] * (s[j] * scale).exp() for j in _near(far)).log(), 1.0))
        return rows

    return formula


def triplet(mining: str, average: str, *, smooth: bool, margin: float) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not _near(near) or not _near(far):
                rows.append(None)
                continue
            distance = [-value for value in s]
            if mining == "all":
                chosen = [(p, n, near[p] * far[n]) for p in _near(near) for n in _near(far)]
            elif mining == "hard":
                farthest = max(_near(near), key=lambda p: distance[p].item())
                nearest = min(_near(far), key=lambda n: distance[n].item())
                chosen = [(farthest, nearest, 1.0)]
            else:
                chosen = []
                for p in _near(near):
                    beyond = [n for n in _near(far) if distance[n] > distance[p]]
                    n = min(beyond, key=lambda n: distance[n].item()) if beyond else None
                    n = max(_near(far), key=lambda n: distance[n].item()) if n is None else n
                    chosen.append((p, n, 1.0))
            costs = []
            for p, n, weight in chosen:
                difference = distance[p] - distance[n] + margin
                cost = (1 + difference.exp()).log() if smooth else difference if difference > 0 else difference * 0
                costs.append((cost, weight))
            total = sum(cost * weight for cost, weight in costs)
            count = sum(weight for cost, weight in costs if average == "all" or cost > 0)
            rows.append((total / count if count else total, count))
        return rows

    return formula


def pairwise_logistic(average: str) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not _near(near) or not _near(far):
                rows.append(None)
                continue
            total, weight = s[0] * 0, 0.0
            for p in _near(near):
                for n in _near(far):
                    total = total + near[p] * far[n] * (1 + (-(s[p] - s[n]) * scale).exp()).log()
                    weight += near[p] * far[n]
            rows.append((total / weight, weight if average == "pairs" else 1.0))
        return rows

    return formula


def _reduced(rows: Rows, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.stack([torch.zeros((), dtype=torch.float64) if row is None else row[0] for row in rows])
    total = sum(row[0] * row[1] for row in rows if row is not None)
    weight = sum(row[1] for row in rows if row is not None)
    if not isinstance(total, Tensor):
        return torch.zeros((), dtype=torch.float64)
    return total / weight if reduction == "mean" and weight else total


@dataclass
class Case:
    make: Callable[..., RowObjective]
    formula: Formula
    score: str = "cosine"
    temperature: float | None = None


def _softmax_case(cls: type[RowObjective], formula: Formula, **arguments: object) -> Case:
    def make(**more: object) -> RowObjective:
        return cls(temperature=Temperature(0.3, learned=True), **arguments, **more)

    return Case(make, formula, temperature=0.3)


CASES: dict[str, Case] = {
    "info-nce": _softmax_case(InfoNCE, info_nce),
    "supcon out": _softmax_case(SupCon, info_nce),
    "supcon in": _softmax_case(SupCon, supcon_in, form="in"),
    "dcl": _softmax_case(DCL, dcl),
    "dclw": _softmax_case(DCLW, dclw(0.7, weight_has_gradient=True), sigma=0.7),
    "dclw detached": _softmax_case(DCLW, dclw(0.7, weight_has_gradient=False), sigma=0.7, detach_weight=True),
    "pairwise rows": _softmax_case(PairwiseLogistic, pairwise_logistic("rows")),
    "pairwise pairs": _softmax_case(PairwiseLogistic, pairwise_logistic("pairs"), average="pairs"),
}
for _mining in ("all", "hard", "semi-hard"):
    for _average in ("all", "active"):
        for _smooth in (False, True):
            CASES[f"triplet {_mining} {_average}{' smooth' if _smooth else ''}"] = Case(
                (lambda m, a, s: lambda **more: Triplet(m, margin=0.3, average=a, smooth=s, **more))(
                    _mining, _average, _smooth
                ),
                triplet(_mining, _average, smooth=_smooth, margin=0.3),
                score="negative-euclidean",
            )


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    loss: Tensor
    query: Tensor
    key: Tensor
    log_scale: Tensor


def _gradients(loss: Tensor, query: Tensor, key: Tensor | None, log_scale: Tensor | None) -> Outcome:
    # rows weigh differently, so that mistaking one row's gradient for another's shows under reduction="none"
    scalar = (loss * torch.arange(1, loss.numel() + 1, dtype=loss.dtype)).sum() if loss.dim() else loss
    wanted = [value for value in (query, key, log_scale) if value is not None]
    found = iter(torch.autograd.grad(scalar, wanted, allow_unused=True) if scalar.requires_grad else [None] * 3)
    gradients = []
    for value in (query, key, log_scale):
        gradient = None if value is None else next(found)
        gradients.append(torch.zeros_like(query if value is None else value) if gradient is None else gradient)
    return Outcome(loss.detach(), *gradients)


def _by_loops(case: Case, scenario: Scenario, *, two_sided: bool, reduction: str) -> Outcome:
    query = scenario.query.clone().requires_grad_()
    key = None if scenario.key is None else scenario.key.clone().requires_grad_()
    keys = query if key is None else key
    log_scale = None
    scale = torch.ones((), dtype=torch.float64)
    if case.temperature is not None:
        log_scale = (-torch.tensor(case.temperature).log()).double().requires_grad_()
        scale = log_scale.exp()
    compare = LOOP_SCORES[case.score]
    scores = [[compare(q, k) for k in keys] for q in query]
    loss = _reduced(case.formula(scores, scenario.positive, scenario.negative, scale), reduction)
    if two_sided:
        turned = case.formula(
            *(
                [list(row) for row in zip(*matrix, strict=True)]
                for matrix in (scores, scenario.positive, scenario.negative)
            ),
            scale,
        )
        loss = (loss + _reduced(turned, reduction)) / 2
    return _gradients(loss, query, key, log_scale)


def _by_nearfar(
    case: Case,
    scenario: Scenario,
    *,
    two_sided: bool,
    reduction: str,
    memory: str,
    tile_rows: int | None = None,
    closed_form: bool = True,
) -> Outcome:
    objective = case.make(two_sided=two_sided, reduction=reduction).double()
    if case.temperature is not None:
        with torch.no_grad():
            objective.temperature.log_scale.copy_((-torch.tensor(case.temperature).log()).double())
    if not closed_form:
        objective.softmax_form = None
    query = scenario.query.clone().requires_grad_()
    key = None if scenario.key is None else scenario.key.clone().requires_grad_()
    loss = evaluate(objective, query, key, relation=scenario.relation, memory=memory, tile_rows=tile_rows)
    return _gradients(loss, query, key, None if case.temperature is None else objective.temperature.log_scale)


def _assert_same(found: Outcome, expected: Outcome, scenario: Scenario, tolerance: float = 1e-10) -> None:
    for name in ("loss", "query", "key", "log_scale"):
        one, other = getattr(found, name), getattr(expected, name)
        if name == "key" and scenario.equal_keys:
            one, other = one.clone(), other.clone()
            for group in scenario.equal_keys:
                one[group], other[group] = one[group].sum(0), other[group].sum(0)
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


WAYS = [
    {"memory": "dense"},
    {"memory": "tiled", "tile_rows": 1},
    {"memory": "tiled", "tile_rows": 3},
    {"memory": "tiled"},
    {"memory": "tiled", "tile_rows": 3, "closed_form": False},
]


def _compare(case: Case, scenario: Scenario, *, two_sided: bool = False, reduction: str = "mean") -> None:
    expected = _by_loops(case, scenario, two_sided=two_sided, reduction=reduction)
    has_closed_form = case.make().softmax_form is not None
    for way in WAYS:
        if way.get("closed_form", True) is False and not has_closed_form:
            continue
        found = _by_nearfar(case, scenario, two_sided=two_sided, reduction=reduction, **way)
        _assert_same(found, expected, scenario)


@pytest.mark.parametrize(
    ("case", "scenario"),
    [
        (case, scenario)
        for case in CASES
        for scenario in SCENARIOS
        # the smooth cost differs from the hinge only where the triplets are already chosen
        if "smooth" not in case or scenario in ("several positives", "own labels", "weights", "duplicates")
    ],
)
def test_row_objectives_equal_their_formula(case: str, scenario: str) -> None:
    _compare(CASES[case], SCENARIOS[scenario]())


@pytest.mark.parametrize(
    "scenario",
    [
        "pairs",
        "hard negatives",
        "several positives",
        "excluded",
        "one row",
        "labels",
        "weights",
        "graded",
        "reweighted",
    ],
)
@pytest.mark.parametrize("case", [*(case for case in CASES if "triplet" not in case), "triplet semi-hard active"])
def test_two_sided_is_the_mean_of_both_directions(case: str, scenario: str) -> None:
    _compare(CASES[case], SCENARIOS[scenario](), two_sided=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions(case: str, reduction: str) -> None:
    _compare(CASES[case], _several_positives(), reduction=reduction)
    _compare(CASES[case], _weights(), reduction=reduction)


@pytest.mark.parametrize("case", ["info-nce", "dcl", "pairwise pairs"])
def test_two_sided_sum_is_half_the_sum_of_both_directions(case: str) -> None:
    _compare(CASES[case], _several_positives(), two_sided=True, reduction="sum")


@pytest.mark.parametrize("score", LOOP_SCORES)
@pytest.mark.parametrize("scenario", ["several positives", "own labels", "duplicates"])
def test_scores(score: str, scenario: str) -> None:
    for formula, cls in ((info_nce, InfoNCE), (dclw(0.7, weight_has_gradient=True), DCLW)):
        arguments = {"sigma": 0.7} if cls is DCLW else {}
        case = _softmax_case(cls, formula, score=score, **arguments)
        case.score = score
        _compare(case, SCENARIOS[scenario]())
    # of the equal scores of a zero vector "hard" may pick any
    for mining in ("all",) if scenario == "duplicates" else ("all", "hard"):
        case = Case(
            lambda mining=mining, **more: Triplet(mining, margin=0.3, average="active", score=score, **more),
            triplet(mining, "active", smooth=False, margin=0.3),
            score=score,
        )
        _compare(case, SCENARIOS[scenario]())


def test_self_contrast_is_not_contrast_with_a_copy() -> None:
    """The item itself is no candidate: the check of the scenarios above that the diagonal matters."""
    scenario = _own_labels()
    objective = InfoNCE().double()
    alone = evaluate(objective, scenario.query, relation=scenario.relation)
    beside = evaluate(objective, scenario.query, scenario.query, relation=scenario.relation)
    assert abs(float(alone - beside)) > 0.1


# -- other precisions --------------------------------------------------------------------------------------------------


def _in_precision(
    case: Case, dtype: torch.dtype, memory: str, two_sided: bool, scale: float = 1.0
) -> tuple[Outcome, Tensor, Tensor]:
    query, key = _embeddings(40, 24, 16), _embeddings(41, 30, 16)
    ids = torch.arange(24) % 11
    keys = torch.cat([torch.arange(24) % 11, torch.full((6,), -1)])
    objective = case.make(two_sided=two_sided).to(torch.float64 if dtype == torch.float64 else torch.float32)
    query, key = ((scale * value).to(dtype).requires_grad_() for value in (query, key))
    loss = evaluate(objective, query, key, relation=Paired(ids, keys), memory=memory, tile_rows=7)
    log_scale = None if objective.temperature is None else objective.temperature.log_scale
    return _gradients(loss, query, key, log_scale), query, key


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_float32_is_float64_to_five_digits(case: str, two_sided: bool) -> None:
    expected, _, _ = _in_precision(CASES[case], torch.float64, "dense", two_sided)
    for memory in ("dense", "tiled"):
        found, _, _ = _in_precision(CASES[case], torch.float32, memory, two_sided)
        for name in ("loss", "query", "key", "log_scale"):
            one, other = getattr(found, name).double(), getattr(expected, name)
            assert (one - other).norm() <= 1e-5 * other.norm(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_finite_and_costs_are_float32(case: str, dtype: torch.dtype) -> None:
    exact, _, _ = _in_precision(CASES[case], torch.float64, "dense", False)
    for memory in ("dense", "tiled"):
        for scale in (1.0, 100.0):
            found, query, _ = _in_precision(CASES[case], dtype, memory, False, scale)
            assert found.loss.dtype == torch.float32
            assert found.query.dtype == query.dtype == dtype
            for value in (found.loss, found.query, found.key, found.log_scale):
                assert torch.isfinite(value).all()
        found, _, _ = _in_precision(CASES[case], dtype, memory, False)
        assert float(found.loss) == pytest.approx(float(exact.loss), rel=0.05, abs=0.02)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("cls", [InfoNCE, SupCon, DCL, DCLW, PairwiseLogistic])
def test_temperature_of_a_hundredth_does_not_overflow(cls: type[RowObjective], two_sided: bool) -> None:
    """Scores of 100 overflow exp in float32; opposite vectors as positives make the cost as large as it gets."""
    query = torch.nn.functional.normalize(_embeddings(42, 6, 4), dim=1)
    key = -query
    expected = evaluate(cls(temperature=0.01, two_sided=two_sided), query, key, memory="dense")
    for memory in ("dense", "tiled"):
        one, other = query.float().requires_grad_(), key.float().requires_grad_()
        loss = evaluate(cls(temperature=0.01, two_sided=two_sided), one, other, memory=memory, tile_rows=4)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert loss.item() > 89  # beyond what exp can hold in float32
        assert torch.isfinite(one.grad).all()
        assert torch.isfinite(other.grad).all()


# -- objectives on batch statistics ------------------------------------------------------------------------------------


def _moments(view: Tensor, k: int, m: int, divisor: int) -> Tensor:
    """The covariance of two dimensions."""
    n = len(view)
    mean_k, mean_m = (sum(view[i, c] for i in range(n)) / n for c in (k, m))
    return sum((view[i, k] - mean_k) * (view[i, m] - mean_m) for i in range(n)) / divisor


def _barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    n, d = a.shape
    total = a.new_zeros(())
    for k in range(d):
        for m in range(d):
            deviation_a, deviation_b = (_moments(a, k, k, n) + 1e-5).sqrt(), (_moments(b, m, m, n) + 1e-5).sqrt()
            mean_a, mean_b = sum(a[i, k] for i in range(n)) / n, sum(b[i, m] for i in range(n)) / n
            c = sum((a[i, k] - mean_a) / deviation_a * (b[i, m] - mean_b) / deviation_b for i in range(n)) / n
            total = total + ((1 - c) ** 2 if k == m else 0.01 * c**2)
    return total


def _vicreg(a: Tensor, b: Tensor) -> Tensor:
    n, d = a.shape
    invariance = sum((a[i, k] - b[i, k]) ** 2 for i in range(n) for k in range(d)) / (n * d)
    variance = covariance = a.new_zeros(())
    for view in (a, b):
        for k in range(d):
            deviation = (_moments(view, k, k, n - 1) + 1e-4).sqrt()
            variance = variance + (1 - deviation if deviation < 1 else 0 * deviation) / d / 2
            covariance = covariance + sum(_moments(view, k, m, n - 1) ** 2 for m in range(d) if m != k) / d
    return 10 * invariance + 20 * variance + 3 * covariance


def _alignment(a: Tensor, b: Tensor) -> Tensor:
    return sum((2 - 2 * _cosine(p, q)).sqrt() ** 3 for p, q in zip(a, b, strict=True)) / len(a)


@pytest.mark.parametrize(
    ("objective", "loops"),
    [(BarlowTwins(0.01), _barlow_twins), (VICReg(10, 20, 3), _vicreg), (Alignment(3.0), _alignment)],
)
def test_view_objectives_equal_their_formula(objective: ViewObjective, loops: Callable[..., Tensor]) -> None:
    a, b = (0.8 * _embeddings(50, 5, 3)).requires_grad_(), (1.3 * _embeddings(51, 5, 3)).requires_grad_()
    found, expected = objective(a, b), loops(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
