from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.data import Examples
from nearfar.training.loading import TextBatches
from nearfar.training.methods import label_pairs, linear_head
from nearfar.training.text_training import TextSetting, TextTraining
from support.sentence_models import WORDS, bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert", dropout=0.0)


def labelled(rows: int = 24) -> Examples:
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    texts = [" ".join(random.choice(WORDS[8 * c : 8 * c + 8], 3)) for c in labels]
    return Examples.from_columns({"text": texts, "label": [f"c{c}" for c in labels]})


def made(training: TextTraining, folder: Path, **options: Any) -> tuple[Any, TextBatches, Any]:
    encoder, examples = encoders.load(folder, device="cpu"), labelled()
    chosen = {**training.options, **options}
    assert training.batches is not None
    batches = training.batches(examples, chosen, 8, seed=0, rank=0, processes=1)
    setting = TextSetting(encoder, examples, chosen, batch_size=8, steps=10, steps_per_epoch=len(batches))
    return training.method(setting), TextBatches(encoder, examples), batches


def test_the_loss_is_the_squared_error_of_the_cosine(folder: Path) -> None:
    method, texts, batches = made(label_pairs.TRAINING, folder)
    rows = next(iter(batches))
    loss, _ = method(texts.batch(rows))
    points = encoders.encode(method.encoder, labelled().column("text"), normalize=True).astype(np.float64)
    labels = labelled().column("label")
    costs = []
    for first, second in zip(rows[0::2], rows[1::2], strict=True):
        near = 1.0 if labels[first] == labels[second] else 0.0
        costs.append((float(points[first] @ points[second]) - near) ** 2)
    assert len(costs) == 4
    assert float(loss.detach()) == pytest.approx(sum(costs) / 4, abs=1e-5)


@pytest.mark.parametrize("training", [label_pairs.TRAINING, linear_head.TRAINING])
def test_a_few_steps_lower_the_loss(training: TextTraining, folder: Path) -> None:
    method, texts, batches = made(training, folder)
    everything = [texts.batch(rows) for rows in batches]
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)

    def mean() -> float:
        with torch.no_grad():
            return float(np.mean([float(method(batch)[0]) for batch in everything]))

    before = mean()
    for batch in everything[:20] * 2:
        optimizer.zero_grad()
        method(batch)[0].backward()
        optimizer.step()
    assert mean() < 0.8 * before


def test_the_linear_head_is_cross_entropy(folder: Path) -> None:
    method, texts, batches = made(linear_head.TRAINING, folder)
    rows = next(iter(batches))
    loss, _ = method(texts.batch(rows))
    points = encoders.encode(method.encoder, labelled().column("text"), normalize=False).astype(np.float64)
    codes = labelled().labels()[0]
    weight, bias = (value.detach().double().numpy() for value in (method.head.weight, method.head.bias))
    costs = []
    for row in rows:
        logits = weight @ points[row] + bias
        costs.append(float(np.log(np.exp(logits).sum()) - logits[codes[row]]))
    assert float(loss.detach()) == pytest.approx(np.mean(costs), abs=1e-5)
    assert sorted(np.concatenate(list(batches)).tolist()) == list(range(24))


def test_the_options_are_those_of_the_pairs(folder: Path) -> None:
    _, _, bounded = made(label_pairs.TRAINING, folder, pairs=10)
    assert len(bounded.pairs) == 10
    _, _, unbounded = made(label_pairs.TRAINING, folder, pairs=0, strategy="undersampling", itself=False)
    assert len(unbounded.pairs) == 2 * 3 * 28  # eight texts of each of three labels
    _, _, older = made(label_pairs.TRAINING, folder, iterations=2)
    assert len(older.pairs) == 2 * 2 * 24


def test_training_by_the_recipe_end_to_end(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from nearfar import training

    output = tmp_path / "run"
    settings = training.TrainingSettings(
        output=str(output),
        encoder=str(folder),
        recipe="setfit",
        parameters={"pairs": 64},
        batch_size=16,
        learning_rate=5e-3,
        hold_out=0.3,
        general_check=False,
        device="cpu",
    )
    run = training.train(settings, examples=labelled(60))
    assert run.steps == 8  # 64 pairs, eight a step, one epoch
    assert run.after["knn_accuracy"]["value"] >= run.before["knn_accuracy"]["value"]
    exported = SentenceTransformer(str(output / "model"), device="cpu")
    assert exported.encode(["kab kad"]).shape == (1, 16)
    again = training.train(training.TrainingSettings(output=str(output), resume=True))
    assert again.after == run.after
