"""PromCSE, miCSE, SG-BERT, UNSEE and SupCL-Seq by ``nearfar train``: trained, broken off, gone on with, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import encoders, training
from nearfar.cli.app import run
from nearfar.data import Examples
from nearfar.errors import ModelError, UsageError
from nearfar.training import TrainingSettings
from support import sentence_models
from support.resumed import logged, short, weights, whole_and_resumed

pytestmark = [pytest.mark.filterwarnings("ignore:.*narrow cone"), pytest.mark.usefixtures("quick")]

OPTIONS: dict[str, dict[str, Any]] = {
    "promcse": {"length": 3},
    "micse": {"samples": 20, "weight": 0.1},
    "sg-bert": {"width": 8, "variant": "opt2"},
    "unsee": {"momentum": 0.5, "predictor_factor": 1.0, "form": "corinfomax"},
    "supcl-seq": {"rates": "0, 0.3"},
}
LOGGED = {"promcse": "prefix length", "micse": "attention term", "sg-bert": "squared distance"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_models.bert(tmp_path_factory.mktemp("models") / "bert")


def corpus(recipe: str, rows: int = 40) -> Examples:
    columns: dict[str, list[str]] = {"text": sentence_models.texts(rows)}
    if recipe == "supcl-seq":
        columns["label"] = [f"class {row % 3}" for row in range(rows)]
    return Examples.from_columns(columns)


def settings(output: Path, bert: Path, recipe: str, **more: Any) -> TrainingSettings:
    return short(output, bert, recipe, **{"parameters": OPTIONS[recipe], **more})


@pytest.mark.parametrize("recipe", OPTIONS)
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights_and_exports_the_encoder(
    tmp_path: Path, bert: Path, recipe: str, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = corpus(recipe)
    whole, again = whole_and_resumed(
        *(settings(tmp_path / name, bert, recipe) for name in ("whole", "broken")),
        examples,
        interrupt_at,
        monkeypatch,
        tolerance=1e-7,
    )
    found = weights(again.folder)
    # what is exported is the encoder's alone, and what was trained
    exported, start = (encoders.load(folder, device="cpu").state_dict() for folder in (again.folder / "model", bert))
    more = {"0.prefix.table"} if recipe == "promcse" else set()
    assert exported.keys() == start.keys() | more
    mine = {name.removeprefix("encoder."): value for name, value in found.items() if name.startswith("encoder.")}
    assert mine
    assert all(torch.equal(exported[name], value) for name, value in mine.items())
    changed = {name for name in start if not torch.equal(exported[name], start[name])}
    assert bool(changed) == (recipe != "promcse")  # a frozen encoder stays as it is
    lines = logged(whole.folder)
    if recipe in LOGGED:
        assert any(LOGGED[recipe] in line for line in lines)


def test_promcse_takes_pairs_and_its_run_is_evaluated_with_the_prefix(tmp_path: Path, bert: Path) -> None:
    words = sentence_models.texts(90)
    pairs = Examples.from_columns({"anchor": words[:30], "positive": words[30:60], "negative": words[60:]})
    chosen = settings(tmp_path / "run", bert, "promcse", epochs=None, steps=3, learning_rate=0.5)
    done = training.train(chosen, examples=pairs)
    trained, plain = encoders.load(done.folder, device="cpu"), encoders.load(bert, device="cpu")
    prefixed, bare = (encoders.encode(model, words[:5]) for model in (trained, plain))
    assert abs(prefixed - bare).max() > 1e-3


def test_the_command_line(tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "corpus.txt"
    plain.write_text("\n".join(sentence_models.texts(24)) + "\n", encoding="utf-8")
    labelled = tmp_path / "reviews.jsonl"
    rows = [{"text": text, "label": f"class {row % 3}"} for row, text in enumerate(sentence_models.texts(24))]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for recipe, given in OPTIONS.items():
        data = labelled if recipe == "supcl-seq" else plain
        more = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
        output = tmp_path / recipe
        arguments = ["train", str(data), "--recipe", recipe, "--encoder", str(bert), "--output", str(output)]
        with pytest.raises(SystemExit) as ended:
            run([*arguments, "--device", "cpu", "--steps", "2", "--no-general-check", *more])
        assert ended.value.code in (0, None), capsys.readouterr().err
        assert (output / "model" / "modules.json").is_file()


def test_what_the_encoder_lacks_is_said(tmp_path: Path, bert: Path) -> None:
    still = sentence_models.bert(tmp_path / "still", dropout=0.0)
    for recipe in ("promcse", "micse", "unsee", "supcl-seq"):
        with pytest.raises(UsageError, match="dropout"):
            training.train(settings(tmp_path / f"{recipe} still", still, recipe), examples=corpus(recipe))
    for recipe in ("promcse", "micse", "sg-bert"):
        chosen = settings(tmp_path / f"{recipe} static", Path("static"), recipe)
        with pytest.raises(UsageError, match="needs a transformer"):
            training.train(chosen, examples=corpus(recipe))
    first = settings(tmp_path / "first", bert, "promcse", steps=1, epochs=None)
    prefixed = training.train(first, examples=corpus("promcse"))
    with pytest.raises((ModelError, UsageError), match="a prefix already"):
        training.train(settings(tmp_path / "second", prefixed.folder, "promcse"), examples=corpus("promcse"))


def test_a_model_with_a_prefix_can_be_trained_further_in_other_ways(tmp_path: Path, bert: Path) -> None:
    """Whatever looks inside sees the prefix, and it is saved again."""
    first = training.train(
        settings(tmp_path / "first", bert, "promcse", steps=1, epochs=None), examples=corpus("micse")
    )
    second = training.train(
        settings(tmp_path / "second", first.folder / "model", "micse", steps=1, epochs=None), examples=corpus("micse")
    )
    assert "0.prefix.table" in encoders.load(second.folder, device="cpu").state_dict()
