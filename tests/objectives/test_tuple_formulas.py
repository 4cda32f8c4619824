"""Margins on tuples, and costs over a whole batch, against plain loops over scalars in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.objectives import Angular, IntraPairVariance, Quadruplet, Triplet
from support.loops import Case, Formula, Rows, Scalars, compare, near_columns
from support.scenarios import SCENARIOS, Matrix

AMONG_THEMSELVES = ["own views", "own three views", "own labels", "own excluded"]


def _hinge(value: Tensor) -> Tensor:
    return value if value > 0 else value * 0


def _average(costs: list[Tensor], weights: list[float], like: Tensor) -> tuple[Tensor, float]:
    total = sum((cost * weight for cost, weight in zip(costs, weights, strict=True)), like * 0)
    return (total / sum(weights) if sum(weights) else total), sum(weights)


def angular(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    square = math.tan(0.6) ** 2
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        costs = [
            (
                1
                + sum(
                    far[n] * (4 * square * (s[n] + scores[p][n]) - 2 * (1 + square) * s[p]).exp()
                    for n in near_columns(far)
                )
            ).log()
            for p in near_columns(near)
            if near_columns(far)
        ]
        rows.append(_average(costs, [near[p] for p in near_columns(near)], s[0]) if costs else None)
    return rows


def triplet(*, swap: bool, direction: float, average: str, smooth: bool) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            costs, weights = [], []
            for p in near_columns(near):
                for n in near_columns(far):
                    an, ap, pn = -s[n], -s[p], -scores[p][n]
                    apart = torch.minimum(an, pn) if swap else an
                    cosine = (an**2 + ap**2 - pn**2) / (2 * an * ap) if direction else 0.0
                    inner = ap - apart + 0.4 - direction * cosine
                    costs.append((1 + inner.exp()).log() if smooth else _hinge(inner))
                    weights.append(near[p] * far[n] * (average == "all" or bool(costs[-1] > 0)))
            rows.append(_average(costs, weights, s[0]) if costs else None)
        return rows

    return formula


TUPLES: dict[str, Case] = {"angular": Case(lambda **more: Angular(0.6, **more), angular)}
for _name, _arguments in {
    "swap": {"swap": True, "direction": 0.0, "average": "all", "smooth": False},
    "swap active": {"swap": True, "direction": 0.0, "average": "active", "smooth": False},
    "direction smooth": {"swap": False, "direction": 0.4, "average": "all", "smooth": True},
    "both active": {"swap": True, "direction": 0.4, "average": "active", "smooth": False},
}.items():
    TUPLES[f"triplet {_name}"] = Case(
        (lambda a: lambda **more: Triplet(margin=0.4, **a, **more))(_arguments),
        triplet(**_arguments),
        score="negative-euclidean",
    )


@pytest.mark.parametrize("scenario", AMONG_THEMSELVES)
@pytest.mark.parametrize("case", TUPLES)
def test_tuples_equal_their_formula(case: str, scenario: str) -> None:
    compare(TUPLES[case], SCENARIOS[scenario]())


def test_tuples_of_each_anchor() -> None:
    for case in ("angular", "triplet swap"):
        compare(TUPLES[case], SCENARIOS["own labels"](), reduction="none")


# -- formulas over the whole batch -------------------------------------------------------------------------------------


def _variance(scores: list[tuple[Tensor, float]], sign: float, eps: float, *, weighted_mean: bool) -> Tensor:
    weight = sum(w for _, w in scores)
    mean = sum(s * (w if weighted_mean else 1) for s, w in scores) / (weight if weighted_mean else len(scores))
    costs = [_hinge(sign * ((1 - sign * eps) * mean - s)) ** 2 for s, _ in scores]
    if not weighted_mean:
        return sum(costs) / len(costs)
    return sum(cost * w for cost, (_, w) in zip(costs, scores, strict=True)) / weight


def intra_pair_variance(scores: Scalars, positive: Matrix, negative: Matrix) -> Tensor:
    near = [(s[j], w[j]) for s, w in zip(scores, positive, strict=True) for j in near_columns(w)]
    far = [(s[j], w[j]) for s, w in zip(scores, negative, strict=True) for j in near_columns(w)]
    return _variance(near, 1.0, 0.1, weighted_mean=False) + _variance(far, -1.0, 0.2, weighted_mean=True)


def quadruplet(scores: Scalars, positive: Matrix, negative: Matrix, classes: tuple[list[int], list[int]]) -> Tensor:
    triplets, quadruplets = [], []
    for a, near in enumerate(positive):
        for p in near_columns(near):
            triplets += [_hinge(scores[a][n] - scores[a][p] + 0.8) for n in near_columns(negative[a])]
            for k, far in enumerate(negative):
                for m in near_columns(far):
                    if classes[0][a] not in (classes[0][k], classes[1][m]):
                        quadruplets.append(_hinge(scores[k][m] - scores[a][p] + 0.3))
    return sum(triplets) / len(triplets) + sum(quadruplets) / max(len(quadruplets), 1)


BATCH_CLASSES = {
    "several positives": ([3, 7, 7, 50, -1, 9, 3], [7, 3, -1, 9, 7, 3, -1, 9, 9, 4]),
    "labels": ([0, 1, 1, 2, -1], [1, 0, 0, -1, 1, 3, 1]),
    "own labels": ([0, 1, 0, 2, 1, 0, -1],) * 2,
    "own three views": ([4, 4, 8, 8, 4, 8],) * 2,
}


@pytest.mark.parametrize("scenario", ["several positives", "labels", "own labels", "weights"])
def test_intra_pair_variance(scenario: str) -> None:
    _compare_batch(
        lambda: IntraPairVariance(0.1, 0.2),
        lambda scores, near, far: intra_pair_variance(scores, near, far),
        scenario,
        "cosine",
    )


@pytest.mark.parametrize("score", ["negative-squared-euclidean", "cosine"])
@pytest.mark.parametrize("scenario", BATCH_CLASSES)
def test_quadruplet(scenario: str, score: str) -> None:
    _compare_batch(
        lambda: Quadruplet(margin=0.8, pair_margin=0.3, score=score),
        lambda scores, near, far: quadruplet(scores, near, far, BATCH_CLASSES[scenario]),
        scenario,
        score,
    )


def _compare_batch(
    make: Callable[[], Any], formula: Callable[[Scalars, Matrix, Matrix], Tensor], scenario: str, score: str
) -> None:
    """A loss that is no mean over rows: as one row of the comparison by loops."""

    def rows(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        return [(formula(scores, positive, negative), 1.0)]

    compare(Case(lambda **more: make(), rows, score=score), SCENARIOS[scenario]())
