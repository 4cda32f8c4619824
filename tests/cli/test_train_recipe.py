"""``nearfar train --recipe`` and ``nearfar recipes --training``, as a user types them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from nearfar.cli.app import run
from support import sentence_models

RECIPE = str(Path(sentence_models.__file__).with_name("toy_recipe.py"))

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    sentence_models.bert(folder / "bert")
    sentence_models.bert(folder / "dry", dropout=0.0)
    texts = sentence_models.texts(60)
    (folder / "corpus.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    rows = [{"sentence1": one, "sentence2": two, "score": 0.5} for one, two in itertools.pairwise(texts)]
    (folder / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def call(arguments: list[str], capsys: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    printed = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), printed.out, " ".join(printed.err.split())


def train(place: Path, capsys: Any, *more: str, data: str = "corpus.txt", encoder: str = "bert") -> Any:
    arguments = ["train", str(place / data), "--recipe", RECIPE, "--encoder", str(place / encoder)]
    return call([*arguments, "--device", "cpu", *more], capsys)


def test_train_by_a_recipe_of_one_s_own(place: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "run"
    more = ("--output", str(output), "--temperature", "0.5", "--set", "fast=true", "--steps", "3", "--json")
    code, out, err = train(place, capsys, *more)
    assert code == 0, err
    assert "recipe: toy" in err
    assert "options: temperature 0.5, noise 0.01, rounds 2, kind plain, fast True" in err
    found = json.loads(out)
    assert found["steps"] == 3
    assert found["general"]["after"]["spearman"]["n"] == 400
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["warmup"] == 0.0  # the recipe's
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "toy_recipe.py" in page
    assert "everyday English" in page
    code, out, err = call(["train", "--resume", "--output", str(output)], capsys)
    assert code == 0
    assert "is complete" in err
    assert "general: spearman" in out


def test_settings_that_were_given_stand(place: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "run"
    more = ("--output", str(output), "--steps", "1", "--no-general-check", "--warmup", "0.1", "--schedule", "linear")
    code, _, err = train(place, capsys, *more)
    assert code == 0, err
    assert "general check" not in err
    stored = json.loads((output / "config.json").read_text(encoding="utf-8"))["settings"]
    assert (stored["warmup"], stored["schedule"], stored["learning_rate"]) == (0.1, "linear", 1e-3)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "noises=1"], "did you mean 'noise'"),
        (["--set", "rounds=some"], "a whole number"),
        (["--two-sided"], "no option 'two_sided'"),
        (["--objective", "supcon"], "both given"),
        (["--objective", "info-nce"], "both given"),
        (["--recipe", "no-such"], "there is no recipe"),
        (["--recipe", "supcon"], "cannot be trained on a file"),
        (["--encoder", "dry"], "needs dropout at a rate above 0"),
        (["--encoder", "static"], "needs a transformer and dropout"),
    ],
)
def test_what_does_not_fit_ends_with_2_and_leaves_nothing(
    place: Path, tmp_path: Path, capsys: Any, more: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    code, _, err = train(place, capsys, "--output", str(tmp_path / "run"), *more)
    assert code == 2
    assert said in err
    assert not (tmp_path / "run").exists()


def test_data_of_another_shape(place: Path, tmp_path: Path, capsys: Any) -> None:
    code, _, err = train(place, capsys, "--output", str(tmp_path / "run"), data="scored.jsonl")
    assert code == 2
    assert "toy trains on texts or pairs, and these data are scored pairs" in err


def test_the_page_says_how_to_train(capsys: Any) -> None:
    code, out, _ = call(["recipes", RECIPE], capsys)
    assert code == 0
    assert "Training on your own texts" in out
    assert "each anchor against the positives of the batch" in out
    assert "a transformer, dropout at a rate above 0" in out
    assert "temperature=0.1, noise=0.01" in out
    assert "nearfar train corpus.txt --recipe toy.py --encoder minilm" in out


def test_which_recipes_train_on_which_data(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar import recipes
    from support import toy_recipe

    bare = recipes.find("supcon")
    monkeypatch.setattr(recipes, "recipes", lambda wing=None: [bare, toy_recipe.RECIPE])
    code, out, _ = call(["recipes", "--training"], capsys)
    assert code == 0
    assert "supcon" not in out
    assert [line.strip() for line in out.splitlines() if line.strip() in ("texts", "pairs")] == ["texts", "pairs"]
    assert out.count("toy") == 2
    code, out, _ = call(["recipes", "--training", "--json"], capsys)
    assert [entry["training"]["needs"] for entry in json.loads(out)] == [["transformer", "dropout"]]
