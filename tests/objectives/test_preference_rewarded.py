"""Preferences with rewards: regressions of the margin, values, and what their minimum is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.objectives import DPO, DROP, DROV, IPO, CoPG, GroupCoPG, get
from support.preferences import pairs


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    gradients = (torch.autograd.grad(value, inputs, retain_graph=True) for value in (one, other))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
        assert a.norm() > 1e-9


def test_copg_is_a_regression_of_the_margin() -> None:
    batch = pairs(32, 6)
    reward = {"chosen_reward": torch.randn(6).double(), "rejected_reward": torch.randn(6).double()}
    beta = 0.3
    loss = CoPG(beta)(*batch.policy, **batch.references, **reward)
    w, r = batch.chosen - batch.reference_chosen, batch.rejected - batch.reference_rejected
    difference = reward["chosen_reward"] - reward["rejected_reward"]
    square = (difference - beta * (w - r)).square() / (2 * beta) - difference.square() / (2 * beta)
    _same(loss, square.mean(), batch.policy)
    own, other = (reward[f"{side}_reward"] - beta / 2 * d for side, d in (("chosen", w), ("rejected", r)))
    _same(loss, -((own - other) * w + (other - own) * r).mean(), batch.policy)
    swapped = {"chosen_reward": reward["rejected_reward"], "rejected_reward": reward["chosen_reward"]}
    _same(loss, CoPG(beta)(r, w, **swapped), batch.policy)


def test_copg_of_a_preference_is_ipo() -> None:
    batch = pairs(33, 6)
    quarter = torch.tensor(0.25, dtype=torch.float64)
    loss = CoPG(0.2)(*batch.policy, **batch.references, chosen_reward=quarter, rejected_reward=-quarter)
    one = torch.autograd.grad(loss, batch.policy)
    # IPO's (u - 1/(2 tau))^2 = (beta u - 1/2)^2 / beta^2 at tau = beta
    two = torch.autograd.grad(0.2 / 2 * IPO(0.2)(*batch.policy, **batch.references), batch.policy)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_copg_of_groups_is_all_their_pairs() -> None:
    generator = torch.Generator().manual_seed(3)
    ratio = torch.randn(9, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(9, generator=generator, dtype=torch.float64)
    group = torch.tensor([5, 2, 5, 2, 2, 9, 5, 2, 7])
    costs = []
    for g in (2, 5, 7, 9):
        members = [i for i in range(9) if group[i] == g]
        total = sum(
            0.15 * (ratio[i] - ratio[j]) ** 2 - (reward[i] - reward[j]) * (ratio[i] - ratio[j])
            for i in members for j in members if i > j
        )  # fmt: skip
        costs.append(total / max(1, len(members) - 1) if len(members) > 1 else ratio[0] * 0)
    expected = torch.stack(costs)
    found = GroupCoPG(0.3, reduction="none")(ratio, reward, group=group)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    _same(GroupCoPG(0.3)(ratio, reward, group=group), expected.mean(), [ratio])
    pair = CoPG(0.3)(ratio[:1], ratio[1:2], chosen_reward=reward[:1], rejected_reward=reward[1:2])
    _same(GroupCoPG(0.3)(ratio[:2], reward[:2]), pair, [ratio])


def test_copg_of_own_samples_is_reinforce_with_the_others_for_a_baseline() -> None:
    generator = torch.Generator().manual_seed(4)
    ratio = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(GroupCoPG(0.3)(ratio, reward), ratio)
    regularised = (reward - 0.3 * ratio).detach()
    baseline = (regularised.sum() - regularised) / 4
    torch.testing.assert_close(gradient, -(regularised - baseline), rtol=1e-12, atol=1e-12)


def test_dro_separates_what_is_joint() -> None:
    generator = torch.Generator().manual_seed(5)
    ratio, value = (torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    reward = torch.randn(7, generator=generator, dtype=torch.float64)
    tau = 0.4
    joint = DROV(tau, form="joint")(ratio, reward, value=value)
    torch.testing.assert_close(joint, ((reward - value - tau * ratio) ** 2 / 2).mean())
    both = torch.autograd.grad(joint, [ratio, value])
    separate = torch.autograd.grad(DROV(tau)(ratio, reward, value=value), [ratio, value])
    torch.testing.assert_close(both[0], tau * separate[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(both[1], separate[1], rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="dro-v needs value"):
        DROV()(ratio, reward)


@pytest.mark.parametrize("objective", ["dro-v", "copg", "copg-group", "dno"])
def test_the_minimum_is_the_tilted_reference(objective: str) -> None:
    """``p_ref exp(R / beta)``, whatever the responses were drawn from: no gradient there."""
    generator = torch.Generator().manual_seed(6)
    reference = torch.log_softmax(torch.randn(5, generator=generator, dtype=torch.float64), 0)
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    beta = 0.7
    best = torch.log_softmax(reference + reward / beta, 0)
    ratio = (best - reference).requires_grad_()
    i, j = torch.triu_indices(5, 5, 1)
    if objective == "dro-v":
        value = beta * torch.logsumexp(reference + reward / beta, 0).expand(5)
        loss = get(objective, tau=beta)(ratio, reward, value=value)
    elif objective == "copg-group":
        loss = get(objective, beta=beta)(ratio, reward)
    else:
        loss = get(objective, beta=beta)(ratio[i], ratio[j], chosen_reward=reward[i], rejected_reward=reward[j])
    assert torch.autograd.grad(loss, ratio)[0].abs().max() < 1e-14


def test_dro_without_a_value() -> None:
    generator = torch.Generator().manual_seed(7)
    ratio = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(6, generator=generator, dtype=torch.float64)
    predicted = reward - 0.5 * ratio
    _same(DROP(0.5)(ratio, reward), predicted.var(correction=0) / 2, [ratio])
    prompts = torch.tensor([4, 4, 1, 1, 8, 8])
    squares = (predicted[::2] - predicted[1::2]).square() / 4 / 2
    _same(DROP(0.5)(ratio, reward, group=prompts), squares.mean(), [ratio])
    offset = reward + prompts
    _same(DROP(0.5)(ratio, offset, group=prompts), squares.mean(), [ratio])
    assert abs(DROP(0.5)(ratio, offset) - DROP(0.5)(ratio, reward)) > 0.1
    assert DROP()(ratio[:1], reward[:1]).item() == 0


def test_dno_is_cross_entropy_with_soft_labels() -> None:
    batch = pairs(34, 6)
    rate = {"chosen_reward": torch.rand(6).double(), "rejected_reward": torch.rand(6).double()}
    loss = get("dno", beta=0.2)(*batch.policy, **batch.references, **rate)
    margin = 0.2 * (batch.chosen - batch.reference_chosen - batch.rejected + batch.reference_rejected)
    target = torch.sigmoid(rate["chosen_reward"] - rate["rejected_reward"])
    _same(loss, F.binary_cross_entropy_with_logits(margin, target), batch.policy)
    certain = {"chosen_reward": torch.tensor(800.0).double(), "rejected_reward": torch.tensor(0.0).double()}
    _same(
        get("dno")(*batch.policy, **batch.references, **certain), DPO()(*batch.policy, **batch.references), batch.policy
    )
    with pytest.raises(ValueError, match="needs chosen_reward and rejected_reward"):
        get("dno")(*batch.policy)


def test_mapl_adds_its_levels() -> None:
    batch, more, gaps = pairs(35, 6), pairs(36, 4), pairs(37, 3)
    dpo = DPO()
    expected = dpo(*batch.policy, **batch.references) + 0.5 * dpo(*more.policy) + 0.25 * dpo(*gaps.policy)
    mapl = get("mapl-dpo", prompt_weight=0.5, gap_weight=0.25)
    found = mapl(
        *batch.policy, **batch.references,
        prompt_chosen=more.chosen, prompt_rejected=more.rejected, gap_wide=gaps.chosen, gap_narrow=gaps.rejected,
    )  # fmt: skip
    _same(found, expected, [*batch.policy, *more.policy, *gaps.policy])
    _same(mapl(*batch.policy, **batch.references), dpo(*batch.policy, **batch.references), batch.policy)
    with pytest.raises(ValueError, match="mapl needs prompt_rejected"):
        mapl(*batch.policy, prompt_chosen=more.chosen)
    with pytest.raises(ValueError, match=r"must be \[k\] alike"):
        mapl(*batch.policy, gap_wide=more.chosen, gap_narrow=gaps.chosen)
    with pytest.raises(TypeError, match="takes no 'gap'"):
        mapl(*batch.policy, gap=more.chosen)
