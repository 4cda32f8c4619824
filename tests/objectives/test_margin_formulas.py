"""Margins on pairs, rows and tuples against plain loops over scalars in float64: value and every gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.objectives import (
    SNR,
    Circle,
    Contrastive,
    FastAP,
    Histogram,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    RankedList,
    TupletMargin,
)
from support.loops import Case, Formula, Rows, Scalars, compare, near_columns
from support.scenarios import SCENARIOS, Matrix

ROWS = [
    "pairs", "several positives", "excluded", "one row", "labels", "own three views", "own labels", "weights",
    "own weights", "judged alone", "reweighted", "duplicates", "nobody near",
]  # fmt: skip


def _hinge(value: Tensor) -> Tensor:
    return value if value > 0 else value * 0


def contrastive(form: str, average: str, margin: float, positive_margin: float, largest: float) -> Formula:
    def near_cost(d: Tensor) -> Tensor:
        if form == "chopra":
            return 2 / largest * d * d
        return _hinge(d - positive_margin) if form == "linear" else _hinge(d - positive_margin) ** 2 / 2

    def far_cost(d: Tensor) -> Tensor:
        if form == "chopra":
            return 2 * largest * (-2.77 / largest * d).exp()
        return _hinge(margin - d) if form == "linear" else _hinge(margin - d) ** 2 / 2

    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        pull: Tensor | float = 0.0
        if average != "all":
            costs = [near_cost(-s[p]) for s, near in zip(scores, positive, strict=True) for p in near_columns(near)]
            counted = [cost for cost in costs if average == "sides" or cost > 0]
            pull = sum(costs) / max(len(counted), 1)
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near) and not near_columns(far):
                rows.append(None)
                continue
            total, weight = s[0] * 0, 0.0
            for n in near_columns(far):
                cost = far_cost(-s[n])
                total, weight = total + far[n] * cost, weight + far[n] * (average != "active" or bool(cost > 0))
            if average == "all":
                total = total + sum(near[p] * near_cost(-s[p]) for p in near_columns(near))
                weight += sum(near)
            # what all rows share counts even where no far pair does
            rows.append((total / max(weight, 1e-20) + pull, max(weight, 1e-20)))
        return rows

    return formula


def margin_loss(average: str, margin: float, beta: float) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            total, count = s[0] * 0, 0.0
            if average == "pairs":
                weighted = [(p, True, near[p]) for p in near_columns(near)]
                weighted += [(n, False, far[n]) for n in near_columns(far)]
            else:
                triplets = [(p, n, near[p] * far[n]) for p in near_columns(near) for n in near_columns(far)]
                weighted = [(p, True, w) for p, _, w in triplets] + [(n, False, w) for _, n, w in triplets]
            for j, is_near, weight in weighted:
                cost = _hinge(-s[j] - beta + margin) if is_near else _hinge(beta + s[j] + margin)
                total, count = total + weight * cost, count + weight * bool(cost > 0)
            rows.append((total / count if count else total, count))
        return rows

    return formula


def multi_similarity(base: float, epsilon: float | None) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            near_ones, far_ones = near_columns(near), near_columns(far)
            if not (near_ones and far_ones if epsilon is not None else near_ones or far_ones):
                rows.append(None)
                continue
            if epsilon is not None:
                farthest, nearest = min(s[p].item() for p in near_ones), max(s[n].item() for n in far_ones)
                near_ones = [p for p in near_ones if s[p] < nearest + epsilon]
                far_ones = [n for n in far_ones if s[n] > farthest - epsilon]
            pull = 1 + sum(near[p] * (-2 * (s[p] - base)).exp() for p in near_ones)
            push = 1 + sum(far[n] * (5 * (s[n] - base)).exp() for n in far_ones)
            one = torch.ones((), dtype=torch.float64)
            rows.append(((one * pull).log() / 2 + (one * push).log() / 5, 1.0))
        return rows

    return formula


def circle(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near) or not near_columns(far):
            rows.append(None)
            continue
        pull = sum(near[p] * (-7 * max(1.3 - s[p].item(), 0) * (s[p] - 0.7)).exp() for p in near_columns(near))
        push = sum(far[n] * (7 * max(s[n].item() + 0.3, 0) * (s[n] - 0.3)).exp() for n in near_columns(far))
        rows.append(((pull * push).log1p(), 1.0))
    return rows


def ranked_list(smoothing: float, *, detached: bool) -> Formula:
    def side(violations: list[tuple[Tensor, float]], temperature: float, columns: int, like: Tensor) -> Tensor:
        violators = [(v, w) for v, w in violations if v > 0]
        if not violators:
            return like * 0
        shares = [w * (temperature * (v.detach() if detached else v)).exp() for v, w in violators]
        return sum(v * share for (v, _), share in zip(violators, shares, strict=True)) / (
            sum(shares) + smoothing * columns
        )

    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near) and not near_columns(far):
                rows.append(None)
                continue
            pull = side([(-s[p] - 0.8, near[p]) for p in near_columns(near)], 1.5, len(s), s[0])
            push = side([(1.2 + s[n], far[n]) for n in near_columns(far)], 3.0, len(s), s[0])
            rows.append((0.7 * pull + 0.3 * push, 1.0))
        return rows

    return formula


def tuplet_margin(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near) or not near_columns(far):
            rows.append(None)
            continue
        total = s[0] * 0
        for p in near_columns(near):
            harder = (torch.acos(s[p]) - 0.2).cos() if abs(s[p].item()) < 1 - 1e-12 else s[p] * math.cos(0.2)
            inner = 1 + sum(far[n] * (6 * (s[n] - harder)).exp() for n in near_columns(far))
            total = total + near[p] * inner.log()
        rows.append((total / sum(near), sum(near)))
    return rows


def lifted_structure(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        costs = []
        for j in near_columns(near):
            terms = [far[k] * (0.7 + s[k]).exp() for k in near_columns(far)]
            terms += [
                other[j] * (0.7 + row[j]).exp() for row, other in zip(scores, negative, strict=True) if other[j] > 0
            ]
            if terms:
                costs.append(_hinge(sum(terms).log() - s[j]) ** 2 / 2)
        rows.append((sum(costs) / len(costs), float(len(costs))) if costs else None)
    return rows


def generalized_lifted(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near) or not near_columns(far):
            rows.append(None)
            continue
        pull = sum(near[p] * (-s[p]).exp() for p in near_columns(near)).log()
        push = sum(far[n] * (0.7 + s[n]).exp() for n in near_columns(far)).log()
        rows.append((_hinge(pull + push), 1.0))
    return rows


def _soft(value: Tensor, start: float, cell: float, node: int) -> Tensor:
    """How much a value counts at a node: 1 on it, falling to 0 at the next ones."""
    return _hinge(1 - (value - (start + node * cell)).abs() / cell)


def histogram(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    pairs = [s[p] for s, near in zip(scores, positive, strict=True) for p in near_columns(near)]
    below = [sum(_soft(s, -1, 0.4, q) for s in pairs for q in range(r + 1)) / max(len(pairs), 1) for r in range(6)]
    rows: Rows = []
    for s, far in zip(scores, negative, strict=True):
        beaten = sum(far[n] * _soft(s[n], -1, 0.4, r) * below[r] for n in near_columns(far) for r in range(6))
        rows.append((beaten / sum(far), sum(far)) if near_columns(far) else None)
    return rows


def fast_ap(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near):
            rows.append(None)
            continue
        h = [[w[j] * _soft(2 - 2 * s[j], 0, 4 / 6, k) for j in near_columns(w)] for w in (near, far) for k in range(7)]
        near_at, far_at = [sum(cell) for cell in h[:7]], [sum(cell) for cell in h[7:]]
        precision = s[0] * 0
        for k in range(7):
            near_so_far, everyone = sum(near_at[: k + 1]), sum(near_at[: k + 1]) + sum(far_at[: k + 1])
            if everyone > 0:
                precision = precision + near_at[k] * near_so_far / everyone
        rows.append((1 - precision / sum(near), 1.0))
    return rows


CASES: dict[str, Case] = {
    "snr": Case(
        lambda **more: SNR(margin=1.5, positive_margin=0.2, **more),
        contrastive("linear", "sides", 1.5, 0.2, 2.0),
        score="negative-snr",
    ),
    "multi-similarity": Case(lambda **more: MultiSimilarity(2.0, 5.0, epsilon=0.3, **more), multi_similarity(1.0, 0.3)),
    "multi-similarity unmined": Case(
        lambda **more: MultiSimilarity(2.0, 5.0, 0.5, epsilon=None, **more), multi_similarity(0.5, None)
    ),
    "circle": Case(lambda **more: Circle(0.3, 7.0, **more), circle),
    "tuplet-margin": Case(lambda **more: TupletMargin(0.2, 6.0, **more), tuplet_margin),
    "lifted-structure": Case(
        lambda **more: LiftedStructure(margin=0.7, **more), lifted_structure, score="negative-euclidean"
    ),
    "lifted-structure generalized": Case(
        lambda **more: LiftedStructure("generalized", margin=0.7, **more),
        generalized_lifted,
        score="negative-euclidean",
    ),
    "histogram": Case(lambda **more: Histogram(5, **more), histogram),
    "fast-ap": Case(lambda **more: FastAP(6, **more), fast_ap),
}
for _form in ("hadsell", "linear", "chopra"):
    for _average_name in ("all", "sides", "active"):
        CASES[f"contrastive {_form} {_average_name}"] = Case(
            (
                lambda f, a: (
                    lambda **more: Contrastive(f, margin=2.0, positive_margin=0.5, largest=4.0, average=a, **more)
                )
            )(_form, _average_name),
            contrastive(_form, _average_name, 2.0, 0.5, 4.0),
            score="negative-euclidean",
        )
for _average_name in ("pairs", "triplets"):
    CASES[f"margin {_average_name}"] = Case(
        (lambda a: lambda **more: Margin(a, margin=0.3, beta=1.0, **more))(_average_name),
        margin_loss(_average_name, 0.3, 1.0),
        score="negative-normalized-euclidean",
    )
for _smoothing, _detached in ((0.0, True), (0.0, False), (0.01, False)):
    _arguments: dict[str, Any] = {"smoothing": _smoothing, "detach_weights": _detached}
    CASES[f"ranked-list {_smoothing} {_detached}"] = Case(
        (lambda a: lambda **more: RankedList(
            temperature_near=1.5, temperature_far=3.0, balance=0.3, **a, **more
        ))(_arguments),
        ranked_list(_smoothing, detached=_detached),
        score="negative-normalized-euclidean",
    )  # fmt: skip
VARIANTS = {
    *(case for case in CASES if case.startswith("contrastive") and case != "contrastive hadsell all"),
    "ranked-list 0.0 False", "ranked-list 0.01 False", "margin triplets", "multi-similarity unmined",
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "scenario"),
    [
        (case, scenario)
        for case in CASES
        for scenario in ROWS
        # the forms of one loss differ where there is something to tell them apart
        if case not in VARIANTS or scenario in ("several positives", "own labels", "weights", "duplicates")
    ],
)
def test_margins_equal_their_formula(case: str, scenario: str) -> None:
    if (case, scenario) == ("lifted-structure", "own weights"):
        pytest.skip("how far j is from l and l from j differ here, and the loops do not tell rows from columns")
    compare(CASES[case], SCENARIOS[scenario]())


@pytest.mark.parametrize(
    "case", ["contrastive linear active", "margin pairs", "tuplet-margin", "lifted-structure", "histogram"]
)
def test_two_sided_and_reductions(case: str) -> None:
    scenario = SCENARIOS["several positives"]()
    compare(CASES[case], scenario, two_sided=True)
    compare(CASES[case], scenario, reduction="none")
    if case in ("margin pairs", "tuplet-margin", "lifted-structure"):  # their sum is over pairs
        compare(CASES[case], scenario, reduction="sum")
