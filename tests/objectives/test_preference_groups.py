"""Preferences over the responses of a prompt and across prompts, against plain loops; AMPO's choice of responses."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import AMPO, RPO, RRHF, BestOfN, CandidateRanking, DisCO, InfoNCE, RowObjective, get
from nearfar.objectives.preference_groups import candidate_scores, group_contrast, ranked
from nearfar.objectives.preference_selection import bottom_k, coreset, opt_select, selection_cost
from support.preferences import pairs


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    gradients = (torch.autograd.grad(value.sum(), inputs, retain_graph=True) for value in (one, other))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


REWARDS = torch.tensor(
    [[0.3, -1.0, 2.0, 0.3], [1.0, 1.0, 1.0, 1.0], [0.5, 0.1, -9.0, 7.0], [0.2, 0.4, 0.0, 0.0]], dtype=torch.float64
)
PRESENT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)


def test_ranks() -> None:
    relation = ranked(REWARDS, PRESENT)
    positive, negative = _tile(relation)
    assert positive.tolist() == [[1, 0, 2, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert negative.int().tolist() == [[0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="must be"):
        ranked(REWARDS, PRESENT[:2])


def _tile(relation: Explicit) -> tuple[Tensor, Tensor]:
    return relation.bind(4, 4, self_contrast=False, device=torch.device("cpu")).tile(slice(0, 4))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("with_length", [False, True])
def test_rrhf(with_length: bool, reduction: str) -> None:
    scores = _drawn(0, 4, 4).requires_grad_()
    length = torch.randint(1, 9, (4, 4), generator=torch.Generator().manual_seed(1))
    costs = []
    for row, rewards, present, tokens in zip(scores, REWARDS, PRESENT, length, strict=True):
        kept = [i for i in range(4) if present[i]]
        if not kept:
            costs.append(row.sum() * 0)
            continue
        cost = sum(
            (row[i] - row[j]).clamp_min(0) for i in kept for j in kept if rewards[i] < rewards[j]
        )  # fmt: skip
        top = [i for i in kept if rewards[i] == max(rewards[k] for k in kept)]
        likelihood = sum(row[i] * (float(tokens[i]) if with_length else 1.0) for i in top) / len(top)
        costs.append(cost - 0.5 * likelihood)
    expected = torch.stack(costs)
    expected = {"mean": expected.sum() / 3, "sum": expected.sum(), "none": expected}[reduction]
    more = {"length": length} if with_length else {}
    found = RRHF(0.5, reduction=reduction)(scores=scores, relation=ranked(REWARDS, PRESENT), **more)
    _same(found, expected, [scores])


def test_rrhf_of_one_response_is_its_likelihood() -> None:
    scores = _drawn(2, 3, 1).requires_grad_()
    length = torch.tensor([[4], [7], [2]])
    found = RRHF()(scores=scores, relation=ranked(torch.zeros(3, 1)), length=length)
    _same(found, -(scores * length).mean(), [scores])
    with pytest.raises(ValueError, match=r"length \[n, k\]"):
        RRHF()(scores=scores, relation=ranked(torch.zeros(3, 1)), length=length[:2])


@pytest.mark.parametrize("ties", ["margin", "skip"])
def test_candidate_ranking(ties: str) -> None:
    scores = _drawn(3, 4, 4).requires_grad_()
    costs = []
    for row, rewards, present in zip(scores, REWARDS, PRESENT, strict=True):
        kept = sorted((i for i in range(4) if present[i]), key=lambda i: -float(rewards[i]))
        cost = row.sum() * 0
        for a, b in itertools.combinations(range(len(kept)), 2):
            i, j = kept[a], kept[b]
            distance = b - a
            if ties == "skip":
                above = [sum(rewards[k] > rewards[x] for k in kept) for x in (i, j)]
                distance = int(above[1] - above[0])
                if rewards[i] == rewards[j]:
                    continue
            cost = cost + (row[j] - row[i] + 0.3 * distance).clamp_min(0)
        costs.append(cost)
    found = CandidateRanking(0.3, ties=ties)(scores=scores, relation=ranked(REWARDS, PRESENT))
    _same(found, torch.stack(costs).sum() / 3, [scores])


def test_candidate_scores() -> None:
    value = candidate_scores(torch.tensor([-8.0, -3.0]), torch.tensor([4, 0]), alpha=0.5)
    assert value.tolist() == [-4.0, -3.0]


@pytest.mark.parametrize("negative", ["none", "worst", "mean", "sum"])
def test_best_of_n(negative: str) -> None:
    scores = _drawn(63, 4, 4).requires_grad_()
    costs = []
    for row, rewards, present in zip(scores, REWARDS, PRESENT, strict=True):
        kept = [i for i in range(4) if present[i]]
        if not kept:
            continue
        highest, lowest = (pick(float(rewards[i]) for i in kept) for pick in (max, min))
        top = [i for i in kept if rewards[i] == highest]
        others = [i for i in kept if rewards[i] < highest]
        cost = -sum(row[i] for i in top) / len(top)
        if others and negative != "none":
            bottom = [i for i in others if rewards[i] == lowest]
            cost = (
                cost
                + 0.7
                * {
                    "worst": sum(row[i] for i in bottom) / len(bottom),
                    "mean": sum(row[i] for i in others) / len(others),
                    "sum": sum(row[i] for i in others),
                }[negative]
            )
        costs.append(cost)
    found = BestOfN(0.7, negative=negative)(scores=scores, relation=ranked(REWARDS, PRESENT))
    _same(found, torch.stack(costs).mean(), [scores])


def test_reward_weighted() -> None:
    score, reward = _drawn(64, 5).requires_grad_(), _drawn(65, 5)
    expected = torch.stack([-(r / 0.5).exp() * s for s, r in zip(score, reward, strict=True)])
    _same(get("rwr", beta=0.5)(score, reward), expected.mean(), [score])
    clipped = get("awr", beta=1e-3, reduction="none")(score, reward.abs())
    torch.testing.assert_close(clipped, -20 * score)
    huge = get("rwr")(score, torch.full((5,), 1e5))
    assert torch.autograd.grad(huge, score)[0].isfinite().all()


@pytest.mark.parametrize("deviation", ["absolute", "signed"])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_ampo(gamma: float, deviation: str) -> None:
    scores, rewards = _drawn(4, 3, 5).requires_grad_(), _drawn(5, 3, 5)
    chosen = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 0]], dtype=torch.bool)
    rejected = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    costs = []
    for i in range(2):  # the third prompt has nothing to contrast
        apart = rewards[i] - rewards[i].mean()
        near = [(scores[i, j] / 0.4 + 0.7 * apart[j]).exp() for j in range(5) if chosen[i, j]]
        offset = apart.abs() if deviation == "absolute" else apart
        far = [(scores[i, j] / 0.4 + 0.7 * offset[j] + gamma).exp() for j in range(5) if rejected[i, j]]
        costs.append(-(sum(near) / (sum(near) + sum(far))).log())
    relation = group_contrast(rewards, chosen, rejected, alpha=0.7, gamma=gamma, deviation=deviation)
    found = AMPO(temperature=0.4)(scores=scores, relation=relation)
    _same(found, torch.stack(costs).mean(), [scores])


def test_ampo_of_one_good_response_is_info_nce() -> None:
    scores = _drawn(6, 4, 6).requires_grad_()
    chosen = torch.zeros(4, 6, dtype=torch.bool)
    chosen[:, 2] = True
    relation = group_contrast(torch.zeros(4, 6), chosen, ~chosen)
    _same(
        AMPO(temperature=0.5)(scores=scores, relation=relation),
        InfoNCE(temperature=0.5)(scores=scores, relation=Explicit(chosen)),
        [scores],
    )


def test_rewards_of_any_scale_do_not_overflow() -> None:
    rewards = torch.tensor([[1e6, -1e6, 0.0]])
    chosen = torch.tensor([[True, False, False]])
    scores = torch.zeros(1, 3, requires_grad=True)
    loss = AMPO()(scores=scores, relation=group_contrast(rewards, chosen, ~chosen, alpha=1.0, deviation="signed"))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    with pytest.raises(ValueError, match="chosen and rejected"):
        group_contrast(rewards, chosen, chosen)
    with pytest.raises(UsageError, match="deviation"):
        group_contrast(rewards, chosen, ~chosen, deviation="square")
    with pytest.raises(UsageError, match="finite"):
        group_contrast(rewards, chosen, ~chosen, alpha=math.inf)


@pytest.mark.parametrize("form", ["basic", "log-mean-exp"])
@pytest.mark.parametrize("questions", ["all", "active"])
def test_disco(form: str, questions: str) -> None:
    scores = _drawn(7, 4, 5).requires_grad_()
    right = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
    wrong = ~right
    wrong[3, 4] = False  # no answer there
    total = scores.sum() * 0
    for i in (0, 3):
        near = [scores[i, j] for j in range(5) if right[i, j]]
        far = [scores[i, j] for j in range(5) if wrong[i, j]]
        if form == "basic":
            above = sum(far) / len(far)
        else:
            above = 0.6 * (sum((value / 0.6).exp() for value in far) / len(far)).log()
        total = total + above - sum(near) / len(near)
    objective = DisCO(0.6, form=form, questions=questions)
    found = objective(scores=scores, relation=Explicit(right, wrong))
    _same(found, total / (4 if questions == "all" else 2), [scores])


def test_disco_goes_from_the_mean_to_the_hardest_negative() -> None:
    scores = _drawn(8, 3, 6).requires_grad_()
    right = torch.arange(6)[None, :].expand(3, 6) < 2
    relation = Explicit(right)
    wide = DisCO(1e6)(scores=scores, relation=relation)
    torch.testing.assert_close(wide, DisCO(form="basic")(scores=scores, relation=relation), rtol=0, atol=1e-5)
    narrow = DisCO(1e-3)(scores=scores, relation=relation)
    hardest = (scores[:, 2:].amax(1) - scores[:, :2].mean(1)).mean()
    torch.testing.assert_close(narrow, hardest, rtol=0, atol=5e-3)
    for row in (DisCO(), DisCO(form="basic")):
        nothing = row(scores=scores, relation=Explicit(torch.ones(3, 6)))
        assert nothing.item() == 0
        assert torch.autograd.grad(nothing, scores)[0].norm() == 0


# -- across prompts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("weighting", ["embedding", "uniform", "diagonal"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rpo(weighting: str, reduction: str, memory: str) -> None:
    batch, other = pairs(9, 5), pairs(10, 5 if weighting == "diagonal" else 3)
    policy = [batch.chosen, other.rejected]
    references = {"reference_chosen": batch.reference_chosen, "reference_rejected": other.reference_rejected}
    m, n = (len(value) for value in policy)
    prompts, others = _drawn(11, m, 4), _drawn(12, n, 4)
    cosine = torch.nn.functional.normalize(prompts) @ torch.nn.functional.normalize(others).T
    weight = torch.softmax((cosine - 1) / 0.3, 1)
    rows = []
    for i in range(m):
        costs = []
        for j in range(n):
            margin = batch.chosen[i] - batch.reference_chosen[i] - other.rejected[j] + other.reference_rejected[j]
            inside = {"embedding": weight[i, j], "uniform": 1.0, "diagonal": 1.0}[weighting]
            cost = (1 + (-0.2 * inside * margin).exp()).log()
            share = 1 / n if weighting != "diagonal" else (0.7 if i == j else 0.3 / (n - 1))
            costs.append(share * cost)
        rows.append(sum(costs))
    expected = torch.stack(rows)
    if reduction == "mean":
        expected = expected.mean()
    elif reduction == "sum":
        expected = expected.sum() * (1 if weighting == "diagonal" else n)
    objective = RPO(0.2, weighting=weighting, tau=0.3, diagonal_weight=0.7, memory=memory, reduction=reduction)
    more = {"chosen_prompt": prompts, "rejected_prompt": others} if weighting == "embedding" else {}
    _same(objective(*policy, **references, **more), expected, policy)


def test_rpo_of_nobody_and_of_averages() -> None:
    some, none = torch.tensor([-3.0], requires_grad=True), torch.zeros(0, requires_grad=True)
    for chosen, rejected in ((some, none), (none, some)):
        loss = RPO(weighting="uniform")(chosen, rejected)
        assert loss.item() == 0
        loss.backward()
    batch = pairs(13, 4)
    averages = [value / length for value, length in zip(batch.policy, batch.lengths.values(), strict=True)]
    _same(
        RPO(weighting="uniform", tokens="mean")(*batch.policy, **batch.lengths),
        RPO(weighting="uniform")(*averages),
        batch.policy,
    )


def test_what_rpo_refuses() -> None:
    batch = pairs(14, 4)
    with pytest.raises(ValueError, match="prompts' embeddings"):
        RPO()(*batch.policy)
    with pytest.raises(ValueError, match=r"rejected_prompt must be \[3, e\]"):
        RPO()(batch.chosen, batch.rejected[:3], chosen_prompt=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="need pairs"):
        RPO(weighting="diagonal")(batch.chosen, batch.rejected[:3])
    with pytest.raises(ValueError, match="or of neither"):
        RPO(weighting="uniform")(*batch.policy, reference_chosen=batch.reference_chosen)
    with pytest.raises(ValueError, match=r"rejected is \[4\] and reference_rejected \[3\]"):
        RPO(weighting="uniform")(
            *batch.policy, reference_chosen=batch.reference_chosen, reference_rejected=batch.reference_rejected[:3]
        )
    for arguments in ({"weighting": "all"}, {"diagonal_weight": 1.5}, {"tau": 0.0}):
        with pytest.raises(UsageError, match="rpo"):
            get("rpo", **arguments)


def test_zero_embeddings_and_half_precision_of_rpo() -> None:
    half = [value.detach().bfloat16().requires_grad_() for value in pairs(15, 4).policy]
    loss = RPO()(*half, chosen_prompt=torch.zeros(4, 3, dtype=torch.float16))
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(bool(value.grad.isfinite().all()) for value in half if value.grad is not None)


# -- AMPO's selection -----------------------------------------------------------------------------------------------


def test_bottom_k() -> None:
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.3, -1.0])
    assert bottom_k(rewards, 2).tolist() == [1, 4]
    assert bottom_k(rewards, 3).tolist() == [0, 1, 4]
    assert bottom_k(rewards, 9).tolist() == [0, 1, 3, 4]
    assert bottom_k(torch.zeros(4), 2).tolist() == [1, 2]
    with pytest.raises(UsageError, match="at least 1"):
        bottom_k(rewards, 0)
    with pytest.raises(ValueError, match="one prompt"):
        bottom_k(torch.zeros(2, 2), 1)


def _islands(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Six islands of responses; the first has middling rewards, the last the best."""
    island = torch.arange(24) % 6
    embeddings = 10 * _drawn(seed, 6, 3)[island] + 0.3 * _drawn(seed + 1, 24, 3)
    rewards = torch.tensor([0.5, -1.0, -1.0, -1.0, 1.0, 2.0])[island] + 0.1 * _drawn(seed + 2, 24)
    return rewards, embeddings, island


