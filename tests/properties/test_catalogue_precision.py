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


def _is_plainly_cooled(name: str) -> bool:
    """Whether it has a temperature, and not one of a kind of its own."""
    return type(_made(name).temperature) is Temperature


@pytest.mark.parametrize(("dtype", "memory"), [(torch.float16, "tiled"), (torch.bfloat16, "dense")])
@pytest.mark.parametrize("name", EXAMPLES)
def test_half_precision_is_contrasted_in_float32(name: str, dtype: torch.dtype, memory: str) -> None:
    part = _part(name, dtype)
    exact = dataclasses.replace(part, query=part.query.float(), key=None if part.key is None else part.key.float())
    found, expected = (_outcome(_made(name), one, memory) for one in (part, exact))
    assert found[0].dtype == torch.float32
    assert found[0] == expected[0]
    step = torch.finfo(dtype).eps  # an input used twice sums its gradients in its own precision
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.isfinite(one).all()
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other.to(one.dtype), rtol=step, atol=step * scale)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_float32_is_float64_rounded_under_autocast_too(name: str, memory: str) -> None:
    """Autocast does not reach the scores."""
    found = _outcome(_made(name), _part(name, torch.float32), memory)
    expected = _outcome(_made(name).double(), _part(name, torch.float64), memory)
    autocast = _outcome(_made(name), _part(name, torch.float32), memory, autocast=True)
    for one, other, same in zip(found, expected, autocast, strict=True):
        assert (one.double() - other).norm() <= 1e-4 * (1e-2 + other.double().norm())
        torch.testing.assert_close(same, one, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if _is_plainly_cooled(name)])
def test_nothing_overflows_at_temperature_one_hundredth(name: str) -> None:
    for memory, dtype in (("dense", torch.float32), ("tiled", torch.float16)):
        objective = _made(name)
        objective.temperature = Temperature(0.01, learned=objective.temperature.learned)
        for value in _outcome(objective, _part(name, dtype), memory):
            assert torch.isfinite(value).all()
