"""Rewards in prompts: scales, what is asked for, what an online round keeps, and a model that learns to follow."""

import json

import numpy as np
import pytest
import torch

from nearfar.alignment.rewards_in_context import (
    RewardScale,
    RewardsInContext,
    extended,
    rewards_of,
    together,
    written,
)
from nearfar.data.preferences import PreferenceRow, PreferenceSet
from nearfar.data.synthetic.letter_counts import LetterCounts
from nearfar.errors import DataError, ModelError, UsageError

NAMES = ("helpful", "harmless")


def lists(rewards, *, prompt="say", responses=None) -> PreferenceSet:
    rows = [
        PreferenceRow(
            prompt, tuple(responses or (f"r{i}{k}" for k in range(len(each)))), rewards=tuple(map(tuple, each))
        )
        for i, each in enumerate(rewards)
    ]
    return PreferenceSet.from_rows("multi-reward lists", rows, reward_names=NAMES)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 3, 2, generator=generator) * torch.tensor([1.0, 50.0]) + torch.tensor([2.0, -7.0])
    return lists(values.tolist())


def test_a_scale_is_that_of_all_responses(data):
    values = np.array([each for row in data for each in row.rewards])
    scale = RewardScale.fit(rewards_of(data), NAMES, quantile=0.1)
    assert np.allclose(scale.mean, values.mean(0))
    assert np.allclose(scale.deviation, values.std(0))
    z = (values - values.mean(0)) / values.std(0)
    assert np.allclose(scale.low, np.quantile(z, 0.1, axis=0))
    assert np.allclose(scale.high, np.quantile(z, 0.9, axis=0))
    assert np.allclose(scale.standardised(torch.tensor(values)).numpy(), z)


def test_targets_are_the_official_map_on_the_official_range():
    """Preference [0.3, 0.7] over two N(0, 1) rewards, ranges from 50,000 draws as the code takes them."""
    draws = np.random.default_rng(0)
    drawn = np.stack([draws.standard_normal(50_000) for _ in range(2)])
    scale = RewardScale(NAMES, (0.0, 0.0), (1.0, 1.0), tuple(drawn.min(1)), tuple(drawn.max(1)))
    assert scale.targets([0.3, 0.7]).tolist() == pytest.approx([-0.9, 3.5])
    assert scale.targets([0.3, 0.7], "linear").tolist() == pytest.approx([-1.7, 1.7])


def test_desired_rewards_are_high_in_all_but_one():
    scale = RewardScale(("a", "b", "c"), (0.0,) * 3, (1.0,) * 3, (-1.0, -2.0, 0.0), (1.0, 2.0, 5.0))
    found = scale.desired(2000, generator=torch.Generator().manual_seed(0))
    below = found < torch.tensor(scale.high)
    assert (below.sum(1) <= 1).all()
    assert below.any(1).float().mean() > 0.95
    assert (below.float().mean(0) > 0.25).all()
    assert (found >= torch.tensor(scale.low) - 0.05).all()
    assert torch.equal((10 * found).round() / 10, found)


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        (torch.zeros(0, 2), "must be"),
        (torch.zeros(3, 3), "must be"),
        (torch.tensor([[1.0, float("nan")], [2.0, 1.0]]), "finite"),
        (torch.tensor([[1.0, 2.0], [2.0, 2.0]]), "harmless"),
    ],
)
def test_scales_of_what_has_none(rewards, says):
    with pytest.raises(DataError, match=says):
        RewardScale.fit(rewards, NAMES)
    with pytest.raises(UsageError):
        RewardScale.fit(torch.eye(2), NAMES, quantile=0.5)


def test_how_prompts_say_rewards():
    assert written(NAMES, [0.34, -1.25]) == " <helpful> 0.3 <harmless> -1.2"
    assert written(NAMES, [-0.04, 12.0]) == " <helpful> 0.0 <harmless> 12.0"
    assert extended("say", " x") == "say x"
    conversation = ({"role": "system", "content": "be"}, {"role": "user", "content": "say"})
    assert extended(conversation, " x") == (conversation[0], {"role": "user", "content": "say x"})
    assert conversation[1]["content"] == "say"
    with pytest.raises(DataError):
        extended((), " x")


def test_demonstrations_tell_each_response_its_own_rewards(data):
    context = RewardsInContext.fit(data, marker=" =>")
    found = list(context.demonstrations(data))
    assert len(found) == 120
    place = 0
    for row in data:
        for response, rewards in zip(row.responses, row.rewards, strict=True):
            z = [
                (value - m) / d
                for value, m, d in zip(rewards, context.scale.mean, context.scale.deviation, strict=True)
            ]
            assert found[place].responses == (response,)
            assert found[place].prompt == row.prompt + written(NAMES, z) + " =>"
            place += 1


class Echo:
    """A policy whose response says what it was asked."""

    def sample(self, prompts, count, *, generator=None):
        return [[f"answer to {prompt}"] * count for prompt in prompts]


def test_a_round_keeps_what_the_responses_got_and_not_what_was_asked(data):
    context = RewardsInContext.fit(data)
    seen = []

    def first(prompts, responses):
        seen.append(list(prompts))
        return torch.arange(len(prompts), dtype=torch.float32)[:, None]

    rewards = together([first, lambda prompts, responses: -torch.arange(len(prompts))[:, None] * 2.0])
    made = context.generated(Echo(), ["p", "q", "s"], rewards, generator=torch.Generator().manual_seed(0))
    assert seen == [["p", "q", "s"]]
    assert [row.prompt for row in made] == ["p", "q", "s"]
    assert made.reward_names == NAMES
    assert [row.rewards for row in made] == [((0.0, 0.0),), ((1.0, -2.0),), ((2.0, -4.0),)]
    assert all(row.responses[0].startswith(f"answer to {row.prompt} <helpful>") for row in made)
    with pytest.raises(DataError, match="rewards must be"):
        context.generated(Echo(), ["p"], lambda prompts, responses: torch.zeros(1, 2))


