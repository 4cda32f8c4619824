"""Margins: batches that have nothing to teach, difficult input, arguments that make no sense, limits of formulas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Graded, Labels, Paired, Relation, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    SNR,
    Angular,
    Circle,
    Contrastive,
    FastAP,
    Histogram,
    IntraPairVariance,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    Quadruplet,
    RankedList,
    RowObjective,
    Triplet,
    TupletMargin,
    get,
)
from support.scenarios import embeddings

OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "contrastive": lambda **more: Contrastive(margin=3.0, **more),
    "contrastive active": lambda **more: Contrastive("linear", average="active", margin=3.0, **more),
    "contrastive chopra": lambda **more: Contrastive("chopra", **more),
    "snr": SNR,
    "margin": lambda **more: Margin(learned=True, nu=0.1, **more),
    "margin triplets": lambda **more: Margin("triplets", **more),
    "intra-pair-variance": IntraPairVariance,
    "multi-similarity": MultiSimilarity,
    "multi-similarity unmined": lambda **more: MultiSimilarity(beta=5.0, base=0.5, epsilon=None, **more),
    "circle": Circle,
    "ranked-list": RankedList,
    "ranked-list smoothed": lambda **more: RankedList(smoothing=1e-5, detach_weights=False, **more),
    "tuplet-margin": TupletMargin,
    "lifted-structure": LiftedStructure,
    "lifted-structure generalized": lambda **more: LiftedStructure("generalized", **more),
    "angular": Angular,
    "angular unnormalised": lambda **more: Angular(normalize_far=False, **more),
    "triplet swap": lambda **more: Triplet(swap=True, **more),
    "triplet direction": lambda **more: Triplet(direction=0.3, smooth=True, **more),
    "quadruplet": Quadruplet,
    "histogram": Histogram,
    "fast-ap": FastAP,
}
ONE_SIDE_IS_ENOUGH = {
    "contrastive", "contrastive active", "contrastive chopra", "snr", "intra-pair-variance", "multi-similarity unmined",
    "ranked-list", "ranked-list smoothed",
}  # fmt: skip
MEMORY = ["dense", "tiled"]


def _items(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_of_nothing_costs_nothing_and_is_connected(name: str, memory: str) -> None:
    """Nobody near and nobody far; and where both are needed, one of them alone."""
    nothing: list[Relation] = [Explicit(torch.zeros(4, 4), torch.zeros(4, 4))] if name != "quadruplet" else []
    if name not in ONE_SIDE_IS_ENOUGH and name not in ("histogram", "quadruplet"):
        nothing.append(Labels(torch.arange(4)))
    if name not in ONE_SIDE_IS_ENOUGH and name != "fast-ap":
        nothing.append(Labels(torch.zeros(4, dtype=torch.long)))
    for relation in nothing:
        objective = OBJECTIVES[name]()
        items = _items(0, 4).requires_grad_()
        with pytest.warns(UserWarning, match="no anchor"):
            loss = objective(items, relation=relation, memory=memory)
        assert loss.item() == 0
        loss.backward()
        assert items.grad is not None
        assert items.grad.abs().max() == 0


@pytest.mark.parametrize("name", sorted(ONE_SIDE_IS_ENOUGH))
def test_one_side_alone_teaches(name: str) -> None:
    """Near pairs alone are pulled together, far pairs alone pushed apart."""
    base = _items(1, 4)
    near, far = Labels(torch.zeros(4, dtype=torch.long)), Labels(torch.arange(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for relation in (near, far):
            items = base.clone().requires_grad_()
            objective = OBJECTIVES[name]()
            loss = objective(items, relation=relation)
            assert loss.item() > 0
            loss.backward()
            assert items.grad.abs().max() > 1e-4
            after = objective(base - 1e-3 * items.grad / items.grad.norm(), relation=relation)
            assert after.item() < loss.item()


def _difficult() -> dict[str, tuple[Tensor, Tensor | None, Relation | None]]:
    zeros, ones, items = torch.zeros(4, 3), torch.ones(4, 3), _items(4, 4)
    by_label = Labels(torch.tensor([0, 0, 1, 1]))
    return {
        "all zero": (zeros, zeros, None),
        "all zero among themselves": (zeros, None, by_label),
        "all equal": (ones, ones, None),
        "all equal among themselves": (ones, None, Views(2)),
        "equal in their class": (items[[0, 0, 1, 1]], None, by_label),
        "equal across classes": (items[[0, 1, 0, 1]], None, by_label),
        "opposite": (items, -items, None),
        "coinciding": (items, items, None),
        "tiny": (1e-20 * items, 1e-20 * items.flip(0), None),
        "huge": (1e8 * items, 1e8 * items.flip(0), None),
        "one dimension": (items[:, :1], items[:, 1:2], None),
        "one row": (items[:1], None, Labels(torch.tensor([0]))),
        "tiny weights": (items, items.flip(0), Explicit(1e-30 * torch.eye(4), 1e-30 * (1 - torch.eye(4)))),
        "large weights": (items, items.flip(0), Explicit(1e15 * torch.eye(4), 1e15 * (1 - torch.eye(4)))),
        "some without a positive": (items, items, Paired(torch.tensor([0, 7, 8, 9]), torch.arange(4))),
    }


@pytest.mark.filterwarnings("ignore:.*no anchor")
@pytest.mark.parametrize("case", _difficult())
@pytest.mark.parametrize("name", OBJECTIVES)
def test_never_nan_for_finite_input(name: str, case: str) -> None:
    if name == "quadruplet" and "weights" in case:
        return  # matrices have no classes
    for memory, reduction in (("dense", "mean"), ("tiled", "none")):
        objective = OBJECTIVES[name](reduction=reduction)
        query, key, relation = _difficult()[case]
        query = query.clone().requires_grad_()
        key = None if key is None else key.clone().requires_grad_()
        loss = evaluate(objective, query, key, relation=relation, memory=memory, tile_rows=3)
        loss.sum().backward()
        for value in (loss, query.grad, *([] if key is None else [key.grad])):
            assert torch.isfinite(value).all(), value


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("margin",)])
def test_half_precision_is_computed_in_float32(name: str) -> None:
    objective = OBJECTIVES[name]()
    items, relation = _items(6, 9, 8).bfloat16().requires_grad_(), Labels(torch.arange(9) % 3)
    loss = objective(items, relation=relation)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, objective(items.float(), relation=relation))
    loss.backward()
    assert items.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(objective(items.float(), relation=relation), loss, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["lifted-structure", "angular", "triplet swap", "quadruplet", "intra-pair-variance"])
def test_what_needs_embeddings_says_so(name: str) -> None:
    objective = OBJECTIVES[name]()
    with pytest.raises(ValueError, match="needs embeddings"):
        objective(scores=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="their dimensions differ"):
        objective(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="needs a relation"):
        objective(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="floating point"):
        objective(torch.zeros(3, 2).long(), relation=Labels(torch.zeros(3).long()))
    with pytest.raises(ValueError, match="sides differ in length"):
        OBJECTIVES[name](two_sided=True, reduction="none")(torch.ones(3, 2), torch.ones(3, 2))


def test_quadruplets_need_classes() -> None:
    graded = Graded({0: {0: 1.0}, 1: {1: 1.0}}, torch.arange(2), torch.arange(2))
    for relation in (Explicit(torch.eye(2)), Explicit(torch.eye(2)).ignore(torch.zeros(2, 2).bool())):
        with pytest.raises(ValueError, match="classes of items"):
            Quadruplet()(torch.eye(2), torch.eye(2), relation=relation)
    assert Quadruplet()(torch.eye(2), torch.eye(2), relation=graded).item() >= 0  # its ids name classes


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Contrastive("squared"), "'hadsell', 'linear' or 'chopra'"),
        (lambda: Contrastive(average="pairs"), "'all', 'sides' or 'active'"),
        (lambda: Contrastive(margin=-1.0), "margin"),
        (lambda: Contrastive(positive_margin=float("nan")), "positive_margin"),
        (lambda: Contrastive(largest=0.0), "largest"),
        (lambda: SNR("rows"), "snr: average"),
        (lambda: Margin("rows"), "'pairs' or 'triplets'"),
        (lambda: Margin(nu=-1.0), "nu"),
        (lambda: IntraPairVariance(-0.1), "positive_eps"),
        (lambda: MultiSimilarity(0.0), "alpha"),
        (lambda: MultiSimilarity(epsilon=-0.1), "epsilon"),
        (lambda: Circle(-0.1), "m must"),
        (lambda: Circle(gamma=0.0), "gamma"),
        (lambda: RankedList(alpha=-1.0), "alpha"),
        (lambda: RankedList(balance=1.5), "balance"),
        (lambda: TupletMargin(5.73), "an angle"),
        (lambda: TupletMargin(scale=0.0), "scale"),
        (lambda: LiftedStructure("paper"), "'structured' or 'generalized'"),
        (lambda: LiftedStructure(margin=float("inf")), "margin"),
        (lambda: Angular(45.0), "an angle"),
        (lambda: Triplet(direction=-1.0), "direction"),
        (lambda: Triplet("hard", swap=True), "mining='all'"),
        (lambda: Triplet(anchors="all"), "mining=.hard."),
        (lambda: Triplet("hard", anchors="every"), "'complete' or 'all'"),
        (lambda: LiftedStructure(anchors="all"), "form=.generalized."),
        (lambda: Quadruplet(pair_margin=-1.0), "pair_margin"),
        (lambda: Histogram(0), "bins"),
        (lambda: FastAP(0), "bins"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


# -- limits ------------------------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])


def _loss(objective: RowObjective, items: Tensor, labels: Tensor = LABELS) -> float:
    return objective.double()(items, relation=Labels(labels)).item()


def test_swap_costs_no_less_and_direction_at_nothing_is_the_triplet() -> None:
    items = embeddings(80, 8, 4)
    plain = _loss(Triplet(), items)
    assert _loss(Triplet(swap=True), items) > plain + 1e-3
    assert _loss(Triplet(direction=1e-12), items) == pytest.approx(plain, rel=1e-9)


def test_soft_margins() -> None:
    """Hermans' soft margin: smooth, with margin 0."""
    items = embeddings(81, 8, 4)
    soft = get("batch-hard-soft-margin-triplet")
    assert isinstance(soft, Triplet)
    assert (soft.mining, soft.smooth, soft.margin) == ("hard", True, 0.0)
    distance = torch.cdist(items, items)
    costs = []
    for i in range(8):
        near = (LABELS[i] == LABELS) & (torch.arange(8) != i)
        costs.append((1 + (distance[i][near].max() - distance[i][LABELS[i] != LABELS].min()).exp()).log())
    assert _loss(soft, items) == pytest.approx(torch.stack(costs).mean().item(), rel=1e-9)


