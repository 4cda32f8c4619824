from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from nearfar import encoders, training
from nearfar.data import Examples
from nearfar.errors import DataError, MissingExtraError, OutputError, TrainingError, UsageError
from nearfar.training import Run, TrainingSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")

SMALL: dict[str, Any] = {"dimension": 16, "vocabulary_size": 600, "batch_size": 32, "epochs": 2, "baselines": []}


def start(output: Path, examples: Examples, evaluation: Any = None, **settings: Any) -> Run:
    chosen = {**SMALL, **settings}
    if "steps" in settings:
        chosen.pop("epochs")
    console = chosen.pop("console", None)
    return training.train(
        TrainingSettings(output=str(output), **chosen), examples=examples, evaluation=evaluation, console=console
    )


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.encoder.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_everything_behind(tmp_path: Path, make_pairs: Any) -> None:
    train, dev = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    for path, examples in ((train, make_pairs(300)), (dev, make_pairs(60, seed=1))):
        rows = (examples[index] for index in range(len(examples)))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = io.StringIO()
    settings = TrainingSettings(
        **{**SMALL, "epochs": 6, "baselines": ["bm25"]},
        data=str(train),
        evaluate=str(dev),
        output=str(tmp_path / "runs" / "mine"),
        parameters={"two_sided": True},
        tensorboard=True,
    )
    run = training.train(settings, console=Console(file=out, width=300), command=["nearfar", "train", "train.jsonl"])
    folder = run.folder
    assert (run.ended, run.interrupted, run.main, run.steps) == ("all steps", False, "mrr", 60)
    assert run.after["mrr"]["value"] > run.before["mrr"]["value"] + 0.02
    assert run.baselines["bm25"]["mrr"]["n"] == 60

    loaded = SentenceTransformer(str(folder / "model"), device="cpu")
    texts = ["kab lob", "mib", ""]
    assert np.allclose(loaded.encode(texts), run.encoder.encode(texts))
    config = read(folder / "config.json")
    assert config["command"] == ["nearfar", "train", "train.jsonl"]
    assert TrainingSettings.from_dict(config["settings"]) == settings
    assert config["data"]["train"]["rows"] == 300
    assert config["data"]["train"]["path"] == str(train)
    assert len(config["data"]["evaluation"]["sha256"]) == 64
    metrics = read(folder / "metrics.json")
    assert metrics["before"] == run.before
    assert metrics["after"] == run.after
    assert {"before", "training", "after", "total"} <= metrics["seconds"].keys()
    lines = read(folder / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 61))
    assert {"epoch", "learning_rate", "examples_per_second", "seconds"} <= steps[-1].keys()
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["epoch"] == 6
    assert steps[0]["trivial_loss"] == pytest.approx(np.log(32), abs=1e-5)
    evaluations = [line for line in lines if "evaluation" in line]
    assert [line["step"] for line in evaluations] == [10, 20, 30, 40, 50, 60]
    assert max(line["evaluation"]["mrr"]["value"] for line in evaluations) == run.after["mrr"]["value"]
    assert {"map", "similarities", "geometry", "errors"} <= read(folder / "diagnostics.json").keys()
    assert {"before", "after"} == read(folder / "diagnostics.json")["geometry"].keys()
    assert read(folder / "data-check.json")["rows"] == 300
    assert "torch" in read(folder / "versions.json")
    assert "mrr" in (folder / "report.html").read_text(encoding="utf-8")
    assert any((folder / "tensorboard").iterdir())
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-60"]
    assert not list(folder.glob(".*"))

    shown = out.getvalue()
    assert "an anchor has 1 positive, 0 hard, 31 other positives in-batch" in shown
    assert "temperature 0.05, two-sided" in shown
    assert "rows/s" in shown
    assert "mrr 0." in shown


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_weights(tmp_path: Path, make_pairs: Any) -> None:
    runs = [start(tmp_path / str(n), make_pairs(100), seed=seed) for n, seed in enumerate((1, 1, 2))]
    one, same, other = map(weights, runs)
    assert equal(one, same)
    assert not equal(one, other)


