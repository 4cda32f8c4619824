"""DiffCSE, DenoSent, CLEAR and LM-SupCon by ``nearfar train``: trained, broken off, gone on with, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearfar import training
from nearfar.cli.app import run
from nearfar.data import Examples
from nearfar.errors import ModelError, UsageError
from nearfar.training import TrainingSettings
from support import sentence_models
from support.resumed import logged, short, weights, whole_and_resumed

pytestmark = [pytest.mark.filterwarnings("ignore:.*narrow cone"), pytest.mark.usefixtures("quick")]

LABELS = ["kab", "lod", "mif"]
OPTIONS: dict[str, dict[str, Any]] = {
    "diffcse": {},
    "denosent": {"layers": 1, "hidden": 8},
    "clear": {"operations": "subs+del-word"},
    "lm-supcon": {"steps": "alternate"},
}
LOGGED = {"diffcse": "replaced", "denosent": "restored", "clear": "masked language", "lm-supcon": "labels told"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [*sentence_models.WORDS, *LABELS]
    folder = tmp_path_factory.mktemp("models") / "bert"
    return sentence_models.bert(folder, words=words, masked_lm=True, length=90)


def corpus(recipe: str, rows: int = 40) -> Examples:
    columns: dict[str, list[str]] = {"text": sentence_models.texts(rows)}
    if recipe == "lm-supcon":
        columns["label"] = [LABELS[row % 3] for row in range(rows)]
    return Examples.from_columns(columns)


def settings(output: Path, bert: Path, recipe: str, **more: Any) -> TrainingSettings:
    return short(output, bert, recipe, **{"parameters": OPTIONS[recipe], "max_length": 80, **more})


@pytest.mark.parametrize("recipe", OPTIONS)
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights_and_exports_the_encoder(
    tmp_path: Path, bert: Path, recipe: str, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = corpus(recipe)
    # sums of the two gradients of a table that encoder and language head share may differ in their last bit
    whole, again = whole_and_resumed(
        *(settings(tmp_path / name, bert, recipe) for name in ("whole", "broken")),
        examples,
        interrupt_at,
        monkeypatch,
        tolerance=1e-6,
    )
    found = weights(again.folder)
    # the exported folder is the encoder's alone, and what was trained
    exported = SentenceTransformer(str(again.folder / "model"), device="cpu").state_dict()
    start = SentenceTransformer(str(bert), device="cpu").state_dict()
    assert exported.keys() == start.keys()
    mine = {name.removeprefix("encoder."): value for name, value in found.items() if name.startswith("encoder.")}
    assert mine
    assert all(torch.equal(exported[name], value) for name, value in mine.items())
    assert any(not torch.equal(exported[name], start[name]) for name in start)
    lines = logged(whole.folder)
    assert any(LOGGED[recipe] in line for line in lines)


def test_denosent_takes_paraphrases(tmp_path: Path, bert: Path) -> None:
    words = sentence_models.texts(60)
    pairs = Examples.from_columns({"anchor": words[:30], "positive": words[30:]})
    done = training.train(settings(tmp_path / "run", bert, "denosent", epochs=None, steps=2), examples=pairs)
    assert done.steps == 2


def test_the_command_line(tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "corpus.txt"
    texts.write_text("\n".join(sentence_models.texts(24)) + "\n", encoding="utf-8")
    labelled = tmp_path / "reviews.jsonl"
    rows = [{"text": text, "label": LABELS[row % 3]} for row, text in enumerate(sentence_models.texts(24))]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for recipe, given in OPTIONS.items():
        data = labelled if recipe == "lm-supcon" else texts
        more = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
        output = tmp_path / recipe
        arguments = ["train", str(data), "--recipe", recipe, "--encoder", str(bert), "--output", str(output)]
        with pytest.raises(SystemExit) as ended:
            run([*arguments, "--device", "cpu", "--steps", "2", "--no-general-check", "--max-length", "80", *more])
        assert ended.value.code in (0, None), capsys.readouterr().err
        assert (output / "model" / "modules.json").is_file()


@pytest.mark.parametrize("recipe", OPTIONS)
def test_an_encoder_without_a_masked_language_head_is_told_what_would_do(
    tmp_path: Path, bert: Path, recipe: str
) -> None:
    bare = sentence_models.bert(tmp_path / "bare", words=[*sentence_models.WORDS, *LABELS], length=90)
    with pytest.raises((ModelError, UsageError), match="predicts masked tokens") as caught:
        training.train(settings(tmp_path / "run", bare, recipe), examples=corpus(recipe))
    assert "simcse" in str(caught.value) or "setfit" in str(caught.value)
    if recipe == "diffcse":
        chosen = settings(tmp_path / "named", bare, recipe, parameters={"generator": str(bert)}, epochs=None, steps=1)
        assert training.train(chosen, examples=corpus(recipe)).steps == 1
