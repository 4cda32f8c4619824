from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nearfar.errors import UsageError
from nearfar.training import TrainingSettings


def test_round_trip_through_json() -> None:
    settings = TrainingSettings(
        data=[Path("a.jsonl"), "b.jsonl"],  # type: ignore[list-item]
        output=Path("runs") / "mine",  # type: ignore[arg-type]
        objective="infonce",
        parameters={"temperature": "learned:0.07", "two_sided": True},
        batch_size=64,
        learning_rate=0.01,
    )
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("batch_size", True),
        ("chunk_size", -1),
        ("steps", 0),
        ("epochs", 0),
        ("epochs", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("warmup", 1.5),
        ("weight_decay", -0.1),
        ("max_gradient_norm", -1),
        ("seed", -1),
        ("schedule", "stairs"),
        ("precision", "fp8"),
        ("early_stop", 0),
        ("hold_out", 2.0),
        ("baselines", ["gpt"]),
        ("parameters", "temperature"),
        ("max_bad_rows", -1),
    ],
)
def test_values_that_cannot_be_used_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingSettings(**{name: value})
    assert repr(value).strip("[]") in caught.value.message
    assert caught.value.where == "--" + name.replace("_", "-")
    assert caught.value.hint


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, "warm"])
def test_temperatures_that_cannot_be_used(temperature: Any) -> None:
    with pytest.raises(UsageError, match="temperature"):
        TrainingSettings(parameters={"temperature": temperature})


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="no objective called"):
        TrainingSettings(objective="nonsense")
    with pytest.raises(UsageError, match="takes no 'margin'"):
        TrainingSettings(parameters={"margin": 1})
    with pytest.raises(UsageError, match="batchsize") as caught:
        TrainingSettings.from_dict({"batchsize": 3})
    assert "batch_size" in (caught.value.hint or "")


@pytest.mark.parametrize("both", [{"steps": 3, "epochs": 1}, {"evaluate": "dev.jsonl", "hold_out": 0.1}])
def test_either_or(both: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="both given"):
        TrainingSettings(**both)


def test_what_was_set_differently() -> None:
    stored = TrainingSettings(batch_size=64, seed=3, output="a")
    assert TrainingSettings(output="b", resume=True, workers=2).changed(stored) == []
    assert TrainingSettings(batch_size=64).changed(stored) == []
    assert TrainingSettings(batch_size=32, learning_rate=0.1).changed(stored) == ["batch_size", "learning_rate"]
