"""The engine: dense and tiled, reports, objectives of one's own, ready-made scores, precision, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import (
    Explicit,
    Labels,
    Paired,
    Relation,
    Report,
    Score,
    Views,
    engine,
    evaluate,
    evaluate_with_report,
    tiles,
)
from nearfar.errors import UsageError
from nearfar.objectives import DCL, DCLW, InfoNCE, PairwiseLogistic, RowObjective, SupCon, Triplet, get

WAYS: dict[str, dict[str, Any]] = {
    "dense": {"memory": "dense"},
    "tiled": {"memory": "tiled", "tile_rows": 3},
}
OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "info-nce": lambda **more: InfoNCE(temperature=0.3, **more),
    "supcon in": lambda **more: SupCon("in", temperature=0.3, **more),
    "dcl": lambda **more: DCL(temperature=0.3, **more),
    "dclw": lambda **more: DCLW(temperature=0.3, **more),
    "triplet": lambda **more: Triplet(margin=1.0, **more),
    "triplet hard": lambda **more: Triplet("hard", margin=1.0, smooth=True, **more),
    "triplet semi-hard": lambda **more: Triplet("semi-hard", margin=1.0, **more),
    "pairwise": lambda **more: PairwiseLogistic(temperature=0.3, **more),
}


def _items(seed: int, n: int, d: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _problem() -> tuple[Tensor, Tensor, Relation]:
    relation = Paired(torch.tensor([0, 1, 2, 0, 9, 3, 1]), torch.tensor([1, 0, -1, 2, 0, 3, -1, 1]))
    return _items(0, 7).requires_grad_(), _items(1, 8).requires_grad_(), relation


# -- which way ---------------------------------------------------------------------------------------------------------


def test_auto_is_dense_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DENSE_LIMIT", 10 * 12 * 4)
    for n, dtype, mode in ((10, torch.float32, "dense"), (11, torch.float32, "tiled"), (10, torch.float64, "tiled")):
        _, report = evaluate_with_report(InfoNCE(), _items(0, n, dtype=dtype), _items(1, 12, dtype=dtype))
        assert report.mode == mode
    for objective in (InfoNCE(two_sided=True), DCLW(), Triplet()):
        assert evaluate_with_report(objective, _items(0, 10), _items(1, 12))[1].mode == "tiled"
        report = evaluate_with_report(objective, _items(0, 10), _items(1, 12), memory="dense")[1]
        assert report.mode == "dense"


def test_auto_counts_pairs_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """All triplets of 30 positives and 30 negatives a row need far more memory than the scores."""
    query = _items(0, 60, dtype=torch.float32)
    monkeypatch.setattr(engine, "DENSE_LIMIT", 60 * 60 * 4)
    many, few = Labels(torch.arange(60) % 2), Labels(torch.arange(60) % 30)
    assert evaluate_with_report(Triplet(), query, relation=many)[1].mode == "tiled"
    assert evaluate_with_report(Triplet(), query, relation=few)[1].mode == "dense"
    assert evaluate_with_report(Triplet("hard"), query, relation=many)[1].mode == "dense"


def test_tiles_fit_their_working_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watching(PairwiseLogistic):
        seen: list[tuple[int, ...]]

        def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
            self.seen.append((*scores.shape, scores.element_size()))
            return super().rows(scores, positive, negative, **state)

    monkeypatch.setattr(tiles, "TILE_BYTES", 40_000)
    objective = Watching()
    objective.seen = []
    _, report = evaluate_with_report(
        objective,
        _items(0, 70),
        _items(1, 50),
        relation=Paired(torch.arange(70) % 50, torch.arange(50)),
        memory="tiled",
    )
    assert report.mode == "tiled"
    assert 1 < report.tile_rows < 70
    assert sum(rows for rows, _, _ in objective.seen) == 70
    assert max(rows for rows, _, _ in objective.seen) == report.tile_rows
    assert all(rows * columns * size * objective.arrays(1) <= 40_000 for rows, columns, size in objective.seen)


def test_a_tile_has_at_least_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    query, key, relation = _problem()
    loss, report = evaluate_with_report(InfoNCE(), query, key, relation=relation, memory="tiled")
    assert report.tile_rows == 1
    torch.testing.assert_close(loss, evaluate(InfoNCE(), query, key, relation=relation, memory="dense"))


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_report_counts(name: str, way: str) -> None:
    positive = torch.tensor([[2.0, 0, 0], [0, 0, 0], [1.0, 1.0, 1.0], [0, 0, 0.5]])
    negative = torch.tensor([[0, 1.0, 1.0], [1.0, 0, 0], [0, 0, 0], [0, 0.5, 0]])
    objective = OBJECTIVES[name]()
    _, report = evaluate_with_report(
        objective, _items(0, 4), _items(1, 3), relation=Explicit(positive, negative), **WAYS[way]
    )
    active = 3 if name in ("info-nce", "supcon in") else 2  # row 2 has no negative
    assert (report.anchors, int(report.active_anchors)) == (4, active)
    assert (int(report.positive_pairs), int(report.negative_pairs)) == (5, 4)
    assert report.mode == way
    assert f"{active} of 4 anchors active, 5 positive and 4 negative pairs" in str(report)


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_report_of_both_sides(way: str, closed_form: bool) -> None:
    query, key, _ = _problem()
    relation = Paired(
        torch.tensor([0, 1, 2, 0, 9, 3, 1]),
        torch.tensor([1, 0, -1, 2, 0, 3, -1, 1]),
        query_exclude=torch.tensor([0, 0, 0, 1, 2, 3, 4]),
        key_exclude=torch.tensor([0, 5, 6, 3, 1, 3, 7, 8]),
    )
    objective = InfoNCE(two_sided=True)
    if not closed_form:
        objective.softmax_form = None
    _, report = evaluate_with_report(objective, query, key, relation=relation, **WAYS[way])
    near, ignored = 10, {(0, 0), (2, 0), (5, 3)}  # counted by hand
    assert isinstance(report, Report)
    assert report.anchors == 7 + 8
    assert int(report.active_anchors) == 6 + 6
    assert int(report.positive_pairs) == 2 * near
    assert int(report.negative_pairs) == 2 * (56 - near - len(ignored))
    assert report.fused == (way == "tiled" and closed_form)


def test_the_objective_keeps_its_last_report() -> None:
    query, key, relation = _problem()
    objective = Triplet()
    assert objective.report is None
    objective(query, key, relation=relation, memory="tiled")
    assert objective.report.mode == "tiled"
    objective(query, key, relation=relation, memory="dense")
    assert objective.report.mode == "dense"
    assert int(objective.report.active_anchors) == 6


# -- objectives of one's own -------------------------------------------------------------------------------------------


class Mixed(Score):
    """A learned map of the items and a learned, non-bilinear comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Parameter(_items(50, 4))
        self.bend = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def embed(self, items: Tensor) -> Tensor:
        return items @ self.map

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.tanh(self.bend * (query @ keys.T))

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.tanh(self.bend * (query * keys).sum(-1))


