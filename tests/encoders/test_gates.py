"""Gates of class pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.encoders.gates import ClassPairGate
from nearfar.errors import UsageError


@pytest.fixture(params=["mean", "product"])
def gate(request: pytest.FixtureRequest) -> ClassPairGate:
    torch.manual_seed(0)
    return ClassPairGate(5, 7, embedding=6, hidden=9, fuse=request.param)


def test_a_pair_has_one_gate_whatever_the_order(gate: ClassPairGate) -> None:
    first, second = torch.tensor([0, 1, 4, 0]), torch.tensor([1, 0, 4, 2])
    for mode in (True, False):
        gate.train(mode)
        opened = gate(first, second)
        assert opened.shape == (4, 7)
        assert ((opened > 0) & (opened < 1)).all()
        torch.testing.assert_close(opened[0], opened[1])
        assert (opened[0] - opened[2]).abs().max() > 1e-3
        assert (opened[0] - opened[3]).abs().max() > 1e-3
    torch.testing.assert_close(opened, gate(second, first))


def test_the_product_is_of_the_gates_of_the_classes() -> None:
    gate = ClassPairGate(4, 3, embedding=6, hidden=9, fuse="product").eval()
    own = gate(torch.tensor([1, 2]), torch.tensor([1, 2])).sqrt()
    torch.testing.assert_close(gate(torch.tensor([1]), torch.tensor([2]))[0], own[0] * own[1])


def test_every_part_of_it_learns(gate: ClassPairGate) -> None:
    gate(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])).sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in gate.named_parameters() if n != "layers.2.bias"
    )
    assert gate.table.weight.grad is not None
    assert gate.table.weight.grad[3:].abs().sum() == 0  # classes that were not asked for


@pytest.mark.parametrize("arguments", [{"classes": 0}, {"hidden": 0}, {"fuse": "sum"}])
def test_gates_that_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        ClassPairGate(**{"classes": 3, "dimension": 4} | arguments)
