"""Temperatures that follow the training: advanced after each step of the optimiser, saved, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from nearfar import objectives, training
from nearfar.contrast import CosineTemperature, IndividualTemperature
from nearfar.negatives import Batches
from nearfar.objectives.live_temperature import UNSEEN
from nearfar.training import ContrastiveMethod, Loader, Run, TextBatches, TrainingSettings, checkpoints
from nearfar.training.flow import Flow, Pace
from nearfar.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")

SETTINGS: dict[str, Any] = {
    "dimension": 16,
    "vocabulary_size": 600,
    "batch_size": 32,
    "steps": 10,
    "checkpoint_every": 4,
    "log_every": 1,
    "baselines": [],
}


def _start(output: Path, examples: Any, objective: str, parameters: dict[str, Any]) -> Run:
    settings = {**SETTINGS, "objective": objective, "parameters": parameters}
    return training.train(TrainingSettings(output=str(output), **settings), examples=examples)


def _logged(run: Run, name: str) -> dict[int, Any]:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["step"]: record[name] for record in map(json.loads, lines) if name in record}


def _last_checkpoint(run: Run) -> dict[str, torch.Tensor]:
    place = run.folder / "checkpoints"
    return load_file(place / f"checkpoint-{checkpoints.steps(place)[-1]}" / checkpoints.WEIGHTS)


def _interrupted_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ContrastiveMethod.after_step

    def after_step(self: ContrastiveMethod, now: int) -> None:
        plain(self, now)
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ContrastiveMethod, "after_step", after_step)


@pytest.mark.usefixtures("quick")
def test_a_schedule_advances_with_each_step_of_the_optimiser(tmp_path: Path, make_pairs: Any) -> None:
    run = _start(tmp_path / "run", make_pairs(100), "info-nce", {"temperature": "cosine:0.1:0.5:8"})
    plan = CosineTemperature(0.1, 0.5, 8)
    # the first step sees the schedule's beginning, the ninth a period later the same
    assert _logged(run, "temperature") == {step: pytest.approx(plan.at(step - 1)) for step in range(1, 11)}
    assert _logged(run, "temperature")[1] == pytest.approx(0.5)
    assert _logged(run, "temperature")[5] == pytest.approx(0.1)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_accumulated_batches_are_one_step(tmp_path: Path, static_model: Any, make_pairs: Any, accumulated: int) -> None:
    method = ContrastiveMethod(static_model, objectives.get("info-nce", temperature="cosine:0.1:0.5:8"))
    pace = Flow(Pace(1, None, 100))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, gradient_accumulation_steps=accumulated, logging_strategy="no",
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        dataloader_pin_memory=False,
    )  # fmt: skip
    loader = Loader(TextBatches(static_model, make_pairs(24)), Batches(24, 2))
    pace.trainer = Trainer(method, arguments, loader, callbacks=[pace])
    pace.trainer.clock.start()
    pace.trainer.train()
    assert int(method.objective.temperature.steps) == 4
    assert method.objective.temperature.value == pytest.approx(0.1)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "schedule": ("info-nce", {"temperature": "cosine:0.05:0.4:7", "two_sided": True}),
    "adaptive": ("macl", {}),
    "by item": ("sogclr", {"gamma": 0.5, "temperature": "cosine:0.05:0.4:7", "two_sided": True}),
    "temperatures by item": ("isogclr", {"two_sided": True}),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("case", CASES)
def test_what_follows_the_training_is_resumed_bit_for_bit(
    tmp_path: Path, make_pairs: Any, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Interrupted over an epoch's end, so that items have been seen once or twice."""
    objective, parameters = CASES[case]
    data = make_pairs(100)
    whole = _start(tmp_path / "whole", data, objective, parameters)
    with monkeypatch.context() as patch:
        _interrupted_after(5, patch)
        broken = _start(tmp_path / "broken", data, objective, parameters)
    assert broken.interrupted
    assert broken.steps == 5
    resumed = training.train(TrainingSettings(output=str(tmp_path / "broken"), resume=True), examples=data)
    assert resumed.steps == 10
    expected, found = _last_checkpoint(whole), _last_checkpoint(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    for name in ("loss", "temperature"):
        assert _logged(whole, name) == _logged(resumed, name)
    remembered = {name for name in expected if name.startswith("objective.")}
    assert bool(remembered) == (case != "adaptive")
    if "by item" in case:
        seen = expected["objective.log_mass.values"] > UNSEEN
        assert seen[:100].all()
        assert not seen[100:].any()


def test_tables_by_item_go_through_a_checkpoint_of_another_size() -> None:
    objective = objectives.get("isogclr", temperature=IndividualTemperature(0.2))
    ids = torch.tensor([3, 40])
    objective.temperature.update(ids, torch.tensor([1.0, -1.0]))
    everyone = torch.arange(objective.temperature.temperatures.values.numel())
    assert len(everyone) > 40
    for items in (0, 500):
        other = objectives.get("isogclr", items=items)
        other.load_state_dict(objective.state_dict())
        assert torch.equal(other.temperature.of(everyone), objective.temperature.of(everyone))
    assert objective.temperature.of(ids).tolist() == pytest.approx([0.2 - 0.03 * 0.5, 0.2 + 0.03 * 0.5])
