"""The on-policy loop: what is drawn when, what the reference is, and that it improves."""

import itertools

import pytest
import torch

from nearfar.alignment.online import (
    ContrastiveReward,
    OnlineSettings,
    OnlineTrainer,
    Selected,
    TableReward,
    cost_of,
    improve,
    observe,
    roll_out,
)
from nearfar.alignment.online.costs import GroupCost
from nearfar.alignment.online.diagnostics import gradient_samples, gradient_variance, pull_on_success
from nearfar.alignment.online.loop import train_on
from nearfar.alignment.online.rewards import FunctionReward, PoolWinRates, reward_function
from nearfar.alignment.online.rollouts import Rollouts
from nearfar.alignment.policy import ResponseScores
from nearfar.alignment.tables import TabularPolicy, expected
from nearfar.errors import DataError, TrainingError, UsageError
from nearfar.objectives import AMPO

PROMPTS = torch.arange(6)


def table(seed=0):
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(seed))


class Recording(TabularPolicy):
    """A policy that remembers how it stood when it was asked for samples."""

    def __init__(self, logits):
        super().__init__(logits)
        self.asked = []

    def sample(self, prompts, count, *, generator=None):
        self.asked.append((prompts.clone(), count, self.table().detach().clone()))
        return super().sample(prompts, count, generator=generator)


@pytest.mark.parametrize("name", ["grpo", "dpo", "copg", "best-of-n", "ampo", "reward-weighted"])
def test_policies_improve_on_their_own_samples(name):
    policy = TabularPolicy(torch.zeros(6, 8))
    before = float(expected(policy, table()).mean().detach())
    rounds = improve(policy, PROMPTS, TableReward(table()), cost_of(name), OnlineSettings(steps=60, learning_rate=0.1))
    assert len(rounds) == 60
    assert float(expected(policy, table()).mean().detach()) > before + 0.5
    assert rounds[-1].reward > rounds[0].reward
    assert [one.step for one in rounds] == list(range(60))


def test_samples_are_drawn_anew_every_refresh_steps_from_the_policy_as_it_is():
    policy = Recording(torch.zeros(6, 8))
    settings = OnlineSettings(responses=3, steps=10, refresh=4, prompts_a_round=2, batch_size=1, learning_rate=0.1)
    rounds = improve(policy, PROMPTS, TableReward(table()), cost_of("grpo"), settings)
    assert [one.step for one in rounds] == [0, 4, 8]
    assert len(policy.asked) == 3
    assert all(len(prompts) == 2 and count == 3 for prompts, count, _ in policy.asked)
    stood = [at for _, _, at in policy.asked]
    assert not torch.equal(stood[0], stood[1])
    assert not torch.equal(stood[1], stood[2])


def test_the_reference_is_the_start_or_the_sampler():
    seen = {}

    class Spy(GroupCost):
        reference = True

        def __call__(self, scores, rollouts):
            seen.setdefault(which, []).append((rollouts.reference.log_probability, rollouts.sampled.log_probability))
            return scores.log_probability.mean()

    for which in ("start", "sampler"):
        policy = TabularPolicy(table(1))
        spy = Spy(AMPO())
        spy.reference = True
        settings = OnlineSettings(steps=3, learning_rate=0.3, reference=which)
        improve(policy, PROMPTS, TableReward(table()), spy, settings)
    assert all(torch.equal(*pair) for pair in seen["sampler"])
    assert torch.equal(*seen["start"][0])
    assert not torch.equal(*seen["start"][2])


def test_the_seed_decides_everything():
    def run(seed):
        policy = TabularPolicy(torch.zeros(6, 8))
        settings = OnlineSettings(steps=12, refresh=3, prompts_a_round=4, batch_size=2, learning_rate=0.1, seed=seed)
        rounds = improve(policy, PROMPTS, TableReward(table()), cost_of("grpo"), settings)
        return policy.logits.detach(), rounds

    torch.manual_seed(3)
    first = run(0)
    torch.manual_seed(4)
    again = run(0)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], run(1)[0])