@pytest.mark.usefixtures("quick")
def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path: Path, make_pairs: Any) -> None:
    first = start(tmp_path / "run", make_pairs(64), steps=2)
    with pytest.raises(OutputError, match="exists already"):
        start(tmp_path / "run", make_pairs(64), steps=2)
    assert (first.folder / "model").is_dir()
    again = start(tmp_path / "run", make_pairs(64), steps=3, overwrite=True)
    assert read(again.folder / "metrics.json")["steps"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("quick")
def test_the_best_weights_are_exported_and_the_run_stops_early(tmp_path: Path, make_pairs: Any) -> None:
    """A rate far too large spoils the encoder after the first evaluations."""
    run = start(
        tmp_path / "run",
        make_pairs(200),
        make_pairs(60, seed=1),
        steps=100,
        evaluate_every=2,
        early_stop=2,
        learning_rate=0.05,
        schedule="constant",
        warmup=0.0,
        parameters={"temperature": 1.0},
    )
    assert run.ended == "early stop"
    assert run.steps < 100
    lines = read(run.folder / "metrics.jsonl")
    values = {line["step"]: line["evaluation"]["mrr"]["value"] for line in lines if "evaluation" in line}
    best = max(values, key=lambda step: values[step])
    assert run.steps == max(values)
    assert best <= run.steps - 4
    assert read(run.folder / "metrics.json")["best_step"] == best
    from nearfar import evaluation

    found = evaluation.evaluate(encoders.load(run.folder / "model"), make_pairs(60, seed=1))
    assert found.value == pytest.approx(values[best])
    assert run.after["mrr"]["value"] == values[best]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shape", ["labelled", "hard negatives", "scored pairs", "views", "texts"])
def test_every_shape_of_data_trains(
    tmp_path: Path, make_pairs: Any, make_labelled: Any, bert_folder: Path, shape: str
) -> None:
    settings: dict[str, Any] = {"steps": 40, "batch_size": 16}
    if shape == "labelled":
        examples = make_labelled(120)
        settings |= {"objective": "supcon", "epochs": None}
    elif shape == "hard negatives":
        examples = make_pairs(100, negatives=2)
    elif shape == "views":
        examples = make_pairs(100)
        settings |= {"objective": "vicreg"}
    elif shape == "texts":
        examples = Examples.from_columns({"text": make_pairs(60).column("anchor")})
        settings |= {"encoder": str(bert_folder), "steps": 25, "learning_rate": 1e-3}
    else:
        pairs, random = make_pairs(100), np.random.default_rng(0)
        other = random.permutation(100)
        examples = Examples.from_columns(
            {
                "sentence1": pairs.column("anchor") * 2,
                "sentence2": pairs.column("positive") + [pairs.column("positive")[row] for row in other],
                "score": [1.0] * 100 + [0.0] * 100,
            }
        )
        settings |= {"objective": "binary-nce"}
    run = start(tmp_path / "run", examples, **settings)
    losses = [line["loss"] for line in read(run.folder / "metrics.jsonl") if "loss" in line]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    assert run.before == run.after == {}


@pytest.mark.usefixtures("quick")
def test_transformers_train_with_cached_gradients_clipping_and_a_learned_temperature(
    tmp_path: Path, make_pairs: Any, bert_folder: Path
) -> None:
    out = io.StringIO()
    run = start(
        tmp_path / "run",
        make_pairs(64),
        encoder=str(bert_folder),
        steps=6,
        chunk_size=10,
        precision="bf16",
        parameters={"temperature": "learned"},
        console=Console(file=out, width=300),
    )
    lines = read(run.folder / "metrics.jsonl")
    assert all(np.isfinite(line["gradient_norm"]) for line in lines)
    temperatures = [line["temperature"] for line in lines]
    assert temperatures[0] == pytest.approx(0.05, rel=1e-3)
    assert temperatures[-1] != temperatures[0]
    assert "10 texts embedded at once, gradients cached" in out.getvalue()
    assert read(run.folder / "config.json")["resolved"]["precision"] == "bf16"


@pytest.mark.usefixtures("quick")
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, make_pairs: Any) -> None:
    with pytest.raises(TrainingError, match="step") as caught:
        start(
            tmp_path / "run",
            make_pairs(100),
            learning_rate=1e30,
            schedule="constant",
            warmup=0.0,
            parameters={"score": "dot"},
        )
    error, folder = caught.value, tmp_path / "run"
    assert "data rows" in (error.where or "")
    assert "lower the learning rate" in (error.hint or "")
    failure = read(folder / "failure.json")
    assert f"at step {failure['step']:,}" in error.message
    assert len(failure["rows"]) == 32
    good = encoders.load(folder / "checkpoints" / "last-good")
    assert torch.isfinite(good[0].embedding.weight).all()
    assert not (folder / "model").exists()


