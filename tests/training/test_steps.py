"""Training in a few lines: everything from the seed, batches, the optimisers, hooks, losses that are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.errors import TrainingError
from nearfar.training.steps import random_batches, seeded, train_steps


def _losses(batch: Tensor, model: nn.Linear) -> Tensor:
    return (model.weight[0, batch] - 1).square().sum()


def test_the_seed_decides_inside_and_changes_nothing_outside() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = []
    for seed in (1, 1, 2):
        with seeded(seed) as generator:
            found.append((torch.rand(3), torch.rand(3, generator=generator)))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_data_are_no_function_of_the_initial_weights() -> None:
    with seeded(3) as generator:
        assert not torch.equal(torch.rand(4), torch.rand(4, generator=generator))


def test_the_generator_does_not_depend_on_other_draws() -> None:
    found = []
    for draws in (0, 17):
        with seeded(1) as generator:
            torch.rand(draws)
            found.append(torch.rand(2, generator=generator))
    assert torch.equal(*found)


def test_what_is_drawn_outside_goes_on_after_an_error() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError), seeded(1):
        _ = 1 / 0
    assert torch.equal(torch.rand(1), expected)


def test_batches_hold_different_items() -> None:
    batches = list(random_batches(10, 4, 50, torch.Generator().manual_seed(0)))
    assert len(batches) == 50
    assert all(len(set(batch.tolist())) == 4 for batch in batches)
    assert {item for batch in batches for item in batch.tolist()} == set(range(10))
    (everyone,) = random_batches(3, 8, 1, torch.Generator())
    assert sorted(everyone.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("optimizer", "made", "options"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
    ],
)
def test_the_steps_are_those_of_the_optimizer(
    optimizer: str, made: type[torch.optim.Optimizer], options: dict[str, float]
) -> None:
    torch.manual_seed(0)
    model, expected = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
    expected.load_state_dict(model.state_dict())
    batches = [torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([3])]
    losses = train_steps(
        lambda batch: _losses(batch, model),
        [model],
        batches,
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.1,
        **options,
    )
    by_hand = made(expected.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    values = []
    for batch in batches:
        value = _losses(batch, expected)
        values.append(value.item())
        by_hand.zero_grad()
        value.backward()
        by_hand.step()
    torch.testing.assert_close(losses, values)
    torch.testing.assert_close(model.weight, expected.weight)


def test_the_hook_sees_the_new_weights_and_the_modes_are_kept() -> None:
    model, dropout, seen = nn.Linear(4, 1, bias=False), nn.Dropout(), []
    before = model.weight.detach().clone()

    def loss(batch: Tensor) -> Tensor:
        assert model.training
        assert dropout.training
        return _losses(batch, model)

    def after(step: int) -> None:
        seen.append(step)
        assert not torch.equal(model.weight, before)

    train_steps(loss, [model, dropout], [torch.arange(4)] * 3, after_step=after)
    assert seen == [1, 2, 3]
    assert not model.training
    assert not dropout.training


def test_a_parameter_named_twice_and_one_that_is_frozen() -> None:
    model, frozen = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False).requires_grad_(False)
    kept = frozen.weight.clone()
    train_steps(lambda batch: _losses(batch, model) + _losses(batch, frozen), [model, model, frozen], [torch.arange(4)])
    assert torch.equal(frozen.weight, kept)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    model = nn.Linear(4, 1, bias=False)
    weights = []

    def loss(batch: Tensor) -> Tensor:
        assert model.training
        weights.append(model.weight.detach().clone())
        return _losses(batch, model) * (float("nan") if len(weights) == 2 else 1)

    with pytest.raises(TrainingError, match="step 2 is nan"):
        train_steps(loss, [model], [torch.arange(4)] * 3)
    assert not model.training
    assert len(weights) == 2
    assert torch.equal(model.weight, weights[1])
