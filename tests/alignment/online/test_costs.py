"""How objectives cost rollouts, against plain loops over prompts and responses."""

import itertools
import math

import pytest
import torch

from nearfar.alignment.online.costs import Constrained, GroupCost, PairCost, Selected, cost_of, right_and_wrong
from nearfar.alignment.online.rollouts import Rollouts, observe
from nearfar.alignment.online.selection import all_pairs, best_and_worst
from nearfar.alignment.policy import ResponseScores
from nearfar.alignment.tables import TabularPolicy
from nearfar.errors import UsageError
from nearfar.objectives import AMPO, DPO, DisCO, get

N, K = 4, 5


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def world():
    """A policy, a reference, and rollouts of the first observed by it before it moved."""
    reference = TabularPolicy(random(6, 9, seed=1))
    before = TabularPolicy(random(6, 9, seed=2))
    prompts = torch.tensor([0, 5, 2, 2])
    responses = torch.randint(0, 9, (N, K), generator=torch.Generator().manual_seed(3))
    rewards = random(N, K, seed=4)
    rewards[1, 2] = rewards[1, 3]
    rollouts = observe(before, prompts, responses, rewards, reference=reference, tokens=True)
    return TabularPolicy(random(6, 9, seed=5)), reference, before, rollouts


def scores_of(policy, rollouts):
    return policy.scores(rollouts.prompts, rollouts.responses, tokens=True)


def log_p(policy, rollouts, i, k):
    return float(policy.table()[rollouts.prompts[i], rollouts.responses[i, k]].detach())


def test_pairs_are_costed_as_by_hand(world):
    policy, reference, _, rollouts = world
    found = cost_of("dpo", beta=0.3)(scores_of(policy, rollouts), rollouts)
    costs = []
    for i in range(N):
        for a, b in itertools.permutations(range(K), 2):
            if rollouts.rewards[i, a] > rollouts.rewards[i, b]:
                ratio = [log_p(policy, rollouts, i, k) - log_p(reference, rollouts, i, k) for k in (a, b)]
                costs.append(math.log1p(math.exp(-0.3 * (ratio[0] - ratio[1]))))
    assert len(costs) == N * K * (K - 1) // 2 - 1  # one tie
    assert float(found.detach()) == pytest.approx(sum(costs) / len(costs), abs=1e-12)


def test_rewards_reach_the_objectives_that_regress_on_them(world):
    policy, reference, _, rollouts = world
    scores = scores_of(policy, rollouts)
    found = cost_of("dno", beta=0.7, pairs=best_and_worst)(scores, rollouts)
    costs = []
    for i in range(N):
        a, b = int(rollouts.rewards[i].argmax()), int(rollouts.rewards[i].argmin())
        q = 1 / (1 + math.exp(-float(rollouts.rewards[i, a] - rollouts.rewards[i, b])))
        ratio = [log_p(policy, rollouts, i, k) - log_p(reference, rollouts, i, k) for k in (a, b)]
        z = 0.7 * (ratio[0] - ratio[1])
        costs.append(q * math.log1p(math.exp(-z)) + (1 - q) * math.log1p(math.exp(z)))
    assert float(found.detach()) == pytest.approx(sum(costs) / N, abs=1e-12)
    rates = Rollouts(
        rollouts.prompts, rollouts.responses, rollouts.rewards.sigmoid(), rollouts.sampled, rollouts.reference
    )
    sppo = cost_of("sppo", beta=0.5, pairs=best_and_worst)(scores, rates)
    costs = []
    for i in range(N):
        a, b = int(rates.rewards[i].argmax()), int(rates.rewards[i].argmin())
        won, lost = (log_p(policy, rates, i, k) - log_p(reference, rates, i, k) for k in (a, b))
        target = (float(rates.rewards[i, a]) - 0.5) / 0.5
        costs.append((won - target) ** 2 + (lost + target) ** 2)
    assert float(sppo.detach()) == pytest.approx(sum(costs) / N, abs=1e-12)


def test_policy_gradients_are_reinforce_on_the_policy_that_sampled(world):
    _, _, before, rollouts = world
    cost = cost_of("rloo")
    gradient = torch.autograd.grad(cost(scores_of(before, rollouts), rollouts), before.logits)[0]
    total = torch.zeros(())
    for i in range(N):
        for k in range(K):
            others = [float(rollouts.rewards[i, j]) for j in range(K) if j != k]
            advantage = float(rollouts.rewards[i, k]) - sum(others) / len(others)
            total = total - advantage * before.table()[rollouts.prompts[i], rollouts.responses[i, k]] / (N * K)
    assert torch.allclose(gradient, torch.autograd.grad(total, before.logits)[0], atol=1e-12)


def test_a_baseline_of_the_batch_is_that_of_all_prompts(world):
    _, _, before, rollouts = world
    found = cost_of("grpo", baseline="batch", advantage="centered")(scores_of(before, rollouts), rollouts)
    total = torch.zeros(())
    mean = float(rollouts.rewards.mean())
    for i, k in itertools.product(range(N), range(K)):
        advantage = float(rollouts.rewards[i, k]) - mean
        total = total - advantage * before.table()[rollouts.prompts[i], rollouts.responses[i, k]] / (N * K)
    gradients = [torch.autograd.grad(value, before.logits)[0] for value in (found, total)]
    assert torch.allclose(*gradients, atol=1e-12)


