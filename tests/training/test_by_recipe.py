"""Runs by a recipe: the toy one in tests/support, on a BERT of two small layers."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from nearfar import recipes, training
from nearfar.data import Examples
from nearfar.errors import TrainingError, UsageError
from nearfar.training import TrainingSettings, by_recipe, processes
from nearfar.training.by_recipe import RecipeRun
from nearfar.training.fit import method_of
from nearfar.training.prepare import prepare
from nearfar.training.text_training import TextTraining
from support import sentence_models
from support.toy_recipe import RECIPE, Toy

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")

FILE = Path(sentence_models.__file__).with_name("toy_recipe.py")
TOY = RECIPE.training
assert TOY is not None


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_models.bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def corpus() -> Examples:
    return Examples.from_columns({"text": sentence_models.texts(70)})


def settings(output: Path, bert: Path, **more: Any) -> TrainingSettings:
    options = {"recipe": str(FILE), "general_check": False, "device": "cpu", "log_every": 1}
    return TrainingSettings(output=str(output), encoder=str(bert), **{**options, **more})


def planned(how: TextTraining = TOY, **more: Any) -> RecipeRun:
    options = by_recipe.complete("toy", how, {})
    return RecipeRun("toy", "Nobody et al., 2020", how, **{"options": options, **more})


# -- options ----------------------------------------------------------------------------------------------------------


def test_options_are_complete_and_of_their_default_s_type() -> None:
    found = by_recipe.complete("toy", TOY, {"temperature": 1, "kind": 7, "fast": True})
    assert found == {"temperature": 1.0, "noise": 0.01, "rounds": 2, "kind": "7", "fast": True}
    assert [type(value) for value in found.values()] == [float, float, int, str, bool]
    assert by_recipe.complete("toy", TOY, {}) == TOY.options


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"noises": 0.1}, "no option 'noises'; did you mean 'noise'"),
        ({"margin": 1}, "no option 'margin'"),
        ({"rounds": 1.5}, "a whole number"),
        ({"rounds": True}, "a whole number"),
        ({"noise": "much"}, "a number"),
        ({"noise": float("nan")}, "a number"),
        ({"noise": False}, "a number"),
        ({"fast": 1}, "true or false"),
        ({"kind": True}, "a word"),
    ],
)
def test_wrong_options_are_refused_with_all_there_are(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        by_recipe.complete("toy", TOY, given)
    assert said in caught.value.message
    assert "temperature=0.1, noise=0.01, rounds=2, kind=plain, fast=False" in (caught.value.hint or "")
    assert next(iter(given)) in (caught.value.where or "")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_what_the_user_sets_stands_before_the_recipe(bert: Path, tmp_path: Path) -> None:
    usual = TrainingSettings()
    assert (usual.warmup, usual.schedule, usual.weight_decay, usual.objective) == (0.1, "linear", 0.0, "info-nce")
    chosen = settings(tmp_path, bert, warmup=0.1, batch_size=8, steps=3).filled(TOY.settings)
    assert (chosen.warmup, chosen.batch_size, chosen.steps, chosen.epochs) == (0.1, 8, 3, None)
    assert (chosen.learning_rate, chosen.schedule, chosen.weight_decay) == (1e-3, "constant", 0.0)
    again = TrainingSettings.from_dict(json.loads(json.dumps(chosen.to_dict())))
    assert again == chosen
    assert again.filled({"warmup": 0.9, "batch_size": 1, "epochs": 1}) == chosen
    for wrong in ("seed", "duplicates", "nonsense"):
        with pytest.raises(UsageError, match=wrong):
            chosen.filled({wrong: 1})


def test_files_are_found_from_everywhere(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FILE.parent)
    assert TrainingSettings(recipe=FILE.name).recipe == str(FILE)
    monkeypatch.chdir(bert.parent)
    assert TrainingSettings(recipe="simcse", encoder="bert").encoder == str(bert)
    assert TrainingSettings(recipe="simcse", encoder="minilm").encoder == "minilm"


def test_an_objective_beside_a_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="both given"):
        TrainingSettings(recipe="simcse", objective="supcon")


# -- data, encoder, processes -----------------------------------------------------------------------------------------


def test_data_of_another_shape_are_refused_with_the_recipes_for_it() -> None:
    others = {"first": dataclasses.replace(TOY, shapes={"scored pairs": "x"}), "second": TOY}
    with pytest.raises(UsageError, match="toy trains on texts or pairs, and these data are scored pairs") as caught:
        by_recipe.check_shape(planned(others=lambda: others), "scored pairs")
    assert "first" in (caught.value.hint or "")
    assert "second" not in (caught.value.hint or "")
    by_recipe.check_shape(planned(), "pairs")


@pytest.mark.parametrize("need", ["transformer", "dropout", "masked-lm", "attentions"])
def test_an_encoder_that_lacks_something_is_refused_with_what_would_do(need: Any, static_model: Any) -> None:
    run = planned(
        dataclasses.replace(TOY, needs=(need,)),
        others=lambda: {"same": dataclasses.replace(TOY, needs=(need,)), "modest": dataclasses.replace(TOY, needs=())},
    )
    with pytest.raises(UsageError) as caught:
        by_recipe.check_encoder(run, "texts", static_model, None)
    assert by_recipe.NEEDS[need] in caught.value.message
    assert "modest" in (caught.value.hint or "")
    assert "same" not in (caught.value.hint or "")


def test_an_encoder_that_has_all_will_do(tmp_path: Path) -> None:
    from nearfar import encoders

    folder = sentence_models.bert(tmp_path / "bert", masked_lm=True)
    everything = dataclasses.replace(TOY, needs=("transformer", "dropout", "masked-lm", "attentions"))
    by_recipe.check_encoder(planned(everything), "texts", encoders.load(folder, device="cpu"), folder)


def test_several_processes_are_for_methods_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    with pytest.raises(UsageError, match="one process, and there are 2"):
        by_recipe.check_processes(planned())
    monkeypatch.setattr(Toy, "distributed", True)
    by_recipe.check_processes(planned())


def test_a_recipe_that_only_builds_an_objective_is_refused(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    with pytest.raises(UsageError, match="supcon cannot be trained on a file"):
        training.train(settings(tmp_path / "run", bert, recipe="supcon"), examples=corpus)
    assert recipes.find("supcon").training is None
    assert not (tmp_path / "run").exists()


# -- batches ----------------------------------------------------------------------------------------------------------


def test_what_looks_inside_gets_all_texts_in_one_chunk(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    inside = dataclasses.replace(TOY, cached=False)
    run = prepare(settings(tmp_path, bert), corpus, None, recipe=planned(inside))
    batch = run.texts.batch(next(iter(run.batches)))
    assert len(batch["chunks"]) == 1
    assert batch["order"] is None
    assert len(batch["chunks"][0]["input_ids"]) == 2 * len(batch["rows"]) == 40
    assert method_of(run).chunk_size is None
    with pytest.raises(UsageError, match="cannot be cached in chunks"):
        prepare(settings(tmp_path, bert, chunk_size=8), corpus, None, recipe=planned(inside))


def test_chunks_with_cached_gradients_give_the_gradient_of_the_whole(
    tmp_path: Path, bert: Path, corpus: Examples
) -> None:
    still = {**TOY.options, "noise": 0.0}
    gradients = []
    for size in (None, 7):
        run = prepare(settings(tmp_path, bert, chunk_size=size), corpus, None, recipe=planned(options=still))
        for module in run.encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run.encoder[0].auto_model.config.attention_probs_dropout_prob = 0.0
        for layer in run.encoder[0].auto_model.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        method = method_of(run)
        assert method.chunk_size == size
        loss, _ = method(run.texts.batch(range(20)))
        loss.backward()
        gradients.append({name: value.grad for name, value in method.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert "head.weight" in gradients[0]
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_rows_in_order(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    run = prepare(settings(tmp_path, bert), corpus, None, recipe=planned(dataclasses.replace(TOY, in_order=True)))
    for rows in run.batches:
        assert (rows[1:] - rows[:-1] == 1).all()


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_run_says_what_it_does_and_exports_the_encoder_alone(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    out = io.StringIO()
    dev = sentence_models.texts(40, seed=1)
    scored = Examples.from_columns({"sentence1": dev[::2], "sentence2": dev[1::2], "score": list(range(20))})
    chosen = settings(tmp_path / "run", bert, parameters={"temperature": 0.2})
    run = training.train(chosen, examples=corpus, evaluation=scored, console=Console(file=out, width=200))
    said = out.getvalue()
    assert "recipe: toy (Nobody et al., 2020, arXiv:2001.00001)" in said
    assert "contrast: each text against itself with other dropout" in said
    assert "options: temperature 0.2, noise 0.01" in said
    assert "constant, 0 warm-up steps" in said
    assert run.main == "spearman"
    loaded = SentenceTransformer(str(run.folder / "model"), device="cpu")
    assert not any("head" in name or "centre" in name for name in loaded.state_dict())
    before = SentenceTransformer(str(bert), device="cpu").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in loaded.state_dict().items() if name in before)
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["recipe"] == str(FILE)
    assert config["settings"]["batch_size"] == 20
    assert config["resolved"]["options"]["temperature"] == 0.2
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["noise"] == 0.01 for line in lines if "loss" in line)


@pytest.mark.usefixtures("quick")
def test_heads_have_the_rate_of_the_objective(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    rates = {"learning_rate": 1e-12, "objective_learning_rate": 0.1, "steps": 2}
    run = training.train(settings(tmp_path / "run", bert, **rates), examples=corpus)
    kept = load_file(next((run.folder / "checkpoints").glob("*/model.safetensors")))
    begun = method_of(prepare(settings(tmp_path, bert), corpus, None, recipe=planned())).state_dict()
    assert (kept["head.weight"] - begun["head.weight"]).abs().max() > 0.05
    for name, value in kept.items():
        if name.startswith("encoder."):
            torch.testing.assert_close(value, begun[name], rtol=0, atol=1e-6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All of the method's weights and buffers in the last checkpoint."""
    return load_file(next((folder / "checkpoints").glob("*/model.safetensors")))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [2, 4, 5])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tmp_path: Path, bert: Path, corpus: Examples, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Four steps an epoch: within the first, at its end, and within the second, whose hook was called already."""
    whole = training.train(settings(tmp_path / "whole", bert), examples=corpus)
    original = Toy.after_step

    def after_step(self: Any, now: int) -> None:
        original(self, now)
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    from nearfar.recipes import registry

    # the file is read anew in each run, so that its class cannot be changed from here
    with monkeypatch.context() as changed:
        changed.setattr(registry, "of_file", lambda path: RECIPE)
        changed.setattr(Toy, "after_step", after_step)
        broken = training.train(settings(tmp_path / "broken", bert), examples=corpus)
    assert (broken.interrupted, broken.steps) == (True, step)
    monkeypatch.chdir(tmp_path)
    again = training.train(TrainingSettings(output="broken", resume=True), examples=corpus)
    assert (again.steps, again.interrupted) == (8, False)
    expected, found = weights(whole.folder), weights(again.folder)
    assert expected["epochs"] == 2
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    mine, theirs = again.encoder.state_dict(), whole.encoder.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


KILLED = """
import os, signal
from nearfar import recipes, training
from nearfar.recipes import registry

