"""What the papers prove of the objectives, checked to rounding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.special import gammaln, iv
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Explicit, Labels, Paired, Views, engine, evaluate
from nearfar.objectives import (
    DCL,
    DCLW,
    Alignment,
    BinaryNCE,
    InfoNCE,
    PairwiseLogistic,
    RowObjective,
    SupCon,
    Triplet,
    Uniformity,
)

WAYS: list[dict[str, Any]] = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 3}]


def _items(seed: int, n: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs, retain_graph=True)]


def _assert_equal(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_supcon_in_never_exceeds_out(seed: int) -> None:
    """By Jensen's inequality, anchor by anchor; equal only where an anchor has one positive."""
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    costs = {
        form: SupCon(form, temperature=0.2, reduction="none")(_items(seed, 9), relation=Labels(labels))
        for form in ("in", "out")
    }
    assert (costs["in"][2:] < costs["out"][2:] - 1e-9).all()
    torch.testing.assert_close(costs["in"][:2], costs["out"][:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["in", "out"])
def test_supcon_with_one_positive_is_info_nce(form: str, way: dict[str, Any]) -> None:
    views = torch.cat([_items(0, 5), _items(1, 5)]).requires_grad_()
    supcon = evaluate(SupCon(form, temperature=0.2), views, relation=Labels(torch.arange(5).repeat(2)), **way)
    info_nce = evaluate(InfoNCE(temperature=0.2), views, relation=Views(2), **way)
    _assert_equal(_gradients(supcon, views), _gradients(info_nce, views))


@pytest.mark.parametrize("way", WAYS)
def test_nt_xent_is_info_nce_on_views(way: dict[str, Any]) -> None:
    z1, z2 = _items(2, 4).requires_grad_(), _items(3, 4).requires_grad_()
    z = torch.cat([normalize(z1), normalize(z2)])
    total = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        others = torch.stack([z[i] @ z[k] / 0.5 for k in range(8) if k != i])
        total = total - z[i] @ z[partner] / 0.5 + torch.logsumexp(others, 0)
    loss = evaluate(InfoNCE(temperature=0.5), torch.cat([z1, z2]), relation=Views(2), **way)
    _assert_equal(_gradients(loss, z1, z2), _gradients(total / 8, z1, z2))


def test_clip_is_cross_entropy_of_rows_and_columns() -> None:
    a, b = _items(4, 6).requires_grad_(), _items(5, 6).requires_grad_()
    logits = normalize(a) @ normalize(b).T / 0.07
    target = torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    for way in WAYS:
        loss = evaluate(InfoNCE(temperature=0.07, two_sided=True), a, b, **way)
        _assert_equal(_gradients(loss, a, b), _gradients(expected, a, b))


@pytest.mark.parametrize("seed", range(3))
def test_decoupling_divides_the_gradient_by_one_minus_the_probability_of_the_positive(seed: int) -> None:
    """Per anchor, as functions of that anchor's scores: grad InfoNCE = (1 - p) grad DCL."""
    scores = _items(seed, 6, 9).requires_grad_()
    temperature = 0.3
    info_nce, dcl = (
        torch.autograd.grad(cls(temperature=temperature, reduction="sum")(scores=scores), scores)[0]
        for cls in (InfoNCE, DCL)
    )
    probability = torch.softmax(scores.detach() / temperature, dim=1).diagonal()
    torch.testing.assert_close(info_nce, (1 - probability)[:, None] * dcl, rtol=1e-10, atol=1e-12)
    assert probability.min() < 0.5 < 1 - probability.min()


def test_weights_of_weighted_decoupling_average_one() -> None:
    """With a positive score the same for all, only the average of the weights remains: DCL."""
    objective = DCLW(0.7, temperature=0.3)
    scores = _items(7, 12)[:, 0]
    rows = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8])
    pull = objective.prepare(scores, rows, 9)["pull"]
    weight = 2 - torch.exp(scores / 0.7) / torch.exp(scores / 0.7).mean()
    assert weight.mean().item() == pytest.approx(1, abs=1e-12)
    for i in range(9):
        mine = [weight[p] * scores[p] / 0.3 for p in range(12) if rows[p] == i]
        assert pull[i].item() == pytest.approx(float(sum(mine) / len(mine)), rel=1e-12)
    equal = objective.prepare(torch.full((12,), 0.4, dtype=torch.float64), rows, 9)["pull"]
    torch.testing.assert_close(equal, torch.full((9,), 0.4 / 0.3, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_dclw_of_equal_positive_scores_is_dcl(way: dict[str, Any]) -> None:
    query, across = normalize(_items(8, 5)), _items(9, 5)
    across = normalize(across - (across * query).sum(1, keepdim=True) * query)
    for cosine in (0.6, -0.8):
        key = cosine * query + math.sqrt(1 - cosine**2) * across
        dcl, dclw = (evaluate(cls(temperature=0.2), query, key, **way) for cls in (DCL, DCLW))
        torch.testing.assert_close(dcl, dclw, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_info_nce_of_scores_that_say_nothing_is_the_log_of_the_candidates(way: dict[str, Any]) -> None:
    same = torch.ones(5, 3, dtype=torch.float64)
    assert evaluate(InfoNCE(), same, torch.ones(8, 3).double(), **way).item() == pytest.approx(math.log(8), rel=1e-12)
    relation = Paired(
        torch.arange(5), torch.arange(8), query_exclude=torch.zeros(5).long(), key_exclude=torch.arange(8) - 7
    )
    loss = evaluate(InfoNCE(), same, torch.ones(8, 3).double(), relation=relation, **way)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-12)  # key 7 is nobody's candidate
    views = evaluate(InfoNCE(), torch.ones(6, 3).double(), relation=Views(2), **way)
    assert views.item() == pytest.approx(math.log(5), rel=1e-12)
    pairwise = evaluate(PairwiseLogistic(), same, torch.ones(8, 3).double(), **way)
    assert pairwise.item() == pytest.approx(math.log(2), rel=1e-12)
    triplet = evaluate(Triplet(margin=0.3), same, torch.ones(8, 3).double(), **way)
    assert triplet.item() == pytest.approx(0.3, rel=1e-12)


def test_info_nce_between_two_candidates_is_pairwise_logistic() -> None:
    """And so DPO's loss on two rewards."""
    scores = _items(10, 7, 2)
    near = torch.tensor([[True, False]]).expand(7, 2)
    one, other = (cls(temperature=0.4)(scores=scores, relation=Explicit(near)) for cls in (InfoNCE, PairwiseLogistic))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    by_hand = -torch.nn.functional.logsigmoid((scores[:, 0] - scores[:, 1]) / 0.4).mean()
    torch.testing.assert_close(one, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_pairwise_logistic_bounds_the_area_over_the_curve(seed: int) -> None:
    """1 - AUC <= L / log 2, at any temperature, for the batch as one row (Sheikholeslami 2025)."""
    scores = _items(seed, 1, 30)
    relevant = torch.zeros(1, 30, dtype=torch.bool)
    relevant[0, torch.randperm(30, generator=torch.Generator().manual_seed(seed))[: 3 + seed]] = True
    auc = roc_auc_score(relevant[0].numpy(), scores[0].numpy())
    for temperature in (0.01, 0.3, 3.0):
        loss = PairwiseLogistic(temperature=temperature)(scores=scores, relation=Explicit(relevant))
        assert 1 - auc <= loss.item() / math.log(2)
    # as the temperature falls, T * L becomes the mean shortfall of the pairs in the wrong order
    cold = 1e-4 * PairwiseLogistic(temperature=1e-4)(scores=scores, relation=Explicit(relevant)).item()
    near, far = scores[relevant], scores[~relevant]
    assert cold == pytest.approx((far[None, :] - near[:, None]).relu().mean().item(), abs=1e-4)


def test_pairs_of_one_row_do_not_see_a_shift_of_the_row() -> None:
    """Per-row objectives are blind to an offset of each query's scores; the batch as one row is not."""
    scores, offset = _items(11, 5, 6), torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)[:, None]
    for objective in (InfoNCE(), DCL(), PairwiseLogistic(), SupCon("in")):
        torch.testing.assert_close(objective(scores=scores), objective(scores=scores + offset), rtol=1e-9, atol=1e-9)
    one_row = Explicit(torch.eye(5, 6).reshape(1, -1))
    plain, shifted = (PairwiseLogistic()(scores=s.reshape(1, -1), relation=one_row) for s in (scores, scores + offset))
    assert abs(plain - shifted).item() > 0.1


def test_triplet_with_one_negative_is_the_textbook_loss() -> None:
    anchor, positive, negative = _items(12, 5), _items(13, 5), _items(14, 5)
    relation = Paired(torch.arange(5), torch.cat([torch.arange(5), torch.full((5,), -1)])).ignore(
        lambda rows, columns: rows[:, None] != columns % 5
    )
    found = Triplet(margin=1.0)(anchor, torch.cat([positive, negative]), relation=relation)
    expected = torch.nn.functional.triplet_margin_loss(anchor, positive, negative, margin=1.0, eps=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


# -- the sphere --------------------------------------------------------------------------------------------------------


def _floor(d: int, t: float) -> float:
    """The uniformity of the uniform distribution on the sphere in d dimensions, in closed form."""
    order = d / 2 - 1
    return -2 * t + gammaln(d / 2) - order * math.log(t) + math.log(iv(order, 2 * t))


@pytest.mark.parametrize(("d", "floor"), [(2, -1.57503), (3, -2.07978), (8, -3.08253), (64, -3.87524)])
def test_uniformity_of_even_points_is_the_floor_of_the_sphere(d: int, floor: float) -> None:
    assert _floor(d, 2.0) == pytest.approx(floor, abs=1e-5)
    points = torch.randn(2000, d, generator=torch.Generator().manual_seed(d))
    assert Uniformity()(points).item() == pytest.approx(floor, abs=0.015)


def test_uniformity_ranges_from_nothing_to_collapse() -> None:
    for t in (0.5, 2.0):
        collapsed = Uniformity(t)(torch.ones(6, 3))
        assert collapsed.item() == pytest.approx(0, abs=1e-6)
        opposite = Uniformity(t)(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        assert opposite.item() == pytest.approx(-4 * t, rel=1e-6)


@pytest.mark.parametrize("tiled", [False, True])
def test_uniformity_is_taken_over_pairs_and_averaged_over_views(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(engine, "DENSE_LIMIT", 0)
    views = [_items(15, 7).requires_grad_(), _items(16, 7).requires_grad_()]
    expected = 0.0
    for view in views:
        z = normalize(view)
        pairs = torch.stack([(z[i] - z[j]).square().sum() for i in range(7) for j in range(i)])
        expected = expected + torch.log(torch.exp(-3.0 * pairs).mean()) / 2
    objective = Uniformity(3.0)
    _assert_equal(_gradients(objective(*views), *views), _gradients(expected, *views))
    union = objective(torch.cat(views))
    assert abs(union - expected).item() > 1e-3


def test_alignment_range_and_power() -> None:
    z = _items(17, 5)
    for alpha in (0.5, 1.0, 2.0, 3.0):
        objective = Alignment(alpha)
        assert objective(z, 3 * z).item() == pytest.approx(0, abs=1e-7)
        assert objective(z, -z).item() == pytest.approx(2**alpha, rel=1e-12)
        a, b = _items(18, 5), _items(19, 5)
        distances = (normalize(a) - normalize(b)).norm(dim=1)
        assert objective(a, b).item() == pytest.approx((distances**alpha).mean().item(), rel=1e-12)
    cosine = (normalize(a) * normalize(b)).sum(1).mean()
    assert Alignment()(a, b).item() == pytest.approx(2 - 2 * cosine.item(), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_alignment_of_coinciding_views_has_gradient_zero(alpha: float) -> None:
    z = _items(20, 4).requires_grad_()
    other = z.detach().clone()
    other[0] += 1
    (gradient,) = torch.autograd.grad(Alignment(alpha)(z, other), z)
    assert (gradient[1:] == 0).all()
    assert gradient[0].norm() > 0


def test_contrastive_loss_becomes_alignment_and_uniformity() -> None:
    """Theorem 1 of Wang & Isola: with many negatives, L - log M -> -E s_pos / T + E log E exp(s / T)."""
    generator = torch.Generator().manual_seed(21)
    query = normalize(torch.randn(64, 3, generator=generator))
    positive = normalize(query + 0.3 * torch.randn(64, 3, generator=generator))
    gaps = []
    for count in (16, 256, 8192):
        negative = normalize(torch.randn(count, 3, generator=generator))
        loss = InfoNCE(temperature=0.5)(query, torch.cat([positive, negative]))
        # on the sphere in three dimensions E exp(s / T) = T sinh(1 / T)
        limit = -(query * positive).sum(1).mean() / 0.5 + math.log(0.5 * math.sinh(2))
        gaps.append(abs(loss.item() - math.log(count + 63) - limit.item()))
    assert gaps[2] < 0.02
    assert gaps[2] < gaps[0]


# -- densities ---------------------------------------------------------------------------------------------------------


def test_binary_nce_is_cross_entropy_of_data_against_noise() -> None:
    """P(data | x) = model / (model + ratio * noise)."""
    generator = torch.Generator().manual_seed(22)
    score, log_noise = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    target = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0, 0.25], dtype=torch.float64)
    objective = BinaryNCE(2.0, learn_normalizer=True).double()
    with torch.no_grad():
        objective.normalizer.fill_(0.4)
    data = torch.exp(score + 0.4) / (torch.exp(score + 0.4) + 2.0 * torch.exp(log_noise))
    expected = -(target * data.log() + (1 - target) * (1 - data).log())
    torch.testing.assert_close(objective(score, target, log_noise=log_noise), expected, rtol=1e-12, atol=1e-12)


def test_binary_nce_finds_the_normaliser() -> None:
    """Model exp(-x^2 / 2) unnormalised, noise N(0, 2^2), as many noise as data points: c -> -log sqrt(2 pi)."""
    generator = torch.Generator().manual_seed(23)
    data = torch.randn(20_000, generator=generator)
    noise = 2 * torch.randn(20_000, generator=generator)
    points = torch.cat([data, noise])
    log_noise = -(points**2) / 8 - math.log(2 * math.sqrt(2 * math.pi))
    target = torch.cat([torch.ones(20_000), torch.zeros(20_000)])
    objective = BinaryNCE(learn_normalizer=True, reduction="mean")
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=30)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(-(points**2) / 2, target, log_noise=log_noise)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert objective.normalizer.item() == pytest.approx(-0.5 * math.log(2 * math.pi), abs=0.03)


def test_binary_nce_far_out_is_finite() -> None:
    score = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    costs = BinaryNCE()(score, torch.tensor([1, 1, 0, 0]))
    assert costs.tolist() == [0, 1e4, 1e4, 0]
    costs.sum().backward()
    assert score.grad.tolist() == [0, -1, 1, 0]


def test_all_softmax_objectives_are_row_objectives() -> None:
    for cls in (InfoNCE, SupCon, DCL, DCLW):
        assert issubclass(cls, RowObjective)
        assert cls.kind == "row"