def test_a_coreset_takes_the_worst_of_each_island() -> None:
    rewards, embeddings, island = _islands(20)
    found = coreset(rewards, embeddings, 6)
    assert sorted(island[found].tolist()) == list(range(6))
    best = int(rewards.argmax())
    for i in found.tolist():
        mates = [j for j in range(24) if island[j] == island[i] and j != best]
        assert rewards[i] == min(rewards[j] for j in mates)


def test_a_coreset_is_filled_from_the_bottom() -> None:
    rewards = torch.tensor([5.0, 0.4, 0.3, 0.2, 0.1])
    alone = torch.tensor([[100.0], [0.0], [0.0], [0.0], [0.0]])
    assert coreset(rewards, alone, 2).tolist() == [3, 4]  # the best is alone in its cluster
    assert coreset(rewards, torch.zeros(5, 1), 3).tolist() == [2, 3, 4]  # one cluster
    assert coreset(rewards, alone, 4).tolist() == [1, 2, 3, 4]
    assert coreset(torch.tensor([1.0]), torch.zeros(1, 2), 2).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_opt_select_is_near_the_optimum(seed: int) -> None:
    rewards, embeddings = _drawn(30 + seed, 10), _drawn(40 + seed, 10, 3)
    best = int(rewards.argmax())
    found = opt_select(rewards, embeddings, 3)
    assert len(found) == 3
    assert best not in found.tolist()
    costs = [
        float(selection_cost(rewards, embeddings, torch.tensor(chosen)))
        for chosen in itertools.combinations([i for i in range(10) if i != best], 3)
    ]
    cost = float(selection_cost(rewards, embeddings, found))
    assert min(costs) - 1e-12 <= cost <= 1.25 * min(costs)
    assert cost < float(selection_cost(rewards, embeddings, bottom_k(rewards, 3)))


