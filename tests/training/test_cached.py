from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import objectives
from nearfar.contrast import Paired
from nearfar.training import loss_of_chunks
from nearfar.training.cached import RandomState


class Network(nn.Module):
    """A small network with dropout, whose first layer is shared and one of whose parameters is not used."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 6)
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.dropout = nn.Dropout(0.3)
        self.to(dtype)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator).to(dtype) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.first(x)))) * self.frozen


def setting(dtype: torch.dtype) -> tuple[Network, nn.Module, list[Tensor], Callable[[Tensor], Tensor]]:
    network = Network(dtype)
    objective = objectives.get("info-nce", temperature="learned:0.1").to(dtype)
    items = torch.randn(20, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    relation = Paired(torch.arange(10), torch.arange(10))

    def loss(z: Tensor) -> Tensor:
        return objective(z[:10], z[10:], relation=relation)

    return network, objective, list(items.split([3, 3, 6, 1, 7])), loss


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [parameter.grad for module in modules for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradient_is_that_of_the_undivided_batch_with_dropout(
    dtype: torch.dtype, tolerance: float, scale: float
) -> None:
    network, objective, chunks, loss = setting(dtype)
    torch.manual_seed(7)
    expected = loss(torch.cat([network(chunk) for chunk in chunks]))
    (expected * scale).backward()
    wanted = gradients(network, objective)
    network.zero_grad()
    objective.zero_grad()
    torch.manual_seed(7)
    parameters = [*network.parameters(), *objective.parameters()]
    value = loss_of_chunks(network, chunks, loss, parameters)
    after = torch.get_rng_state()
    (value * scale).backward()
    assert torch.allclose(value, expected, rtol=tolerance, atol=0)
    found = gradients(network, objective)
    assert len(found) == len(wanted) == 5  # two weights, two biases, the temperature
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()
    assert network.unused.grad is None
    assert torch.equal(torch.get_rng_state(), after)  # the second pass draws nothing of its own


def test_a_backward_pass_for_each_chunk_gives_the_same() -> None:
    found = []
    for sharded in (False, True):
        network, objective, chunks, loss = setting(torch.float64)
        torch.manual_seed(3)
        parameters = [*network.parameters(), *objective.parameters()]
        (loss_of_chunks(network, chunks, loss, parameters, sharded=sharded) * 2).backward()
        found.append(gradients(network, objective))
    assert len(found[0]) == len(found[1]) > 4
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_dropout_is_really_on() -> None:
    network, _, chunks, loss = setting(torch.float64)
    torch.manual_seed(7)
    one = loss(torch.cat([network(chunk) for chunk in chunks]))
    other = loss(torch.cat([network(chunk) for chunk in chunks]))
    assert abs(one - other) > 1e-3


def test_gradients_accumulate() -> None:
    network, objective, chunks, loss = setting(torch.float64)
    network.eval()
    parameters = [*network.parameters(), *objective.parameters()]
    loss_of_chunks(network, chunks, loss, parameters).backward()
    once = [gradient.clone() for gradient in gradients(network, objective)]
    loss_of_chunks(network, chunks, loss, parameters).backward()
    for one, both in zip(once, gradients(network, objective), strict=True):
        assert torch.allclose(both, 2 * one)


def test_each_gradient_hook_fires_once_with_the_whole_gradient() -> None:
    """What a distributed wrapper waits for."""
    network, objective, chunks, loss = setting(torch.float64)
    network.eval()
    seen: list[Tensor] = []
    network.first.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    loss_of_chunks(network, chunks, loss, [*network.parameters(), *objective.parameters()]).backward()
    assert len(seen) == 1
    assert torch.equal(seen[0], network.first.weight.grad)


def test_parameters_that_share_one_gradient_tensor_are_not_added_twice() -> None:
    """autograd hands a + b one gradient for both."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.a + self.b)

    model = Sum()
    chunks = [torch.zeros(2, 2) for _ in range(3)]
    loss_of_chunks(model, chunks, lambda z: z.sum(), list(model.parameters())).backward()
    assert torch.equal(model.a.grad, torch.full((2, 2), 3.0))
    assert torch.equal(model.b.grad, torch.full((2, 2), 3.0))


def test_only_one_chunk_has_a_graph_at_a_time() -> None:
    network, objective, chunks, loss = setting(torch.float32)
    graphs: list[bool] = []

    def embed(chunk: Any) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return network(chunk)

    value = loss_of_chunks(embed, chunks, loss, [*network.parameters(), *objective.parameters()])
    assert graphs == [False] * 5
    value.backward()
    assert graphs == [False] * 5 + [True] * 5


def test_automatic_mixed_precision_is_the_same_in_both_passes() -> None:
    network, objective, chunks, loss = setting(torch.float32)
    kinds: list[torch.dtype] = []

    def embed(chunk: Any) -> Tensor:
        embedded = network(chunk)
        kinds.append(network.first(chunk).dtype)
        return embedded.float()

    torch.manual_seed(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss_of_chunks(embed, chunks, loss, [*network.parameters(), *objective.parameters()])
    value.backward()
    assert kinds == [torch.bfloat16] * 10
    cached = gradients(network, objective)
    network.zero_grad()
    objective.zero_grad()
    torch.manual_seed(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(torch.cat([network(chunk).float() for chunk in chunks])).backward()
    for one, other in zip(cached, gradients(network, objective), strict=True):
        assert (one - other).abs().max() <= 0.02 * other.abs().max() + 1e-6  # bfloat16 sums in another order


def test_without_gradients_only_the_loss_is_computed() -> None:
    network, objective, chunks, loss = setting(torch.float64)
    network.eval()
    with torch.no_grad():
        value = loss_of_chunks(network, chunks, loss, list(network.parameters()))
    assert not value.requires_grad
    assert torch.allclose(value, loss(torch.cat([network(chunk) for chunk in chunks])))
    for parameter in [*network.parameters(), *objective.parameters()]:
        parameter.requires_grad_(False)
    assert not loss_of_chunks(network, chunks, loss, list(network.parameters())).requires_grad


def test_it_cannot_be_differentiated_twice() -> None:
    network, _, chunks, loss = setting(torch.float64)
    value = loss_of_chunks(network, chunks, loss, list(network.parameters()))
    (first,) = torch.autograd.grad(value, network.first.weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        torch.autograd.grad(first.sum(), network.first.weight)


def test_random_state_comes_back() -> None:
    torch.manual_seed(3)
    state = RandomState.capture({"x": torch.zeros(2)}, [torch.ones(1)])
    expected = torch.rand(4)
    before = torch.get_rng_state()
    with state.restored():
        assert torch.equal(torch.rand(4), expected)
    assert torch.equal(torch.get_rng_state(), before)
