"""``nearfar data check`` of preferences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearfar.cli import commands  # noqa: F401  registers them
from nearfar.cli.app import app
from nearfar.errors import NearfarError
from support.chats import CHAT_EOS, answer, byte_pairs, turns, written

runner = CliRunner()


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    said = [("blue today", "green"), ("no idea", "say it again"), ("blue", "blue")]
    rows = [
        {"prompt": list(turns(f"who are you {place} ?")), "chosen": list(answer(one)), "rejected": list(answer(other))}
        for place, (one, other) in enumerate(said)
    ]
    return written(tmp_path / "talks.jsonl", rows)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    byte_pairs(begins=True, template=CHAT_EOS).save_pretrained(folder)
    return folder


def test_texts_alone(talks: Path) -> None:
    shown = runner.invoke(app, ["data", "check", str(talks), "--json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    assert (told["shape"], told["rows"]) == ("pairs", 3)
    assert "conversations: 3 of 3 rows" in told["description"]
    names = {finding["name"]: finding["count"] for finding in told["findings"]}
    assert names["equal-responses"] == 1
    strict = runner.invoke(app, ["data", "check", str(talks), "--strict"])
    assert isinstance(strict.exception, NearfarError)
    assert "equal-responses" in str(strict.exception)


def test_with_the_tokens_of_a_model(talks: Path, model: Path) -> None:
    told = ["data", "check", str(talks), "--model", str(model), "--max-response", "3"]
    shown = runner.invoke(app, told)
    assert shown.exit_code == 0, shown.output
    for part in ("tokens: 3 rows of 6 responses", "cut to the budget of 3", "[[blue today</s>]]", "responses-cut"):
        assert part in shown.output
    as_json = json.loads(runner.invoke(app, [*told, "--json"]).stdout)
    assert as_json["tokens"]["responses cut"] == 1
    assert as_json["example"].startswith("<s><|user|>\nwho are you 0 ?</s>\n<|assistant|>\n[[blue today</s>]]")


def test_other_names(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [{"q": "Sky? ", "a": "blue", "b": "green", "best": 2}] * 2)
    columns = "prompt=q,response_1=a,response_2=b,preferred=best"
    told = json.loads(runner.invoke(app, ["data", "check", str(path), "--columns", columns, "--json"]).stdout)
    assert told["shape"] == "pairs"
    assert "chosen: green" in told["description"]


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = written(tmp_path / "x.jsonl", [good, {**good, "rejected": None}])
    shown = runner.invoke(app, ["data", "check", str(path)])
    assert "x.jsonl, line 2, column 'rejected'" in str(shown.exception)
    assert runner.invoke(app, ["data", "check", str(path), "--max-bad-rows", "1"]).exit_code == 0


def test_options_of_the_other_kind_are_refused(talks: Path, tmp_path: Path, model: Path) -> None:
    shown = runner.invoke(app, ["data", "check", str(talks), "--batch-size", "8"])
    assert "--batch-size is for examples to embed" in str(shown.exception)
    pairs = written(tmp_path / "pairs.jsonl", [{"anchor": "a", "positive": "b"}])
    shown = runner.invoke(app, ["data", "check", str(pairs), "--model", str(model)])
    assert "--model is for preferences" in str(shown.exception)


def test_a_folder_without_a_tokenizer(talks: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    shown = runner.invoke(app, ["data", "check", str(talks), "--model", str(tmp_path / "nothing")])
    assert "no tokenizer that can be read" in str(shown.exception)
