"""Quick-Thoughts, DiscSent, MCSE and CLIM by ``nearfar train``: trained, broken off, gone on with, exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearfar import encoders, training
from nearfar.classify import TextClassifier
from nearfar.cli.app import run as run_command
from nearfar.data import Examples
from nearfar.errors import UsageError
from nearfar.evaluation.classified import classifier_measures
from nearfar.training import TrainingSettings
from support import sentence_models
from support.resumed import logged, short, weights, whole_and_resumed
from support.sentence_models import WORDS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*narrow cone"),
    pytest.mark.filterwarnings("ignore:the batch size"),
    pytest.mark.usefixtures("quick"),
]


def documents(rows: int = 45) -> Examples:
    opened = ["However, ", "Also ", "", "Then "]
    drawn = [opened[row % 4] + text for row, text in enumerate(sentence_models.texts(rows))]
    return Examples.from_columns({"text": drawn, "document": [row // 9 for row in range(rows)]})


def captions(rows: int = 40) -> Examples:
    rng = np.random.default_rng(0)
    images = [rng.normal(size=6) if row % 3 else None for row in range(rows)]
    return Examples.from_columns({"text": sentence_models.texts(rows), "image": images})


def domains(rows: int = 48, *, target_labels: bool = False) -> Examples:
    """Reviews of two words that say the label and words of their domain."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[str]] = {"text": [], "label": [], "domain": []}
    for row in range(rows):
        label, target = row % 2, row % 3 == 2
        said = [*rng.choice(WORDS[4 * label : 4 * label + 4], 2), *rng.choice(WORDS[20 + 20 * target :][:20], 4)]
        columns["text"].append(" ".join(rng.permutation(said)))
        known = (row % 5 > 0) if not target else target_labels
        columns["label"].append(("bad", "good")[label] if known else "")
        columns["domain"].append("food" if target else "books")
    return Examples.from_columns(columns, shape="domains")


def food(rows: int) -> Examples:
    """The texts of the target, with their labels."""
    whole = domains(rows, target_labels=True)
    return whole.select(np.flatnonzero(whole.domains("food")[0])).labelled()