def test_the_cost_of_a_selection() -> None:
    rewards, embeddings = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([[0.0], [3.0], [4.0]])
    scale = math.exp(-1)  # the largest weight, exp(mean - min), is divided out
    expected = scale * (math.exp(-1) * 3 + math.exp(1) * 1)
    assert float(selection_cost(rewards, embeddings, torch.tensor([1]))) == pytest.approx(expected, rel=1e-9)
    assert selection_cost(rewards * 1e6, embeddings, torch.tensor([1])).isfinite()


def test_selections_cover_islands_better_and_better() -> None:
    costs = torch.tensor(
        [
            [
                float(selection_cost(rewards, embeddings, chosen))
                for chosen in (
                    bottom_k(rewards, 6), coreset(rewards, embeddings, 6), opt_select(rewards, embeddings, 6),
                )
            ]
            for rewards, embeddings, _ in (_islands(50 + 3 * draw) for draw in range(12))
        ]
    )  # fmt: skip
    assert (costs[:, 2] <= costs[:, 0]).all()
    assert costs[:, 2].mean() < costs[:, 1].mean() < costs[:, 0].mean()


@pytest.mark.parametrize("objective", [RRHF(), CandidateRanking(), AMPO(), DisCO()])
def test_embeddings_too(objective: RowObjective) -> None:
    """Responses may be told by embeddings: scores are then their dot products with the prompt."""
    query, key = _drawn(60, 4, 3).requires_grad_(), _drawn(61, 4, 3).requires_grad_()
    rewards = _drawn(62, 4, 4)
    relation = ranked(rewards)
    _same(
        evaluate(objective, query, key, relation=relation),
        objective(scores=query @ key.T, relation=relation),
        [query, key],
    )
