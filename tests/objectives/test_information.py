"""Bounds of mutual information, ranking NCE and MECO: against loops, against what Gaussians share, and their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    JSD,
    MECO,
    MINE,
    NWJ,
    SMILE,
    InfoNCE,
    InfoNCEBound,
    InterpolatedBound,
    RankingNCE,
    RowObjective,
    get,
)
from support.loops import Case, Formula, Rows, Scalars, compare, near_columns
from support.scenarios import SCENARIOS, Matrix

BOUNDS: dict[str, Callable[..., RowObjective]] = {
    "mine": MINE,
    "dv": partial(MINE, 1.0),
    "nwj": NWJ,
    "tuba": partial(NWJ, learn_baseline=True),
    "nwj clipped": partial(NWJ, clip=2.0),
    "jsd": JSD,
    "jsd nwj": partial(JSD, "nwj"),
    "smile": SMILE,
    "interpolated": partial(InterpolatedBound, 0.3),
    "interpolated all": partial(InterpolatedBound, 1.0),
    "interpolated none": partial(InterpolatedBound, 0.0),
    "infonce": InfoNCEBound,
    "ranking": RankingNCE,
}


# -- plain loops -------------------------------------------------------------------------------------------------------


def _sum(values: Any) -> Any:
    return sum(values)


def _mean(values: list[Tensor], weights: list[float]) -> Tensor:
    return _sum(w * v for v, w in zip(values, weights, strict=True) if w > 0) / sum(weights)


def _softplus(value: Tensor) -> Tensor:
    return (1 + value.exp()).log()


def by_row(cost: Callable[[list[Tensor], list[float], list[float]], Tensor], *, needs_far: bool = True) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        return [
            (cost([value * scale for value in s], near, far), 1.0)
            if near_columns(near) and (near_columns(far) or not needs_far)
            else None
            for s, near, far in zip(scores, positive, negative, strict=True)
        ]

    return formula


def of_batch(cost: Callable[[list[tuple[Tensor, Tensor, Tensor]]], Tensor], clip: float) -> Formula:
    """From each row's mean exp(T) of far columns (T within the clip), mean T of near ones and logistic cost."""

    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if near_columns(near) and near_columns(far):
                pushes = _mean([value.clamp(-clip, clip).exp() for value in s], far)
                rows.append((pushes, _mean(s, near), jsd(s, near, far)))
        return [(cost(rows), 1.0)] if rows else [None]

    return formula


