from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import training
from nearfar.data import Examples
from nearfar.errors import OutputError, TrainingError, UsageError
from nearfar.locking import only_one
from nearfar.training import Run, TrainingSettings
from nearfar.training.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")

SETTINGS: dict[str, Any] = {
    "dimension": 16,
    "vocabulary_size": 600,
    "batch_size": 32,
    "steps": 14,
    "checkpoint_every": 4,
    "evaluate_every": 3,
    "log_every": 1,
    "baselines": [],
    "parameters": {"temperature": "learned", "two_sided": True},
}


def start(output: Path, examples: Examples, evaluation: Any = None, **settings: Any) -> Run:
    chosen = TrainingSettings(output=str(output), **{**SETTINGS, **settings})
    return training.train(chosen, examples=examples, evaluation=evaluation)


def resume(output: Path, examples: Examples | None, evaluation: Any = None) -> Run:
    return training.train(TrainingSettings(output=str(output), resume=True), examples=examples, evaluation=evaluation)


def same_weights(one: Run, other: Run) -> bool:
    mine, theirs = one.encoder.state_dict(), other.encoder.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def records(run: Run, *keys: str) -> list[tuple[Any, ...]]:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [tuple(record.get(key) for key in ("step", *keys)) for record in map(json.loads, lines)]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGINT), (7, signal.SIGTERM), (13, signal.SIGINT)])
def test_an_interrupted_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, make_pairs: Any, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch, step: int, number: Any
) -> None:
    """Over an epoch's end (7 steps), with evaluations and a learned temperature; 13: just before the last step."""
    data, dev = make_pairs(200), make_pairs(40, seed=1)
    whole = start(tmp_path / "whole", data, dev)
    with monkeypatch.context():
        interrupt_at(step, number)
        broken = start(tmp_path / "broken", data, dev)
    assert broken.interrupted
    assert (broken.ended, broken.steps) == (signal.Signals(number).name, step)
    assert not (broken.folder / "model").exists()
    assert signal.getsignal(number) is not None
    monkeypatch.setattr(training.ContrastiveMethod, "after_step", lambda *_: None)
    resumed = resume(tmp_path / "broken", data, dev)
    assert not resumed.interrupted
    assert resumed.steps == 14
    assert same_weights(whole, resumed)
    assert (resumed.before, resumed.after, resumed.main) == (whole.before, whole.after, whole.main)
    keys = ("epoch", "loss", "learning_rate", "temperature", "evaluation")
    assert records(whole, *keys) == records(resumed, *keys)


@pytest.mark.usefixtures("quick")
def test_dropout_goes_on_where_it_was(
    tmp_path: Path, make_pairs: Any, interrupt_at: Any, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"encoder": str(bert_folder), "steps": 6, "chunk_size": 20, "learning_rate": 1e-3, "batch_size": 20}
    data = make_pairs(80)
    whole = start(tmp_path / "whole", data, **options)
    with monkeypatch.context():
        interrupt_at(5)
        assert start(tmp_path / "broken", data, **options).steps == 5
    monkeypatch.setattr(training.ContrastiveMethod, "after_step", lambda *_: None)
    assert same_weights(whole, resume(tmp_path / "broken", data))


KILLED = """
import os, signal, sys
import numpy as np
from nearfar import training
from nearfar.data import read

def after_step(self, step):
    if step == 11:
        os.kill(os.getpid(), signal.SIGKILL)

training.ContrastiveMethod.after_step = after_step
training.train(training.TrainingSettings.from_dict({settings!r}))
"""


