"""SimCSE, DCLR, ClusterNS and CompCSE by ``nearfar train``: trained, broken off, gone on with, exported."""

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

OPTIONS: dict[str, dict[str, Any]] = {
    "simcse": {"mlm_weight": 0.1},
    "dclr": {"threshold": 0.999},
    "clusterns": {"clusters": 5, "start_at": 0.999, "rate": 0.1},
    "compcse": {},
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_models.bert(tmp_path_factory.mktemp("models") / "bert", masked_lm=True)


@pytest.fixture(scope="module")
def corpus() -> Examples:
    return Examples.from_columns({"text": sentence_models.texts(50)})


def settings(output: Path, bert: Path, recipe: str, **more: Any) -> TrainingSettings:
    return short(output, bert, recipe, **{"parameters": OPTIONS[recipe], **more})


@pytest.mark.parametrize("recipe", OPTIONS)
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights_and_exports_the_encoder(
    tmp_path: Path, bert: Path, corpus: Examples, recipe: str, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sums of the two gradients of a table that encoder and language head share may differ in their last bit
    whole, again = whole_and_resumed(
        *(settings(tmp_path / name, bert, recipe) for name in ("whole", "broken")),
        corpus,
        interrupt_at,
        monkeypatch,
        tolerance=1e-8,
    )
    found = weights(again.folder)
    # the exported folder is the encoder's alone, and what was trained
    exported = SentenceTransformer(str(again.folder / "model"), device="cpu").state_dict()
    assert exported.keys() == SentenceTransformer(str(bert), device="cpu").state_dict().keys()
    mine = {name.removeprefix("encoder."): value for name, value in found.items() if name.startswith("encoder.")}
    assert all(torch.equal(exported[name], value) for name, value in mine.items())
    lines = logged(whole.folder)
    said = {"simcse": "masked language", "dclr": "negatives left out", "clusterns": "pairs of one cluster"}
    if recipe in said:
        assert any(said[recipe] in line for line in lines)


def test_simcse_takes_pairs_with_hard_negatives(tmp_path: Path, bert: Path) -> None:
    words = sentence_models.texts(120)
    pairs = Examples.from_columns({"anchor": words[:40], "positive": words[40:80], "negative": words[80:]})
    chosen = settings(tmp_path / "run", bert, "simcse", epochs=None, steps=2, parameters={"hard_negative_weight": 2.0})
    done = training.train(chosen, examples=pairs)
    assert done.steps == 2
    assert all(name.startswith("encoder.") for name in weights(done.folder))


def test_the_command_line(tmp_path: Path, bert: Path, corpus: Examples, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(corpus.column("text")) + "\n", encoding="utf-8")
    dev = sentence_models.texts(40, seed=1)
    rows = [
        {"sentence1": a, "sentence2": b, "score": i} for i, (a, b) in enumerate(zip(dev[::2], dev[1::2], strict=True))
    ]
    scored = tmp_path / "dev.jsonl"
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ["train", str(path), "--encoder", str(bert), "--evaluate", str(scored), "--device", "cpu", "--steps", "2"]
    for recipe, more in (
        ("clusterns", ["--set", "clusters=8", "--batch-size", "16"]),
        ("compcse", ["--set", "width=6"]),
    ):
        output = tmp_path / recipe
        with pytest.raises(SystemExit) as ended:
            run([*common, "--recipe", recipe, "--output", str(output), *more])
        assert ended.value.code in (0, None)
        assert (output / "model" / "modules.json").is_file()
        assert "spearman" in capsys.readouterr().out.lower()


def test_what_data_or_encoder_lack_is_said(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    with pytest.raises(UsageError, match="128 clusters start from texts of one batch, which has 16") as caught:
        training.train(settings(tmp_path / "run", bert, "clusterns", parameters={}), examples=corpus)
    assert "--set clusters=8" in (caught.value.hint or "")
    still = sentence_models.bert(tmp_path / "still", dropout=0.0)
    with pytest.raises(UsageError, match="dropout"):
        training.train(settings(tmp_path / "still run", still, "compcse"), examples=corpus)
    plain = sentence_models.bert(tmp_path / "plain")
    with pytest.raises(ModelError, match="masked tokens"):
        training.train(settings(tmp_path / "plain run", plain, "simcse"), examples=corpus)
