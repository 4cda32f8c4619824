"""The softmax family's further members against plain loops over scalars in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Views, evaluate
from nearfar.objectives import (
    DHEL,
    FMICL,
    MVDHEL,
    NCA,
    Debiased,
    HardNegative,
    InfoNCE,
    MoCoDualHard,
    MVInfoNCE,
    PolyView,
    RowObjective,
    SigLIP,
    SpectralContrastive,
)
from support.loops import Case, Formula, Rows, Scalars, compare, cosine, dot, near_columns, softmax_case
from support.scenarios import SCENARIOS, Matrix, embeddings

Cost = Callable[[list[Tensor], list[float], list[float]], Tensor]
"""Of one row: its scores (times 1/T), the weights of its near and of its far columns."""


def by_rows(cost: Cost, *, needs: str = "both", weight: Callable[[list[float]], float] = lambda near: 1.0) -> Formula:
    """The rows that have what the formula needs: "near", "both" or "any"."""

    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            has, apart = bool(near_columns(near)), bool(near_columns(far))
            enough = {"near": has, "both": has and apart, "any": has or apart}[needs]
            rows.append((cost([value * scale for value in s], near, far), weight(near)) if enough else None)
        return rows

    return formula


def mean(values: list[Tensor], weights: list[float]) -> Tensor:
    return sum(w * v for v, w in zip(values, weights, strict=True) if w) / sum(weights)


def total(values: list[Tensor], weights: list[float]) -> Tensor:
    return sum((w * v for v, w in zip(values, weights, strict=True) if w), start=0 * values[0])


def exps(s: list[Tensor]) -> list[Tensor]:
    return [value.exp() for value in s]


def candidates(near: list[float], far: list[float]) -> list[float]:
    return [1.0 if p else n for p, n in zip(near, far, strict=True)]


def smoothed(share: float) -> Cost:
    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        every = candidates(near, far)
        log_sum = total(exps(s), every).log()
        log_p = [value - log_sum for value in s]
        return -(1 - share) * mean(log_p, near) - share * mean(log_p, every)

    return cost


def own(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    mass = total(exps(s), far)
    return mean([(value.exp() + mass).log() - value for value in s], near)


def arithmetic(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    mass = total(exps(s), far)
    return -mean([value.exp() / (value.exp() + mass) for value in s], near).log()


def debiased(tau_plus: float, beta: float, lowest: float) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        bound = (lowest * scale).exp()

        def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
            weights = [w * (beta * value).exp() if w else 0.0 for value, w in zip(s, far, strict=True)]
            hard = total(exps(s), weights) / sum(weights)
            true = (hard - tau_plus * mean(exps(s), near)) / (1 - tau_plus)
            mass = sum(far) * (true if true > bound else bound)
            return mean([-(value.exp() / (value.exp() + mass)).log() for value in s], near)

        return by_rows(cost)(scores, positive, negative, scale)

    return formula


def energies(count: int) -> Cost:
    return lambda s, near, far: -mean(s, near) + count * total(exps(s), far).log()


def nca(form: str) -> Cost:
    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        p = total(exps(s), near) / total(exps(s), candidates(near, far))
        return -p.log() if form == "log" else -p

    return cost


def siglip(bias: float) -> Cost:
    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        chance = [1 / (1 + (-(value + bias)).exp()) for value in s]
        return -total([p.log() for p in chance], near) - total([(1 - p).log() for p in chance], far)

    return cost


def spectral(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    return -2 * mean(s, near) + mean([value**2 for value in s], far)


# f and its derivative, by which the conjugate at it is t f'(t) - f(t)
DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda t: t * t.log(),
    "js": lambda t: t * t.log() - (t + 1) * ((t + 1) / 2).log(),
    "pearson": lambda t: (t - 1) ** 2,
    "squared-hellinger": lambda t: (t.sqrt() - 1) ** 2,
    "tsallis": lambda t: (t**2.5 - 1) / 1.5,
    "vincze-le-cam": lambda t: (t - 1) ** 2 / (t + 1),
}


def f_micl(divergence: str, sigma: float, mu: float, alpha: float) -> Cost:
    f = DIVERGENCES[divergence]

    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        ratio = [mu * (-(2 - 2 * value) / (2 * sigma**2)).exp() for value in s]
        slope = [torch.func.grad(f)(t) for t in ratio]
        conjugate = [t * d - f(t) for t, d in zip(ratio, slope, strict=True)]
        return -mean(slope, near) + alpha * mean(conjugate, far)

    return cost


def hardest(count: int, skip: int) -> Cost:
    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        order = sorted(near_columns(far), key=lambda j: -s[j].item())[skip : skip + count]
        return own(s, near, [far[j] if j in order else 0.0 for j in range(len(s))])

    return cost


CASES: dict[str, Case] = {
    "label smoothing": softmax_case(InfoNCE, by_rows(smoothed(0.2), needs="near"), label_smoothing=0.2),
    "own denominator": softmax_case(InfoNCE, by_rows(own, needs="near"), own_denominator=True),
    "own denominator over pairs": softmax_case(
        InfoNCE, by_rows(own, needs="near", weight=sum), own_denominator=True, average="pairs"
    ),
    "debiased": softmax_case(Debiased, debiased(0.1, 0.0, -1.0), tau_plus=0.1),
    "debiased clamped": softmax_case(Debiased, debiased(0.6, 0.0, -0.2), tau_plus=0.6, lowest=-0.2),
    "hcl": softmax_case(HardNegative, debiased(0.1, 0.7, -1.0), beta=0.7),
    "dhel": softmax_case(DHEL, by_rows(energies(2))),
    "dhel one": softmax_case(DHEL, by_rows(energies(1)), energies="one"),
    "geometric": softmax_case(PolyView, by_rows(own, needs="near")),
    "arithmetic": softmax_case(PolyView, by_rows(arithmetic, needs="near"), method="arithmetic"),
    "nca": softmax_case(NCA, by_rows(nca("log"), needs="near"), score="dot"),
    "nca probability": softmax_case(NCA, by_rows(nca("probability"), needs="near"), form="probability", score="dot"),
    "siglip": softmax_case(SigLIP, by_rows(siglip(-0.5), needs="any"), bias=-0.5),
    "hardest": softmax_case(MoCoDualHard, by_rows(hardest(2, 0), needs="near"), mode="query", hardest=2),
    "hardest but one": softmax_case(
        MoCoDualHard, by_rows(hardest(2, 1), needs="near"), mode="query", hardest=2, skip=1
    ),
    "spectral": Case(SpectralContrastive, by_rows(spectral), score="dot"),
}
CASES["nca"].score = CASES["nca probability"].score = "dot"
for _name in DIVERGENCES:
    CASES[f"f-micl {_name}"] = Case(
        (lambda name: lambda **more: FMICL(name, sigma=0.8, mu=1.2, alpha=1.5, order=2.5, **more))(_name),
        by_rows(f_micl(_name, 0.8, 1.2, 1.5)),
    )

FEW = ["several positives", "own labels", "weights"]


@pytest.mark.parametrize(
    ("case", "scenario"),
    [
        (case, scenario)
        for case in CASES
        for scenario in ([*FEW, "hard negatives", "own views", "graded"] if case in ("debiased", "siglip") else FEW)
        # of the equal keys' places "hardest" may take any
    ],
)
def test_row_objectives_equal_their_formula(case: str, scenario: str) -> None:
    compare(CASES[case], SCENARIOS[scenario]())


@pytest.mark.parametrize("case", ["label smoothing", "own denominator over pairs", "hcl", "siglip", "f-micl js"])
def test_two_sides_and_other_reductions(case: str) -> None:
    compare(CASES[case], SCENARIOS["several positives"](), two_sided=True)
    for reduction in ("sum", "none"):
        compare(CASES[case], SCENARIOS["weights"](), reduction=reduction)


def test_a_clamped_row_gives_its_negatives_no_gradient() -> None:
    items = embeddings(0, 6, 3).requires_grad_()
    near = torch.cat([items[:3], items[:3] + 0.01 * items[3:]])
    costs = Debiased(0.9, reduction="none")(near, relation=Views(2))
    alone = [torch.nn.functional.cosine_similarity(near[i], near[(i + 3) % 6], dim=0) for i in range(6)]
    bound = torch.tensor(-2.0, dtype=torch.float64).exp()
    expected = torch.stack([-((2 * s).exp() / ((2 * s).exp() + 4 * bound)).log() for s in alone])
    torch.testing.assert_close(costs, expected)
    one, other = (torch.autograd.grad(value.sum(), items, retain_graph=True)[0] for value in (costs, expected))
    torch.testing.assert_close(one, other)


# -- one cost an item --------------------------------------------------------------------------------------------------


def _view_scores(z: Tensor, items: int, count: int, t: float) -> Callable[[int, int, int, int], Tensor]:
    return lambda i, a, j, b: cosine(z[a * items + i], z[b * items + j]) / t


def _mv_infonce(z: Tensor, items: int, count: int, t: float) -> list[Tensor]:
    s, views = _view_scores(z, items, count, t), range(count)
    costs = []
    for i in range(items):
        near = sum(s(i, a, i, b).exp() for a in views for b in views if a != b)
        rows = itertools.product(views, range(items), views)
        every = sum(s(i, a, j, b).exp() for a, j, b in rows if (j, b) != (i, a))
        costs.append(-(near / every).log())
    return costs


def _mv_dhel(z: Tensor, items: int, count: int, t: float) -> list[Tensor]:
    s, views = _view_scores(z, items, count, t), range(count)
    costs = []
    for i in range(items):
        near = sum(s(i, a, i, b).exp() for a, b in itertools.combinations(views, 2))
        spread = 1.0
        for a in views:
            spread = spread * sum(s(i, a, j, a).exp() for j in range(items) if j != i)
        costs.append(-(near / spread).log())
    return costs


def _sufficient(z: Tensor, items: int, count: int, t: float) -> list[Tensor]:
    unit = torch.stack([row / dot(row, row).sqrt() for row in z])
    costs = []
    for a, i in itertools.product(range(count), range(items)):
        q = sum(unit[b * items + i] for b in range(count) if b != a) / (count - 1)
        near = (dot(q, unit[a * items + i]) / t).exp()
        far = sum((dot(q, unit[b * items + j]) / t).exp() for b in range(count) for j in range(items) if j != i)
        costs.append(-(near / (near + far)).log())
    return costs


ITEM_CASES: dict[str, tuple[Callable[..., RowObjective], Callable[..., list[Tensor]]]] = {
    "mv-infonce": (MVInfoNCE, _mv_infonce),
    "mv-dhel": (MVDHEL, _mv_dhel),
    "sufficient": (lambda **more: PolyView("sufficient", **more), _sufficient),
}


@pytest.mark.parametrize("way", [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 4}])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", ITEM_CASES)
def test_one_cost_an_item(case: str, count: int, way: dict[str, object]) -> None:
    make, loops = ITEM_CASES[case]
    z = embeddings(1, 4 * count, 3).requires_grad_()
    expected = torch.stack(loops(z, 4, count, 0.4))
    for reduction, whole in (("mean", expected.mean()), ("sum", expected.sum()), ("none", expected)):
        found = evaluate(make(temperature=0.4, reduction=reduction), z, relation=Views(count), **way)
        torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)
    factor = torch.arange(1, len(expected) + 1, dtype=torch.float64)
    one, other = (torch.autograd.grad((values * factor).sum(), z, retain_graph=True)[0] for values in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", ["mv-infonce", "mv-dhel", "sufficient", "dhel"])
def test_views_in_any_order(case: str) -> None:
    make = DHEL if case == "dhel" else ITEM_CASES[case][0]
    z, order = embeddings(2, 12, 3), torch.randperm(12, generator=torch.Generator().manual_seed(3))
    ids, views = torch.arange(12) % 4, torch.arange(12) // 4
    expected = evaluate(make(), z, relation=Views(3))
    moved = evaluate(make(), z[order], relation=Views(3, ids=10 + ids[order], views=views[order]))
    torch.testing.assert_close(moved, expected)
    if case != "sufficient":
        turned = z.reshape(3, 4, 3).flip(0).reshape(12, 3)
        torch.testing.assert_close(evaluate(make(), turned, relation=Views(3)), expected)


def test_negatives_within_a_view_need_the_views() -> None:
    with pytest.raises(ValueError, match="give views beside ids"):
        DHEL()(embeddings(2, 4, 3), relation=Views(2, ids=torch.tensor([0, 1, 1, 0])))
