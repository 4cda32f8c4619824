"""DebCSE on a user's texts: draws of an epoch, the contrast by loops, runs that are resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders, training
from nearfar.data import Examples
from nearfar.errors import DataError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.methods.sampled import DebiasedSampling
from nearfar.training.text_training import TextSetting
from support.loops import cosine
from support.sentence_models import bert, texts

DRAWN = texts(30)
TEXTS = Examples.from_columns({"text": DRAWN})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("sampled") / "bert")


def method_of(folder: Path, examples: Examples = TEXTS, **given: Any) -> DebiasedSampling:
    how = registry.find("debcse").training
    assert how is not None
    options = {**how.options, "near": 4, "far": 12, "same": 1.0, **given}
    encoder = encoders.load(folder, device="cpu")
    return DebiasedSampling(TextSetting(encoder, examples, options, batch_size=10, steps=4, steps_per_epoch=3))


def test_draws_come_with_an_epoch_and_are_saved(folder: Path) -> None:
    method = method_of(folder)
    assert (method.positive == -1).all()
    torch.manual_seed(0)
    method.before_epoch(0)
    first = method.positive.clone()
    assert (first >= 0).all()
    assert (first != torch.arange(30)).all()
    assert {"positive", "negative"} <= set(method.state_dict())
    method.before_epoch(1)
    assert not torch.equal(first, method.positive)
    torch.manual_seed(0)
    method.before_epoch(0)
    assert torch.equal(first, method.positive)


def test_the_contrast_by_loops(folder: Path) -> None:
    method = method_of(folder, temperature=0.3).eval()
    method.before_epoch(0)
    rows = [3, 7, 11, 20]
    method.positive[7], method.negative[11] = -1, -1  # the text itself, and no hard negative
    method.positive[20] = 3  # a positive that is another text of the batch, which is then no negative of that
    loss, logs = method(TextBatches(method.encoder, TEXTS).batch(rows))
    near = [int(method.positive[row]) if method.positive[row] >= 0 else row for row in rows]
    keys = near + [int(method.negative[row]) for row in rows if method.negative[row] >= 0]
    z = torch.from_numpy(encoders.encode(method.encoder, DRAWN))
    costs = []
    for place, row in enumerate(rows):
        scores = {
            column: (cosine(z[row], z[key]) / 0.3).exp()
            for column, key in enumerate(keys)
            if column == place or key not in (row, near[place])
        }
        costs.append(-(scores[place] / sum(scores.values())).log())
    assert len(keys) == 7
    assert loss.item() == pytest.approx((sum(costs) / 4).item(), rel=1e-4)
    assert logs["drawn positives"].item() == logs["drawn negatives"].item() == 0.75


def test_a_reference_to_which_all_texts_are_the_same_gives_no_negatives(folder: Path) -> None:
    with pytest.warns(UserWarning, match="100% of the texts have no candidate"):
        method = method_of(folder, same=0.5)
    method.before_epoch(0)
    assert (method.negative == -1).all()
    loss, logs = method(TextBatches(method.encoder, TEXTS).batch([0, 1, 2]))
    assert torch.isfinite(loss)
    assert logs["drawn negatives"] == 0


def test_another_reference_and_too_few_texts(folder: Path, tmp_path: Path) -> None:
    other = bert(tmp_path / "reference", seed=9)
    one, two = method_of(folder), method_of(folder, reference=str(other))
    assert not torch.equal(one.sampler.positives, two.sampler.positives)
    with pytest.raises(DataError, match="5 texts are too few"):
        method_of(folder, Examples.from_columns({"text": DRAWN[:5]}))


def test_a_run_by_the_recipe(folder: Path, tmp_path: Path) -> None:
    settings = training.TrainingSettings(
        recipe="debcse", encoder=str(folder), steps=4, batch_size=10, output=str(tmp_path / "run"), device="cpu",
        learning_rate=1e-3, parameters={"near": 4, "far": 12, "same": 1.0}, general_check=False,
    )  # fmt: skip
    run = training.train(settings, examples=TEXTS)
    assert run.steps == 4
    saved = encoders.load(tmp_path / "run" / "model", device="cpu")
    np.testing.assert_allclose(encoders.encode(saved, ["kab kad"]), encoders.encode(run.encoder, ["kab kad"]))
