"""Temperatures: values that are refused, bounds, and coming back from them."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.contrast import Paired, Temperature, evaluate
from nearfar.contrast.temperature import get
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.05, math.nan, math.inf, -math.inf, "0", "nan", "-1", "inf"])
@pytest.mark.parametrize("cls", [InfoNCE, lambda temperature: get(temperature, 0.1)])
def test_no_temperature_at_all(cls: type, value: float | str) -> None:
    with pytest.raises(UsageError, match="finite number > 0"):
        cls(temperature=value)


@pytest.mark.parametrize("value", ["warm", "", "learned:", "learned:warm", "learnt:0.1", ":0.1", True, [0.1]])
def test_not_a_number(value: object) -> None:
    with pytest.raises(UsageError, match="must be a number"):
        InfoNCE(temperature=value)


@pytest.mark.parametrize("value", [0.001, 200.0])
def test_learned_outside_its_bounds(value: float) -> None:
    with pytest.raises(UsageError, match=r"outside its bounds \[0.01, 100.0\]"):
        Temperature(value, learned=True)
    assert Temperature(value).value == value  # a fixed one has no bounds


def test_forms() -> None:
    own = Temperature(0.3)
    assert get(own, 0.1) is own
    assert get(None, 0.1).value == 0.1
    assert get(2, 0.1).value == 2
    assert get("0.25", 0.1).value == 0.25
    assert not get("0.25", 0.1).learned
    assert get("learned", 0.1).value == pytest.approx(0.1)
    assert get("learned:0.07", 0.1).value == pytest.approx(0.07)
    assert get("learned:0.07", 0.1).learned
    assert len(list(get(0.1, 0.1).parameters())) == 0
    assert len(list(get("learned", 0.1).parameters())) == 1


def _loss(objective: InfoNCE, easy: bool) -> torch.Tensor:
    """Perfectly separated pairs want a colder temperature, swapped ones a warmer."""
    query = torch.eye(4)
    key = query if easy else query.roll(1, 0)
    return objective(query, key, relation=Paired())


@pytest.mark.parametrize(("easy", "bound"), [(True, 0.05), (False, 0.4)])
def test_held_at_its_bound_and_free_to_leave_it(easy: bool, bound: float) -> None:
    temperature = Temperature(0.1, learned=True, minimum=0.05, maximum=0.4)
    objective = InfoNCE(temperature=temperature)
    optimizer = torch.optim.SGD(objective.parameters(), lr=10.0)
    for _ in range(20):
        optimizer.zero_grad()
        _loss(objective, easy).backward()
        if easy:
            temperature.log_scale.grad -= 0.05  # the cost is all but 0 at the bound: push on regardless
        optimizer.step()
    assert temperature.value == pytest.approx(bound)
    held = _loss(objective, easy)
    exact = InfoNCE(temperature=bound)
    assert held.item() == pytest.approx(_loss(exact, easy).item(), rel=1e-5)
    for _ in range(5):
        optimizer.zero_grad()
        _loss(objective, not easy).backward()
        optimizer.step()
    back = temperature.value
    assert back > bound + 0.01 if easy else back < bound - 0.01


def test_gradient_at_the_bound_is_that_of_the_loss() -> None:
    query, key = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = InfoNCE(temperature=Temperature(0.01, learned=True)).double()
    with torch.no_grad():
        objective.temperature.log_scale += 3.0  # an optimiser's step beyond the bound
    loss = objective(query, key)
    assert objective.temperature.value == pytest.approx(0.01)
    (gradient,) = torch.autograd.grad(loss, objective.temperature.log_scale)
    step = 1e-5
    up, down = (InfoNCE(temperature=0.01 * math.exp(-s))(query, key).item() for s in (step, -step))
    assert gradient.item() == pytest.approx((up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_two_losses_of_one_temperature_in_one_graph(memory: str, reduction: str) -> None:
    """The clamp of the second call must not spoil what the first saved."""
    query, key = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    objective = InfoNCE(temperature="learned", reduction=reduction)
    losses = [evaluate(objective, query * s, key, memory=memory, tile_rows=2).sum() for s in (1.0, -1.0)]
    sum(losses).backward()
    together = objective.temperature.log_scale.grad.clone()
    apart = 0
    for sign in (1.0, -1.0):
        objective.zero_grad()
        evaluate(objective, query * sign, key, memory=memory, tile_rows=2).sum().backward()
        apart += objective.temperature.log_scale.grad
    torch.testing.assert_close(together, apart)


def test_printed() -> None:
    assert "0.05" in repr(InfoNCE())
    assert "learned in [0.01, 100]" in repr(InfoNCE(temperature="learned"))