class Own(RowObjective):
    """Parameters inside the formula, and a pre-pass that returns a value for all, one a row, and an integer one."""

    default_temperature = 0.5
    needs_positive_scores = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(score=Mixed(), **arguments)
        self.margin = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.power = nn.Parameter(torch.tensor([0.5, 1.5], dtype=torch.float64))

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        pairs = torch.bincount(rows, minlength=count)
        return {
            "mean": scores.mean() * self.margin,
            "own": scores.new_zeros(count).index_add(0, rows, scores),
            "pairs": pairs,
        }

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        far = (scores.masked_fill(~negative, -20).exp() ** self.power[0]).sum(1)
        near = (scores * positive).sum(1) / state["pairs"]
        return (far - near + self.margin + state["own"] * state["mean"] + 5).square() * self.power[1]

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return positive.to(scores.dtype).sum(1)


@pytest.mark.parametrize(
    ("two_sided", "reduction"), [(False, "mean"), (False, "sum"), (False, "none"), (True, "mean"), (True, "sum")]
)
def test_parameters_states_and_weights_dense_and_tiled_alike(reduction: str, two_sided: bool) -> None:
    found = []
    for way in ({"memory": "dense"}, {"memory": "tiled", "tile_rows": 1}, WAYS["tiled"]):
        query, key, relation = _problem()
        objective = Own(temperature="learned", reduction=reduction, two_sided=two_sided).double()
        loss = evaluate(objective, query, key, relation=relation, **way)
        scalar = (loss * torch.arange(1, loss.numel() + 1)).sum() if loss.dim() else loss
        named = dict(objective.named_parameters())
        assert len(named) == 5
        gradients = torch.autograd.grad(scalar, (query, key, *named.values()))
        assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
        found.append((loss.detach(), *gradients))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


