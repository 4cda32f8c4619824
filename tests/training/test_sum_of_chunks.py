"""Losses that are sums over chunks; and checkpoints without what the model began with."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from nearfar.errors import TrainingError
from nearfar.training.cached import accumulate_chunks, sum_of_chunks
from nearfar.training.method import Method
from nearfar.training.progress import Progress
from nearfar.training.weights import load_weights, save_weights


class Network(Method):
    """With dropout, a frozen and an unused parameter, tied weights and a buffer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)
        self.dropout = nn.Dropout(0.3)
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("passing", torch.zeros(()), persistent=False)
        self.double()

    def cost(self, x: Tensor) -> Tensor:
        return (self.second(self.dropout(torch.tanh(self.first(x)))) * self.frozen).square().sum()


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


CHUNKS = list(torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).split([2, 4, 3]))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_value_and_gradient_are_those_of_the_sum(scale: float) -> None:
    network = Network()
    torch.manual_seed(7)
    expected = torch.stack([network.cost(chunk) for chunk in CHUNKS]).sum()
    (expected * scale).backward()
    wanted = gradients(network)
    network.zero_grad()
    torch.manual_seed(7)
    value = sum_of_chunks(network.cost, CHUNKS, list(network.parameters()))
    (value * scale).backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for one, other in zip(gradients(network), wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_backward_pass_for_each_chunk_gives_the_same() -> None:
    network = Network()
    torch.manual_seed(7)
    expected = torch.stack([network.cost(chunk) for chunk in CHUNKS]).sum()
    (expected * 2).backward()
    wanted = gradients(network)
    network.zero_grad()
    torch.manual_seed(7)
    value = accumulate_chunks(network.cost, CHUNKS, 2)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for one, other in zip(gradients(network), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        assert not accumulate_chunks(network.cost, CHUNKS, 2).requires_grad


def test_gradients_accumulate_and_hooks_fire_once() -> None:
    network = Network().eval()
    seen: list[Tensor] = []
    network.first.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    for _ in range(2):
        sum_of_chunks(network.cost, CHUNKS, list(network.parameters())).backward()
    assert len(seen) == 2
    torch.testing.assert_close(seen[1], 2 * seen[0])


def test_only_one_chunk_has_a_graph_at_a_time() -> None:
    network = Network()
    alive = 0
    most = 0

    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            nonlocal alive
            alive -= 1
            return gradient

    sum_of_chunks(lambda chunk: Kept.apply(network.cost(chunk)), CHUNKS, list(network.parameters())).backward()
    assert (most, alive) == (1, 0)


def test_without_gradients_only_the_sum_is_computed() -> None:
    network = Network().eval()
    with torch.no_grad():
        value = sum_of_chunks(network.cost, CHUNKS, list(network.parameters()))
    assert not value.requires_grad
    assert value.item() == pytest.approx(sum(network.cost(chunk).item() for chunk in CHUNKS))


def test_checkpoints_leave_out_what_the_model_began_with(tmp_path) -> None:
    network = Network(seed=1)
    network.keeps_frozen = True
    network.count += 3
    save_weights(network, tmp_path / "weights.safetensors")
    held = load_file(tmp_path / "weights.safetensors")
    assert set(held) == {"first.weight", "first.bias", "second.weight", "second.bias", "unused", "count"}
    other = Network(seed=2)
    other.keeps_frozen = True
    frozen = other.frozen.clone()
    load_weights(other, tmp_path / "weights.safetensors")
    assert torch.equal(other.first.weight, network.first.weight)
    assert torch.equal(other.frozen, frozen)
    assert int(other.count) == 3
    whole = Network(seed=2)
    save_weights(whole, tmp_path / "whole.safetensors")
    assert "frozen" in load_file(tmp_path / "whole.safetensors")
    with pytest.raises(TrainingError, match="another method"):
        load_weights(other, tmp_path / "whole.safetensors")


def test_the_progress_line_shows_what_a_method_names(tmp_path) -> None:
    told = StringIO()
    progress = Progress(Console(file=told, width=200), shown={"margin": "the margin", "absent": "absent"})
    state = TrainerState(global_step=1, max_steps=2, is_world_process_zero=True)
    arguments, control = TrainingArguments(output_dir=str(tmp_path)), TrainerControl()
    progress.on_train_begin(arguments, state, control)
    progress.on_log(arguments, state, control, {"loss": 0.5, "margin": 2.25})
    progress.on_evaluate(arguments, state, control, {})
    assert "loss 0.5000  the margin 2.25" in told.getvalue()
    assert "absent" not in told.getvalue()
