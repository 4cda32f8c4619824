"""Preference games and DNO: exact win rates, the improvement it guarantees, and what its regression aims at."""

import itertools

import pytest
import torch

from nearfar.alignment.online.costs import cost_of
from nearfar.alignment.online.loop import OnlineSettings, improve
from nearfar.alignment.online.nash import (
    ExpectedWinRates,
    PreferenceGame,
    bradley_terry,
    mixture,
    soft_policy_iteration,
)
from nearfar.alignment.online.practical import PairSet, PracticalSettings, dno_prct, pair_set, with_replay
from nearfar.alignment.online.rewards import PoolWinRates, TableReward
from nearfar.alignment.online.selection import Pairs
from nearfar.alignment.tables import TabularPolicy, divergence
from nearfar.errors import DataError, UsageError

CYCLE = torch.tensor(
    [[[0.5, 0.9, 0.1, 0.9], [0.1, 0.5, 0.9, 0.9], [0.9, 0.1, 0.5, 0.9], [0.1, 0.1, 0.1, 0.5]]], dtype=torch.float64
)


def game(seed=0, prompts=3, answers=5):
    drawn = torch.rand(prompts, answers, answers, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    upper = drawn.triu(1)
    return PreferenceGame(upper + (1 - upper).transpose(1, 2).tril(-1) + torch.eye(answers) / 2)


def policy(seed=1, prompts=3, answers=5):
    return TabularPolicy(
        torch.randn(prompts, answers, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )


def test_win_rates_are_sums_over_answers():
    played, first, second = game(), policy(1), policy(2)
    p, q = first.table().detach().exp(), second.table().detach().exp()
    for x in range(3):
        total = sum(float(p[x, a] * q[x, b] * played.preference[x, a, b]) for a in range(5) for b in range(5))
        assert float(played.win_rate(p, q)[x]) == pytest.approx(total)
        best = max(sum(float(q[x, b] * played.preference[x, a, b]) for b in range(5)) for a in range(5))
        assert float(played.exploitability(q)[x]) == pytest.approx(best - 0.5)
    assert torch.allclose(played.win_rate(p, p), torch.full((3,), 0.5, dtype=torch.float64))


def test_a_judge_reads_the_table():
    played = game()
    prompts, responses = torch.tensor([2, 0]), torch.tensor([[1, 4, 1], [3, 0, 2]])
    found = played.judge(prompts, responses)
    for i in range(2):
        for a in range(3):
            for b in range(3):
                assert found[i, a, b] == played.preference[prompts[i], responses[i, a], responses[i, b]]
    pool = PoolWinRates(played.judge)(prompts, responses)
    assert float(pool[1, 0]) == pytest.approx((0.5 + float(found[1, 0, 1]) + float(found[1, 0, 2])) / 3)


@pytest.mark.parametrize("eta", [0.1, 1.0, 10.0])
def test_a_step_beats_the_policy_before_it_by_as_much_as_it_moved(eta):
    played, start = game(), policy()
    before, after = soft_policy_iteration(start, played, eta=eta, iterations=1)
    moved = divergence(TabularPolicy(after.log()), start).detach()
    assert bool((played.win_rate(after, before) >= 0.5 + eta * moved - 1e-12).all())
    # the update written out
    rates = played.win_rates(before)
    for x in range(3):
        weights = [float(before[x, a]) * torch.exp(rates[x, a] / eta) for a in range(5)]
        assert torch.allclose(after[x], torch.stack(weights) / sum(weights))


def test_the_mixture_of_small_steps_is_hard_to_exploit():
    played = PreferenceGame(CYCLE)
    start = TabularPolicy(torch.tensor([[2.0, 0.0, -1.0, 1.0]], dtype=torch.float64))
    iterates = soft_policy_iteration(start, played, eta=4.0, iterations=2000)
    assert float(played.exploitability(mixture(iterates))) < 0.03
    assert float(played.exploitability(iterates[0])) > 0.2
    assert float(iterates[-1][0, 3]) < 1e-6


def test_the_regression_lands_on_the_exact_update():
    played, trained = game(), policy()
    start = trained.frozen()
    eta = 0.5
    settings = OnlineSettings(responses=64, steps=400, refresh=400, reference="sampler", learning_rate=0.02)
    improve(
        trained,
        torch.arange(3),
        ExpectedWinRates(played, trained),
        cost_of("dno", beta=eta),
        settings,
    )
    exact = soft_policy_iteration(start, played, eta=eta, iterations=1)[1]
    found = trained.table().detach().exp()
    assert float((found - exact).abs().max()) < 0.02
    assert float((found - start.table().exp()).abs().max()) > 0.05


@pytest.mark.parametrize(
    "wrong",
    [torch.full((1, 2, 2), 0.4), torch.zeros(2, 2), torch.tensor([[[0.5, 1.2], [-0.2, 0.5]]]), torch.rand(1, 2, 3)],
)
def test_what_is_no_preference_is_refused(wrong):
    with pytest.raises(UsageError):
        PreferenceGame(wrong)


def test_rewards_make_a_game():
    made = PreferenceGame.of_rewards(torch.tensor([[0.0, 2.0]]))
    assert float(made.preference[0, 1, 0]) == pytest.approx(1 / (1 + torch.exp(torch.tensor(-2.0)).item()))


def test_pairs_leave_their_pool_with_texts_and_with_numbers():
    pairs = Pairs(torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0, 1]))
    numbers = pair_set(torch.tensor([5, 6, 7]), torch.tensor([[1, 2], [3, 4], [5, 6]]), pairs)
    assert numbers.prompts.tolist() == [5, 7]
    assert numbers.responses.tolist() == [[2, 1], [5, 6]]
    texts = pair_set(["a", "b", "c"], [["1", "2"], ["3", "4"], ["5", "6"]], pairs)
    assert texts.prompts == ["a", "c"]
    assert texts.responses == [["2", "1"], ["5", "6"]]
    assert texts.joined(texts).rows(torch.tensor([3])).responses == [["5", "6"]]