@pytest.mark.usefixtures("quick")
def test_rows_with_embeddings_that_are_not_finite_are_named(
    tmp_path: Path, make_pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfar.training import ContrastiveMethod

    plain = ContrastiveMethod.embed

    def poisoned(self: Any, features: Any) -> torch.Tensor:
        embedded = plain(self, features).clone()
        embedded[3] = torch.nan
        return embedded

    monkeypatch.setattr(ContrastiveMethod, "embed", poisoned)
    examples = make_pairs(64)
    with pytest.raises(TrainingError, match=r"not finite at step 1|the loss is nan at step 1") as caught:
        start(tmp_path / "run", examples)
    failure = read(tmp_path / "run" / "failure.json")
    assert failure["suspects"] == [failure["rows"][3]]
    assert f"data rows {failure['rows'][3]} (whose embeddings are not finite)" in (caught.value.where or "")
    assert examples[failure["rows"][3]]["anchor"] in (caught.value.where or "")


@pytest.mark.usefixtures("quick")
def test_a_collapse_is_said_in_plain_words(tmp_path: Path, make_pairs: Any) -> None:
    """Pairs that have nothing in common are drawn together, and nothing is pushed apart."""
    pairs = make_pairs(100)
    positives = pairs.column("positive")
    examples = Examples.from_columns({"anchor": pairs.column("anchor"), "positive": positives[1:] + positives[:1]})
    with pytest.warns(UserWarning, match="space has collapsed"):
        run = start(tmp_path / "run", examples, objective="alignment", steps=100, learning_rate=0.2)
    assert any("collapsed" in line.get("verdict", "") for line in read(run.folder / "metrics.jsonl"))


@pytest.mark.usefixtures("quick")
def test_a_loss_that_does_not_move_is_said(tmp_path: Path, make_pairs: Any) -> None:
    out = io.StringIO()
    settings = {"learning_rate": 1e-9, "parameters": {"temperature": 100.0}, "steps": 20}
    start(tmp_path / "run", make_pairs(100), console=Console(file=out, width=400), **settings)
    assert "nothing is being learnt" in out.getvalue()


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore:the batch size")
def test_data_that_cannot_be_trained_on(tmp_path: Path, make_pairs: Any) -> None:
    one = Examples.from_columns({"anchor": ["kab"], "positive": ["lob"]})
    equal_rows = Examples.from_columns({"anchor": ["kab"] * 50, "positive": ["lob"] * 50})
    one_class = Examples.from_columns({"text": ["kab", "lob", "mib", "neb"], "label": ["x"] * 4})
    for examples, settings in ((one, {}), (equal_rows, {}), (one_class, {"objective": "supcon"})):
        with pytest.raises(DataError):
            start(tmp_path / "run", examples, **settings)
        assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="no data to train on"):
        training.train(TrainingSettings(output=str(tmp_path / "run")))
    with pytest.raises(UsageError, match="no place to write"):
        training.train(TrainingSettings(), examples=make_pairs(10))
    with pytest.raises(DataError, match="texts alone cannot be evaluated"):
        start(tmp_path / "run", make_pairs(50), Examples.from_columns({"text": ["kab"]}))
    with pytest.raises(DataError, match="--strict"):
        start(tmp_path / "run", make_pairs(8), batch_size=64, strict=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_part_of_the_data_can_be_held_out(tmp_path: Path, make_pairs: Any) -> None:
    run = start(tmp_path / "run", make_pairs(100), hold_out=0.2, steps=3)
    data = read(run.folder / "config.json")["data"]
    assert (data["train"]["rows"], data["evaluation"]["rows"]) == (80, 20)
    assert run.after["mrr"]["n"] == 20


@pytest.mark.usefixtures("quick")
def test_a_run_ends_well_without_what_draws(tmp_path: Path, make_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar import diagnostics, report

    def missing(*_: Any, **__: Any) -> None:
        raise MissingExtraError("plotly", "report")

    monkeypatch.setattr(diagnostics, "collect", missing)
    monkeypatch.setattr(report, "write", missing)
    out = io.StringIO()
    with pytest.warns(UserWarning, match="no diagnostics"):
        run = start(tmp_path / "run", make_pairs(64), steps=2, console=Console(file=out, width=200))
    assert read(run.folder / "metrics.json")["ended"] == "all steps"
    assert "pip install 'nearfar[report]'" in out.getvalue()


@pytest.mark.usefixtures("quick")
def test_checkpoints_hold_no_pickle_that_could_run_code(tmp_path: Path, make_pairs: Any) -> None:
    run = start(tmp_path / "run", make_pairs(64), steps=2)
    place = run.folder / "checkpoints" / "checkpoint-2"
    assert load_file(place / "model.safetensors").keys() == {"encoder.0.embedding.weight"}
    for path in place.glob("*.pt"):
        torch.load(path, weights_only=True)
    assert not list(place.glob("*.bin"))


def test_evaluation_columns_fall_back_to_known_names(tmp_path: Path, make_pairs: Any) -> None:
    from nearfar.training.prepare import read as read_data

    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("question,reply\n" + "".join(f"k{n},l{n}\n" for n in range(9)), encoding="utf-8")
    dev.write_text("anchor,positive\nkab,lob\n", encoding="utf-8")
    settings = TrainingSettings(data=str(train), columns="anchor=question,positive=reply", evaluate=str(dev))
    examples, evaluation = read_data(settings, None, None)
    assert (len(examples), len(evaluation)) == (9, 1)
    shutil.copy(train, dev)
    assert len(read_data(settings, None, None)[1]) == 9
