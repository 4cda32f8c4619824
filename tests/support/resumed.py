"""Runs that are broken off and gone on with, as tests of every kind of recipe compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nearfar import training
from nearfar.data import Examples
from nearfar.training import Run, TrainingSettings


def short(output: Path, encoder: Path | str, recipe: str, **more: Any) -> TrainingSettings:
    """A run of two epochs by a recipe on a CPU; ``more`` settings stand before these."""
    usual: dict[str, Any] = {
        "general_check": False,
        "device": "cpu",
        "log_every": 1,
        "batch_size": 16,
        "epochs": 2.0,
        "learning_rate": 1e-3,
    }
    return TrainingSettings(output=str(output), encoder=str(encoder), recipe=recipe, **{**usual, **more})


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines that a run wrote while it went."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All of the method's weights and buffers in a run's last checkpoint."""
    return load_file(next((folder / "checkpoints").glob("*/model.safetensors")))


def whole_and_resumed(
    whole: TrainingSettings,
    broken: TrainingSettings,
    examples: Examples,
    interrupt_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    tolerance: float,
) -> tuple[Run, Run]:
    """The run ``whole``, and ``broken`` after it was interrupted at step 3 and gone on with: both end in the same
    weights, within ``tolerance``."""
    complete = training.train(whole, examples=examples)
    after_step = training.ContrastiveMethod.after_step
    interrupt_at(3)
    part = training.train(broken, examples=examples)
    assert (part.interrupted, part.steps) == (True, 3)
    monkeypatch.setattr(training.ContrastiveMethod, "after_step", after_step)
    again = training.train(TrainingSettings(output=broken.output, resume=True), examples=examples)
    assert (again.interrupted, again.steps) == (False, complete.steps)
    expected, found = weights(complete.folder), weights(again.folder)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(value, found[name], rtol=0, atol=tolerance, msg=name)
    return complete, again