def test_a_round_says_what_it_saw():
    policy = TabularPolicy(torch.zeros(6, 8))
    reward = torch.zeros(6, 8)
    reward[:3, 0] = 1.0
    rounds = improve(policy, PROMPTS, TableReward(reward), cost_of("rloo"), OnlineSettings(steps=40, learning_rate=0.1))
    assert rounds[0].divergence is None
    assert rounds[0].log_probability == pytest.approx(-torch.tensor(8.0).log().item())
    assert 0.5 <= rounds[0].alike <= 1
    assert rounds[0].length == 1
    assert rounds[5].best_gain > rounds[5].worst_gain
    first = rounds[0]
    assert first.best >= first.reward


def test_modules_stay_as_they_are_when_sampling():
    class Dropping(TabularPolicy):
        def table(self):
            return torch.log_softmax(torch.dropout(self.logits, 0.5, self.training), dim=1)

    policy = Dropping(torch.zeros(6, 8))
    cost = cost_of("grpo")
    improve(policy, PROMPTS, TableReward(table()), cost, OnlineSettings(steps=2, refresh=2))
    assert not policy.training


def test_what_does_not_fit_is_refused():
    policy = TabularPolicy(torch.zeros(6, 8))
    cost = GroupCost(AMPO(), Selected("coreset", 2))
    with pytest.raises(UsageError, match="embed"):
        improve(policy, PROMPTS, TableReward(table()), cost, OnlineSettings())
    for wrong in ({"steps": 0}, {"responses": 0}, {"batch_size": 0}, {"reference": "first"}):
        with pytest.raises(UsageError):
            OnlineSettings(**wrong)

    class NoModule:
        def sample(self, prompts, count, *, generator=None):
            raise AssertionError

        scores = sample

    with pytest.raises(UsageError, match="parts"):
        improve(NoModule(), PROMPTS, TableReward(table()), cost_of("grpo"), OnlineSettings())
    bad = table()
    bad[2, :] = torch.nan
    with pytest.raises(DataError, match="reward") as error:
        roll_out(policy, PROMPTS, TableReward(bad), 2)
    assert "prompt 2" in error.value.where
    with pytest.raises(DataError, match="rewards for"):
        roll_out(policy, PROMPTS, lambda prompts, responses: torch.zeros(3), 2)


class Texts(TabularPolicy):
    """A tabular policy whose prompts and answers are words."""

    def sample(self, prompts, count, *, generator=None):
        index = torch.tensor([int(p[1:]) for p in prompts])
        return [[f"a{a}" for a in row] for row in super().sample(index, count, generator=generator).tolist()]

    def scores(self, prompts, responses, *, tokens=False):
        index = torch.tensor([int(p[1:]) for p in prompts])
        found = super().scores(index, torch.tensor([[int(a[1:]) for a in row] for row in responses]), tokens=tokens)
        return ResponseScores(found.log_probability, found.length, found.tokens)


def test_texts_go_the_same_way_as_numbers():
    def reward(prompts, completions):
        return [float(table()[int(p[1:]), int(c[1:])]) for p, c in zip(prompts, completions, strict=True)]

    settings = OnlineSettings(steps=6, refresh=2, prompts_a_round=4, batch_size=3, learning_rate=0.1)
    numbers = TabularPolicy(torch.zeros(6, 8))
    expected_rounds = improve(numbers, PROMPTS, TableReward(table()), cost_of("dpo"), settings)
    words = Texts(torch.zeros(6, 8))
    rounds = improve(words, [f"p{i}" for i in range(6)], FunctionReward([reward]), cost_of("dpo"), settings)
    assert torch.equal(words.logits, numbers.logits)
    assert rounds == expected_rounds


