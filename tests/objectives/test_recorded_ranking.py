"""Ranking and distillation: losses and gradient norms recorded from official code and from peers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Explicit, Grouped, Labels, Views, evaluate
from nearfar.objectives import (
    IRPO,
    AnglE,
    CoSENT,
    GroCo,
    LambdaRank,
    ListMLE,
    ListNet,
    MannWhitney,
    MarginMSE,
    RowObjective,
    SmoothAP,
    get,
)
from support.recorded import WAYS, check, drawn, two_views

IN_PART_FLOAT32 = 5e-8
"""Relative: allRank's discounts, irpo's weights and pytorch-metric-learning's precisions are rounded to float32."""


def check_rounded(loss: Tensor, expected: float, inputs: list[Tensor], norms: list[float]) -> None:
    assert loss.item() == pytest.approx(expected, rel=IN_PART_FLOAT32)
    for gradient, norm in zip(torch.autograd.grad(loss, inputs), norms, strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=IN_PART_FLOAT32)


def permuted_lists() -> tuple[Tensor, Tensor]:
    """Three lists of six scores, graded 0 to 5 without ties."""
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(generator.standard_normal((3, 6))).requires_grad_()
    return scores, torch.from_numpy(np.stack([generator.permutation(6) for _ in range(3)])).double()


@pytest.mark.parametrize(
    ("objective", "loss", "norm"),
    [
        # allRank 1.4.3, lambdaLoss: lambdaRank_scheme, and no weighting scheme; sum over pairs, log2
        (LambdaRank(logarithm="binary", reduction="sum"), 4.925629393939019, 1.3817466276866965),
        (LambdaRank("none", logarithm="binary", reduction="sum"), 60.42037078097357, 12.713650926541211),
        # allRank 1.4.3, listNet and listMLE; 1e-10 within their logarithms
        (ListNet(), 2.198568848041221, 0.36702905205953473),
        (ListMLE(), 7.88199277099631, 1.1865413254286399),
        (ListMLE("columns"), 7.88199277099631, 1.1865413254286399),
    ],
)
def test_graded_lists(objective: RowObjective, loss: float, norm: float) -> None:
    scores, grades = permuted_lists()
    check_rounded(objective(scores=scores, relation=Explicit(grades)), loss, [scores], [norm])


def test_ndcg_loss_2_plus_plus_of_a_padded_list() -> None:
    """allRank 1.4.3, lambdaLoss, ndcgLoss2PP_scheme, mu 10: grades 0, 1, 2 and one padded place."""
    scores = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 4))).requires_grad_()
    relation = Grouped.lists(
        torch.tensor([[0.0, 1.0, 2.0, torch.nan]]), mask=torch.tensor([[True, True, True, False]]), gain="reward"
    )
    loss = LambdaRank("ndcg-loss2++", logarithm="binary", reduction="sum")(scores=scores, relation=relation)
    check_rounded(loss, 5.364271850679245, [scores], [4.3263779053493545])


