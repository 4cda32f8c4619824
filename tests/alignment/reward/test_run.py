"""Reward models trained, gone on with, scored with, and asked which preferences are wrong: from end to end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nearfar.alignment.reward.instructions import PROPERTIES
from nearfar.alignment.reward.method import RewardMethod
from nearfar.alignment.reward.model import is_reward_model, reward_model
from nearfar.alignment.reward.prepare import asking, frequent_words
from nearfar.alignment.reward.run import RewardRun, train_reward
from nearfar.alignment.reward.settings import RewardSettings
from nearfar.cli.app import run as run_command
from nearfar.data.preferences import PreferenceRow, PreferenceSet, read_preferences
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model, write_language_model
from nearfar.errors import DataError, OutputError, TrainingError, UsageError

SYMBOLS = "abcdefghij"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "language"
    tokenizer = symbol_tokenizer(SYMBOLS)
    write_language_model(tiny_language_model(vocabulary=len(tokenizer), width=16), tokenizer, place)
    return place


def worth(response: str) -> float:
    numbers = [SYMBOLS.index(symbol) for symbol in response.split()]
    return sum(numbers) / len(numbers)


def pairs(count: int = 120, *, wrong: float = 0.0) -> PreferenceSet:
    """Later letters are better; ``wrong``: the share of labels that say the opposite."""
    drawn = random.Random(0)
    rows: list[PreferenceRow] = []
    while len(rows) < count:
        prompt = " ".join(drawn.choices(SYMBOLS, k=3))
        one, other = (" " + " ".join(drawn.choices(SYMBOLS, k=drawn.randint(2, 5))) for _ in range(2))
        if worth(one) != worth(other):
            good, bad = (one, other) if worth(one) > worth(other) else (other, one)
            if drawn.random() < wrong:
                good, bad = bad, good
            rows.append(PreferenceRow(prompt, (good, bad), where=f"row {len(rows)}"))
    return PreferenceSet.from_rows("pairs", rows)


def file_of(data: PreferenceSet, path: Path) -> Path:
    lines = [{"prompt": row.prompt, "chosen": row.responses[0], "rejected": row.responses[1]} for row in data]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def settings(output: Path, model: Path, **more: Any) -> RewardSettings:
    usual: dict[str, Any] = {"device": "cpu", "learning_rate": 5e-3, "batch_size": 16, "epochs": 3.0, "hold_out": 0.3}
    return RewardSettings(output=str(output), model=str(model), **{**usual, **more})


def train(output: Path, model: Path, **more: Any) -> RewardRun:
    return train_reward(settings(output, model, **more), preferences=pairs())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_a_run_learns_and_leaves_a_model(folder: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "run", folder)
    assert (done.ended, done.interrupted) == ("all steps", False)
    assert done.after["accuracy"]["value"] > max(0.8, done.before["accuracy"]["value"])
    assert done.after["log_loss"]["value"] < done.before["log_loss"]["value"]
    assert sum(done.reliability["count"]) == done.after["accuracy"]["n"]
    assert is_reward_model(tmp_path / "run" / "model")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["kind"] == "reward model"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "margin", "accuracy", "reward_chosen"} <= {name for line in lines for name in line}
    again = train_reward(settings(tmp_path / "run", folder, resume=True), preferences=pairs())
    assert (again.steps, again.model) == (done.steps, None)
    assert again.after == done.after
    with pytest.raises(OutputError, match="exists"):
        train(tmp_path / "run", folder)


@pytest.mark.parametrize(
    "more",
    [{"contrast": "simcse"}, {"contrast": "swav-diff"}, {"mapl": True}, {"lora": True, "rank": 4}, {"chunk_size": 5}],
    ids=str,
)
def test_ways_to_train_learn(folder: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    done = train(tmp_path / "run", folder, **more)
    assert done.after["log_loss"]["value"] < 0.95 * done.before["log_loss"]["value"]
    found, _ = reward_model(tmp_path / "run")
    plain = load_file(folder / "model.safetensors")
    assert {name for name, _ in found.named_parameters()} - {"score.weight"} <= plain.keys(), "adapters are merged"


def test_a_head_alone_leaves_the_rest(folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", folder, frozen=True)
    before, after = load_file(folder / "model.safetensors"), weights(tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in after.items() if not name.startswith("score"))
    checkpoint = load_file(next((tmp_path / "run" / "checkpoints").glob("*/model.safetensors")))
    assert list(checkpoint) == ["scorer.model.score.weight"]


@pytest.mark.parametrize("more", [{}, {"contrast": "simcse", "chunk_size": 6}, {"frozen": True}], ids=str)
def test_a_run_that_is_broken_off_goes_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    whole = train(tmp_path / "whole", folder, **more)
    after_step = RewardMethod.after_step

    def interrupt(self: RewardMethod, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RewardMethod, "after_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", folder, checkpoint_every=3, **more)
    monkeypatch.setattr(RewardMethod, "after_step", after_step)
    again = train_reward(RewardSettings(output=str(tmp_path / "broken"), resume=True), preferences=pairs())
    assert again.steps == whole.steps
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert again.after == whole.after
    assert again.before == whole.before


def test_a_loss_that_is_not_finite_stops_the_run_with_good_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = RewardMethod.forward, []

    def diverging(self: RewardMethod, batch: Any) -> Any:
        calls.append(1)
        loss, logs = forward(self, batch)
        return (loss * float("inf") if len(calls) == 4 else loss), logs

    monkeypatch.setattr(RewardMethod, "forward", diverging)
    for lora in (False, True):
        calls.clear()
        output = tmp_path / f"run-{lora}"
        with pytest.raises(TrainingError, match="step 4; the weights before it are in"):
            train(output, folder, lora=lora, epochs=1.0)
        name = "adapter_model.safetensors" if lora else "model.safetensors"
        good = load_file(output / "checkpoints" / "last-good" / name)
        assert good
        assert all(bool(torch.isfinite(value).all()) for value in good.values())
        assert json.loads((output / "failure.json").read_text(encoding="utf-8"))["step"] == 4


def test_other_data_is_another_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: RewardMethod, step: int) -> None:
        raise KeyboardInterrupt

    after_step = RewardMethod.after_step
    monkeypatch.setattr(RewardMethod, "after_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", folder)
    monkeypatch.setattr(RewardMethod, "after_step", after_step)
    with pytest.raises(TrainingError, match="the train data has changed since the run began"):
        train_reward(RewardSettings(output=str(tmp_path / "run"), resume=True), preferences=pairs(60))


def test_unlabelled_responses(folder: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    rows = [{"prompt": "a b", "responses": [" a b", " c d e", " f"][: 2 + k % 2], "scores": [1, 2, 3][: 2 + k % 2]}
            for k in range(6)]  # fmt: skip
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = train(tmp_path / "one", folder, meta=str(lists), meta_rate=0.1, steps=4, epochs=None)
    train(tmp_path / "two", folder, steps=4, epochs=None)
    assert one.steps == 4
    different = [not torch.equal(a, weights(tmp_path / "two")[n]) for n, a in weights(tmp_path / "one").items()]
    assert any(different)
    single = tmp_path / "single.jsonl"
    single.write_text(json.dumps({"prompt": "a", "completion": " b"}) + "\n")
    with pytest.raises(DataError, match="at least two"):
        train(tmp_path / "three", folder, meta=str(single))


def test_what_does_not_fit_is_said_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no margin"):
        train(tmp_path / "run", folder, margin=True)
    demonstrations = PreferenceSet.from_rows("demonstrations", [PreferenceRow("a", (" b",))] * 3)
    with pytest.raises(DataError, match="pairs or lists"):
        train_reward(settings(tmp_path / "run", folder), preferences=demonstrations)
    for wrong in (
        {"mapl": True, "margin": True},
        {"smoothing": 0.5},
        {"flip": "all"},
        {"contrast": "cosine"},
        {"frozen": True, "lora": True},
        {"frozen": True, "contrast": "simcse"},
        {"smoothing": 0.1, "label_smoothing": 0.1},
        {"meta_rate": 0.0},
        {"hold_out": 1.0},
        {"steps": 3, "epochs": 1.0},
    ):
        with pytest.raises(UsageError):
            RewardSettings(**wrong)
    assert not (tmp_path / "run").exists()


def test_instructions_are_put_at_the_end_of_the_prompt() -> None:
    found = PROPERTIES[1].draw("Why?", True, random.Random(0))
    assert found is not None
    assert asking("Say so.", (found,)) == "Say so.\nAsk a question."
    turns = ({"role": "user", "content": "Hello"}, {"role": "user", "content": "Say so."})
    assert asking(turns, (found,)) == (turns[0], {"role": "user", "content": "Say so.\nAsk a question."})
    assert frequent_words(["apple pear apple", "pear plum", "fig"], count=2) == ["pear", "apple"]


@dataclass
class Called:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    def called(*arguments: Any) -> Called:
        with pytest.raises(SystemExit) as end:
            run_command(["reward", *map(str, arguments)])
        printed = capsys.readouterr()
        return Called(int(end.value.code or 0), printed.out, printed.err)

    return called


def test_the_command_line(folder: Path, tmp_path: Path, command: Callable[..., Called]) -> None:
    data, run, strong = file_of(pairs(150, wrong=0.1), tmp_path / "p.jsonl"), tmp_path / "run", tmp_path / "s.jsonl"
    found = command("strength", data, "--model", folder, "--output", strong, "--votes", 2, "--json")
    assert found.code == 0, found.err
    told = json.loads(found.out)
    assert [each["group"] for each in told["groups"]] == ["incorrect", "ambiguous", "normal", "strong"]
    rows = read_preferences(strong)
    assert len(rows) == told["rows"] == 150
    assert all(row.margin is not None for row in rows)
    assert told["negative"] == pytest.approx(sum((row.margin or 0) < 0 for row in rows) / 150, abs=1e-6)
    made = command(
        "train", strong, "--model", folder, "--output", run, "--margin", "--smoothing", 0.1, "--lr", 0.005,
        "--epochs", 3, "--batch-size", 16, "--hold-out", 0.2, "--device", "cpu",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "accuracy" in made.out
    assert "sure by" in made.out
    assert "doubted" in made.err
    scored = command("score", strong, "--model", run, "--output", tmp_path / "scored.jsonl")
    assert scored.code == 0, scored.err
    assert "accuracy" in scored.out
    again = read_preferences(tmp_path / "scored.jsonl")
    for row in again:
        assert row.scores is not None
        assert row.margin == pytest.approx(row.scores[0] - row.scores[1])
    voted = command("strength", data, "--model", run, "--model", run, "--output", tmp_path / "v.jsonl")
    assert voted.code == 0, voted.err
    for arguments, text in (
        (("score", data, "--model", folder, "--output", tmp_path / "x.jsonl"), "no reward model"),
        (("score", data, "--model", run, "--output", tmp_path / "scored.jsonl"), "exists already"),
        (("score", data, "--model", run, "--output", tmp_path / "x.csv"), "lines of JSON"),
        (("strength", data, "--model", run, "--model", folder, "--output", tmp_path / "x.jsonl"), "several models"),
    ):
        refused = command(*arguments)
        assert refused.code != 0
        assert text in refused.err


def test_scores_of_lists_and_single_responses(folder: Path, tmp_path: Path, command: Callable[..., Called]) -> None:
    run = tmp_path / "run"
    train(run, folder, steps=1, epochs=None)
    lists, single = tmp_path / "lists.jsonl", tmp_path / "single.jsonl"
    lists.write_text(json.dumps({"prompt": "a", "responses": [" b c", " d", " e"], "scores": [3, 1, 2]}) + "\n")
    single.write_text(json.dumps({"prompt": "a", "completion": " b c", "label": True}) + "\n")
    for path in (lists, single):
        assert command("score", path, "--model", run, "--output", path.with_suffix(".out.jsonl")).code == 0
    (row,) = read_preferences(tmp_path / "lists.out.jsonl")
    assert row.responses == (" b c", " d", " e")
    assert row.scores != (3, 1, 2)
    found = json.loads((tmp_path / "single.out.jsonl").read_text())
    assert found["label"] is True
    assert row.scores is not None
    assert found["score"] == pytest.approx(row.scores[0], abs=1e-5)