def test_training_on_what_is_there_lowers_its_cost():
    policy = TabularPolicy(torch.zeros(6, 8))
    responses = torch.arange(8).expand(6, 8)
    held = observe(policy, PROMPTS, responses, table(), reference=policy)
    losses = train_on(policy, held, cost_of("copg", beta=1.0), steps=200, batch_size=6, learning_rate=0.05)
    assert losses[-1] < losses[0]
    best = torch.log_softmax(table(), 1)  # uniform reference: p = softmax(R / beta)
    assert torch.allclose(policy.table(), best, atol=0.05)


def test_contrastive_rewards_subtract_what_the_first_policy_got():
    policy = TabularPolicy(table(3))
    reward = TableReward(table())
    shaped = ContrastiveReward.drawn(reward, policy, PROMPTS, 5, generator=torch.Generator().manual_seed(0))
    answers = policy.sample(PROMPTS, 5, generator=torch.Generator().manual_seed(0))
    responses = torch.tensor([[1, 2], [3, 3], [0, 7]])
    asked = torch.tensor([4, 0, 5])
    found = shaped(asked, responses)
    for i, k in itertools.product(range(3), range(2)):
        x = int(asked[i])
        stored = sum(float(table()[x, int(a)]) for a in answers[x]) / 5
        assert float(found[i, k]) == pytest.approx(float(table()[x, int(responses[i, k])]) - stored, abs=1e-6)
    offset = TableReward(table() + torch.arange(6.0)[:, None] * 100)
    moved = ContrastiveReward.drawn(offset, policy, PROMPTS, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(moved(asked, responses), found, atol=1e-4)
    with pytest.raises(DataError, match="baseline"):
        ContrastiveReward(reward, {})(asked, responses)


def test_win_rates_of_a_pool_count_oneself_half():
    wins = torch.tensor([[[9.0, 1.0, 0.0], [0.0, 9.0, 1.0], [1.0, 0.0, 9.0]]])
    assert PoolWinRates(lambda prompts, responses: wins)([0], [[0, 0, 0]]).tolist() == [[0.5, 0.5, 0.5]]
    clear = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    assert PoolWinRates(lambda prompts, responses: clear)([0], [[0, 0]]).tolist() == [[0.75, 0.25]]


def test_noisy_rewards_are_redrawn():
    reward = TableReward(torch.zeros(6, 8), 2.0, generator=torch.Generator().manual_seed(0))
    first = reward(PROMPTS, torch.zeros(6, 500, dtype=torch.long))
    second = reward(PROMPTS, torch.zeros(6, 500, dtype=torch.long))
    assert not torch.equal(first, second)
    assert float(first.std()) == pytest.approx(2.0, abs=0.1)


def test_reward_functions_are_the_users_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def short(prompts, completions):\n    return [-len(c) for c in completions]\nnumber = 3\n")
    short = reward_function(f"{file}:short")
    both = FunctionReward([short, lambda prompts, completions: [len(p) for p in prompts]], [1.0, 10.0])
    assert both(["ab", "c"], [["x", "yy"], ["zzz", ""]]).tolist() == [[19.0, 18.0], [7.0, 10.0]]
    for wrong in (f"{file}:long", f"{file}:number", str(file), f"{tmp_path / 'no.py'}:short", "mine:short"):
        with pytest.raises(UsageError):
            reward_function(wrong)
    file.write_text("import nothing_like_it\n")
    with pytest.raises(UsageError, match="cannot be run"):
        reward_function(f"{file}:short")
    with pytest.raises(DataError, match="2 rewards for 4"):
        FunctionReward([lambda prompts, completions: [1.0, 2.0]])(["a", "b"], [["x", "y"], ["x", "y"]])
    with pytest.raises(DataError, match="no list of numbers"):
        FunctionReward([lambda prompts, completions: [None]])(["a"], [["x"]])

    def other(texts, responses):
        return responses

    with pytest.raises(UsageError, match="other cannot be called with prompts and completions") as refused:
        FunctionReward([other])
    assert refused.value.hint == "define it as other(prompts, completions)"

    def failing(prompts, **more):
        return 1 / 0

    with pytest.raises(DataError, match="failing failed: ZeroDivisionError"):
        FunctionReward([failing])(["a"], [["x"]])
    with pytest.raises(UsageError, match="weights"):
        FunctionReward([short], [1.0, 2.0])


def test_the_variance_of_gradients_is_that_of_the_samples():
    policy = TabularPolicy(table(2))
    generator = torch.Generator().manual_seed(0)
    found = gradient_samples(
        policy,
        cost_of("rloo"),
        lambda: roll_out(policy, PROMPTS, TableReward(table()), 4, tokens=True, generator=generator),
        200,
        [policy],
    )
    assert found.shape == (200, 48)
    by_hand = sum(float(torch.var(found[:, d])) for d in range(48))
    assert gradient_variance(found) == pytest.approx(by_hand, rel=1e-4)
    assert policy.logits.grad is None
    # REINFORCE is unbiased: the mean is the gradient of the expected reward
    true = torch.autograd.grad(-expected(policy, table()).mean(), policy.logits)[0].flatten()
    assert float((found.mean(0) - true).norm()) < 4 * (gradient_variance(found) / 200) ** 0.5


def test_disco_pulls_alike_on_all_questions_and_grpo_by_difficulty():
    policy = TabularPolicy(table(4).double())
    responses = torch.arange(8).expand(6, 8)
    right = torch.zeros(6, 8, dtype=torch.float64)
    for x in range(6):
        right[x, : x + 1] = 1
    held = observe(policy, PROMPTS, responses, right, tokens=True)
    scores = policy.scores(PROMPTS, responses, tokens=True)
    disco = pull_on_success(cost_of("disco-b", constrained=False)(scores, held) * 6, policy.logits, right > 0)
    assert torch.allclose(disco, torch.ones(6, dtype=torch.float64))
    grpo = pull_on_success(cost_of("grpo", epsilon=0.0)(scores, held) * 6, policy.logits, right > 0)
    rate = right.mean(1)
    assert torch.allclose(grpo, (rate * (1 - rate) * 7 / 8).sqrt())  # the unbiased deviation


def test_rows_of_rollouts_keep_what_belongs_together():
    policy = TabularPolicy(table(5))
    held = roll_out(
        policy,
        PROMPTS,
        TableReward(table()),
        3,
        reference=policy.frozen(),
        embed=lambda prompts, responses: responses.unsqueeze(-1).float(),
        tokens=True,
        generator=torch.Generator().manual_seed(0),
    )
    some = held.rows(torch.tensor([4, 1]))
    assert isinstance(some, Rollouts)
    assert torch.equal(some.embeddings[..., 0], some.responses.float())
    assert torch.equal(some.rewards, TableReward(table())(some.prompts, some.responses))
    now = policy.scores(some.prompts, some.responses, tokens=True)
    assert torch.equal(some.sampled.tokens, now.tokens)
    assert torch.equal(some.reference.log_probability, now.log_probability)
    assert some.group.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("strategy", ["coreset", "opt-select", "random"])
def test_groups_are_selected_once_a_round(strategy, monkeypatch):
    called = []
    select = Selected.select

    def counted(self, rollouts):
        called.append(len(rollouts))
        return select(self, rollouts)

    monkeypatch.setattr(Selected, "select", counted)
    policy = TabularPolicy(torch.zeros(6, 8))
    improve(
        policy,
        PROMPTS,
        TableReward(table()),
        cost_of("ampo", relation=Selected(strategy, 3)),
        OnlineSettings(steps=8, refresh=4, batch_size=2, learning_rate=0.1),
        embed=lambda prompts, responses: torch.nn.functional.one_hot(responses, 8).double(),
    )
    assert called == [6, 6]


def test_rewards_that_flip_keep_their_order_less_the_baseline():
    """``E[r - c] = (1 - e0 - e1) (E r* - E r*_base)`` (Shen et al., 2024): the offset of the errors cancels."""
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(40, 8, generator=generator) < torch.linspace(0.1, 0.9, 40)[:, None]).double()
    lost, found = 0.15, 0.3  # 1 read as 0, 0 read as 1

    def flipping(prompts, responses):
        true = truth[prompts].gather(1, responses)
        draw = torch.rand(true.shape, generator=generator)
        return torch.where(true == 1, (draw >= lost).double(), (draw < found).double())

    first, policy = TabularPolicy(torch.zeros(40, 8).double()), TabularPolicy(2 * truth)
    prompts = torch.arange(40)
    shaped = ContrastiveReward.drawn(flipping, first, prompts, 4000, generator=generator)
    answers = policy.sample(prompts, 4000, generator=generator)
    measured = shaped(prompts, answers).mean(1)
    raw = flipping(prompts, answers).mean(1)
    gained = (expected(policy, truth) - expected(first, truth)).detach()
    error = 2 * 0.5 / 4000**0.5
    assert torch.allclose(measured, (1 - lost - found) * gained, atol=4 * error)
    # without the baseline the errors' offset stays
    assert torch.allclose(raw, (1 - lost - found) * expected(policy, truth).detach() + found, atol=4 * error)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_loop_that_is_left_goes_on_bit_by_bit(optimizer):
    settings = OnlineSettings(
        steps=12,
        refresh=3,
        prompts_a_round=4,
        batch_size=2,
        optimizer=optimizer,
        learning_rate=0.1,
        largest_gradient=0.1,
    )

    def trainer():
        return OnlineTrainer(TabularPolicy(torch.zeros(6, 8)), PROMPTS, TableReward(table()), cost_of("dpo"), settings)

    whole, first, second = trainer(), trainer(), trainer()
    rounds = [whole.round() for _ in range(4)]
    assert whole.done
    assert [first.round(), first.round()] == rounds[:2]
    second.load({name: value.clone() for name, value in first.state().items()})
    assert second.step == 6
    assert [second.round(), second.round()] == rounds[2:]
    assert torch.equal(second.policy.logits, whole.policy.logits)
    other = OnlineTrainer(
        TabularPolicy(torch.zeros(6, 9)), PROMPTS, TableReward(torch.zeros(6, 9)), cost_of("dpo"), settings
    )
    with pytest.raises(TrainingError, match="another model"):
        other.load(first.state())


