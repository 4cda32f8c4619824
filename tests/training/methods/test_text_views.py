"""Training by two views of each text: what is contrasted, what decides the views, that a resumed run goes on alike."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from nearfar import encoders, training
from nearfar.data import Examples
from nearfar.errors import ModelError, UsageError
from nearfar.recipes import registry
from nearfar.training import TrainingSettings
from nearfar.training.loading import TextBatches
from nearfar.training.method import Batch
from nearfar.training.methods.text_views import OPTIONS, TextViews
from nearfar.training.text_training import TextSetting
from nearfar.views import text
from nearfar.views.text.base import seed_of
from support import sentence_models

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_models.bert(tmp_path_factory.mktemp("views") / "bert", masked_lm=True, dropout=0.0)


@pytest.fixture(scope="module")
def corpus() -> Examples:
    return Examples.from_columns({"text": sentence_models.texts(40, least=4)})


def method_for(folder: Path, corpus: Examples, **given: Any) -> TextViews:
    encoder = encoders.load(folder, device="cpu")
    made = TextViews(TextSetting(encoder, corpus, {**OPTIONS, **given}, 8, 10, 5, seed=3, source=folder))
    return made.train()


def batch_of(method: TextViews, rows: Any = range(8)) -> Batch:
    return TextBatches(method.encoder, method.examples).batch(list(rows))


def nt_xent(views: list[Tensor], temperature: float) -> float:
    """All 2 n embeddings against all others, in plain loops."""
    z = [each / each.norm() for each in torch.cat(views).double().detach()]
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        scores = {k: float(z[i] @ z[k]) / temperature for k in range(2 * n) if k != i}
        total += math.log(sum(math.exp(score) for score in scores.values())) - scores[(i + n) % (2 * n)]
    return total / (2 * n)


def embedded(method: TextViews, texts: list[str]) -> Tensor:
    found: Tensor = method.encoder(encoders.tokenize(method.encoder, texts))["sentence_embedding"]
    return found


def test_both_views_are_contrasted(folder: Path, corpus: Examples) -> None:
    method = method_for(folder, corpus, view1="deletion:0.4", view2="swap:0.3", temperature=0.2)
    method.before_epoch(2)
    loss, _ = method(batch_of(method, [5, 1, 9, 3]))
    said = [corpus[row]["text"] for row in (5, 1, 9, 3)]
    views = [
        view.by_seeds(said, [seed_of(seed_of(3, 2, row, side), 0) for row in (5, 1, 9, 3)])
        for side, view in enumerate((text.get("deletion", 0.4), text.get("swap", 0.3)))
    ]
    assert views[0] != said != views[1]
    expected = nt_xent([embedded(method, view) for view in views], 0.2)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)


def test_a_view_is_decided_by_seed_epoch_row_and_side(folder: Path, corpus: Examples) -> None:
    method = method_for(folder, corpus, view1="deletion:0.4", view2="deletion:0.4")

    def seen(rows: list[int], epoch: int) -> dict[int, tuple[str, str]]:
        method.before_epoch(epoch)
        ids = [chunk["input_ids"] for chunk in method.seen(batch_of(method, rows))["chunks"]]
        one, other = ([method.encoder.tokenizer.decode(each) for each in side] for side in ids)
        strip = [[each.replace("[PAD]", "").strip() for each in side] for side in (one, other)]
        return {row: (strip[0][place], strip[1][place]) for place, row in enumerate(rows)}

    first = seen([0, 1, 2, 3], 0)
    torch.rand(7)  # what else is drawn does not matter
    again = seen([3, 7, 0], 0)
    assert again[0] == first[0]
    assert again[3] == first[3]
    assert sum(one != other for one, other in first.values()) >= 3, "the same copy serves as both views"
    assert seen([0, 1, 2, 3], 1) != first
    method.seed = 4
    assert seen([0, 1, 2, 3], 0) != first


def test_hard_negatives_are_those_that_differ(folder: Path) -> None:
    words = sentence_models.WORDS
    examples = Examples.from_columns({"text": [f"{words[0]} 7 {words[1]}", f"{words[2]} {words[3]}", f"{words[4]} 5"]})
    method = method_for(folder, examples, negative="numbers", view2="sentence-permutation", temperature=0.5)
    loss, logs = method(batch_of(method, range(3)))
    assert logs["negatives"] == 2
    texts = list(examples.column("text"))
    numbers = text.get("numbers").by_seeds(texts, [seed_of(seed_of(3, 0, row, 2), 0) for row in range(3)])
    z = torch.nn.functional.normalize(embedded(method, texts).double(), dim=1)
    other = torch.nn.functional.normalize(embedded(method, [numbers[0], numbers[2]]).double(), dim=1)
    scores = torch.cat([z @ z.T, z @ other.T], 1) / 0.5
    expected = (scores.logsumexp(1) - scores[:, :3].diagonal()).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {"view1": "token-cutoff:0.3", "view2": "feature-cutoff"},
        {"view2": "adversarial:0.5"},
        {"view2": "mixup"},
        {"view1": "dropout:0.3", "view2": "embedding-dropout"},
        {"view2": "masked-lm:0.5", "model": "MODEL"},
        {"view2": "token-substitution:0.5+token-shuffle+noise"},
        {"view2": "token-deletion+span-deletion"},
        {"view2": "tf-idf:0.5"},
        {"view2": "synonym:0.5", "thesaurus": "FILE"},
        {"objective": "barlow-twins", "view2": "swap"},
        {"pairs": "two-crops", "view2": "identity"},
        {"pairs": "spans", "view2": "deletion"},
        {"negative": "letter-swap", "view2": "crop:0.5"},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_every_kind_of_view_trains(folder: Path, corpus: Examples, tmp_path: Path, given: dict[str, str]) -> None:
    words = sentence_models.WORDS
    (tmp_path / "t.txt").write_text(f"{', '.join(words)}\n", encoding="utf-8")
    files = {"MODEL": str(folder), "FILE": str(tmp_path / "t.txt")}
    method = method_for(folder, corpus, **{name: files.get(value, value) for name, value in given.items()})
    torch.manual_seed(0)
    optimiser = torch.optim.Adam([value for value in method.parameters() if value.requires_grad], 1e-3)
    losses = []
    for _ in range(12):
        loss, _ = method(batch_of(method))
        optimiser.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        optimiser.step()
    assert all(map(math.isfinite, losses))
    assert min(losses[6:]) < losses[0]
    assert not any("_inside" in name for name in method.state_dict())


def test_an_adversarial_view_is_harder(folder: Path, corpus: Examples) -> None:
    method = method_for(folder, corpus, view1="identity", view2="adversarial:0.5")
    loss, logs = method(batch_of(method))
    assert float(loss.detach()) > float(logs["loss_before_step"])
    plain, _ = method_for(folder, corpus, view1="identity", view2="feature-cutoff:0.0")(batch_of(method))
    assert float(logs["loss_before_step"]) == pytest.approx(float(plain.detach()), abs=1e-5)


def test_chunks_with_cached_gradients_give_the_gradient_of_the_whole(folder: Path, corpus: Examples) -> None:
    gradients = []
    for size in (None, 3):
        method = method_for(folder, corpus, view1="deletion:0.3", view2="swap", negative="letter-swap")
        method.chunk_size = size
        loss, _ = method(batch_of(method))
        loss.backward()
        gradients.append({name: value.grad for name, value in method.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-3, atol=1e-5)
    method = method_for(folder, corpus, view2="mixup")
    method.chunk_size = 3
    with pytest.raises(UsageError, match="all texts of a batch at once"):
        method(batch_of(method))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"view1": "identity", "view2": "identity"}, "no dropout"),
        ({"view2": "negation"}, "take it as negative"),
        ({"view2": "inverse-cloze"}, "as pairs"),
        ({"pairs": "deletion"}, "one view"),
        ({"view2": "synonym"}, "thesaurus"),
        ({"view2": "deletoin"}, "deletion"),
        ({"negative": "numbers", "objective": "barlow-twins"}, "no place for hard negatives"),
        ({"objective": "cosent"}, "point objective"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, corpus: Examples, given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        method_for(folder, corpus, **given)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_strings_need_no_transformer(corpus: Examples, static_model: Any) -> None:
    setting = TextSetting(static_model, corpus, {**OPTIONS, "view2": "deletion:0.3"}, 8, 10, 5)
    method = TextViews(setting).train()
    loss, _ = method(TextBatches(static_model, corpus).batch(range(8)))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    with pytest.raises(ModelError, match="no transformer"):
        TextViews(TextSetting(static_model, corpus, {**OPTIONS, "view2": "noise"}, 8, 10, 5))


# -- runs -------------------------------------------------------------------------------------------------------------


def settings(output: Path, folder: Path, **more: Any) -> TrainingSettings:
    parameters = {"view1": "token-cutoff:0.3", "view2": "deletion:0.3"}
    return TrainingSettings(
        output=str(output), encoder=str(folder), recipe="text-views", parameters=parameters, batch_size=10, epochs=2,
        learning_rate=1e-3, general_check=False, device="cpu", log_every=1, **more,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(next((folder / "checkpoints").glob("*/model.safetensors")))


@pytest.mark.parametrize("step", [2, 6])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tmp_path: Path, folder: Path, corpus: Examples, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = training.train(settings(tmp_path / "whole", folder), examples=corpus)
    original = TextViews.after_step

    def after_step(self: Any, now: int) -> None:
        original(self, now)
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as changed:
        changed.setattr(TextViews, "after_step", after_step)
        broken = training.train(settings(tmp_path / "broken", folder), examples=corpus)
    assert (broken.interrupted, broken.steps) == (True, step)
    again = training.train(TrainingSettings(output=str(tmp_path / "broken"), resume=True), examples=corpus)
    assert (again.steps, again.interrupted) == (8, False)
    expected, found = weights(whole.folder), weights(again.folder)
    assert expected["epoch"] == 1
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    loaded = SentenceTransformer(str(again.folder / "model"), device="cpu")
    before = SentenceTransformer(str(folder), device="cpu").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in loaded.state_dict().items() if name in before)


def test_the_recipe_is_found_with_its_options() -> None:
    how = registry.find("text-views").training
    assert how is not None
    assert dict(how.options) == dict(OPTIONS)
    assert list(how.shapes) == ["texts"]
