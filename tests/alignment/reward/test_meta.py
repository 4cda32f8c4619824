"""MetaRM's step, and the contrastive term of a reward model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from nearfar.alignment.reward.contrast import RewardContrast, contrasted
from nearfar.alignment.reward.meta import at, raised
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import UsageError
from nearfar.objectives import RewardModeling
from nearfar.objectives.preference_values import reward_spread


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _model() -> Perceptron:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Perceptron((4, 6, 1)).double()


def test_the_gradient_is_that_at_the_raised_parameters_and_the_parameters_stay() -> None:
    model, meta, pairs, rate = _model(), _drawn(1, 5, 3, 4), _drawn(2, 2, 7, 4), 0.7
    before = copy.deepcopy(model.state_dict())
    ahead = raised(model, reward_spread(model(meta).squeeze(-1)), rate)
    loss = RewardModeling()(*at(ahead, model, pairs).squeeze(-1))
    found = torch.autograd.grad(loss, list(model.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    moved = copy.deepcopy(model)
    gradients = torch.autograd.grad(reward_spread(moved(meta).squeeze(-1)), list(moved.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(moved.parameters(), gradients, strict=True):
            parameter.add_(rate * gradient)
    assert reward_spread(moved(meta).squeeze(-1)) > reward_spread(model(meta).squeeze(-1))
    expected_loss = RewardModeling()(*moved(pairs).squeeze(-1))
    expected = torch.autograd.grad(expected_loss, list(moved.parameters()))
    torch.testing.assert_close(loss, expected_loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    plain = torch.autograd.grad(RewardModeling()(*model(pairs).squeeze(-1)), list(model.parameters()))
    assert max(float((a - b).abs().max()) for a, b in zip(found, plain, strict=True)) > 1e-4


def test_what_is_frozen_or_unused_stays() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "other": nn.Linear(3, 1)}).double()
    model["used"].bias.requires_grad_(False)
    ahead = raised(model, reward_spread(model["used"](_drawn(3, 2, 4, 3)).squeeze(-1)), 1.0)
    same = {name: value is dict(model.named_parameters())[name] for name, value in ahead.items()}
    assert same == {"used.weight": False, "used.bias": True, "other.weight": True, "other.bias": True}
    model.requires_grad_(False)
    still = raised(model, reward_spread(model["used"](_drawn(3, 2, 4, 3)).squeeze(-1)), 1.0)
    assert all(value is dict(model.named_parameters())[name] for name, value in still.items())
    with pytest.raises(UsageError, match="rate"):
        raised(model, torch.zeros(()), 0.0)


def test_one_response_says_nothing() -> None:
    model = _model()
    ahead = raised(model, reward_spread(model(_drawn(4, 3, 1, 4)).squeeze(-1)), 1.0)
    for name, value in model.named_parameters():
        assert torch.equal(ahead[name], value)


@pytest.mark.parametrize("form", ["simcse", "simcse-diff"])
def test_simcse_by_loops(form: str) -> None:
    views = [(_drawn(seed, 3, 5), _drawn(seed + 10, 3, 5)) for seed in (5, 6)]
    items = [torch.cat([c - r, r - c]) if form.endswith("diff") else torch.cat([c, r]) for c, r in views]
    costs = []
    for i in range(6):
        scores = torch.stack([cosine_similarity(items[0][i], items[1][j], dim=0) / 0.2 for j in range(6)])
        costs.append(torch.logsumexp(scores, 0) - scores[i])
    found = RewardContrast(form, temperature=0.2)(*views)
    torch.testing.assert_close(found, torch.stack(costs).mean(), rtol=1e-12, atol=1e-12)
    made = contrasted(*views[0], differences=form.endswith("diff"))
    opposite = cosine_similarity(made[0], made[3], dim=0)
    assert (float(opposite) == pytest.approx(-1)) == form.endswith("diff")


def test_equal_views_cost_less_than_others() -> None:
    one, other = (_drawn(7, 4, 8), _drawn(8, 4, 8)), (_drawn(9, 4, 8), _drawn(10, 4, 8))
    for form in ("simcse", "swav"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            term = RewardContrast(form, dimension=8, prototypes=5).double()
        assert term(one, one) < term(one, other)


def test_contrasts_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="form"):
        RewardContrast("cosine")
    with pytest.raises(UsageError, match="dimension"):
        RewardContrast("swav-diff")
    with pytest.raises(ValueError, match=r"\[n, d\] alike"):
        RewardContrast()((_drawn(0, 2, 3), _drawn(0, 3, 3)), (_drawn(0, 2, 3), _drawn(0, 2, 3)))
