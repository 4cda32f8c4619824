"""Two processes that torchrun starts do what one does."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nearfar import training
from nearfar.data import Examples
from nearfar.training import TrainingSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")

CHILD = """
import json, sys
from nearfar import diagnostics, report, training
diagnostics.collect = lambda *_, **__: {}
report.write = lambda folder: folder
for settings in json.load(open(sys.argv[1])):
    run = training.train(training.TrainingSettings.from_dict(settings))
    assert run.ended == "all steps", run.ended
    assert bool(run.after) == bool(settings["evaluate"])
"""


def write(path: Path, examples: Examples) -> str:
    path.write_text("".join(json.dumps(examples[row]) + "\n" for row in range(len(examples))), encoding="utf-8")
    return str(path)


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@pytest.mark.usefixtures("quick")
def test_two_processes_follow_the_trajectory_of_one(
    tmp_path: Path, make_pairs: Any, make_labelled: Any, bert_folder: Path, child_environment: dict[str, str]
) -> None:
    still = tmp_path / "bert without dropout"  # whose draws would differ
    shutil.copytree(bert_folder, still)
    config = json.loads((still / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pairs = write(tmp_path / "pairs.jsonl", make_pairs(90, negatives=1))
    dev = write(tmp_path / "dev.jsonl", make_pairs(30, seed=1))
    views = write(tmp_path / "views.jsonl", make_pairs(90))
    labelled = write(tmp_path / "labelled.jsonl", make_labelled(90))
    shared: dict[str, Any] = {"dimension": 16, "batch_size": 21, "steps": 6, "log_every": 1, "baselines": []}
    plans: dict[str, dict[str, Any]] = {
        "static": {
            "data": pairs,
            "evaluate": dev,
            "parameters": {"two_sided": True, "temperature": "learned"},
            "checkpoint_every": 4,
        },
        "cached": {"data": pairs, "encoder": str(still), "chunk_size": 8, "learning_rate": 1e-3},
        "labels": {"data": labelled, "objective": "supcon"},
        "views": {"data": views, "objective": "vicreg"},
    }

    def settings(name: str, folder: str) -> TrainingSettings:
        return TrainingSettings(**shared, **plans[name], output=str(tmp_path / folder / name))

    (tmp_path / "plans.json").write_text(json.dumps([settings(name, "two").to_dict() for name in plans]))
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    child = subprocess.run(
        [*launch, str(tmp_path / "child.py"), str(tmp_path / "plans.json")],
        env=child_environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    for name in plans:
        run = training.train(settings(name, "one"))
        one, two = losses(run.folder), losses(tmp_path / "two" / name)
        assert len(one) == 6
        assert two == [(step, pytest.approx(loss, rel=1e-5, abs=1e-5)) for step, loss in one], name
        mine, theirs = (
            load_file(tmp_path / folder / name / "model" / "model.safetensors") for folder in ("one", "two")
        )
        assert all((mine[key] - theirs[key]).abs().max() < 1e-3 for key in mine)
    config = json.loads((tmp_path / "two" / "static" / "config.json").read_text(encoding="utf-8"))
    assert config["processes"] == 2
    names = {path.name for path in (tmp_path / "two" / "static" / "checkpoints" / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