def numbered(count, prompt):
    return PairSet(torch.full((count,), prompt), torch.zeros(count, 2, dtype=torch.long))


def test_old_pairs_have_their_shares():
    old, older, now = numbered(1000, 1), numbered(1000, 2), numbered(110, 0)
    mixed = with_replay([numbered(1000, 3), older, old], now, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(mixed.prompts).tolist()
    assert counts == [110, 60, 30]  # 30 % and 15 % of 200
    assert len(with_replay([], now)) == 110
    assert torch.bincount(with_replay([numbered(5, 1)], now).prompts).tolist() == [110, 5]
    with pytest.raises(UsageError, match="shares"):
        with_replay([old], now, shares=(0.7, 0.4))


@pytest.mark.parametrize("taught", [False, True])
def test_dno_in_practice_beats_the_policy_before_it(taught):
    prompts = torch.arange(60)
    scores = torch.randint(0, 7, (60, 6), generator=torch.Generator().manual_seed(1)).double()
    scores[:, 0], scores[:, 1] = 5.0, 2.0
    trained = TabularPolicy(torch.zeros(60, 6, dtype=torch.float64))
    stood = [trained.table().detach().exp()]
    settings = PracticalSettings(learning_rate=0.1, passes=20, batch_size=64)
    found = dno_prct(
        trained,
        prompts,
        TableReward(scores),
        settings,
        teacher=(lambda asked: scores[asked].argmax(1, keepdim=True)) if taught else None,
        after_iteration=lambda number: stood.append(trained.table().detach().exp()),
    )
    assert [one.replayed > 0 for one in found] == [False, True, True]
    played = PreferenceGame.of_rewards(scores)
    for before, after in itertools.pairwise(stood):
        assert float(played.win_rate(after, before).mean()) > 0.51
    assert len(found) == 3


def test_scores_on_another_scale_are_said_to_be():
    trained = TabularPolicy(torch.zeros(6, 4))
    with pytest.raises(DataError, match="no pair"):
        dno_prct(trained, torch.arange(6), TableReward(torch.rand(6, 4)), PracticalSettings())
    with pytest.raises(UsageError, match="split"):
        dno_prct(trained, torch.arange(2), TableReward(torch.rand(6, 4)), PracticalSettings())


def test_a_reward_is_found_where_there_is_one_and_the_nearest_where_there_is_none():
    reward = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = bradley_terry(PreferenceGame.of_rewards(reward))
    assert torch.allclose(found, reward - reward.mean(1, keepdim=True), atol=1e-3)
    cycle = bradley_terry(PreferenceGame(CYCLE))
    assert torch.allclose(cycle[0, :3], cycle[0, 0].expand(3), atol=1e-3)
    assert float(cycle[0, 3]) < -1
    certain = bradley_terry(PreferenceGame(torch.tensor([[[0.5, 1.0], [0.0, 0.5]]])))
    assert bool(torch.isfinite(certain).all())
