"""A small language model on its own samples: what the folder holds, resuming, and what is refused."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nearfar.alignment.language import LanguagePolicy
from nearfar.alignment.online import run as online_run
from nearfar.alignment.online.run import OnlineRunSettings, align_online
from nearfar.alignment.online.texts import ModelReward, SumOfRewards, mean_states, named_reward, read_prompts
from nearfar.alignment.reward.model import reward_model, rewards, write_reward_model
from nearfar.cli.app import run as nearfar
from nearfar.data.preferences import read_preferences, tokenise
from nearfar.data.preferences.rows import PreferenceRow
from nearfar.encoders.language_model import (
    language_model,
    symbol_tokenizer,
    tiny_language_model,
    write_language_model,
)
from nearfar.errors import DataError, TrainingError, UsageError

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, prompts and a reward function: the share of a's."""
    folder = tmp_path_factory.mktemp("online")
    tokenizer = symbol_tokenizer(LETTERS)
    write_language_model(tiny_language_model(vocabulary=len(tokenizer), width=16), tokenizer, folder / "model")
    lines = [{"prompt": " ".join(LETTERS[i : i + 3])} for i in range(6)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "mine.py").write_text(
        "def likes_a(prompts, completions):\n"
        "    return [text.count('a') / max(1, len(text.split())) for text in completions]\n"
    )
    return folder


