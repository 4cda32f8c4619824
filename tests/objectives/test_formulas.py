"""Objectives against plain loops over scalars in float64: value and every gradient, dense and tiled.

The loops are written from the papers' formulas and call nothing of nearfar; their gradients are those of autograd on
scalar operations. Who is near whom is written out by loops too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired, evaluate
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
from support.loops import (
    LOOP_SCORES,
    Case,
    Formula,
    Outcome,
    Rows,
    Scalars,
    compare,
    cosine,
    gradients,
    near_columns,
    softmax_case,
)
from support.scenarios import SCENARIOS, Matrix, embeddings


def info_nce(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near):
            rows.append(None)
            continue
        candidates = sum((1.0 if near[j] else far[j]) * (s[j] * scale).exp() for j in range(len(s)))
        cost = sum(-near[p] * ((s[p] * scale).exp() / candidates).log() for p in near_columns(near))
        rows.append((cost / sum(near), 1.0))
    return rows


def supcon_in(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near):
            rows.append(None)
            continue
        everyone = sum((1.0 if near[j] else far[j]) * (s[j] * scale).exp() for j in range(len(s)))
        mean_near = sum(near[p] * (s[p] * scale).exp() for p in near_columns(near)) / sum(near)
        rows.append((-(mean_near / everyone).log(), 1.0))
    return rows


def dcl(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not near_columns(near) or not near_columns(far):
            rows.append(None)
            continue
        pull = sum(near[p] * s[p] * scale for p in near_columns(near)) / sum(near)
        rows.append((-pull + sum(far[j] * (s[j] * scale).exp() for j in near_columns(far)).log(), 1.0))
    return rows


def dclw(sigma: float, *, weight_has_gradient: bool) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        pairs = [(i, p) for i in range(len(scores)) for p in near_columns(positive[i])]
        kernel = {(i, p): (scores[i][p] / sigma).exp() for i, p in pairs}
        if not weight_has_gradient:
            kernel = {pair: value.detach() for pair, value in kernel.items()}
        rows: Rows = []
        for i, (s, near, far) in enumerate(zip(scores, positive, negative, strict=True)):
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            average = sum(kernel.values()) / len(pairs)
            pull = sum((2 - kernel[i, p] / average) * s[p] * scale for p in near_columns(near)) / len(
                near_columns(near)
            )
            rows.append((-pull + sum(far[j] * (s[j] * scale).exp() for j in near_columns(far)).log(), 1.0))
        return rows

    return formula


def triplet(mining: str, average: str, *, smooth: bool, margin: float) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            distance = [-value for value in s]
            if mining == "all":
                chosen = [(p, n, near[p] * far[n]) for p in near_columns(near) for n in near_columns(far)]
            elif mining == "hard":
                farthest = max(near_columns(near), key=lambda p: distance[p].item())
                nearest = min(near_columns(far), key=lambda n: distance[n].item())
                chosen = [(farthest, nearest, 1.0)]
            else:
                chosen = []
                for p in near_columns(near):
                    beyond = [n for n in near_columns(far) if distance[n] > distance[p]]
                    n = min(beyond, key=lambda n: distance[n].item()) if beyond else None
                    n = max(near_columns(far), key=lambda n: distance[n].item()) if n is None else n
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
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            total, weight = s[0] * 0, 0.0
            for p in near_columns(near):
                for n in near_columns(far):
                    total = total + near[p] * far[n] * (1 + (-(s[p] - s[n]) * scale).exp()).log()
                    weight += near[p] * far[n]
            rows.append((total / weight, weight if average == "pairs" else 1.0))
        return rows

    return formula


CASES: dict[str, Case] = {
    "info-nce": softmax_case(InfoNCE, info_nce),
    "supcon out": softmax_case(SupCon, info_nce),
    "supcon in": softmax_case(SupCon, supcon_in, form="in"),
    "dcl": softmax_case(DCL, dcl),
    "dclw": softmax_case(DCLW, dclw(0.7, weight_has_gradient=True), sigma=0.7),
    "dclw detached": softmax_case(DCLW, dclw(0.7, weight_has_gradient=False), sigma=0.7, detach_weight=True),
    "pairwise rows": softmax_case(PairwiseLogistic, pairwise_logistic("rows")),
    "pairwise pairs": softmax_case(PairwiseLogistic, pairwise_logistic("pairs"), average="pairs"),
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
    compare(CASES[case], SCENARIOS[scenario]())


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
    compare(CASES[case], SCENARIOS[scenario](), two_sided=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions(case: str, reduction: str) -> None:
    compare(CASES[case], SCENARIOS["several positives"](), reduction=reduction)
    compare(CASES[case], SCENARIOS["weights"](), reduction=reduction)


@pytest.mark.parametrize("case", ["info-nce", "dcl", "pairwise pairs"])
def test_two_sided_sum_is_half_the_sum_of_both_directions(case: str) -> None:
    compare(CASES[case], SCENARIOS["several positives"](), two_sided=True, reduction="sum")


@pytest.mark.parametrize("score", LOOP_SCORES)
@pytest.mark.parametrize("scenario", ["several positives", "own labels", "duplicates"])
def test_scores(score: str, scenario: str) -> None:
    for formula, cls in ((info_nce, InfoNCE), (dclw(0.7, weight_has_gradient=True), DCLW)):
        arguments = {"sigma": 0.7} if cls is DCLW else {}
        case = softmax_case(cls, formula, score=score, **arguments)
        case.score = score
        compare(case, SCENARIOS[scenario]())
    # of the equal scores of a zero vector "hard" may pick any
    for mining in ("all",) if scenario == "duplicates" else ("all", "hard"):
        case = Case(
            lambda mining=mining, **more: Triplet(mining, margin=0.3, average="active", score=score, **more),
            triplet(mining, "active", smooth=False, margin=0.3),
            score=score,
        )
        compare(case, SCENARIOS[scenario]())


def test_self_contrast_is_not_contrast_with_a_copy() -> None:
    """The item itself is no candidate: the check of the scenarios above that the diagonal matters."""
    scenario = SCENARIOS["own labels"]()
    objective = InfoNCE().double()
    alone = evaluate(objective, scenario.query, relation=scenario.relation)
    beside = evaluate(objective, scenario.query, scenario.query, relation=scenario.relation)
    assert abs(float(alone - beside)) > 0.1


# -- other precisions --------------------------------------------------------------------------------------------------


def _in_precision(
    case: Case, dtype: torch.dtype, memory: str, two_sided: bool, scale: float = 1.0
) -> tuple[Outcome, Tensor, Tensor]:
    query, key = embeddings(40, 24, 16), embeddings(41, 30, 16)
    ids = torch.arange(24) % 11
    keys = torch.cat([torch.arange(24) % 11, torch.full((6,), -1)])
    objective = case.make(two_sided=two_sided).to(torch.float64 if dtype == torch.float64 else torch.float32)
    query, key = ((scale * value).to(dtype).requires_grad_() for value in (query, key))
    loss = evaluate(objective, query, key, relation=Paired(ids, keys), memory=memory, tile_rows=7)
    log_scale = None if objective.temperature is None else objective.temperature.log_scale
    return gradients(loss, query, key, log_scale), query, key


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
    query = torch.nn.functional.normalize(embeddings(42, 6, 4), dim=1)
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
    return sum((2 - 2 * cosine(p, q)).sqrt() ** 3 for p, q in zip(a, b, strict=True)) / len(a)


@pytest.mark.parametrize(
    ("objective", "loops"),
    [(BarlowTwins(0.01), _barlow_twins), (VICReg(10, 20, 3), _vicreg), (Alignment(3.0), _alignment)],
)
def test_view_objectives_equal_their_formula(objective: ViewObjective, loops: Callable[..., Tensor]) -> None:
    a, b = (0.8 * embeddings(50, 5, 3)).requires_grad_(), (1.3 * embeddings(51, 5, 3)).requires_grad_()
    found, expected = objective(a, b), loops(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