def test_what_is_well_placed_costs_nothing() -> None:
    """Classes at right angles, items of a class in one place."""
    items = torch.eye(4, dtype=torch.float64)[LABELS]
    for objective in (
        Contrastive(margin=1.4), Triplet(), Triplet(swap=True), Margin(), LiftedStructure(margin=-10.0), RankedList(),
        SNR(), Quadruplet(margin=0.2, pair_margin=0.1), IntraPairVariance(), Histogram(), FastAP(),
        LiftedStructure("generalized", margin=-10.0),
    ):  # fmt: skip
        assert _loss(objective, items) == pytest.approx(0, abs=1e-9), objective
    for objective in (TupletMargin(), Circle()):
        assert 0 <= _loss(objective, items) < 1e-9, objective
    # alpha and beta have no end: near and far are never near and far enough
    assert _loss(MultiSimilarity(base=0.5), items) == 0  # but none of them is informative
    assert _loss(MultiSimilarity(base=0.5, epsilon=None), items) > 0.1


def test_all_pairs_of_chopra_meet_in_slope_at_their_largest() -> None:
    """2.77 is where the slopes of both costs are alike at Q, up to its digits."""
    objective = Contrastive("chopra", largest=3.0).double()
    distance = torch.tensor([0.0], dtype=torch.float64)
    assert objective.near(-distance).item() == 0
    assert objective.far(-distance).item() == 6
    assert objective.far(torch.tensor([-3.0])).item() == pytest.approx(6 * math.exp(-2.77))