class Learned(InfoNCE):
    """A parameter that only the formula knows of."""

    def __init__(self) -> None:
        super().__init__(temperature="learned")
        self.slope = nn.Parameter(torch.tensor(2.0))

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return super().rows(scores, positive, negative) * self.slope


@pytest.mark.parametrize("way", WAYS)
def test_without_an_active_row_every_parameter_has_a_gradient_of_zero(way: str) -> None:
    """Not none at all, which DistributedDataParallel would wait for on the processes that do have active rows."""
    query, objective = _items(0, 3).requires_grad_(), Learned()
    loss = evaluate(objective, query, _items(1, 2), relation=Paired(torch.arange(3), torch.full((2,), -1)), **WAYS[way])
    loss.backward()
    for value in (query, *objective.parameters()):
        assert value.grad is not None
        assert (value.grad == 0).all()


@pytest.mark.parametrize("detach_weight", [False, True])
@pytest.mark.parametrize("relation", [None, Labels(torch.tensor([0, 1, 0, 0, 1, 2, 1]))])
def test_prepared_values_are_of_the_whole_batch_in_every_tile(relation: Relation | None, detach_weight: bool) -> None:
    losses = []
    for tile_rows in (1, 2, 7):
        query, key, _ = _problem()
        objective = DCLW(detach_weight=detach_weight, temperature="learned").double()
        loss = evaluate(
            objective, query, key if relation is None else None, relation=relation, memory="tiled", tile_rows=tile_rows
        )
        (gradient,) = torch.autograd.grad(loss, query)
        dense = evaluate(objective, query, key if relation is None else None, relation=relation, memory="dense")
        torch.testing.assert_close(loss, dense, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, torch.autograd.grad(dense, query)[0], rtol=1e-10, atol=1e-12)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[2], rel=1e-12)


