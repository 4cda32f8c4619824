"""Half precision, autocast and cold temperatures, for every row objective of the catalogue."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Temperature
from nearfar.objectives import RowObjective
from support.batches import BATCHES, Part
from support.examples import all_examples
from support.outcomes import gradient_of, of_objective, tiles_of

EXAMPLES = all_examples()
MEMORIES = ["dense", "tiled"]


def _part(name: str, dtype: torch.dtype) -> Part:
    part = BATCHES[EXAMPLES[name].data]().whole()
    key = None if part.key is None else part.key.to(dtype)
    return dataclasses.replace(part, query=part.query.to(dtype), key=key)


def _outcome(objective: RowObjective, part: Part, memory: str, *, autocast: bool = False) -> list[Tensor]:
    query = part.query.clone().requires_grad_()
    key = None if part.key is None else part.key.clone().requires_grad_()
    with tiles_of(4), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = objective(query, key, relation=part.relation, memory=memory)
    loss.backward()
    leaves = [query] if key is None else [query, key]
    return [loss.detach(), *map(gradient_of, leaves), *of_objective(objective).values()]


def _made(name: str) -> RowObjective:
    torch.manual_seed(0)
    return EXAMPLES[name].make()


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EXAMPLES)
def test_half_precision_is_contrasted_in_float32(name: str, dtype: torch.dtype, memory: str) -> None:
    part = _part(name, dtype)
    found = _outcome(_made(name), part, memory)
    exact = dataclasses.replace(part, query=part.query.float(), key=None if part.key is None else part.key.float())
    expected = _outcome(_made(name), exact, memory)
    assert found[0].dtype == torch.float32
    assert found[0] == expected[0]
    step = torch.finfo(dtype).eps  # an input used twice sums its gradients in its own precision
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.isfinite(one).all()
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other.to(one.dtype), rtol=step, atol=step * scale)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_float32_is_float64_rounded(name: str, memory: str) -> None:
    found = _outcome(_made(name), _part(name, torch.float32), memory)
    expected = _outcome(_made(name).double(), _part(name, torch.float64), memory)
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 1e-4 * (1e-2 + other.double().norm())


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_autocast_does_not_reach_the_scores(name: str, memory: str) -> None:
    part = _part(name, torch.float32)
    expected = _outcome(_made(name), part, memory)
    found = _outcome(_made(name), part, memory, autocast=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_overflows_at_temperature_one_hundredth(name: str, dtype: torch.dtype, memory: str) -> None:
    objective = _made(name)
    if type(objective.temperature) is not Temperature:
        pytest.skip("it has no temperature, or one of its own kind")
    objective.temperature = Temperature(0.01, learned=objective.temperature.learned)
    for value in _outcome(objective, _part(name, dtype), memory):
        assert torch.isfinite(value).all()