MADE: dict[str, Callable[[], Examples]] = {
    "quick-thoughts": documents,
    "discsent": documents,
    "mcse": captions,
    "clim": domains,
}
LOGGED = {"discsent": "conjunction right", "mcse": "texts with images", "clim": "labelled right"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [*WORDS, "However", "Also", "Then", ","]
    return sentence_models.bert(tmp_path_factory.mktemp("models") / "bert", words=words)


def run(arguments: list[str]) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as left:
        run_command(arguments)
    return int(left.value.code or 0)


def settings(output: Path, encoder: Path | str, recipe: str, **more: Any) -> TrainingSettings:
    return short(output, encoder, recipe, **{"batch_size": 12, "dimension": 16, **more})


@pytest.mark.parametrize("recipe", MADE)
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights_and_exports_the_encoder(
    tmp_path: Path, bert: Path, recipe: str, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = MADE[recipe]()
    whole, again = whole_and_resumed(
        *(settings(tmp_path / name, bert, recipe) for name in ("whole", "broken")),
        examples,
        interrupt_at,
        monkeypatch,
        tolerance=1e-7,
    )
    found = weights(again.folder)
    exported, start = (encoders.load(folder, device="cpu").state_dict() for folder in (again.folder / "model", bert))
    assert exported.keys() == start.keys()
    mine = {name.removeprefix("encoder."): value for name, value in found.items() if name.startswith("encoder.")}
    assert mine
    assert all(torch.equal(exported[name], value) for name, value in mine.items())
    assert any(not torch.equal(exported[name], value) for name, value in start.items())
    plain = SentenceTransformer(str(again.folder / "model"), device="cpu")
    np.testing.assert_allclose(plain.encode(["kab lod"]), again.encoder.encode(["kab lod"]), atol=1e-6)
    lines = logged(whole.folder)
    if recipe in LOGGED:
        assert any(LOGGED[recipe] in line for line in lines)


@pytest.mark.parametrize("recipe", ["quick-thoughts", "discsent", "clim"])
def test_a_static_encoder_does_too(tmp_path: Path, recipe: str) -> None:
    done = training.train(settings(tmp_path / "run", "static", recipe, epochs=None, steps=3), examples=MADE[recipe]())
    assert (done.steps, done.encoder.encode(["kab"]).shape) == (3, (1, 16))


def test_mcse_needs_dropout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mcse needs dropout"):
        training.train(settings(tmp_path / "run", "static", "mcse"), examples=captions())


def test_clim_keeps_its_classifier(tmp_path: Path, bert: Path) -> None:
    asked = food(90)
    chosen = settings(
        tmp_path / "run", bert, "clim", epochs=30.0, learning_rate=2e-3, objective_learning_rate=1e-2, seed=1
    )
    done = training.train(chosen, examples=domains(90), evaluation=asked)
    assert {"classifier_accuracy", "classifier_macro_f1"} <= done.after.keys()
    assert done.after["classifier_accuracy"]["value"] > 0.7  # two words in six say the label, in both domains
    assert done.after["classifier_accuracy"]["n"] == 30
    for folder in (done.folder, done.folder / "model"):
        classifier = TextClassifier.load(folder, device="cpu")
        assert classifier.labels == ["bad", "good"]
        assert not classifier.normalize
        found = classifier_measures(classifier.encoder, classifier.head, asked, normalize=False)
        assert found["classifier_accuracy"].value == done.after["classifier_accuracy"]["value"]


def test_the_command_line(tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    drawn = documents().column("text")
    text.write_text("\n\n".join("\n".join(drawn[start : start + 9]) for start in range(0, 45, 9)), encoding="utf-8")
    rows = captions()
    vectors = rows.images()
    pictures = tmp_path / "captions.jsonl"
    lines = []
    for row, caption in enumerate(rows.column("text")):
        image = None
        if row % 3:
            np.save(tmp_path / f"{row}.npy", vectors[row])
            image = f"{row}.npy"
        lines.append({"text": caption, "image": image, "author": "x"})  # the recipe says that captions are wanted
    pictures.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    reviews = tmp_path / "reviews.csv"
    taken = domains()
    cells = zip(*(taken.column(name) for name in ("text", "label", "domain")), strict=True)
    reviews.write_text("text,label,domain\n" + "".join(f"{','.join(cell)}\n" for cell in cells), encoding="utf-8")
    asked = tmp_path / "food.csv"
    kitchen = food(90)
    pairs = zip(kitchen.column("text"), kitchen.column("label"), strict=True)
    asked.write_text("text,label\n" + "".join(f"{','.join(pair)}\n" for pair in pairs), encoding="utf-8")
    usual = ["--encoder", str(bert), "--steps", "2", "--batch-size", "12", "--no-general-check", "--device", "cpu"]
    for recipe, data, more in (
        ("quick-thoughts", text, ["--columns", "text,document=blank-line"]),
        ("discsent", text, ["--columns", "text,document=blank-line"]),
        ("mcse", pictures, []),
        ("clim", reviews, ["--evaluate", str(asked)]),
    ):
        output = tmp_path / recipe
        assert run(["train", str(data), "--recipe", recipe, "--output", str(output), *usual, *more]) == 0, recipe
        shown = capsys.readouterr()
        assert (output / "model" / "modules.json").is_file()
        assert f"recipe: {recipe}" in shown.err
    assert run(["evaluate", str(tmp_path / "clim"), str(asked), "--json"]) == 0
    measures = next(iter(json.loads(capsys.readouterr().out).values()))["measures"]
    assert measures["classifier_accuracy"]["n"] == 30
    assert run(["classify", "predict", str(tmp_path / "clim"), str(asked), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)["measures"]
    assert judged["accuracy"]["value"] == measures["classifier_accuracy"]["value"]
    assert run(["train", str(text), "--recipe", "quick-thoughts", "--output", str(tmp_path / "no"), *usual]) == 2
    assert "--columns text,document=blank-line" in capsys.readouterr().err