def test_the_mining_of_multi_similarity_chooses_by_epsilon() -> None:
    """A wide one leaves everything in, and the loss is that without mining."""
    items = torch.eye(4, dtype=torch.float64)[LABELS] + 0.2 * embeddings(82, 8, 4)
    whole = _loss(MultiSimilarity(epsilon=None), items)
    assert _loss(MultiSimilarity(epsilon=2.1), items) == pytest.approx(whole, rel=1e-12)
    assert _loss(MultiSimilarity(epsilon=0.0), items) < whole


def test_circle_without_its_weights_would_be_another() -> None:
    """The attention to a pair carries no gradient: one step of it is that of fixed weights."""
    items = embeddings(83, 8, 4).requires_grad_()
    objective = Circle(0.4, 8.0).double()
    (gradient,) = torch.autograd.grad(objective(items, relation=Labels(LABELS)), items)
    unit = torch.nn.functional.normalize(items, dim=1)
    scores = unit @ unit.T
    near = (LABELS[:, None] == LABELS) & ~torch.eye(8, dtype=torch.bool)
    far = LABELS[:, None] != LABELS
    fixed = scores.detach()
    push = (8 * (fixed + 0.4).relu() * (scores - 0.4)).masked_fill(~far, -torch.inf).logsumexp(1)
    pull = (-8 * (1.4 - fixed).relu() * (scores - 0.6)).masked_fill(~near, -torch.inf).logsumexp(1)
    expected = torch.autograd.grad((1 + (push + pull).exp()).log().mean(), items)[0]
    torch.testing.assert_close(gradient, expected)