@pytest.mark.parametrize("way", WAYS)
def test_smooth_ap(way: dict[str, Any]) -> None:
    """pytorch-metric-learning 2.9.0, SmoothAPLoss, where there are as many classes as items a class."""
    (x,) = drawn(0, (9, 8))
    loss = evaluate(SmoothAP(own=True), x, relation=Labels(torch.arange(9) // 3), **way)
    check_rounded(loss, 0.3288852870464325, [x], [0.13957872582777706])


@pytest.mark.parametrize("way", WAYS)
def test_groco(way: dict[str, Any]) -> None:
    """learning_by_sorting's GroCo on diffsort 0.2.0, steepness 1, float64: two views, 4 negatives of the own view."""
    views = two_views(121, 8, 5)
    loss = evaluate(GroCo(4), torch.cat(views), relation=Views(2, negatives="same-view"), **way)
    check(loss, 0.2953026388128689, views, [0.0074365522273693915, 0.00893520163557624])


@pytest.mark.parametrize("way", WAYS)
def test_groco_with_a_view_that_is_only_an_anchor(way: dict[str, Any]) -> None:
    """The same with three views, of which the first two are positives (n_pos_augs 2)."""
    views = two_views(122, 8, 6, count=3)
    relation = Views(3, negatives="same-view").ignore(
        lambda rows, columns: (columns[None, :] >= 16) & (rows[:, None] // 8 != columns[None, :] // 8)
    )
    loss = evaluate(GroCo(5), torch.cat(views), relation=relation, **way)
    check(loss, 0.3043261574643276, views, [0.0065631869549355485, 0.0030828016704415274, 0.0029236537975242485])


def test_cosent_and_angle() -> None:
    """sentence-transformers 6.2.0, CoSENTLoss and AnglELoss, scale 20."""
    generator = np.random.default_rng(0)
    a, b = (torch.from_numpy(generator.standard_normal((8, 6))).requires_grad_() for _ in range(2))
    labels = torch.from_numpy(generator.random(8))
    check(CoSENT().of_embeddings(a, b, labels), 27.198107612249846, [a, b], [11.567484619787091, 6.79198556530166])
    check(AnglE().of_embeddings(a, b, labels), 15.938730610321521, [a, b], [21.16171803295281, 13.333856163642782])
    one, other = drawn(3, (4, 4), (4, 4))
    check(CoSENT().of_embeddings(one, other, torch.ones(4)), 0.0, [one, other], [0.0, 0.0])


@pytest.mark.parametrize("targets", ["grades", "columns"])
def test_irpo(targets: str) -> None:
    """In-context-Ranking-Preference-Optimization, rdpo_loss: ablation 0, relevance 2, 1, 0, 0, 0, beta 1."""
    generator = np.random.default_rng(0)
    policy, reference = (torch.from_numpy(generator.standard_normal(5) - 3) for _ in range(2))
    policy.requires_grad_()
    relation = Explicit(torch.tensor([[2.0, 1, 0, 0, 0]]))
    loss = IRPO(targets=targets, reduction="sum")(scores=(policy - reference)[None], relation=relation)
    check_rounded(loss, 0.8385458840899641, [policy], [0.4669346422060084])


@pytest.mark.parametrize("beta", [1.0, 0.05, 0.01])
@pytest.mark.parametrize("grades", [[1.0, 2, 0, 0, 3], [0.0, 0, 0, 0, 0]])
def test_irpo_lowers_its_own_difference(beta: float, grades: list[float]) -> None:
    """The same code's formula: 100 off the diagonal before beta, which leaks where beta is small; all ablations."""
    generator = np.random.default_rng(5)
    ratio = torch.from_numpy(generator.standard_normal(5)).requires_grad_()
    y, rank = torch.tensor(grades, dtype=torch.float64), torch.arange(1.0, 6, dtype=torch.float64)
    others = (beta * (ratio[None, :] - ratio[:, None] - 100 * torch.eye(5, dtype=torch.float64))).exp().sum(1) / 4
    weights = {
        "dcg": (2**y - 1) / (1 + rank).log2(),
        "discount": 1 / (1 + rank).log2(),
        "gain-over-rank": (2**y - 1) / rank,
    }
    for weighting, weight in weights.items():
        expected = -(weight * torch.sigmoid(-others.log()).log()).mean()
        objective = IRPO(weighting, targets="columns", own="lowered", temperature=1 / beta, reduction="sum")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lists without a grade
            found = objective(scores=ratio[None], relation=Explicit(y[None]))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        gradients = [torch.autograd.grad(loss, ratio, retain_graph=True)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_irpo_without_gains() -> None:
    """The same code, ablation 1, relevance 1, 0, 0, 0: every item counts, by its place."""
    generator = np.random.default_rng(2)
    policy, reference = (torch.from_numpy(generator.standard_normal(4) - 3) for _ in range(2))
    policy.requires_grad_()
    relation = Explicit(torch.tensor([[1.0, 0, 0, 0]]))
    objective = IRPO("discount", targets="columns", reduction="sum")
    loss = objective(scores=(policy - reference)[None], relation=relation)
    check_rounded(loss, 0.7266739449367438, [policy], [0.3124016702094662])


@pytest.mark.parametrize(
    ("name", "seed", "shape", "ties", "loss", "norm"),
    [
        ("lipo-point-mse", 0, (3, 8), False, 1.1803290782205424, 0.44353298979529926),
        ("lipo-pair-hinge", 0, (3, 8), False, 0.9274372517127292, 0.2265035427433387),
        ("lipo-list-mle", 0, (3, 8), False, 11.07504696808332, 1.5067550216743155),
        ("lipo-lambda", 0, (3, 8), False, 0.4325171850942483, 0.12474152345517561),
        ("lipo-point-sigmoid", 1, (2, 4), False, 0.7924125120074669, 0.11170948724262543),
        ("lipo-pair-logistic", 1, (2, 4), False, 0.7177584768786067, 0.26616354881377746),
        ("lipo-softmax", 1, (2, 4), False, 3.052709221073737, 0.5353055317541404),
        ("lipo-point-mse", 2, (1, 2), False, 0.38432639134716806, 0.8767284543656241),
        ("lipo-pair-hinge", 2, (1, 2), False, 0.28819817672571957, 1.4142135623730951),
        ("lipo-list-mle", 2, (1, 2), False, 0.39928547954204185, 0.4655602720603133),
        ("lipo-lambda", 2, (1, 2), False, 0.2041201924531896, 0.23800077188007154),
        ("lipo-point-sigmoid", 3, (2, 5), True, 0.9783510607116761, 0.10430408828779938),
        ("lipo-pair-logistic", 3, (2, 5), True, 1.206198225532328, 0.5667084883436918),
        ("lipo-lambda", 3, (2, 5), True, 1.1185445134818748, 0.4724163119370919),
    ],
)
def test_lipo(name: str, seed: int, shape: tuple[int, int], ties: bool, loss: float, norm: float) -> None:
    """rax 0.4.0, the library that the paper's algorithm names; labels are win rates in [0, 1]."""
    generator = np.random.default_rng(seed)
    scores = torch.from_numpy(generator.standard_normal(shape)).requires_grad_()
    labels = generator.random(shape)
    relation = Grouped.lists(torch.from_numpy(np.round(2 * labels) / 2 if ties else labels), gain="reward")
    check(get(name)(scores=scores, relation=relation), loss, [scores], [norm])


@pytest.mark.parametrize(
    ("seed", "queries", "loss", "norms"),
    [
        (0, 4, 2.030925942981124, [1.226171124964913, 0.8799764068683965]),
        (2, 1, 4.251521178169487, [1.9610299891504268, 5.304378849056878]),
    ],
)
def test_mw_loss(seed: int, queries: int, loss: float, norms: list[float]) -> None:
    """Equation 3 of "Optimizing What Matters" (Sheikholeslami 2025), mean over positives and negatives, tau 0.1."""
    q, p = drawn(seed, (queries, 8), (4, 8))
    for way in WAYS:
        check(evaluate(MannWhitney(temperature=0.1), q, p, **way), loss, [q, p], norms)
    check(MannWhitney(temperature=0.1)(scores=normalize(q) @ normalize(p).T), loss, [q, p], norms)
    # the paper's own reduction: the sum over negatives
    count = queries * 4 - queries
    printed = {0: 24.3711113158, 2: 12.7545635345}[seed]
    assert count * MannWhitney(temperature=0.1)(q, p).item() == pytest.approx(printed, rel=1e-11)


def test_margin_mse() -> None:
    """sentence-transformers 6.2.0, MarginMSELoss."""
    generator = np.random.default_rng(0)
    a, b = (torch.from_numpy(generator.standard_normal((8, 6))).requires_grad_() for _ in range(2))
    generator.random(8)
    c = torch.from_numpy(generator.standard_normal((8, 6))).requires_grad_()
    margins = torch.from_numpy(generator.standard_normal(8))
    norms = [10.914008043293071, 9.556718252827496, 9.556718252827496]
    objective = MarginMSE(reduction="mean")
    check(objective.of_embeddings(a, torch.stack([b, c], 1), margins[:, None]), 23.531340495310353, [a, b, c], norms)
    check(objective((a * b).sum(1) - (a * c).sum(1), margins), 23.531340495310353, [a, b, c], norms)