# -- ready-made scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_ready_made_scores_are_as_good_as_embeddings(name: str, two_sided: bool) -> None:
    query, key, relation = _problem()
    objective = OBJECTIVES[name](two_sided=two_sided)
    scores = objective.score(objective.score.embed(query), objective.score.embed(key))
    from_scores, report = evaluate_with_report(objective, scores=scores, relation=relation)
    from_items, other = evaluate_with_report(objective, query, key, relation=relation, memory="dense")
    assert (report.anchors, int(report.active_anchors), int(report.negative_pairs)) == (
        other.anchors, int(other.active_anchors), int(other.negative_pairs)
    )  # fmt: skip
    torch.testing.assert_close(from_scores, from_items, rtol=1e-12, atol=1e-12)
    for one, two in zip(
        torch.autograd.grad(from_scores, (query, key)), torch.autograd.grad(from_items, (query, key)), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_ready_made_scores_are_divided_by_the_temperature_and_not_normalised() -> None:
    scores = torch.tensor([[30.0, 10.0], [0.0, 40.0]])
    loss = InfoNCE(temperature=10.0)(scores=scores)
    expected = torch.nn.functional.cross_entropy(scores / 10, torch.arange(2))
    torch.testing.assert_close(loss, expected)
    half = InfoNCE(temperature=10.0)(scores=scores.bfloat16())
    assert half.dtype == torch.float32
    assert InfoNCE(temperature=10.0, reduction="none")(scores=scores).shape == (2,)


# -- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_autocast_does_not_reach_the_scores(name: str, way: str, two_sided: bool) -> None:
    relation = _problem()[2]
    found = []
    for enabled in (False, True):
        query, key = _items(0, 7, dtype=torch.float32).requires_grad_(), _items(1, 8, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = evaluate(OBJECTIVES[name](two_sided=two_sided), query, key, relation=relation, **WAYS[way])
        loss.backward()
        found.append((loss.detach(), query.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_autocast_does_not_reach_tiles_that_backward_visits_again() -> None:
    relation = _problem()[2]
    found = []
    for enabled in (False, True):
        query, key = _items(0, 7, dtype=torch.float32).requires_grad_(), _items(1, 8, dtype=torch.float32)
        costs = evaluate(InfoNCE(reduction="none"), query, key, relation=relation, memory="tiled", tile_rows=3)
        loss = costs.square().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss.backward()
        found.append(query.grad)
    assert torch.equal(*found)


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"memory": "sparse"}, UsageError, "'auto', 'dense' or 'tiled', got 'sparse'"),
        ({"tile_rows": 0}, UsageError, "at least 1"),
        ({"scores": torch.ones(2, 2)}, ValueError, "not both"),
        ({"query": None, "key": None}, ValueError, "give embeddings"),
        ({"query": None, "key": None, "scores": torch.ones(2)}, ValueError, r"\[n, m\] floating point, got \(2,\)"),
        ({"query": None, "key": None, "scores": torch.ones(2, 2).long()}, ValueError, "int64"),
        ({"query": None, "key": None, "scores": torch.ones(0, 2)}, ValueError, r"no rows, got \(0, 2\)"),
        ({"query": None, "key": None, "scores": torch.ones(2, 0)}, ValueError, r"no columns, got \(2, 0\)"),
        ({"key": None}, ValueError, "needs a relation"),
        ({"query": torch.ones(4)}, ValueError, r"query must be \[rows, dimension\] floating point, got \(4,\)"),
        ({"query": torch.ones(2, 4).long()}, ValueError, "int64"),
        ({"query": torch.ones(2, 4, dtype=torch.complex64)}, ValueError, "complex64"),
        ({"key": torch.ones(2, 4, 1)}, ValueError, r"key must be .* got \(2, 4, 1\)"),
        ({"key": torch.ones(2, 3)}, ValueError, r"\[2, 4\] and key \[2, 3\]: their dimensions differ"),
        ({"key": torch.ones(2, 4).double()}, ValueError, "float32 and key torch.float64"),
        ({"query": torch.ones(0, 4)}, ValueError, "query has no rows"),
        ({"key": torch.ones(0, 4)}, ValueError, "key has no rows"),
        ({"key": torch.ones(1, 4)}, ValueError, "2 queries need at least as many keys, got 1"),
    ],
)  # fmt: skip
def test_input_that_does_not_fit(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    given = {"query": torch.ones(2, 4), "key": torch.ones(2, 4), **arguments}
    with pytest.raises(error, match=says):
        evaluate(InfoNCE(), **given)


def test_costs_of_rows_have_no_two_sides() -> None:
    objective = InfoNCE(two_sided=True, reduction="none")
    with pytest.raises(ValueError, match="two-sided"):
        objective(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="two-sided"):
        objective(scores=torch.ones(2, 2))
    assert objective(torch.ones(4, 3), relation=Views(2)).shape == (4,)  # items among themselves have one side


@pytest.mark.parametrize("name", ["supcon", "triplet", "dcl"])
def test_ready_made_scores_of_items_among_themselves_leave_out_the_diagonal(name: str) -> None:
    z = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    objective = get(name)
    own = objective.score.embed(z)
    scores = objective.score(own, own)
    for relation in (Labels(torch.arange(9) % 3), Views(3)):
        expected = objective(z, relation=relation)
        assert torch.allclose(objective(scores=scores, relation=relation), expected, atol=1e-12)
        never = torch.zeros(9, 9, dtype=torch.bool)
        assert torch.allclose(objective(scores=scores, relation=relation.ignore(never)), expected, atol=1e-12)
    rows = Labels(torch.arange(9) % 3, torch.arange(9) % 3)  # two sets that happen to be equally large
    assert not torch.allclose(
        objective(scores=scores, relation=rows), objective(z, relation=Labels(torch.arange(9) % 3))
    )
