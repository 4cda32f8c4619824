"""Two processes that torchrun starts align a model as one does, whether or not they share out its weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nearfar import alignment, report
from support.alignment import settings_for, write_place

CHILD = """
import json, os, sys
from nearfar import alignment, report
from nearfar.alignment import sharding
from nearfar.alignment.method import AlignmentMethod
from nearfar.errors import TrainingError
from nearfar.training import processes
report.write = lambda folder: folder
shard = sharding.shard
def looked_at(model, *rest, **more):
    shard(model, *rest, **more)
    held = sum(each.to_local().numel() for each in model.parameters())
    assert held < 0.6 * sum(each.numel() for each in model.parameters())
sharding.shard = looked_at
for asked in json.load(open(sys.argv[1])):
    stop, diverges, told, fails = (asked.pop(name, None) for name in ("stop", "diverges", "told", "fails"))
    if fails is not None:
        score = AlignmentMethod.score
        def failing(self, *given, **more):
            if processes.rank() == fails:
                raise RuntimeError("this process failed alone")
            return score(self, *given, **more)
        AlignmentMethod.score = failing
    def after_step(self, step):
        if step == stop:
            raise KeyError("stopped here")
    AlignmentMethod.after_step = after_step
    os.environ.update(told or {})
    settings = alignment.AlignmentSettings.from_dict(asked)
    try:
        run = alignment.align(settings)
    except KeyError:
        continue
    except TrainingError as error:
        assert diverges and "finite" in error.message, error
        continue
    finally:
        for name in told or {}:
            del os.environ[name]
    assert run.ended == ("early stop" if settings.early_stop else "all steps") and not diverges and stop is None
    shared = settings.shard or settings.resume or told
    assert (run.policy is None) == bool(shared and not processes.is_main())
"""

RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "parts": ("pairs", "dpo", {"chunk_size": 2, "evaluate": "pairs", "checkpointing": True}),
    "whole": ("pairs", "aot", {"chunk_size": 2}),
    "across": ("unpaired", "kto", {"chunk_size": 3}),
    # not lambda: its ranks of scores that are still equal hang on their rounding
    "lists": ("lists", "lipo-pair-logistic", {"evaluate": "lists", "keep_best": True, "evaluate_every": 1}),
    "value": ("lists", "dro-v", {"lora": True, "rank": 2, "merge": True}),
    "tokens": ("pairs", "sft", {"chunk_size": 2}),
    "shift": ("pairs", "bco-pair", {"max_gradient_norm": 0.01}),
    "other": ("pairs", "dpo", {"reference": "model"}),
    "stops": ("pairs", "simpo", {"evaluate": "pairs", "early_stop": 1, "evaluate_every": 1, "learning_rate": 1e-9}),
    "head": ("pairs", "ipo", {"lora": True, "lora_targets": "lm_head", "chunk_size": 2}),
    "half": ("pairs", "dpo", {"lora": True, "precision": "bf16", "chunk_size": 2}),
}


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def logged(folder: Path, name: str = "loss") -> list[float]:
    """What was logged of each step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = [(line["step"], line[name]) for line in lines if name in line]
    assert [step for step, _ in found] == list(range(1, len(found) + 1))
    return [value for _, value in found]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "checkpoints").glob("checkpoint-*/model.safetensors")))


def asked_of(place: Path, name: str, output: Path, **more: Any) -> alignment.AlignmentSettings:
    data, objective, own = RUNS[name]
    given = dict(own)
    if "evaluate" in given:
        given["evaluate"] = str(place / f"{given['evaluate']}.jsonl")
    if "reference" in given:
        given["reference"] = str(place / given["reference"])
    usual: dict[str, Any] = {"steps": 3, "batch_size": 7, "learning_rate": 1e-4}
    return settings_for(place, data, objective, output=str(output), **{**usual, **given, **more})


def on_two_processes(folder: Path, asked: list[dict[str, Any]]) -> None:
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    (folder / "child.py").write_text(CHILD, encoding="utf-8")
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--master-addr=127.0.0.1", f"--master-port={free_port()}", str(folder / "child.py")),
            str(folder / "asked.json"),
        ],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()[-12000:]