recipe = registry.of_file({file!r})
registry.of_file = lambda path: recipe
method = recipe.training.method
original = method.after_step

def after_step(self, step):
    original(self, step)
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

method.after_step = after_step
training.train(training.TrainingSettings.from_dict({settings!r}))
"""


@pytest.mark.usefixtures("quick")
def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, bert: Path, corpus: Examples, child_environment: dict[str, str]
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(corpus.column("text")) + "\n", encoding="utf-8")
    common = {"recipe": str(FILE), "encoder": str(bert), "data": str(path), "general_check": False, "device": "cpu"}
    killed = {**common, "checkpoint_every": 3, "log_every": 1, "output": str(tmp_path / "killed")}
    code = textwrap.dedent(KILLED).format(file=str(FILE), settings=killed)
    child = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    resumed = training.train(TrainingSettings(output=str(tmp_path / "killed"), resume=True))
    whole = training.train(settings(tmp_path / "whole", bert, data=str(path), checkpoint_every=3))
    expected, found = weights(whole.folder), weights(resumed.folder)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.usefixtures("quick")
def test_a_resumed_run_keeps_its_options(tmp_path: Path, bert: Path, corpus: Examples) -> None:
    training.train(settings(tmp_path / "run", bert, steps=1, parameters={"noise": 0.5}), examples=corpus)
    with pytest.raises(UsageError, match="parameters"):
        training.train(settings(tmp_path / "run", bert, resume=True, parameters={"noise": 0.1}), examples=corpus)
    with pytest.raises(UsageError, match="recipe"):
        training.train(settings(tmp_path / "run", bert, resume=True, recipe="simcse"), examples=corpus)


# -- the general check ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("fall", "warned"), [(0.015, False), (0.03, True)])
def test_a_fall_of_general_ability_is_said(
    tmp_path: Path, bert: Path, corpus: Examples, monkeypatch: pytest.MonkeyPatch, fall: float, warned: bool
) -> None:
    from nearfar.evaluation import Evaluation, Measure, general

    values = iter([0.8, 0.8 - fall])

    def double(encoder: Any, *, seed: int = 0, **_: Any) -> Evaluation:
        value = next(values)
        return Evaluation({"spearman": Measure("spearman", value, value, value, 400)}, "spearman", "similarity")

    monkeypatch.setattr(general, "general_similarity", double)
    out = io.StringIO()
    chosen = settings(tmp_path / "run", bert, steps=1, general_check=True)
    run = training.train(chosen, examples=corpus, console=Console(file=out, width=300))
    assert ("training has cost general ability" in out.getvalue()) == warned
    assert run.general["before"]["spearman"]["value"] == 0.8
    assert run.general["after"]["spearman"]["value"] == 0.8 - fall
    stored = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))["general"]
    assert (stored["warning"] is not None) == warned
    again = training.train(TrainingSettings(output=str(tmp_path / "run"), resume=True), examples=corpus)
    assert again.general == run.general


@pytest.mark.usefixtures("quick")
def test_a_pretrained_encoder_is_checked_with_an_objective_too_and_a_new_one_is_not(
    tmp_path: Path, bert: Path, corpus: Examples, make_pairs: Any
) -> None:
    chosen = TrainingSettings(output=str(tmp_path / "run"), encoder=str(bert), steps=1, device="cpu")
    run = training.train(chosen, examples=corpus)
    assert run.general["after"]["spearman"]["n"] == 400
    assert run.before == run.after == {}
    static = TrainingSettings(output=str(tmp_path / "static"), steps=1, dimension=8, vocabulary_size=400)
    assert training.train(static, examples=make_pairs(40)).general == {}


# -- the length of a text ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_the_paper_s_length_is_for_training_alone(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch, interrupt_at: Any
) -> None:
    from nearfar import encoders
    from nearfar.recipes import registry

    short = dataclasses.replace(RECIPE, training=dataclasses.replace(TOY, settings={**TOY.settings, "max_length": 5}))
    monkeypatch.setattr(registry, "of_file", lambda path: short)
    corpus = Examples.from_columns({"text": sentence_models.texts(40, least=6, most=9)})
    made = prepare(settings(tmp_path, bert), corpus, None, recipe=planned(short.training))
    assert made.texts.tokens.lengths.max() == 5
    assert encoders.token_limit(made.encoder) == 48
    own = prepare(settings(tmp_path, bert, max_length=7), corpus, None, recipe=planned(short.training))
    assert own.texts.tokens.lengths.max() == 7
    assert encoders.token_limit(own.encoder) == 7
    with monkeypatch.context() as changed:
        interrupt_at(1)
        training.train(settings(tmp_path / "run", bert, steps=3), examples=corpus)
        changed.undo()
    monkeypatch.setattr(registry, "of_file", lambda path: RECIPE)  # as if a later version read more
    monkeypatch.setattr(training.ContrastiveMethod, "after_step", lambda *_: None)
    run = training.train(TrainingSettings(output=str(tmp_path / "run"), resume=True), examples=corpus)
    assert run.steps == 3
    assert encoders.token_limit(run.encoder) == 48
    assert json.loads((run.folder / "config.json").read_text(encoding="utf-8"))["resolved"]["max_length"] == 5


@pytest.mark.usefixtures("quick")
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights(
    tmp_path: Path, bert: Path, corpus: Examples
) -> None:
    chosen = settings(tmp_path / "run", bert, parameters={"noise": 1e39})
    with pytest.raises(TrainingError, match="at step 1") as caught:
        training.train(chosen, examples=corpus)
    assert "data rows" in (caught.value.where or "")
