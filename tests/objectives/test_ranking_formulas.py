"""Ranking and distillation against plain loops over scalars in float64: value and every gradient, dense and tiled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.objectives import (
    IRPO,
    KL,
    ApproxNDCG,
    GroCo,
    LambdaRank,
    ListMLE,
    ListNet,
    MannWhitney,
    PairwiseHinge,
    PairwiseLogistic,
    PointMSE,
    PointSigmoid,
    SmoothAP,
)
from support.loops import Case, Formula, Rows, Scalars, compare, near_columns, softmax_case
from support.scenarios import SCENARIOS, Matrix

Columns = list[tuple[Tensor, float, float]]
"""The score over T, the grade and the weight of each column of a list."""


def columns(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Columns:
    return [(s[j] * scale, near[j], 1.0 if near[j] else far[j]) for j in range(len(s)) if near[j] or far[j]]


def by_rows(cost: Callable[[Columns], tuple[Tensor, float] | None]) -> Formula:
    """The formula of a row's list; None where it does not apply."""

    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        return [cost(columns(s, near, far, scale)) for s, near, far in zip(scores, positive, negative, strict=True)]

    return formula


def pairs_of(lists: Columns) -> list[tuple[int, int, float]]:
    """Pairs of columns of different grades, the higher first, and their weight."""
    return [(a, b, lists[b][2]) for a, b in itertools.product(range(len(lists)), repeat=2) if lists[a][1] > lists[b][1]]


def softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def hinge(x: Tensor) -> Tensor:
    return 0.7 + x if 0.7 + x > 0 else x * 0


def graded_pairs(cost: Callable[[Tensor], Tensor], average: str) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        pairs = pairs_of(lists)
        if not pairs:
            return None
        total = sum(w * cost(lists[b][0] - lists[a][0]) for a, b, w in pairs)
        weight = sum(w for _, _, w in pairs)
        return total / weight, weight if average == "pairs" else 1.0

    return by_rows(of)