def test_gradients_are_clipped_and_losses_looked_at():
    def moved(largest):
        policy = TabularPolicy(torch.zeros(6, 8))
        settings = OnlineSettings(steps=1, optimizer="sgd", learning_rate=1.0, largest_gradient=largest)
        improve(policy, PROMPTS, TableReward(table()), cost_of("rloo"), settings)
        return float(policy.logits.detach().norm())

    assert moved(1e-3) == pytest.approx(1e-3, rel=1e-4)
    assert moved(None) > 0.01
    policy = TabularPolicy(torch.zeros(6, 8))
    with pytest.raises(TrainingError, match="loss of step 1"):
        improve(
            policy, PROMPTS, TableReward(1e38 * table()), cost_of("reward-weighted", beta=1e-3), OnlineSettings(steps=1)
        )
    assert not bool(policy.logits.any())


def test_the_divergence_is_the_mean_log_ratio():
    policy = TabularPolicy(torch.zeros(6, 8))
    start = policy.frozen()
    trainer = OnlineTrainer(
        policy, PROMPTS, TableReward(table()), cost_of("dpo"), OnlineSettings(steps=5, learning_rate=0.3)
    )
    found = [trainer.round() for _ in range(5)]
    assert found[0].divergence == 0
    held = trainer.rollouts
    by_hand = [
        float(held.sampled.log_probability[x, k] - start.table()[x, held.responses[x, k]].detach())
        for x in range(6)
        for k in range(8)
    ]
    assert found[4].divergence == pytest.approx(sum(by_hand) / 48, abs=1e-6)
    assert found[4].divergence > 0.05