def dv(rows: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    return (_sum(row[0] for row in rows) / len(rows)).log() - _sum(row[1] for row in rows) / len(rows)


def smile(rows: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    learned = _sum(row[2] for row in rows) / len(rows)
    return learned + (dv(rows) - learned).detach()


def nwj(s: list[Tensor], near: list[float], far: list[float], log_a: float = 1.0, clip: float = math.inf) -> Tensor:
    pushes = _mean([value.clamp(-clip, clip).exp() for value in s], far)
    return -(1 + _mean(s, near) - log_a - pushes / math.exp(log_a))


def jsd(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    return _mean([_softplus(-value) for value in s], near) + _mean([_softplus(value) for value in s], far)


def jsd_nwj(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    cost = jsd(s, near, far)
    return cost + (nwj([value + 1 for value in s], near, far) - cost).detach()


def interpolated(alpha: float) -> Callable[[list[Tensor], list[float], list[float]], Tensor]:
    def cost(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
        counts = [1.0 if n > 0 else f for n, f in zip(near, far, strict=True)]
        baselines = []
        for j in range(len(s)):
            others = [k for k in range(len(s)) if k != j and counts[k] > 0]
            own = _sum(counts[k] * s[k].exp() for k in others) / sum(counts[k] for k in others)
            baselines.append(alpha * own + (1 - alpha) * math.e)
        joint = _mean(s, near) - _mean([b.log() if isinstance(b, Tensor) else b for b in baselines], far)
        marginal = _mean([value.exp() for value in s], far) * _mean([1 / b for b in baselines], near)
        return -(1 + joint - marginal)

    return cost


def ranking(s: list[Tensor], near: list[float], far: list[float], *, bound: bool = False) -> Tensor:
    counts = [1.0 if n > 0 else f for n, f in zip(near, far, strict=True)]
    everyone = _sum(c * value.exp() for value, c in zip(s, counts, strict=True) if c > 0)
    return (everyone / (sum(counts) if bound else 1)).log() - _mean(s, near)


FORMULAS: dict[str, Formula] = {
    "mine": of_batch(dv, math.inf),  # at the first call the average is the batch's own
    "dv": of_batch(dv, math.inf),
    "nwj": by_row(nwj),
    "tuba": by_row(nwj),
    "nwj clipped": by_row(partial(nwj, clip=2.0)),
    "jsd": by_row(jsd),
    "jsd nwj": by_row(jsd_nwj),
    "smile": of_batch(smile, 5.0),
    "interpolated": by_row(interpolated(0.3)),
    "interpolated all": by_row(interpolated(1.0)),
    "infonce": by_row(partial(ranking, bound=True), needs_far=False),
    "ranking": by_row(ranking, needs_far=False),
}


def _case(name: str) -> Case:
    tempered = name in ("infonce", "ranking")
    make = BOUNDS[name]
    if tempered:
        return Case(lambda **more: make(temperature="learned:0.7", **more), FORMULAS[name], "dot", 0.7)
    return Case(make, FORMULAS[name], "dot")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", FORMULAS)
def test_bounds_equal_their_formula(name: str, scenario: str) -> None:
    compare(_case(name), SCENARIOS[scenario]())


@pytest.mark.parametrize("name", FORMULAS)
def test_two_sided_and_summed(name: str) -> None:
    if name != "mine":  # whose second direction sees an average that holds the first
        compare(_case(name), SCENARIOS["several positives"](), two_sided=True)
    if name not in ("mine", "dv", "smile"):
        compare(_case(name), SCENARIOS["weights"](), reduction="none")
        compare(_case(name), SCENARIOS["weights"](), reduction="sum")


@pytest.mark.parametrize("name", ["mine", "dv", "smile"])
def test_bounds_of_the_batch_have_one_value(name: str) -> None:
    q, k = _normal(0, 2, 5, 3)
    values = [BOUNDS[name](reduction=reduction)(q, k) for reduction in ("none", "sum", "mean")]
    assert values[0].shape == (1,)
    assert values[0].item() == values[1].item() == values[2].item()


# -- what Gaussians share ----------------------------------------------------------------------------------------------


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gaussians(n: int, rho: float) -> tuple[Tensor, float]:
    """``T*(x_i, y_j) = log p(y_j | x_i) / p(y_j)`` of correlated Gaussians in one dimension, and what they share."""
    x, noise = _normal(3, 2, n)
    y = rho * x + math.sqrt(1 - rho**2) * noise
    variance = 1 - rho**2
    best = -((y[None, :] - rho * x[:, None]) ** 2) / (2 * variance) + y[None, :] ** 2 / 2 - math.log(variance) / 2
    return best, -math.log(variance) / 2


def test_bounds_are_tight_for_the_best_critic() -> None:
    best, information = _gaussians(700, 0.7)
    found = {
        "nwj": -NWJ()(scores=best + 1),
        "nwj at another baseline": -NWJ(0.3)(scores=best + 0.3),
        "dv": -get("dv")(scores=best),
        "mine": -MINE()(scores=best),
        "jsd read by nwj": -JSD("nwj")(scores=best),
        "infonce": -InfoNCEBound()(scores=best),
        "smile without a clip": -SMILE(math.inf)(scores=best),
        "interpolated": -InterpolatedBound(0.5, 0.0)(scores=best),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(information, abs=0.05), name
    # and not so for a critic that says nothing, or half of it
    for name in ("nwj", "mine", "infonce"):
        assert -BOUNDS[name]()(scores=best / 2) < information - 0.05


def test_infonce_saturates_at_the_logarithm_of_the_candidates() -> None:
    best, information = _gaussians(8, 0.9999)
    assert information > 4
    value = -InfoNCEBound()(scores=best).item()
    assert value <= math.log(8)
    assert value > math.log(8) - 0.3
    assert -InfoNCEBound()(scores=torch.eye(8).double() * 1e4).item() == pytest.approx(math.log(8))


def test_the_infonce_bound_is_infonce_less_the_logarithm() -> None:
    q, k = _normal(4, 2, 6, 3).requires_grad_()
    bound, loss = InfoNCEBound()(q, k), InfoNCE(temperature=1.0, score="dot")(q, k)
    torch.testing.assert_close(bound, loss - math.log(6))
    for one, other in zip(torch.autograd.grad(bound, (q, k)), torch.autograd.grad(loss, (q, k)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_donsker_varadhan_bound_is_never_below_nwj() -> None:
    far = ~torch.eye(7, dtype=torch.bool)
    for seed in range(5):
        scores = 2 * _normal(seed, 7, 7)
        bound = -get("dv")(scores=scores)
        assert bound >= -NWJ()(scores=scores) - 1e-12
        # it does not see a constant added to the critic; NWJ is the same bound at the best constant
        torch.testing.assert_close(-get("dv")(scores=scores + 3), bound)
        best = 1 - scores[far].exp().mean().log()
        torch.testing.assert_close(-NWJ()(scores=scores + best), bound)


def test_the_interpolated_bound_has_nwj_and_infonce_at_its_ends() -> None:
    scores = _normal(5, 6, 6)
    torch.testing.assert_close(InterpolatedBound(0.0)(scores=scores), NWJ()(scores=scores))
    # InfoNCE with the product pair j left out, for every j
    left_out = [
        scores[i, i] - torch.logsumexp(scores[i, [k for k in range(6) if k != j]], 0) + math.log(5)
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    torch.testing.assert_close(-InterpolatedBound(1.0)(scores=scores), torch.stack(left_out).mean())


def test_smile_learns_as_jsd_and_reads_as_a_clipped_bound() -> None:
    scores = (4 * _normal(6, 5, 5)).requires_grad_()
    value = SMILE(1.0)(scores=scores)
    far = ~torch.eye(5, dtype=torch.bool)
    clipped = scores.detach()[far].clamp(-1, 1).exp().mean().log() - scores.detach().diagonal().mean()
    torch.testing.assert_close(value, clipped)
    (gradient,) = torch.autograd.grad(value, scores)
    torch.testing.assert_close(gradient, torch.autograd.grad(JSD()(scores=scores), scores)[0])


def test_jsd_of_a_critic_that_says_nothing() -> None:
    assert JSD()(scores=torch.zeros(4, 4)).item() == pytest.approx(2 * math.log(2))


# -- MINE's memory -----------------------------------------------------------------------------------------------------


def test_mine_divides_by_the_average_of_its_batches() -> None:
    objective, far = MINE(0.25).double(), ~torch.eye(5, dtype=torch.bool)
    average = 0.0
    for step in range(4):
        scores = _normal(10 + step, 5, 5).requires_grad_()
        value = objective(scores=scores)
        pushes = scores[far].exp().mean()
        average = pushes.item() if step == 0 else 0.75 * average + 0.25 * pushes.item()
        assert objective.log_average.item() == pytest.approx(math.log(average))
        torch.testing.assert_close(value, pushes.log() - scores.diagonal().mean())
        expected = torch.autograd.grad(pushes / average - scores.diagonal().mean(), scores)
        torch.testing.assert_close(torch.autograd.grad(value, scores), expected)
    copy = MINE(0.25).double()
    copy.load_state_dict(objective.state_dict())
    assert copy.log_average.item() == objective.log_average.item()


def test_mine_forgets_nothing_and_learns_nothing_in_evaluation() -> None:
    objective = MINE(0.5).double()
    objective(scores=_normal(20, 4, 4))
    before = objective.log_average.clone()
    scores = _normal(21, 4, 4).requires_grad_()
    value = objective.eval()(scores=scores)
    assert objective.log_average == before
    plain = get("dv")(scores=scores)
    torch.testing.assert_close(torch.autograd.grad(value, scores), torch.autograd.grad(plain, scores))
    objective(scores=torch.full((4, 4), 1e4))
    assert objective.train()(scores=torch.full((4, 4), 1e4).double()).isfinite()


# -- extremes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e3, 1e15])
@pytest.mark.parametrize("name", BOUNDS)
def test_never_nan(name: str, scale: float) -> None:
    q, k = ((scale * _normal(30 + i, 5, 3)).float().requires_grad_() for i in range(2))
    for memory in ("dense", "tiled"):
        for _ in range(2):
            objective = BOUNDS[name]()
            for _ in range(2):
                loss = objective(q, k, memory=memory)
            for value in (loss, *torch.autograd.grad(loss, (q, k))):
                assert torch.isfinite(value).all()


@pytest.mark.parametrize("name", BOUNDS)
def test_one_row_and_one_dominating_score(name: str) -> None:
    scores = torch.zeros(3, 3, requires_grad=True)
    with torch.no_grad():
        scores[0, 0], scores[1, 2] = 60.0, 80.0
    loss = BOUNDS[name]()(scores=scores)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, scores)[0]).all()
    row = torch.tensor([[1.0, 0.5, -0.5]], requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(BOUNDS[name]()(scores=row, relation=Paired(*_ids(1, 3))), row)[0]).all()


def _ids(n: int, m: int) -> tuple[Tensor, Tensor]:
    return torch.arange(n), torch.cat([torch.arange(n), torch.full((m - n,), -1)])


@pytest.mark.parametrize("name", ["dv", "nwj", "jsd", "interpolated", "interpolated all"])
def test_gradcheck(name: str) -> None:
    objective = BOUNDS[name]().double().eval()
    inputs = tuple(_normal(40 + i, 4, 3).requires_grad_() for i in range(2))
    assert torch.autograd.gradcheck(lambda q, k: evaluate(objective, q, k, memory="dense"), inputs)
    assert torch.autograd.gradcheck(lambda q, k: evaluate(objective, q, k, memory="tiled", tile_rows=3), inputs)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MINE(0.0), "rate"),
        (lambda: MINE(1.5), "rate"),
        (lambda: NWJ(math.inf), "log_baseline"),
        (lambda: NWJ(clip=0.0), "clip"),
        (lambda: JSD("dv"), "'jsd' or 'nwj'"),
        (lambda: SMILE(0.0), "clip"),
        (lambda: InterpolatedBound(1.1), "alpha"),
        (lambda: MECO(0.0), "rate"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


# -- ranking NCE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_ranking_nce_corrects_for_the_noise(memory: str) -> None:
    q, k, log_noise = _normal(50, 4, 3), _normal(51, 7, 3), _normal(52, 7)
    expected = torch.nn.functional.cross_entropy(q @ k.T - log_noise, torch.arange(4))
    torch.testing.assert_close(RankingNCE()(q, k, log_noise=log_noise, memory=memory), expected)
    torch.testing.assert_close(RankingNCE()(scores=q @ k.T, log_noise=log_noise), expected)
    torch.testing.assert_close(RankingNCE()(scores=q @ k.T, log_noise=log_noise.expand(4, 7)), expected)
    # a constant cancels; without the correction it is InfoNCE on dot products
    torch.testing.assert_close(RankingNCE()(q, k, log_noise=log_noise + 5), expected)
    torch.testing.assert_close(RankingNCE()(q, k), InfoNCE(temperature=1.0, score="dot")(q, k))


def test_ranking_nce_of_what_does_not_fit() -> None:
    q, k = _normal(53, 4, 3), _normal(54, 7, 3)
    with pytest.raises(ValueError, match=r"must be \[7\], got \[4\]"):
        RankingNCE()(q, k, log_noise=torch.zeros(4))
    with pytest.raises(ValueError, match=r"\[4, 7\] or \[7\], got \[4\]"):
        RankingNCE()(scores=q @ k.T, log_noise=torch.zeros(4))
    with pytest.raises(ValueError, match="score 'dot'"):
        RankingNCE(score="cosine")(q, k, log_noise=torch.zeros(7))


# -- MECO --------------------------------------------------------------------------------------------------------------


def test_meco_follows_its_algorithm() -> None:
    """Jiang et al., steps 1 and 2, by hand; data and noise in any order and number."""
    objective, average = MECO(0.4, reduction="mean").double(), 0.0
    target = torch.tensor([1.0, 0, 0, 1, 0, 1, 0])
    for step in range(4):
        score, log_noise = _normal(60 + step, 7).requires_grad_(), _normal(70 + step, 7)
        value = objective(score, target, log_noise=log_noise)
        data, noise = score[target == 1], (score - log_noise)[target == 0]
        present = noise.exp().mean()
        average = present.item() if step == 0 else 0.6 * average + 0.4 * present.item()
        assert value.item() == pytest.approx(-data.mean().item() + math.log(average))
        expected = torch.autograd.grad(present / average - data.mean(), score)
        torch.testing.assert_close(torch.autograd.grad(value, score), expected)
    costs = MECO()(score, target, log_noise=log_noise)
    assert costs.shape == (7,)


def test_meco_of_rate_one_is_importance_sampling() -> None:
    score, log_noise = _normal(80, 6).requires_grad_(), _normal(81, 6)
    target = torch.tensor([1, 1, 0, 0, 0, 0])
    expected = torch.logsumexp((score - log_noise)[2:], 0) - math.log(4) - score[:2].mean()
    objective = MECO(1.0, reduction="mean")
    for _ in range(2):
        value = objective(score, target, log_noise=log_noise)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            torch.autograd.grad(value, score)[0], torch.autograd.grad(expected, score, retain_graph=True)[0]
        )


def test_meco_is_mine_on_density_ratios() -> None:
    meco, mine = MECO(0.3, reduction="mean").double(), MINE(0.3).double()
    for step in range(3):
        row = _normal(90 + step, 1, 5).requires_grad_()
        one = meco(row[0], torch.tensor([1, 0, 0, 0, 0]))
        other = mine(scores=row)
        torch.testing.assert_close(torch.autograd.grad(one, row), torch.autograd.grad(other, row))
    assert meco.log_average.item() == pytest.approx(mine.log_average.item())


def test_meco_finds_the_normaliser_of_a_gaussian() -> None:
    """Model exp(-x^2 / 2), noise N(0, 2^2): the average goes to sqrt(2 pi)."""
    objective, generator = MECO(0.05, reduction="mean"), torch.Generator().manual_seed(0)
    for _ in range(200):
        noise = 2 * torch.randn(256, generator=generator)
        log_noise = -(noise**2) / 8 - math.log(2 * math.sqrt(2 * math.pi))
        objective(-(noise**2) / 2, torch.zeros(256), log_noise=log_noise)
    assert objective.log_average.item() == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.03)


def test_meco_of_little() -> None:
    objective = MECO(reduction="mean")
    score = torch.tensor([1.0, 3.0], requires_grad=True)
    assert objective(score, torch.ones(2)).item() == pytest.approx(-2)  # data alone, no noise yet
    assert objective(score, torch.zeros(2)).item() == pytest.approx(math.log((math.e + math.e**3) / 2))
    state = objective.log_average.clone()
    assert objective.eval()(score, torch.zeros(2)).isfinite()
    assert objective.log_average == state
    assert objective(torch.zeros(0, requires_grad=True), torch.zeros(0)).item() == 0
    huge = torch.tensor([1e30, -1e30, 1e30], requires_grad=True)
    value = MECO(reduction="mean")(huge, torch.tensor([1, 0, 0]))
    assert value.isfinite()
    assert torch.autograd.grad(value, huge)[0].isfinite().all()
    with pytest.raises(ValueError, match="1 for data and 0 for noise"):
        objective(torch.zeros(2), torch.tensor([0.5, 1.0]))
