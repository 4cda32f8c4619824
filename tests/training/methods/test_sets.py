"""SetCSE on a user's labelled texts: against the formula by loops, end to end, and in one process or chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders, training
from nearfar.contrast import Labels
from nearfar.data import Examples
from nearfar.objectives import SetCSE
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.methods.sets import SetContrast
from nearfar.training.text_training import TextSetting
from support.loops import cosine
from support.sentence_models import bert, texts

EXAMPLES = Examples.from_columns({"text": texts(24), "label": ["a", "b", "c"] * 8})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("sets") / "bert")


def method_of(folder: Path, **given: Any) -> SetContrast:
    recipe = registry.find("setcse")
    assert recipe.training is not None
    encoder = encoders.load(folder, device="cpu")
    options = {**recipe.training.options, **given}
    return SetContrast(TextSetting(encoder, EXAMPLES, options, batch_size=12, steps=4, steps_per_epoch=2))


def test_by_loops(folder: Path) -> None:
    method = method_of(folder, temperature=0.3)
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 2, 1])
    expected = 0
    for name in range(3):
        pairs = [(m, n) for m in range(6) for n in range(6) if labels[m] == name != labels[n]]
        expected += sum((cosine(z[m], z[n]) / 0.3).exp() for m, n in pairs).log()
    loss, logs = method.contrast(z, {"labels": labels})
    assert loss.item() == pytest.approx(expected.item())
    assert logs == {}
    softmax = method_of(folder, variant="infonce", temperature=0.3).contrast(z, {"labels": labels})[0]
    own = SetCSE("infonce", temperature=0.3, reduction="none")(z, relation=Labels(labels))
    assert softmax.item() == pytest.approx(own.mean().item())


def test_steps_push_the_sets_apart(folder: Path) -> None:
    method = method_of(folder).train()
    batch = TextBatches(method.encoder, EXAMPLES).batch(np.arange(24))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss, _ = method(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_a_run_by_the_recipe(folder: Path, tmp_path: Path) -> None:
    settings = training.TrainingSettings(
        recipe="setcse", encoder=str(folder), steps=3, batch_size=12, output=str(tmp_path / "run"), device="cpu",
        parameters={"variant": "infonce"}, hold_out=0.3, general_check=False,
    )  # fmt: skip
    run = training.train(settings, examples=EXAMPLES)
    assert run.steps == 3
    saved = encoders.load(tmp_path / "run" / "model", device="cpu")
    np.testing.assert_allclose(encoders.encode(saved, ["kab kad"]), encoders.encode(run.encoder, ["kab kad"]))
    assert not np.allclose(
        encoders.encode(saved, ["kab kad"]), encoders.encode(encoders.load(folder, device="cpu"), ["kab kad"])
    )
