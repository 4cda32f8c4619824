"""Objectives that learn vectors of classes: made from data and encoder, trained, saved in checkpoints, resumed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from nearfar import training
from nearfar.data import Examples
from nearfar.errors import UsageError
from nearfar.objectives import ArcFace, CatLIP, ProxyObjective, get
from nearfar.training import Run, TrainingSettings
from nearfar.training.prepare import make_proxies

pytestmark = [pytest.mark.filterwarnings("ignore:.*narrow cone"), pytest.mark.usefixtures("quick")]

SMALL: dict[str, Any] = {"dimension": 16, "vocabulary_size": 600, "batch_size": 32, "baselines": []}


def start(output: Path, examples: Examples, objective: str, **settings: Any) -> Run:
    return training.train(
        TrainingSettings(output=str(output), objective=objective, **{**SMALL, "steps": 12, **settings}),
        examples=examples,
    )


def saved(run: Run) -> dict[str, torch.Tensor]:
    (checkpoint,) = sorted((run.folder / "checkpoints").glob("checkpoint-*"))
    return {
        name.removeprefix("objective."): value
        for name, value in load_file(checkpoint / "model.safetensors").items()
        if name.startswith("objective.")
    }


@pytest.mark.parametrize("objective", ["arcface", "proxy-anchor", "catlip", "center"])
def test_vectors_of_classes_are_trained_and_saved(tmp_path: Path, make_labelled: Any, objective: str) -> None:
    examples = make_labelled(120, classes=5)
    run = start(tmp_path / "run", examples, objective, checkpoint_every=12)
    assert run.steps == 12
    found = saved(run)
    assert found["proxies"].shape == (5, 16)
    start_of_run = get(objective)
    assert isinstance(start_of_run, ProxyObjective)
    make_proxies(start_of_run, examples, 16, seed=0)
    for name, value in start_of_run.state_dict().items():
        moved = (found[name] - value).norm(dim=-1)
        assert (moved > 1e-4).all(), name


def test_training_tells_classes_apart(tmp_path: Path, make_labelled: Any) -> None:
    run = start(tmp_path / "run", make_labelled(300), "cosface", steps=60, hold_out=0.2, parameters={"scale": 16.0})
    assert run.main is not None
    assert run.after[run.main]["value"] > run.before[run.main]["value"]


def test_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, make_labelled: Any, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_labelled(120)
    whole = start(tmp_path / "whole", examples, "arcface", checkpoint_every=5)
    for step in (1, 7):  # before and after a checkpoint that is not the interrupt's own
        folder = tmp_path / f"broken {step}"
        with monkeypatch.context():
            interrupt_at(step)
            assert start(folder, examples, "arcface", checkpoint_every=5).steps == step
        monkeypatch.setattr(training.ContrastiveMethod, "after_step", lambda *_: None)
        resumed = training.train(TrainingSettings(output=str(folder), resume=True), examples=examples)
        mine, theirs = whole.encoder.state_dict(), resumed.encoder.state_dict()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_header_names_the_classes(tmp_path: Path, make_labelled: Any) -> None:
    out = io.StringIO()
    settings = TrainingSettings(output=str(tmp_path / "run"), objective="soft-triple", **{**SMALL, "steps": 2})
    training.train(settings, examples=make_labelled(60), console=Console(file=out, width=300))
    assert "the vectors of 4 classes, 10 each, learned with the encoder" in out.getvalue()


def test_pairs_have_no_classes(tmp_path: Path, make_pairs: Any) -> None:
    with pytest.raises(UsageError, match="arcface is about classes of items and cannot be trained on pairs"):
        start(tmp_path / "run", make_pairs(60), "arcface")


def test_vectors_made_for_something_else(make_labelled: Any) -> None:
    examples = make_labelled(40, classes=4)
    make_proxies(ArcFace(6, 16), examples, 16, seed=0)  # more classes than the data shows
    for objective in (ArcFace(3, 16), CatLIP(4, 8)):
        with pytest.raises(UsageError, match=r"the data has 4 labels and the encoder 16 dimensions") as caught:
            make_proxies(objective, examples, 16, seed=0)
        assert "leave classes and dimension out" in str(caught.value.hint)


def test_making_vectors_leaves_what_is_drawn_later_alone(make_labelled: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_proxies(ArcFace(), make_labelled(40), 16, seed=7)
    assert torch.equal(torch.rand(2), expected)