def test_what_is_good_in_any_reward_is_kept_of_old_and_new(data):
    context = RewardsInContext.fit(data)
    made = lists([[[float(i), float(-i)]] for i in range(11)])
    merged = context.merged(made, data, quantile=0.9)
    kept = [row for row in merged if len(row.responses[0]) and row.where == "" and row in list(made)]
    assert [row.rewards[0][0] for row in kept] == [0.0, 1.0, 9.0, 10.0]
    old = [each for row in data for each in row.rewards if each[0] >= 9 or each[1] >= -1]
    assert sorted(row.rewards[0] for row in merged if row not in list(made)) == sorted(old)
    few = context.merged(made, data, quantile=0.9, most=5, generator=torch.Generator().manual_seed(0))
    assert len(few) == 4 + 5
    with pytest.raises(DataError, match="nothing"):
        context.merged(lists([]), data)


def test_other_data_is_refused(data):
    context = RewardsInContext.fit(data)
    other = PreferenceSet.from_rows(
        "multi-reward lists", [PreferenceRow("p", ("r",), rewards=((1.0,),))], reward_names=("length",)
    )
    with pytest.raises(UsageError, match="length"):
        context.demonstrations(other)
    pairs = PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("a", "b"))])
    with pytest.raises(UsageError, match="pairs"):
        RewardsInContext.fit(pairs)


def test_it_is_kept_beside_the_model(data, tmp_path):
    context = RewardsInContext.fit(data, marker="\n###")
    context.save(tmp_path)
    again = RewardsInContext.load(tmp_path)
    assert again == context
    assert again.asked("say", [0.2, 0.8]) == context.asked("say", [0.2, 0.8])
    with pytest.raises(ModelError):
        RewardsInContext.load(tmp_path / "nowhere")
    (tmp_path / "rewards.json").write_text("{}")
    with pytest.raises(ModelError):
        RewardsInContext.load(tmp_path)


def test_the_letters_have_the_rewards_they_say():
    world = LetterCounts(coupling=0.5)
    data = world.draw(50, generator=torch.Generator().manual_seed(0))
    for row in data:
        letters = row.responses[0].split()
        assert len(letters) == 12
        assert row.rewards == ((letters.count("A"), letters.count("B") - 0.5 * letters.count("A")),)
    context = RewardsInContext.fit(data)
    known = set(world.symbols())
    assert all(set(row.prompt.split()) <= known for row in context.demonstrations(data))
    with pytest.raises(UsageError):
        LetterCounts(0)


def test_a_folder_of_a_causal_model_is_trained_asked_and_improved(tmp_path):
    """What a user does: fit, align on demonstrations, ask for rewards, generate and merge for another round."""
    from nearfar.alignment.language import LanguagePolicy
    from nearfar.alignment.run import align
    from nearfar.alignment.settings import AlignmentSettings
    from nearfar.encoders.language_model import (
        language_model,
        symbol_tokenizer,
        tiny_language_model,
        write_language_model,
    )

    world = LetterCounts(length=6)
    generator = torch.Generator().manual_seed(0)
    data = world.draw(200, generator=generator)
    tokenizer = symbol_tokenizer(world.symbols())
    write_language_model(tiny_language_model(vocabulary=len(tokenizer)), tokenizer, tmp_path / "begin")
    context = RewardsInContext.fit(data)
    settings = AlignmentSettings(
        model=str(tmp_path / "begin"), objective="sft", output=str(tmp_path / "run"), steps=20, learning_rate=3e-3
    )
    align(settings, preferences=context.demonstrations(data))
    model, tokenizer = language_model(tmp_path / "run" / "model")
    context.save(tmp_path / "run" / "model")
    again = RewardsInContext.load(tmp_path / "run" / "model")
    policy = LanguagePolicy(model, tokenizer, max_new_tokens=8)
    made = again.generated(policy, ["tell"] * 20, world.rewards, generator=generator)
    assert len(made) == 20
    assert made.kind == "multi-reward lists"
    merged = again.merged(made, data)
    assert 6 <= len(merged) <= 220
    assert len(again.demonstrations(merged)) == len(merged)
    assert isinstance(policy.sample([again.asked("tell", (0.5, 0.5))], 1, generator=generator)[0][0], str)


def test_lists_of_a_file_are_taken_as_they_are(tmp_path):
    from nearfar.data.preferences import read_preferences

    rows = [
        {
            "prompt": f"p{n}",
            "responses": ["a", "b"],
            "rewards": [{"helpful": n, "short": -3}, {"helpful": 0, "short": -n}],
        }
        for n in range(4)
    ]
    file = tmp_path / "lists.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    data = read_preferences(file)
    context = RewardsInContext.fit(data)
    assert context.scale.names == ("helpful", "short")
    made = list(context.demonstrations(data))
    assert len(made) == 8
    assert made[6].prompt == "p3" + written(context.scale.names, context.scale.standardised(torch.tensor([3.0, -3.0])))
    assert made[6].where == data[3].where != ""