def test_disco_is_its_formula_and_its_constraint(world):
    policy, _, before, rollouts = world
    right = (rollouts.rewards > 0).double()
    right[2] = 1  # a prompt without a wrong answer stays in the mean at 0
    binary = Rollouts(rollouts.prompts, rollouts.responses, right, rollouts.sampled)
    scores = scores_of(policy, binary)
    found = cost_of("disco", tau=2.0)(scores, binary)
    total, apart = 0.0, []
    for i in range(N):
        values = [log_p(policy, binary, i, k) for k in range(K)]
        apart += [log_p(before, binary, i, k) - values[k] for k in range(K)]
        near = [v for v, r in zip(values, right[i], strict=True) if r == 1]
        far = [v for v, r in zip(values, right[i], strict=True) if r == 0]
        if near and far:
            soft = 2.0 * math.log(sum(math.exp(v / 2.0) for v in far) / len(far))
            total += soft - sum(near) / len(near)
    divergence = sum(apart) / len(apart)
    assert float(found.detach()) == pytest.approx(total / N + 500 * max(0.0, divergence - 1e-4) ** 2, rel=1e-10)
    bare = cost_of("disco", tau=2.0, constrained=False)
    assert isinstance(bare, GroupCost)
    assert float(bare(scores, binary).detach()) == pytest.approx(total / N, abs=1e-12)
    ratio = GroupCost(DisCO(tau=1.0, form="basic"), right_and_wrong, scored="likelihood-ratio")
    total = 0.0
    for i in range(N):
        values = [math.exp(log_p(policy, binary, i, k) - log_p(before, binary, i, k)) for k in range(K)]
        near = [v for v, r in zip(values, right[i], strict=True) if r == 1]
        far = [v for v, r in zip(values, right[i], strict=True) if r == 0]
        if near and far:
            total += sum(far) / len(far) - sum(near) / len(near)
    assert float(ratio(scores, binary).detach()) == pytest.approx(total / N, abs=1e-12)


def test_ampo_contrasts_the_best_with_the_chosen_rest(world):
    policy, _, _, rollouts = world
    cost = GroupCost(AMPO(), Selected("bottom-k", 2))
    total = 0.0
    for i in range(N):
        order = rollouts.rewards[i].argsort().tolist()
        kept = [log_p(policy, rollouts, i, k) for k in (order[-1], order[0], order[1])]
        total += math.log(sum(map(math.exp, kept))) - kept[0]
    assert float(cost(scores_of(policy, rollouts), rollouts).detach()) == pytest.approx(total / N, abs=1e-12)


def test_scores_are_per_token_or_ratios_where_asked(world):
    _, _, _, rollouts = world
    length = torch.full((N, K), 3)
    scores = ResponseScores(random(N, K, seed=7), length)
    mean = GroupCost(get("best-of-n"), scored="mean")(scores, rollouts)
    whole = GroupCost(get("best-of-n"))(scores, rollouts)
    assert float(mean) == pytest.approx(float(whole) / 3, abs=1e-12)
    ratio = GroupCost(get("best-of-n"), scored="ratio")(scores, rollouts)
    best = rollouts.rewards.argmax(1, keepdim=True)
    before = rollouts.reference.log_probability.gather(1, best).mean()
    assert float(ratio) == pytest.approx(float(whole + before), abs=1e-12)


EVERY = (
    "aot apo-down apo-zero cell copg cpo discopop dno dpo exo hinge ipo kto-pair nca-pair orpo simpo sppo grpo dapo "
    "dr-grpo rloo reward-weighted copg-group dro-p best-of-n rrhf crl-factuality listnet listmle lambda-rank irpo ampo "
    "disco disco-b"
)


@pytest.mark.parametrize("name", EVERY.split())
def test_every_objective_on_samples_gives_a_gradient(world, name):
    policy, _, _, rollouts = world
    if name.startswith("disco"):
        rollouts = Rollouts(
            rollouts.prompts, rollouts.responses, (rollouts.rewards > 0).double(), rollouts.sampled, rollouts.reference
        )
    scores = scores_of(policy, rollouts)
    if name == "orpo":  # its score is log-odds of a mean, which one symbol's probability is
        assert bool((scores.mean < 0).all())
    loss = cost_of(name)(scores, rollouts)
    assert loss.shape == ()
    gradient = torch.autograd.grad(loss, policy.logits)[0]
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", ["rpo", "mapl", "dro-v", "kto", "probability-sft", "barlow-twins"])
def test_what_samples_do_not_have_is_refused(name):
    with pytest.raises(UsageError):
        cost_of(name)


def test_responses_all_alike_cost_nothing_and_break_nothing(world):
    policy, _, _, rollouts = world
    alike = Rollouts(rollouts.prompts, rollouts.responses, torch.ones(N, K), rollouts.sampled, rollouts.reference)
    scores = scores_of(policy, alike)
    for name in ("dpo", "grpo", "copg-group"):
        loss = cost_of(name)(scores, alike)
        gradient = torch.autograd.grad(
            loss, policy.logits, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        assert bool(torch.isfinite(gradient).all())
        if name != "copg-group":  # which also keeps log-ratios together
            assert float(gradient.abs().max()) == 0
    with pytest.warns(UserWarning, match="teaches nothing"):
        loss = GroupCost(AMPO(), Selected("bottom-k", 2))(scores, alike)
    assert float(loss.detach()) == 0


def test_missing_parts_are_named(world):
    policy, _, _, rollouts = world
    bare = Rollouts(
        rollouts.prompts,
        rollouts.responses,
        rollouts.rewards,
        ResponseScores(rollouts.sampled.log_probability, rollouts.sampled.length),
    )
    scores = scores_of(policy, bare)
    with pytest.raises(ValueError, match="reference"):
        PairCost(DPO(), all_pairs)(scores, bare)
    with pytest.raises(ValueError, match="tokens"):
        Constrained(PairCost(DPO()))(scores, bare)