def test_weights_of_a_ranked_list_look_at_the_worst() -> None:
    """At a temperature of 0 violators weigh alike, at a high one the worst alone counts."""
    items = embeddings(84, 8, 4)
    unit = torch.nn.functional.normalize(items, dim=1)
    distance = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    violation = (1.2 - distance).masked_fill(LABELS[:, None] == LABELS, 0).relu()
    expected = violation.sum(1) / (violation > 0).sum(1).clamp_min(1)
    assert _loss(RankedList(temperature_far=0.0, balance=1.0), items) == pytest.approx(expected.mean().item(), rel=1e-9)
    worst = violation.amax(1).mean().item()
    assert _loss(RankedList(temperature_far=1e5, balance=1.0), items) == pytest.approx(worst, rel=1e-6)


def test_angles_do_not_depend_on_length() -> None:
    items = embeddings(85, 8, 4)
    lengths = torch.linspace(0.1, 5, 8, dtype=torch.float64)[:, None]
    for objective in (Angular(), TupletMargin(), Margin(), RankedList(), SNR(), FastAP(), Histogram()):
        assert _loss(objective, items * lengths) == pytest.approx(_loss(objective, items), rel=1e-9), objective


def test_a_learned_boundary_moves_to_where_near_and_far_part() -> None:
    items, labels = torch.tensor([[0.0], [0.4], [2.0], [2.4]]), torch.tensor([0, 0, 1, 1])
    objective = Margin(margin=0.2, beta=0.3, learned=True, score="negative-euclidean")
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = objective(items, relation=Labels(labels))
        loss.backward()
        optimizer.step()
    assert loss.item() == 0
    assert 0.6 <= objective.beta.item() <= 1.4


def test_memory_stays_linear() -> None:
    """Rows of pairs, prefix sums and histograms included: nothing of the size of all pairs is held for the gradient."""
    items = torch.randn(600, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(600) // 2
    for objective in (Triplet(swap=True), Angular(), LiftedStructure(), Quadruplet(), Histogram(), Circle()):
        held: list[int] = []

        def note(value: Tensor, held: list[int] = held) -> Tensor:
            held.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            evaluate(objective, items, relation=Labels(labels), memory="tiled", tile_rows=20)
        assert max(held) <= 600 * 21, objective