@pytest.mark.usefixtures("quick")
def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, make_pairs: Any, child_environment: dict[str, str]
) -> None:
    data, path = make_pairs(200), tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(data[row]) + "\n" for row in range(200)), encoding="utf-8")
    settings = {**SETTINGS, "data": str(path), "output": str(tmp_path / "killed")}
    code = textwrap.dedent(KILLED).format(settings=settings)
    child = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    place = tmp_path / "killed" / "checkpoints"
    assert sorted(each.name for each in place.iterdir()) == ["checkpoint-8", "initial"]
    # the kill could have come in the middle of a checkpoint: what is half there is not taken
    shutil.copytree(place / "checkpoint-8", place / "checkpoint-12")
    with open(place / "checkpoint-12" / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    (place / ".checkpoint-13.part").mkdir()
    with open(tmp_path / "killed" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 11, "lo')
    resumed = resume(tmp_path / "killed", None)
    whole = start(tmp_path / "whole", data)
    assert same_weights(whole, resumed)
    assert records(whole, "loss") == records(resumed, "loss")
    assert [each.name for each in place.iterdir()] == ["checkpoint-14"]


@pytest.mark.usefixtures("quick")
def test_a_run_killed_before_its_first_checkpoint_begins_again(
    tmp_path: Path, make_pairs: Any, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_pairs(100)
    whole = start(tmp_path / "whole", data, steps=3)
    with monkeypatch.context():
        interrupt_at(2)
        start(tmp_path / "broken", data, steps=3)
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "checkpoint-2")
    monkeypatch.setattr(training.ContrastiveMethod, "after_step", lambda *_: None)
    assert same_weights(whole, resume(tmp_path / "broken", data))


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_after_its_last_step_only_finishes(
    tmp_path: Path, make_pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfar.training import results

    data, dev = make_pairs(100), make_pairs(30, seed=1)
    whole = start(tmp_path / "whole", data, dev, steps=8, early_stop=1, learning_rate=0.5)

    def die(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(results, "write_report", die)
        with pytest.raises(MemoryError):
            start(tmp_path / "broken", data, dev, steps=8, early_stop=1, learning_rate=0.5)
    (tmp_path / "broken" / "metrics.json").write_text(
        json.dumps({"main": whole.main, "before": whole.before}), encoding="utf-8"
    )
    resumed = resume(tmp_path / "broken", data, dev)
    assert (resumed.steps, resumed.ended, resumed.after) == (whole.steps, whole.ended, whole.after)
    assert same_weights(whole, resumed)


@pytest.mark.usefixtures("quick")
def test_a_complete_run_is_only_loaded(tmp_path: Path, make_pairs: Any) -> None:
    data = make_pairs(100)
    whole = start(tmp_path / "run", data, steps=3)
    again = resume(tmp_path / "run", None)
    assert (again.steps, again.ended, again.after) == (whole.steps, whole.ended, whole.after)
    assert same_weights(whole, again)


@pytest.mark.usefixtures("quick")
def test_other_data_or_settings_are_refused(tmp_path: Path, make_pairs: Any, interrupt_at: Any) -> None:
    interrupt_at(3)
    run = start(tmp_path / "run", make_pairs(100), make_pairs(30, seed=1))
    with pytest.raises(TrainingError, match="train data has changed"):
        resume(run.folder, make_pairs(100, seed=9), make_pairs(30, seed=1))
    with pytest.raises(TrainingError, match="had evaluation data, and none was given"):
        resume(run.folder, make_pairs(100))
    with pytest.raises(UsageError, match=r"keeps its settings.*learning_rate"):
        training.train(
            TrainingSettings(output=str(run.folder), resume=True, learning_rate=1.0), examples=make_pairs(100)
        )
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    config["settings"]["learning_rate"] = 0.5
    (run.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(TrainingError, match="belongs to another run"):
        resume(run.folder, make_pairs(100), make_pairs(30, seed=1))
    with pytest.raises(TrainingError, match="not a run that can be resumed"):
        resume(tmp_path / "nowhere", make_pairs(100))


@pytest.mark.usefixtures("quick")
def test_one_process_at_a_time(tmp_path: Path, make_pairs: Any, interrupt_at: Any) -> None:
    interrupt_at(3)
    run = start(tmp_path / "run", make_pairs(100))
    with only_one(run.folder / ".lock", "training"), pytest.raises(OutputError, match="another process is training"):
        resume(run.folder, make_pairs(100))


def test_a_second_ctrl_c_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert interrupts.requested is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