def settings(place, output, **more):
    usual = {
        "prompts": str(place / "prompts.jsonl"),
        "output": str(output),
        "model": str(place / "model"),
        "reward": [f"{place / 'mine.py'}:likes_a"],
        "responses": 4,
        "steps": 4,
        "prompts_a_round": 4,
        "learning_rate": 0.01,
        "max_response": 5,
        "device": "cpu",
    }
    return OnlineRunSettings(**{**usual, **more})


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("grpo", {}),
        ("dpo", {"pairs": "best-worst", "lora": True, "rank": 2, "refresh": 2}),
        ("ampo", {"strategy": "coreset", "k": 2}),
        ("best-of-n", {"batch_size": 2, "baseline_answers": 2}),
        ("dno", {"reference": "sampler", "parameters": {"beta": 0.5}}),
    ],
)
def test_a_run_leaves_a_model_and_what_was_sampled(place, tmp_path, objective, more):
    given = settings(place, tmp_path / "run", objective=objective, **more)
    done = align_online(given)
    rounds = 2 if "refresh" in more else 4
    assert len(done.rounds) == rounds
    assert done.ended == "all steps"
    assert (done.model / "adapter_config.json").is_file() == ("lora" in more)
    first = read_preferences(tmp_path / "run" / "rounds" / "00001.jsonl")
    assert first.kind == "lists"
    assert len(first) == 4
    assert all(len(row.responses) == len(row.scores) == 4 for row in first)
    assert sum(sum(row.scores) for row in first) / 16 == pytest.approx(done.rounds[0].reward, abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [one.step for one in done.rounds]
    assert all(0 < line["distinct"] <= 1 and 0 <= line["ended"] <= 1 for line in lines)
    again = align_online(OnlineRunSettings(output=str(tmp_path / "run"), resume=True))
    assert again.rounds == done.rounds
    assert again.policy is None
    if "lora" not in more:
        read, _ = language_model(done.model)
        for mine, theirs in zip(read.parameters(), done.policy.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_model_learns_what_is_rewarded(place, tmp_path):
    done = align_online(settings(place, tmp_path / "run", steps=40, responses=8, learning_rate=0.02))
    assert done.rounds[-1].reward > done.rounds[0].reward + 0.3


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_that_is_killed_goes_on_to_the_same_weights(place, tmp_path, monkeypatch, lora):
    # a random choice too, so that its stream is seen to go on
    usual = {"objective": "ampo", "strategy": "random", "k": 2, "steps": 6, "checkpoint_every": 2, "lora": lora}
    whole = align_online(settings(place, tmp_path / "whole", **usual))
    written = online_run._write_round

    def killed(path, trainer, number):
        written(path, trainer, number)
        if number == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(online_run, "_write_round", killed)
    broken = settings(place, tmp_path / "broken", **usual)
    with pytest.raises(KeyboardInterrupt):
        align_online(broken)
    monkeypatch.setattr(online_run, "_write_round", written)
    with open(tmp_path / "broken" / "metrics.jsonl", "a") as out:
        out.write('{"step": 3, "rew')  # killed while it wrote
    with pytest.raises(UsageError, match="keeps its settings"):
        align_online(dataclasses.replace(broken, resume=True, steps=7))
    done = align_online(OnlineRunSettings(output=str(tmp_path / "broken"), resume=True))
    assert done.rounds == whole.rounds
    for name in [path.name for path in whole.model.glob("*.safetensors")]:
        one, other = load_file(whole.model / name), load_file(done.model / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (tmp_path / "broken" / "checkpoints").exists()


def test_metrics_that_are_gone_are_said_to_be(place, tmp_path, monkeypatch):
    written = online_run._write_round

    def killed(path, trainer, number):
        written(path, trainer, number)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(online_run, "_write_round", killed)
    with pytest.raises(KeyboardInterrupt):
        align_online(settings(place, tmp_path / "run"))
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(TrainingError, match="lack rounds"):
        align_online(OnlineRunSettings(output=str(tmp_path / "run"), resume=True))


def test_contrastive_rewards_keep_their_baseline(place, tmp_path):
    align_online(settings(place, tmp_path / "run", baseline_answers=3, steps=1))
    kept = json.loads((tmp_path / "run" / "baselines.json").read_text())
    assert len(kept) == 6
    assert all(len(values) == 3 for values in kept)
    first = read_preferences(tmp_path / "run" / "rounds" / "00001.jsonl")
    raw = named_reward(f"{place / 'mine.py'}:likes_a")
    prompts = read_prompts(place / "prompts.jsonl")
    for row in first:
        stored = kept[prompts.index(row.prompt)]
        given = raw([row.prompt], [list(row.responses)])[0]
        assert torch.allclose(torch.tensor(row.scores), given - sum(stored) / 3, atol=1e-6)


def test_a_reward_model_rewards(place, tmp_path):
    model, tokenizer = reward_model(place / "model", seed=3)
    write_reward_model(model, tokenizer, tmp_path / "reward")
    reward = named_reward(str(tmp_path / "reward"))
    prompts, responses = ["a b", "c d e"], [["a", "b c d"], ["e e", "h"]]
    found = reward(prompts, responses)
    for i in range(2):
        for k in range(2):
            rows = tokenise([PreferenceRow(prompts[i], (responses[i][k],))], tokenizer)
            assert float(found[i, k]) == pytest.approx(float(rewards(model, rows).reward.detach()), abs=1e-5)
    both = SumOfRewards([reward, named_reward(f"{place / 'mine.py'}:likes_a")], [2.0, -1.0])
    assert torch.allclose(both(prompts, responses), 2 * found - torch.tensor([[1.0, 0.0], [0.0, 0.0]]), atol=1e-5)
    done = align_online(settings(place, tmp_path / "run", reward=[str(tmp_path / "reward")], steps=1))
    assert len(done.rounds) == 1
    empty = ModelReward(model, tokenizer, nothing=-7.0)(["a"], [["b", ""]])
    assert empty.shape == (1, 2)
    for wrong in (str(place / "model"), str(tmp_path / "nothing")):
        with pytest.raises(UsageError, match="neither"):
            named_reward(wrong)
    with pytest.raises(UsageError, match="weights"):
        SumOfRewards([reward], [1.0, 2.0])


def test_vectors_of_responses_are_means_of_hidden_states(place):
    model, tokenizer = language_model(place / "model")
    policy = LanguagePolicy(model, tokenizer)
    prompts, responses = ["a b", "c"], [["d e", "f"], ["g", "h a b"]]
    found = mean_states(policy, prompts, responses)
    assert found.shape == (2, 2, 16)
    for i in range(2):
        for k in range(2):
            row = policy.rows([prompts[i]], [[responses[i][k]]])[0]
            ids = torch.tensor([*row.prompt.tolist(), *row.responses[0].tolist()])[None]
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states[-1][0]
            by_hand = states[len(row.prompt) :].mean(0)
            assert torch.allclose(found[i, k], by_hand, atol=1e-5)


def test_prompts_are_read_from_any_file(tmp_path):
    file = tmp_path / "prompts.jsonl"
    talk = [{"role": "user", "content": "hi"}]
    lines = [{"prompt": "one", "more": 1}, {"prompt": talk}, {"prompt": "one"}, {"prompt": "two"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_prompts(file) == ["one", tuple(talk), "two"]
    table = tmp_path / "prompts.csv"
    table.write_text("question,id\nwhat?,1\nwho?,2\n")
    assert read_prompts(table, column="question") == ["what?", "who?"]
    for bad, reason in (
        ({"prompt": " "}, "empty"),
        ({"text": "one"}, "no column"),
        ({"prompt": 3}, "a text or a list"),
        ({"prompt": [{"role": "user"}]}, "role and a content"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "nothing to answer"),
    ):
        file.write_text(json.dumps({"prompt": "good"}) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(DataError, match=reason) as error:
            read_prompts(file)
        assert "line 2" in error.value.where
        assert read_prompts(file, max_bad_rows=1) == ["good"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"margin": -1.0},
        {"pairs": "some"},
        {"strategy": "best"},
        {"temperature": 0.0},
        {"top_p": 1.5},
        {"reference": "first"},
        {"learning_rate": -1.0},
        {"lora_dropout": 0.1},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(UsageError) as error:
        OnlineRunSettings(**wrong)
    assert next(iter(wrong)).replace("_", "-") in error.value.where


def test_what_cannot_be_run_is_found_before_the_first_step(place, tmp_path):
    for more, reason in (
        ({"reward": []}, "no reward"),
        ({"prompts": None}, "no prompts"),
        ({"objective": "kto"}, "does not cost"),
        ({"objective": "nothing-like-it"}, "no objective"),
        ({"reward": ["mine.py"]}, "no reward function"),
    ):
        with pytest.raises(UsageError, match=reason):
            align_online(settings(place, tmp_path / "run", **more))
        assert not (tmp_path / "run").exists()


def call(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        nearfar(arguments)
    printed = capsys.readouterr()
    return stopped.value.code or 0, printed.out, " ".join(printed.err.split())


def test_from_the_command_line(place, tmp_path, capsys):
    output = tmp_path / "run"
    usual = ["align-online", str(place / "prompts.jsonl"), "--model", str(place / "model"), "--device", "cpu"]
    usual += ["--reward", f"{place / 'mine.py'}:likes_a", "--output", str(output), "--steps", "3", "--lr", "0.01"]
    code, out, err = call([*usual, "--responses", "3", "--max-response", "4", "--set", "clip=0.3"], capsys)
    assert code == 0, err
    assert "3 rounds (all steps)" in out
    assert "round 3: reward" in err
    config = json.loads((output / "config.json").read_text())
    assert config["settings"]["parameters"] == {"clip": 0.3}
    assert config["command"] == ["nearfar", *sys.argv[1:]]
    code, out, err = call([*usual], capsys)
    assert code != 0
    assert "exists already" in err
    code, out, err = call(["align-online", "--resume", "--output", str(output), "--json"], capsys)
    assert code == 0, err
    assert json.loads(out)["rounds"] == 3
    assert Path(json.loads(out)["model"]).is_dir()
    shutil.rmtree(output)
    code, out, err = call([*usual[:-6], "--output", str(output), "--objective", "rpo"], capsys)
    assert code == 2
    assert "dpo, ipo, copg" in err
