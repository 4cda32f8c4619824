"""What the engine promises of graphs: when gradients are prepared, what is held, second derivatives, accumulation."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import Explicit, Paired, Relation, evaluate
from nearfar.objectives import DCL, DCLW, InfoNCE, PairwiseLogistic, RowObjective, SupCon, Triplet

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


class Recording(InfoNCE):
    """Records whether gradients were being prepared when its formula was evaluated."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.recorded: list[bool] = []

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        costs = super().rows(scores, positive, negative, **state)
        self.recorded.append(scores.requires_grad or costs.requires_grad)
        return costs


@pytest.mark.parametrize(("two_sided", "reduction"), [(False, "mean"), (False, "none"), (True, "mean")])
@pytest.mark.parametrize("way", WAYS)
def test_no_gradient_work_without_need(
    way: str, two_sided: bool, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, relation = _problem()
    objective = Recording(temperature="learned", two_sided=two_sided, reduction=reduction).double()
    arguments = {"relation": relation, **WAYS[way]}
    evaluate(objective, query, key, **arguments)
    # costs of single rows are differentiated in backward, when their upstream gradients are known
    assert any(objective.recorded) == (way == "dense" or reduction == "mean")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    for context in (torch.no_grad(), torch.inference_mode()):
        objective.recorded.clear()
        with context:
            loss = evaluate(objective, query, key, **arguments)
        assert objective.recorded
        assert not any(objective.recorded)
        assert not loss.requires_grad
    objective.recorded.clear()
    objective.requires_grad_(False)
    loss = evaluate(objective, query.detach(), key.detach(), **arguments)
    assert not any(objective.recorded)
    assert not loss.requires_grad


@pytest.mark.parametrize("two_sided", [False, True])
def test_no_gradient_products_of_the_closed_form_without_need(two_sided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores once, and nothing but scores."""
    products = []
    actual = torch.mm

    def counted(*arguments: Tensor, **more: Any) -> Tensor:
        products.append(arguments)
        return actual(*arguments, **more)

    query, key, relation = _problem()
    monkeypatch.setattr(torch, "mm", counted)
    with torch.no_grad():
        evaluate(InfoNCE(two_sided=two_sided), query, key, relation=relation, memory="tiled", tile_rows=7)
    assert len(products) == 1


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_double_backward_of_tiles_is_refused(name: str, reduction: str) -> None:
    query, key, relation = _problem()
    for two_sided in (False,) if reduction == "none" else (False, True):
        objective = OBJECTIVES[name](reduction=reduction, two_sided=two_sided)
        loss = evaluate(objective, query, key, relation=relation, memory="tiled", tile_rows=3).sum()
        plain = torch.autograd.grad(loss, (query, key), retain_graph=True)
        gradients = torch.autograd.grad(loss, (query, key), create_graph=True)
        for one, other in zip(plain, gradients, strict=True):
            assert torch.equal(one, other)
        for gradient in gradients:
            for wanted in (query, key):
                with pytest.raises(RuntimeError, match='memory="dense"'):
                    torch.autograd.grad(gradient.square().sum(), wanted, retain_graph=True)
        with pytest.raises(RuntimeError, match='memory="dense"'):
            (loss + gradients[0].square().sum()).backward()


class Held:
    """A tensor that a graph holds for its backward pass."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("cls", [InfoNCE, Triplet])
def test_a_tiled_graph_holds_no_scores(cls: type[RowObjective], reduction: str) -> None:
    """Nor the items, unless backward has to visit the tiles again."""
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def pack(value: Tensor) -> Held:
        one = Held(value)
        held.add(one)
        return one

    query, key = _items(0, 40).requires_grad_(), _items(1, 50).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.value):
        loss = evaluate(cls(reduction=reduction, score="dot"), query, key, memory="tiled", tile_rows=9)
        assert held
    gc.collect()
    assert loss.requires_grad
    assert sum(one.value.numel() for one in held) <= (query.numel() + key.numel() + 1 if reduction == "none" else 0)


@pytest.mark.parametrize("two_sided", [False, True])
def test_double_backward_to_a_temperature_is_refused(two_sided: bool) -> None:
    query, key, relation = (part.detach() if isinstance(part, Tensor) else part for part in _problem())
    objective = InfoNCE(temperature="learned", two_sided=two_sided).double()
    loss = evaluate(objective, query, key, relation=relation, memory="tiled")
    (gradient,) = torch.autograd.grad(loss, objective.temperature.log_scale, create_graph=True)
    with pytest.raises(RuntimeError, match='memory="dense"'):
        torch.autograd.grad(gradient, objective.temperature.log_scale)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_dense_has_second_derivatives(name: str, two_sided: bool) -> None:
    relation = Paired(torch.tensor([0, 1, 0]), torch.tensor([1, 0, -1, 0]))
    objective = OBJECTIVES[name](two_sided=two_sided)
    inputs = (_items(2, 3, 2).requires_grad_(), _items(3, 4, 2).requires_grad_())

    def loss(query: Tensor, key: Tensor) -> Tensor:
        return evaluate(objective, query, key, relation=relation, memory="dense")

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_backward_twice_accumulates_twice(name: str, way: str, two_sided: bool) -> None:
    query, key, relation = _problem()
    loss = evaluate(OBJECTIVES[name](two_sided=two_sided), query, key, relation=relation, **WAYS[way])
    loss.backward(retain_graph=True)
    once = query.grad.clone(), key.grad.clone()
    loss.backward(retain_graph=True)
    (0.5 * loss).backward()
    torch.testing.assert_close(query.grad, 2.5 * once[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(key.grad, 2.5 * once[1], rtol=1e-12, atol=1e-14)
    assert once[0].abs().max() > 1e-4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_calls_in_one_graph(name: str, way: str) -> None:
    """The same objective on two batches of one encoder, weighted and summed: gradients add."""
    first, second, relation = _problem()
    objective = OBJECTIVES[name]()

    def losses(query: Tensor, key: Tensor) -> list[Tensor]:
        return [
            3.0 * evaluate(objective, query, key, relation=relation, **WAYS[way]),
            evaluate(objective, query * key[:7].sigmoid(), key, relation=relation, **WAYS[way]).square(),
        ]

    sum(losses(first, second)).backward()
    together = first.grad.clone(), second.grad.clone()
    apart = [torch.autograd.grad(losses(first, second)[index], (first, second)) for index in range(2)]
    for side in range(2):
        torch.testing.assert_close(together[side], apart[0][side] + apart[1][side], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_reach_an_encoder(way: str) -> None:
    query, key, relation = _problem()
    found = []
    for memory in ({"memory": "dense"}, WAYS[way]):
        encoder = nn.Linear(4, 3).double()
        nn.init.constant_(encoder.weight, 0.1)
        with torch.no_grad():
            encoder.weight += torch.arange(12).view(3, 4) / 20
            encoder.bias.copy_(torch.arange(3) / 10)
        evaluate(InfoNCE(), encoder(query), encoder(key), relation=relation, **memory).backward()
        found.append((encoder.weight.grad, encoder.bias.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_side_alone_may_want_a_gradient(name: str, way: str) -> None:
    query, key, relation = _problem()
    objective = OBJECTIVES[name]()
    both = torch.autograd.grad(evaluate(objective, query, key, relation=relation, memory="dense"), (query, key))
    loss = evaluate(objective, query, key.detach(), relation=relation, **WAYS[way])
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], both[0], rtol=1e-10, atol=1e-12)
    loss = evaluate(objective, query.detach(), key, relation=relation, **WAYS[way])
    torch.testing.assert_close(torch.autograd.grad(loss, key)[0], both[1], rtol=1e-10, atol=1e-12)


def test_inputs_are_left_as_they_were() -> None:
    query, key, _ = _problem()
    positive, negative = torch.rand(7, 8), torch.rand(7, 8)
    before = [value.clone() for value in (query, key, positive, negative)]
    relation = Explicit(positive, negative).reweight(lambda near, far, rows, columns: (positive[rows], negative[rows]))
    for name in OBJECTIVES:
        for way in WAYS.values():
            evaluate(
                OBJECTIVES[name](two_sided=True), query, key, relation=Explicit(positive, negative), **way
            ).backward()
            evaluate(OBJECTIVES[name](), query, key, relation=relation, **way).backward()
    for value, copy in zip((query, key, positive, negative), before, strict=True):
        assert torch.equal(value, copy)
