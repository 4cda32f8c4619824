"""Weights that processes share out among them: what can be said on one process. See test_align_processes.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nearfar.alignment.reference import reference_scores
from nearfar.alignment.scores import response_scores
from nearfar.alignment.sharding import layers, shard, told_by_launcher
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.language_model import tiny_language_model
from nearfar.errors import ModelError, UsageError
from nearfar.training import processes
from nearfar.training.sharding import average_gradients, clip_gradients, gradient_norm, optimiser_part, part, whole

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def rows() -> list[TokenisedRow]:
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> Tensor:
        return torch.randint(20, (count,), generator=generator, dtype=torch.int32).numpy()

    return [TokenisedRow(drawn(4), (drawn(3), drawn(2))), TokenisedRow(drawn(2), (drawn(1), drawn(5)))]


def model(*, tied: bool = True) -> nn.Module:
    return tiny_language_model(vocabulary=20, width=16, tied=tied).train()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shared_prefix", [False, True])
def test_scores_and_gradients_are_those_of_whole_weights(shared_prefix: bool, tied: bool) -> None:
    plain, sharded = model(tied=tied), model(tied=tied)
    shard(sharded, CPU)
    assert all(isinstance(each, DTensor) for each in sharded.parameters())
    asked = {"shared_prefix": shared_prefix, "tokens": True, "hidden": True}
    for _ in range(2):  # the second pass adds to the first one's gradient
        expected, found = response_scores(plain, rows(), **asked), response_scores(sharded, rows(), **asked)
        torch.testing.assert_close(found.tokens, expected.tokens)
        torch.testing.assert_close(found.hidden.response, expected.hidden.response)
        with torch.no_grad():
            torch.testing.assert_close(response_scores(sharded, rows()).log_probability, expected.log_probability)
        for scores in (expected, found):
            scores.log_probability.square().sum().backward()
    for (name, one), (again, other) in zip(plain.named_parameters(), sharded.named_parameters(), strict=True):
        assert name == again
        torch.testing.assert_close(other.grad.full_tensor(), one.grad)


@pytest.mark.usefixtures("group")
def test_in_half_precision_weights_and_gradients_stay_single() -> None:
    plain, sharded = model(), model()
    shard(sharded, CPU, half=True)
    expected, found = response_scores(plain, rows()).log_probability, response_scores(sharded, rows()).log_probability
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)
    found.sum().backward()
    for parameter in sharded.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32


@pytest.mark.usefixtures("group")
def test_the_reference_is_looked_up_by_the_same_name(tmp_path: Path) -> None:
    sharded = model()
    expected = reference_scores(sharded, rows(), cache=tmp_path)
    shard(sharded, CPU)
    found = reference_scores(sharded, rows(), cache=tmp_path)
    assert (expected.computed, found.computed) == (4, 0)
    elsewhere = reference_scores(sharded, rows(), cache=tmp_path / "other", only_reads=True)
    assert elsewhere.computed == 4
    assert not (tmp_path / "other").exists()
    torch.testing.assert_close(elsewhere.log_probability, expected.log_probability)


@pytest.mark.usefixtures("group")
def test_gradients_of_shared_and_other_parameters_are_clipped_together() -> None:
    sharded, other = model(), nn.Linear(3, 2)
    shard(sharded, CPU)
    (response_scores(sharded, rows()).log_probability.sum() + other(torch.ones(3)).sum()).backward()
    parameters = [*sharded.parameters(), *other.parameters()]
    flat = torch.cat([whole(each.grad).reshape(-1) for each in parameters])
    norm = gradient_norm(parameters)
    torch.testing.assert_close(norm, flat.norm())
    clip_gradients(parameters, 0.5, norm)
    clipped = torch.cat([whole(each.grad).reshape(-1) for each in parameters])
    torch.testing.assert_close(clipped, flat * 0.5 / flat.norm(), rtol=1e-4, atol=1e-7)
    other.weight.grad = None
    average_gradients(parameters)
    assert not other.weight.grad.any()


@pytest.mark.usefixtures("group")
def test_an_optimisers_state_goes_both_ways() -> None:
    sharded = model()
    shard(sharded, CPU)
    optimiser = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    response_scores(sharded, rows()).log_probability.sum().backward()
    optimiser.step()
    state = whole(optimiser.state_dict())
    assert not any(isinstance(value, DTensor) for entry in state["state"].values() for value in entry.values())
    again = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    again.load_state_dict(optimiser_part(state, again))
    for parameter in sharded.parameters():
        for name, value in optimiser.state[parameter].items():
            assert type(again.state[parameter][name]) is type(value)
            torch.testing.assert_close(whole(again.state[parameter][name]), whole(value))
    assert part(torch.ones(2), torch.zeros(2)).tolist() == [1, 1]


def test_layers_are_what_the_architecture_keeps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    assert layers(made) == list(made.model.layers)[::-1]
    monkeypatch.setattr(made, "_no_split_modules", None)
    with pytest.raises(ModelError, match="layers of LlamaForCausalLM are not known"):
        layers(made)


@pytest.mark.usefixtures("group")
def test_what_cannot_be_sharded_is_said() -> None:
    made = model()
    made.register_parameter("scale", nn.Parameter(torch.ones(())))
    with pytest.raises(ModelError, match="weights of LlamaForCausalLM cannot be sharded"):
        shard(made, CPU)


def test_the_launcher_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with told_by_launcher() as told:
        assert not told
    monkeypatch.setenv(processes.SHARDS, "true")
    with told_by_launcher() as told:
        assert told
        assert processes.SHARDS not in os.environ
    assert os.environ[processes.SHARDS] == "true"
    with pytest.raises(UsageError, match="for nearfar align"):
        processes.start("cpu")
