"""Values that preference training is fed with: shaped rewards, ensembles' strength, spread."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nearfar.errors import UsageError
from nearfar.objectives.preference_anchored import kto_reference_point
from nearfar.objectives.preference_policy import group_advantages
from nearfar.objectives.preference_values import (
    contrastive_reward,
    flip_weak,
    grace_reward,
    preference_strength,
    reward_spread,
    target_rewards,
)


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_contrastive_reward() -> None:
    rewards, baseline = _drawn(0, 4).requires_grad_(), _drawn(1, 4, 5).requires_grad_()
    for aggregate, offset in (
        ("mean", baseline.mean(1)), ("max", baseline.amax(1)), (0.5, baseline.median(1).values),
    ):  # fmt: skip
        shaped = contrastive_reward(rewards, baseline, aggregate)
        torch.testing.assert_close(shaped, rewards - offset)
        assert torch.autograd.grad(shaped.sum(), baseline, allow_unused=True)[0] is None
    with pytest.raises(ValueError, match=r"baseline \[n, k\]"):
        contrastive_reward(rewards, baseline[:3])
    with pytest.raises(UsageError, match="aggregate"):
        contrastive_reward(rewards, baseline, "median")


def test_errors_of_a_reward_model_scale_the_difference_and_cancel_their_offset() -> None:
    """A binary reward that flips 1 to 0 at the rate e1 and 0 to 1 at e0: (1 - e1 - e0) times the true difference."""
    e1, e0 = 0.3, 0.1
    generator = torch.Generator().manual_seed(2)
    true, base = (torch.rand(200_000, generator=generator) < p for p in (0.7, 0.4))

    def seen(reward: Tensor) -> Tensor:
        flips = torch.rand(reward.shape, generator=generator)
        return torch.where(reward, flips >= e1, flips < e0).double()

    found = contrastive_reward(seen(true), seen(base)[:, None]).mean()
    expected = (1 - e1 - e0) * (0.7 - 0.4)
    assert found.item() == pytest.approx(expected, abs=3 * math.sqrt(0.5 / 200_000))
    assert seen(true).mean().item() == pytest.approx((1 - e1 - e0) * 0.7 + e0, abs=0.005)


GROUP = torch.tensor([4, 1, 4, 1, 1, 7])


@pytest.mark.parametrize("cross_from", ["query", "positive"])
@pytest.mark.parametrize("supervised", [True, False])
def test_grace_reward(supervised: bool, cross_from: str) -> None:
    query, positive, negative = (_drawn(seed, 6, 4) for seed in (3, 4, 5))
    expected = []
    for i in range(6):
        mates = [j for j in range(6) if GROUP[j] == GROUP[i] and j != i]
        reward = cosine_similarity(query[i], positive[i], dim=0)
        if supervised:
            reward = reward - cosine_similarity(query[i], negative[i], dim=0)
        if mates:
            alike = [cosine_similarity(positive[i], positive[j], dim=0) for j in mates]
            reward = reward + 0.3 * sum(alike) / len(alike)
        across = []
        for g in {1, 4, 7} - {int(GROUP[i])}:
            members = [j for j in range(6) if GROUP[j] == g]
            if supervised:
                asked = query[i] if cross_from == "query" else positive[i]
                across.append(max(cosine_similarity(asked, positive[j], dim=0) for j in members))
            else:
                across.append(sum(cosine_similarity(positive[i], query[j], dim=0) for j in members) / len(members))
        expected.append((reward - 0.5 * sum(across) / len(across)) / 0.2)
    more = {"negative": negative} if supervised else {}
    found = grace_reward(
        query, positive, **more, group=GROUP, tau=0.2, consistency=0.3, cross_group=0.5, cross_from=cross_from
    )
    torch.testing.assert_close(found, torch.stack(expected))


def test_shared_queries_make_the_negatives_cancel_in_the_advantage() -> None:
    query, positive, negative = (_drawn(seed, 6, 4) for seed in (6, 7, 8))
    first = torch.tensor([0, 1, 0, 1, 1, 5])
    advantages = [
        group_advantages(
            grace_reward(query[first], positive, negative[first], group=GROUP, **more), GROUP, form="centered"
        )
        for more in ({}, {"cross_group": 0.0}, {"cross_from": "positive"})
    ]
    without = group_advantages(
        grace_reward(query[first], positive, torch.zeros_like(negative), group=GROUP), GROUP, form="centered"
    )
    torch.testing.assert_close(advantages[0], without, rtol=0, atol=1e-12)
    torch.testing.assert_close(advantages[0], advantages[1], rtol=0, atol=1e-12)
    assert (advantages[0] - advantages[2]).norm() > 1e-2


def test_edges_of_the_grace_reward() -> None:
    query, positive = _drawn(9, 3, 4), _drawn(10, 3, 4)
    cut = torch.tensor([False, True, False])
    one = grace_reward(query, positive, query, group=torch.zeros(3, dtype=torch.long), truncated=cut)
    assert one[1] == -1
    assert one.isfinite().all()
    lonely = grace_reward(query, torch.zeros(3, 4).double(), query, group=torch.arange(3))
    torch.testing.assert_close(lonely, torch.full((3,), -10.0).double())
    with pytest.raises(ValueError, match=r"\[n, d\] alike"):
        grace_reward(query, positive[:2], group=torch.zeros(3))
    with pytest.raises(UsageError, match="cross_from"):
        grace_reward(query, positive, group=torch.zeros(3), cross_from="negative")


def test_strength_and_flipping() -> None:
    chosen, rejected = _drawn(11, 5, 6), _drawn(12, 5, 6)
    mean, deviation = preference_strength(chosen, rejected)
    for i in range(6):
        apart = [float(chosen[m, i] - rejected[m, i]) for m in range(5)]
        centre = sum(apart) / 5
        assert mean[i].item() == pytest.approx(centre)
        assert deviation[i].item() == pytest.approx(math.sqrt(sum((a - centre) ** 2 for a in apart) / 5))
    better, worse, margin = flip_weak(chosen[0], rejected[0], mean)
    for i in range(6):
        pair = (chosen[0, i], rejected[0, i])
        assert (better[i], worse[i]) == (pair if mean[i] >= 0 else pair[::-1])
    assert (margin == mean.abs()).all()
    assert (mean < 0).any()
    assert (mean > 0).any()
    with pytest.raises(ValueError, match=r"\[m, n\]"):
        preference_strength(chosen[0], rejected[0])
    with pytest.raises(ValueError, match=r"\[n\] alike"):
        flip_weak(chosen[0], rejected[0], mean[:2])


def test_reward_spread() -> None:
    rewards = _drawn(13, 3, 4).requires_grad_()
    expected = torch.stack(
        [
            sum(torch.sigmoid((row[i] - row[j]).abs()) for i in range(4) for j in range(i)) * 2 / 16
            for row in rewards
        ]
    ).mean()  # fmt: skip
    found = reward_spread(rewards)
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(value, rewards)[0] for value in (found, expected))
    torch.testing.assert_close(one, other)
    equal = torch.ones(2, 4, requires_grad=True)
    assert reward_spread(equal).item() == pytest.approx(3 / 8)
    assert torch.autograd.grad(reward_spread(equal), equal)[0].norm() == 0
    assert reward_spread(torch.ones(2, 1)).item() == 0
    assert reward_spread(1e3 * torch.arange(4.0)[None]).item() == pytest.approx(3 / 4)


def test_the_reference_point_of_kto() -> None:
    assert kto_reference_point(torch.tensor([1.0, 4.0])).item() == 2.5
    assert kto_reference_point(torch.tensor([1.0, -4.0])).item() == 0
    assert kto_reference_point(torch.zeros(0)).item() == 0
    assert not kto_reference_point(torch.ones(2, requires_grad=True)).requires_grad


def test_target_rewards() -> None:
    low, high = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 3.0])
    found = target_rewards(torch.tensor([0.2, 0.3, 0.5]), low, high, "linf")
    assert found.tolist() == pytest.approx([0.6 * 2 - 1, 0.9 * 4, 3.0])
    only = target_rewards(torch.tensor([0.0, 1.0, 0.0]), low, high)
    assert only.tolist() == pytest.approx([-1.0, 4.0, 2.0])
    with pytest.raises(ValueError, match="sum to 1"):
        target_rewards(torch.tensor([0.5, 0.6, 0.1]), low, high)
    with pytest.raises(ValueError, match=r"\[k\] alike"):
        target_rewards(torch.tensor([0.5, 0.5]), low, high)
    with pytest.raises(UsageError, match="form"):
        target_rewards(torch.tensor([0.2, 0.3, 0.5]), low, high, "l1")