def assert_same(one: Path, two: Path, *, half: bool = False) -> None:
    if half:
        for name in ("loss", "gradient_norm"):
            assert logged(one, name) == pytest.approx(logged(two, name), rel=0.05)
        return
    assert logged(one) == pytest.approx(logged(two), abs=2e-5)
    # weights do not tell by how much a gradient was multiplied: AdamW and clipping do not care
    assert logged(one, "gradient_norm") == pytest.approx(logged(two, "gradient_norm"), rel=1e-4)
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=2e-5, msg=key)
    for file in one.glob("model/*.safetensors"):
        exported = load_file(two / "model" / file.name)
        for key, value in load_file(file).items():
            torch.testing.assert_close(exported[key], value, rtol=0, atol=2e-5, msg=f"exported {key}")
    config = one / "model" / "config.json"
    if config.exists():
        assert config.read_text() == (two / "model" / "config.json").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def one(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "write", lambda path: path)
        for name in RUNS:
            alignment.align(asked_of(place, name, folder / name))
    return folder


RESUMED: dict[str, Any] = {"steps": 4, "checkpoint_every": 1, "shard": True}


@pytest.fixture(scope="module")
def two(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes, all of one start: replicated/, sharded/, and those that stop and go on."""
    folder = tmp_path_factory.mktemp("two")

    def asked(name: str, kind: str, **more: Any) -> dict[str, Any]:
        return asked_of(place, name, folder / kind / name, **more).to_dict()

    every = [asked(name, "replicated") for name in RUNS] + [asked(name, "sharded", shard=True) for name in RUNS]
    for name in ("parts", "value"):
        every += [
            asked(name, "straight", **RESUMED),
            asked(name, "broken", **RESUMED) | {"stop": 3},
            asked(name, "broken", **RESUMED) | {"resume": True, "shard": False},
            asked(name, "alone", **RESUMED) | {"stop": 3},
        ]
    told = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    every.append(asked("tokens", "told") | {"told": told})
    every.append(asked("parts", "mixed", **{**RESUMED, "shard": False}) | {"stop": 3})
    every.append(asked("parts", "mixed", **RESUMED) | {"resume": True})
    diverging = {"learning_rate": 1e30, "max_gradient_norm": 0.0, "shard": True}
    every.append(asked("parts", "diverging", **diverging) | {"diverges": True})
    on_two_processes(folder, every)
    return folder


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_two_processes_follow_the_trajectory_of_one(one: Path, two: Path, kind: str, name: str) -> None:
    """With an odd number of rows in a batch, so that the processes' parts differ in size (and in their chunks)."""
    assert_same(one / name, two / kind / name, half=name == "half")


@pytest.mark.parametrize("name", ["parts", "value"])
def test_a_sharded_run_resumes_to_the_same_weights(two: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Bit for bit on as many processes; on one process as closely as one process follows two."""
    expected, found = weights(two / "straight" / name), weights(two / "broken" / name)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert logged(two / "straight" / name) == logged(two / "broken" / name)
    monkeypatch.setattr(report, "write", lambda folder: folder)
    alone = two / "alone" / name
    run = alignment.align(alignment.AlignmentSettings(output=str(alone), resume=True, device="cpu"))
    assert run.policy is not None
    assert_same(two / "straight" / name, alone)


def test_what_accelerates_launcher_says_shards_as_well(one: Path, two: Path) -> None:
    """It would have left the model of all processes but the main one without weights."""
    assert json.loads((two / "told" / "tokens" / "config.json").read_text())["settings"]["shard"] is True
    assert_same(one / "tokens", two / "told" / "tokens")


def test_a_sharded_run_that_diverges_leaves_good_weights(two: Path) -> None:
    folder = two / "diverging" / "parts"
    good = load_file(folder / "checkpoints" / "last-good" / "model.safetensors")
    assert json.loads((folder / "failure.json").read_text())["step"] >= 2
    assert good
    assert all(bool(torch.isfinite(value).all()) for value in good.values())


def test_a_run_that_was_not_sharded_goes_on_sharded(two: Path) -> None:
    assert_same(two / "straight" / "parts", two / "mixed" / "parts")


def test_a_process_that_fails_alone_does_not_hang_the_others(place: Path, tmp_path: Path) -> None:
    """They wait for its part of a layer, and it must not wait for them."""
    asked = asked_of(place, "parts", tmp_path / "run", shard=True).to_dict() | {"fails": 1}
    began = time.monotonic()
    with pytest.raises(AssertionError, match="failed alone"):
        on_two_processes(tmp_path, [asked])
    assert time.monotonic() - began < 120
