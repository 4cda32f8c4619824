"""Two processes that torchrun starts align a model as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nearfar import alignment, report
from support.alignment import settings_for, write_place

CHILD = """
import json, sys
from nearfar import alignment, report
report.write = lambda folder: folder
for settings in json.load(open(sys.argv[1])):
    run = alignment.align(alignment.AlignmentSettings.from_dict(settings))
    assert run.ended == "all steps", run.ended
"""

RUNS = {
    "parts": ("pairs", "dpo", {"chunk_size": 2, "evaluate": "pairs", "checkpointing": True}),
    "whole": ("pairs", "aot", {"chunk_size": 2}),
    "across": ("unpaired", "kto", {"chunk_size": 3}),
    # not lambda: its ranks of scores that are still equal hang on their rounding
    "lists": ("lists", "lipo-pair-logistic", {}),
    "value": ("lists", "dro-v", {"lora": True, "rank": 2}),
    "tokens": ("pairs", "sft", {"chunk_size": 2}),
    "shift": ("pairs", "bco-pair", {}),
}


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_two_processes_follow_the_trajectory_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an odd number of rows in a batch, so that the processes' parts differ in size."""
    monkeypatch.setattr(report, "write", lambda folder: folder)
    place = write_place(tmp_path / "place")
    asked = []
    for name, (data, objective, more) in RUNS.items():
        given = {**more, "evaluate": str(place / f"{more['evaluate']}.jsonl")} if "evaluate" in more else more
        settings = settings_for(place, data, objective, steps=3, batch_size=7, learning_rate=1e-4, **given)
        for kind in ("one", "two"):
            settings.output = str(tmp_path / kind / name)
            if kind == "one":
                alignment.align(settings)
            else:
                asked.append(settings.to_dict())
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--master-addr=127.0.0.1", f"--master-port={free_port()}", str(tmp_path / "child.py")),
            str(tmp_path / "asked.json"),
        ],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()[-4000:]
    for name in RUNS:
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        for (step, value), (again, other) in zip(losses(one), losses(two), strict=True):
            assert (step, value) == (again, pytest.approx(other, abs=2e-5)), name
        expected, found = (
            load_file(next((folder / "checkpoints").glob("checkpoint-*/model.safetensors"))) for folder in (one, two)
        )
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=2e-5, msg=f"{name}: {key}")
