"""Votes of ensembles on preferences, their groups, and what is done about them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.alignment.reward.ensemble import votes_of_heads, votes_of_models
from nearfar.alignment.reward.strength import (
    AMBIGUOUS,
    INCORRECT,
    NORMAL,
    STRONG,
    Vote,
    Votes,
    ensemble_votes,
    strength_groups,
    treatment,
)
from nearfar.errors import UsageError
from nearfar.objectives import RewardModeling
from nearfar.objectives.preference_values import flip_weak
from nearfar.training.steps import seeded, train_steps


class Recorder:
    """Members that remember what they learned from, and give a pair's row as its strength."""

    def __init__(self) -> None:
        self.members: list[tuple[set[int], int]] = []
        self.judged: list[set[int]] = []

    def __call__(self, rows: Tensor, seed: int) -> Vote:
        self.members.append((set(rows.tolist()), seed))

        def vote(judged: Tensor) -> tuple[Tensor, Tensor]:
            self.judged.append(set(judged.tolist()))
            return judged.double() + seed, torch.full((len(judged),), float(seed), dtype=torch.float64)

        return vote


@pytest.mark.parametrize(("pairs", "folds"), [(7, 2), (9, 3), (5, 5)])
def test_nobody_judges_what_it_learned_from_and_every_pair_has_all_votes(pairs: int, folds: int) -> None:
    fit = Recorder()
    found = ensemble_votes(fit, pairs, votes=4, folds=folds, seed=3)
    assert found.chosen.shape == found.rejected.shape == (4, pairs)
    assert len(fit.members) == 4 * folds
    assert len({seed for _, seed in fit.members}) == 4 * folds
    for (learned, _), judged in zip(fit.members, fit.judged, strict=True):
        assert not learned & judged
        assert learned | judged == set(range(pairs))
    torch.testing.assert_close(found.strength, torch.arange(pairs).double())
    torch.testing.assert_close(found.deviation, torch.zeros(pairs).double())


def test_one_fold_is_the_papers_ensemble() -> None:
    fit = Recorder()
    ensemble_votes(fit, 6, votes=3, folds=1)
    assert all(learned == set(range(6)) for learned, _ in fit.members)


@pytest.mark.parametrize("wrong", [{"votes": 0}, {"folds": 0}, {"folds": 7}])
def test_ensembles_that_there_are_not(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        ensemble_votes(Recorder(), 6, **wrong)


def test_groups_of_strength() -> None:
    strength = torch.randn(20, generator=torch.Generator().manual_seed(0))
    found = strength_groups(strength)
    expected = torch.full((20,), NORMAL)
    for place, row in enumerate(sorted(range(20), key=lambda row: float(strength[row]))):
        expected[row] = INCORRECT if place < 4 else AMBIGUOUS if place < 8 else STRONG if place >= 18 else NORMAL
    assert torch.equal(found, expected)
    assert strength_groups(torch.zeros(0)).tolist() == []
    assert strength_groups(torch.ones(1)).tolist() == [NORMAL]
    assert strength_groups(torch.zeros(10)).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 3]


def test_treatments() -> None:
    strength = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    nothing = treatment(strength)
    assert not nothing.flipped.any()
    assert not nothing.margin.any()
    assert not nothing.smoothing.any()
    both = treatment(strength, flip="negative", margin=True, margin_scale=0.5)
    assert both.flipped.tolist() == [True, True] + [False] * 8
    torch.testing.assert_close(both.margin, strength.abs() / 2)
    soft = treatment(strength, margin=True, smoothing=0.1)
    torch.testing.assert_close(soft.margin, strength)
    torch.testing.assert_close(soft.smoothing, torch.tensor([0.1, 0.1] + [0.0] * 8))
    assert treatment(strength, smoothing=0.2, smoothed="strong").smoothing.nonzero().flatten().tolist() == [9]
    assert treatment(strength, smoothing=0.2, smoothed="all").smoothing.min() > 0.19
    turned = treatment(strength, flip="negative", smoothing=0.1)
    assert not turned.smoothing.any(), "what was turned is not doubted"
    assert treatment(-strength, flip="lowest").flipped.tolist() == [False] * 8 + [True, True]
    chosen, rejected = torch.randn(2, 10, 3)
    sides = both.sides(chosen, rejected)
    expected = flip_weak(chosen[:, 0], rejected[:, 0], strength)
    assert torch.equal(sides[0][:, 0], expected[0])
    assert torch.equal(sides[1][:, 0], expected[1])
    some = both[torch.tensor([1, 4])]
    assert some.flipped.tolist() == [True, False]
    for wrong in ({"flip": "all"}, {"smoothed": "none"}, {"smoothing": 0.5}):
        with pytest.raises(UsageError):
            treatment(strength, **wrong)


def test_a_margin_outside_the_logistic_changes_no_weight_and_one_inside_does() -> None:
    features = torch.randn(2, 40, 5, generator=torch.Generator().manual_seed(1))
    margin = torch.rand(40, generator=torch.Generator().manual_seed(2))

    def trained(where: str) -> Tensor:
        with seeded(0):
            model = torch.nn.Linear(5, 1)
            objective = RewardModeling()

            def loss(rows: Tensor) -> Tensor:
                chosen, rejected = model(features[:, rows]).squeeze(-1)
                asked = {"margin": margin[rows]} if where == "inside" else {}
                cost: Tensor = objective(chosen, rejected, **asked)
                return cost - margin[rows].mean() if where == "outside" else cost

            train_steps(loss, [model], [torch.arange(40)] * 5, learning_rate=0.1)
        return torch.cat([model.weight.flatten(), model.bias])

    assert torch.equal(trained("outside"), trained("nowhere"))
    assert not torch.equal(trained("inside"), trained("nowhere"))


def test_heads_on_states_find_wrong_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    states = 3 + 5 * torch.randn(300, 2, 6, generator=generator)
    better = states[..., 0].argmax(1)
    states = torch.stack([states[torch.arange(300), better], states[torch.arange(300), 1 - better]], 1)
    wrong = torch.rand(300, generator=generator) < 0.15
    states[wrong] = states[wrong].flip(1)
    found = votes_of_heads(states, votes=3, learning_rate=0.01, seed=1)
    assert torch.equal(found.chosen, votes_of_heads(states, votes=3, learning_rate=0.01, seed=1).chosen)
    assert float(wrong[strength_groups(found.strength) == INCORRECT].float().mean()) > 0.6
    assert float(wrong[strength_groups(found.strength) == STRONG].float().mean()) < 0.1
    with pytest.raises(UsageError, match=r"\[n, 2, d\]"):
        votes_of_heads(states[:, 0])


def test_votes_of_models() -> None:
    found = votes_of_models([torch.tensor([3.0, 1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])])
    assert isinstance(found, Votes)
    assert found.strength.tolist() == [1.0, -0.5]
    assert found.deviation.tolist() == [1.0, 1.5]