def near_far_hinge(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        pairs = [(near[p] * far[n], (s[n] - s[p]) * scale) for p in near_columns(near) for n in near_columns(far)]
        weight = sum(w for w, _ in pairs)
        rows.append((sum(w * hinge(x) for w, x in pairs) / weight, 1.0) if pairs else None)
    return rows


def points(cost: Callable[[Tensor, float], Tensor], average: str) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        if not lists:
            return None
        weight = sum(w for _, _, w in lists)
        return sum(w * cost(s, y) for s, y, w in lists) / weight, weight if average == "items" else 1.0

    return by_rows(of)


def cross_entropy(s: Tensor, y: float) -> Tensor:
    p = 1 / (1 + (-s).exp())
    return -y * p.log() - (1 - y) * (1 - p).log()


def listnet(target: str) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        if not any(y for _, y, _ in lists):
            return None
        aim = [y for _, y, _ in lists]
        if target == "softmax":
            aim = [w * math.exp(y) for _, y, w in lists]
        if target != "raw":
            aim = [t / sum(aim) for t in aim]
        normalizer = sum(w * s.exp() for s, _, w in lists)
        return -sum(t * (s.exp() / normalizer).log() for t, (s, _, _) in zip(aim, lists, strict=True)), 1.0

    return by_rows(of)


def listmle(ties: str, divide: bool) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        if not any(y for _, y, _ in lists) or (ties == "together" and not pairs_of(lists)):
            return None
        lists = sorted(lists, key=lambda column: -column[1])
        total, terms = lists[0][0] * 0, 0.0
        for k, (s, y, w) in enumerate(lists):
            if ties == "together":
                if y == lists[-1][1]:
                    continue
                rest = [(r, v) for r, z, v in lists if z <= y]
            else:
                rest = [(r, v) for r, _, v in lists[k:]]
            total = total + w * (sum(v * r.exp() for r, v in rest).log() - s)
            terms += w
        return total / terms if divide else total, 1.0

    return by_rows(of)


def discount(rank: float | Tensor) -> float | Tensor:
    return math.log(2) / (math.log(1 + rank) if isinstance(rank, (int, float)) else (1 + rank).log())


def best_dcg(gains: list[float], k: int | None = None) -> float:
    return sum(g * discount(r) for r, g in enumerate(sorted(gains, reverse=True)[:k], 1))


def lambda_rank(
    weighting: str, gain: str, k: int | None, cut: str, logarithm: str, average: str, times_length: bool
) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        pairs = pairs_of(lists)
        if not pairs:
            return None
        order = sorted(range(len(lists)), key=lambda j: -lists[j][0].item())
        rank = {j: r for r, j in enumerate(order, 1)}
        gains = [2**y - 1 if gain == "exponential" else y for _, y, _ in lists]
        if weighting not in ("dcg", "gain"):
            best = best_dcg(gains, k)
            gains = [g / best for g in gains]
        total, count = lists[0][0] * 0, 0.0
        for a, b, w in pairs:
            if k is not None and (min if cut == "either" else max)(rank[a], rank[b]) > k:
                continue
            exchanged = abs(gains[a] - gains[b]) * abs(discount(rank[a]) - discount(rank[b]))
            apart = abs(rank[a] - rank[b])
            moved = abs(gains[a] - gains[b]) * (discount(apart) - discount(apart + 1))
            change = {
                "ndcg": exchanged, "dcg": exchanged, "ndcg-loss2": moved, "ndcg-loss2++": 3 * moved + exchanged,
                "gain": abs(gains[a] - gains[b]), "discount": abs(discount(rank[a]) - discount(rank[b])), "none": 1.0,
            }[weighting]  # fmt: skip
            total = total + w * change * softplus(lists[b][0] - lists[a][0])
            count += w
        total = total * (len(lists) if times_length else 1) / (math.log(2) if logarithm == "binary" else 1)
        if average == "rows":
            return total, 1.0
        return total / count if count else total, count

    return by_rows(of)


def smooth_ranks(lists: Columns) -> list[Tensor]:
    def rank(j: int) -> Tensor:
        others = [(score, weight) for k, (score, _, weight) in enumerate(lists) if k != j]
        return 1 + sum(weight / (1 + (lists[j][0] - score).exp()) for score, weight in others)

    return [rank(j) for j in range(len(lists))]


def approx_ndcg(gain: str) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        if not pairs_of(lists):
            return None
        gains = [2**y - 1 if gain == "exponential" else y for _, y, _ in lists]
        found = sum(g * discount(rank) for g, rank in zip(gains, smooth_ranks(lists), strict=True))
        return 1 - found / best_dcg(gains), 1.0

    return by_rows(of)


def smooth_ap(own: bool) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            lists = columns(s, near, far, scale)
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            if own:
                lists.append((scale, 1.0, 1.0))
            graded = [j for j, (_, y, _) in enumerate(lists) if y]
            all_ranks, precision = smooth_ranks(lists), []
            for j in graded:
                among = 1 + sum(1 / (1 + (lists[j][0] - lists[k][0]).exp()) for k in graded if k != j)
                precision.append(among / all_ranks[j])
            rows.append((1 - sum(precision) / len(precision), 1.0))
        return rows

    return formula


def irpo(weighting: str, targets: str) -> Formula:
    def of(lists: Columns) -> tuple[Tensor, float] | None:
        if len(lists) < 2 or not (any(y for _, y, _ in lists) or (weighting == "discount" and targets == "columns")):
            return None
        order = list(range(len(lists)))
        if targets == "grades":
            order.sort(key=lambda j: -lists[j][1])
        position = [0.0] * len(lists)
        for r, j in enumerate(order, 1):
            position[j] = 1 / r if weighting == "gain-over-rank" else discount(r)
        if targets == "grades":
            alike = [[k for k in order if lists[k][1] == lists[j][1]] for j in range(len(lists))]
            position = [sum(position[k] for k in tied) / len(tied) for tied in alike]
        total, items = lists[0][0] * 0, sum(w for _, _, w in lists)
        for j, (s, y, w) in enumerate(lists):
            others = [(r, v) for k, (r, _, v) in enumerate(lists) if k != j]
            mean = sum(v * (r - s).exp() for r, v in others) / sum(v for _, v in others)
            gained = 1.0 if weighting == "discount" else 2**y - 1
            total = total + w * position[j] * gained * (1 + mean).log()
        return total / items, 1.0

    return by_rows(of)


def mann_whitney(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    near = [(w, s[j]) for s, row in zip(scores, positive, strict=True) for j, w in enumerate(row) if w]
    rows: Rows = []
    for s, far in zip(scores, negative, strict=True):
        columns = near_columns(far)
        if not columns or not near:
            rows.append(None)
            continue
        pairs = [(w * far[n], softplus((s[n] - p) * scale)) for w, p in near for n in columns]
        weight = sum(far)
        rows.append((sum(w * cost for w, cost in pairs) / weight / sum(w for w, _ in near), weight))
    return rows


def kullback_leibler(direction: str) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            graded = near_columns(near)
            if not graded:
                rows.append(None)
                continue
            p = {j: near[j] / sum(near) for j in graded}
            everyone = sum((1.0 if near[j] else far[j]) * (s[j] * scale).exp() for j in range(len(s)))
            supported = sum((s[j] * scale).exp() for j in graded)
            forward = sum(p[j] * (math.log(p[j]) - ((s[j] * scale).exp() / everyone).log()) for j in graded)
            q = {j: (s[j] * scale).exp() / supported for j in graded}
            reverse = sum(q[j] * (q[j].log() - math.log(p[j])) for j in graded)
            rows.append(({"forward": forward, "reverse": reverse, "both": (forward + reverse) / 2}[direction], 1.0))
        return rows

    return formula


def soft_permutation(values: list[Tensor], steepness: float) -> list[list[Tensor]]:
    """Share of input r that ended on rank c, by the whole matrix, layer by layer."""
    w = len(values)
    one, zero = values[0] * 0 + 1, values[0] * 0
    x = [[one if r == c else zero for c in range(w)] for r in range(w)]
    values = list(values)
    for layer in range(w):
        for i in range(layer % 2, w - 1, 2):
            keep = 0.5 + torch.atan(steepness * (values[i + 1] - values[i])) / math.pi
            a, b = values[i], values[i + 1]
            values[i], values[i + 1] = keep * a + (1 - keep) * b, (1 - keep) * a + keep * b
            for row in x:
                a, b = row[i], row[i + 1]
                row[i], row[i + 1] = keep * a + (1 - keep) * b, (1 - keep) * a + keep * b
    return x


def groco(hardest: int, steepness: float) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near) or not near_columns(far):
                rows.append(None)
                continue
            low = sorted((s[j] for j in near_columns(far)), key=lambda value: value.item())[-hardest:]
            values = low + sorted((s[j] for j in near_columns(near)), key=lambda value: value.item())
            cost = s[0] * 0
            for r, row in enumerate(soft_permutation(values, steepness)):
                share = sum(row[: len(low)])
                cost = cost - (share.log() if r < len(low) else (1 - share).log())
            rows.append((cost / len(values), 1.0))
        return rows

    return formula


def lambda_case(weighting: str = "ndcg", **more: object) -> Case:
    options = {
        "gain": "exponential", "k": None, "cut": "either", "logarithm": "natural", "average": "rows",
        "times_length": False,
    }  # fmt: skip
    formula = lambda_rank(weighting, **{**options, **more})
    return softmax_case(LambdaRank, formula, weighting=weighting, mu=3.0, **more)


CASES: dict[str, Case] = {
    "ranknet": softmax_case(PairwiseLogistic, graded_pairs(softplus, "pairs"), pairs="graded", average="pairs"),
    "logistic graded rows": softmax_case(PairwiseLogistic, graded_pairs(softplus, "rows"), pairs="graded"),
    "hinge": softmax_case(PairwiseHinge, near_far_hinge, margin=0.7),
    "hinge graded": softmax_case(
        PairwiseHinge, graded_pairs(hinge, "pairs"), margin=0.7, pairs="graded", average="pairs"
    ),
    "point-mse": softmax_case(PointMSE, points(lambda s, y: (s - y) ** 2, "rows")),
    "point-mse items": softmax_case(PointMSE, points(lambda s, y: (s - y) ** 2, "items"), average="items"),
    "point-sigmoid": softmax_case(PointSigmoid, points(cross_entropy, "rows")),
    "listnet": softmax_case(ListNet, listnet("softmax")),
    "listnet normalized": softmax_case(ListNet, listnet("normalized"), target="normalized"),
    "listnet raw": softmax_case(ListNet, listnet("raw"), target="raw"),
    "listmle": softmax_case(ListMLE, listmle("together", False)),
    "listmle divided": softmax_case(ListMLE, listmle("together", True), divide=True),
    "listmle columns": softmax_case(ListMLE, listmle("columns", False), ties="columns"),
    "lambda-rank": lambda_case(),
    "lambda-rank loss2": lambda_case("ndcg-loss2", gain="linear", logarithm="binary"),
    "lambda-rank loss2++ k": lambda_case("ndcg-loss2++", k=2, average="pairs"),
    "lambda-rank dcg": lambda_case("dcg", average="pairs", times_length=True),
    "lambda-rank none": lambda_case("none", k=1),
    "lambda-rank both": lambda_case("ndcg", k=3, cut="both", average="pairs"),
    "lambda-rank gain": lambda_case("gain", gain="linear"),
    "lambda-rank discount": lambda_case("discount", average="pairs", times_length=True),
    "approx-ndcg": softmax_case(ApproxNDCG, approx_ndcg("exponential")),
    "approx-ndcg linear": softmax_case(ApproxNDCG, approx_ndcg("linear"), gain="linear"),
    "smooth-ap": softmax_case(SmoothAP, smooth_ap(False)),
    "smooth-ap own": softmax_case(SmoothAP, smooth_ap(True), own=True),
    "irpo": softmax_case(IRPO, irpo("dcg", "grades")),
    "irpo discount": softmax_case(IRPO, irpo("discount", "grades"), weighting="discount"),
    "irpo discount columns": softmax_case(IRPO, irpo("discount", "columns"), weighting="discount", targets="columns"),
    "irpo columns": softmax_case(
        IRPO, irpo("gain-over-rank", "columns"), weighting="gain-over-rank", targets="columns"
    ),
    "kl": softmax_case(KL, kullback_leibler("forward"), score="cosine", scaled=False),
    "kl reverse": softmax_case(KL, kullback_leibler("reverse"), direction="reverse", score="cosine", scaled=False),
    "kl both": softmax_case(KL, kullback_leibler("both"), direction="both", score="cosine", scaled=False),
    "groco": Case(lambda **more: GroCo(3, steepness=4.0, keys_have_gradient=True, **_one_way(more)), groco(3, 4.0)),
}
MW = Case(lambda **more: MannWhitney(temperature="learned:0.3", **_one_way(more)), mann_whitney, temperature=0.3)


def _one_way(more: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in more.items() if name != "two_sided"}


MAIN = ("ranknet", "hinge", "point-mse", "listnet", "listmle", "lambda-rank", "approx-ndcg", "smooth-ap", "irpo", "kl")
TELLING = ("several positives", "weights", "own weights", "judged alone")
"""Scenarios in which grades, ties, weights and missing columns tell neighbouring formulas apart."""
MORE = ("hard negatives", "one row", "own labels", "graded", "reweighted", "duplicates", "nobody near")


def _fits(case: str, scenario: str) -> bool:
    if case == "point-sigmoid" and scenario in ("weights", "graded", "judged alone", "reweighted"):
        return False  # grades above 1
    # of equal scores any may rank first, and any may be among the hardest
    return not (scenario == "duplicates" and ("lambda" in case or case == "groco"))


@pytest.mark.parametrize(
    ("case", "scenario"),
    [
        (case, scenario)
        for case in [*CASES, "mw-loss"]
        for scenario in (TELLING + MORE if case in MAIN else TELLING)
        if _fits(case, scenario)
    ],
)
def test_ranking_objectives_equal_their_formula(case: str, scenario: str) -> None:
    compare(CASES.get(case, MW), SCENARIOS[scenario]())


@pytest.mark.parametrize("case", [case for case in CASES if case != "groco"])
def test_ranking_in_both_directions(case: str) -> None:
    for scenario in ("several positives", "graded" if _fits(case, "graded") else "labels"):
        compare(CASES[case], SCENARIOS[scenario](), two_sided=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_ranking_reductions(case: str, reduction: str) -> None:
    compare(CASES[case], SCENARIOS["graded" if _fits(case, "graded") else "labels"](), reduction=reduction)


@pytest.mark.parametrize("scenario", ["several positives", "weights"])
def test_mann_whitney_reductions(scenario: str) -> None:
    """The sum is over pairs, so it is the mean over near pairs' weight times that weight."""
    made = SCENARIOS[scenario]()
    compare(MW, made, reduction="none")
    total = sum(map(sum, made.positive)) * sum(map(sum, made.negative))
    mean, summed = (
        MannWhitney(temperature=0.3, reduction=reduction)(made.query, made.key, relation=made.relation)
        for reduction in ("mean", "sum")
    )
    torch.testing.assert_close(summed, mean * total)


def test_scaled_kl_is_times_the_squared_temperature() -> None:
    made = SCENARIOS["graded"]()
    for temperature in (0.5, 3.0):
        plain, scaled = (
            KL(scaled=scaled, temperature=temperature)(made.query, made.key, relation=made.relation)
            for scaled in (False, True)
        )
        torch.testing.assert_close(scaled, temperature**2 * plain)
