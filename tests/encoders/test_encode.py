from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.encoders.encode import evaluating
from nearfar.errors import DataError, ModelError, UsageError

from .conftest import SCRIPTS, corpus

TEXTS = [*SCRIPTS.values(), "", *corpus()[:60], "fox " * 30, "  "]


@pytest.fixture(params=["static_model", "bert_model"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_equals_the_models_own_encode(model, normalize, batch_size):
    ours = encoders.encode(model, TEXTS, normalize=normalize, batch_size=batch_size)
    theirs = model.encode(TEXTS, normalize_embeddings=normalize)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_is_deterministic(model):
    assert encoders.encode(model, TEXTS).tobytes() == encoders.encode(model, TEXTS).tobytes()


def test_blocks_larger_than_what_is_tokenised_ahead(static_model):
    texts = [TEXTS[number % len(TEXTS)] for number in range(9001)]
    few = encoders.encode(static_model, TEXTS)
    np.testing.assert_array_equal(encoders.encode(static_model, texts), few[np.arange(9001) % len(TEXTS)])


def test_half_precision_is_rounded(model):
    full = encoders.encode(model, TEXTS)
    half = encoders.encode(model, TEXTS, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.astype(np.float16))


def test_int8_keeps_components_and_cosines(model):
    full = encoders.encode(model, TEXTS)
    small = encoders.encode(model, TEXTS, dtype="int8")
    assert small.dtype == np.int8
    restored = small.astype(np.float32) * np.float32(encoders.INT8_SCALE)
    assert np.abs(restored - full).max() <= 1 / 254 + 1e-6
    assert np.abs(restored @ restored.T - full @ full.T).max() < 0.02


def test_no_texts(model):
    assert encoders.encode(model, []).shape == (0, encoders.encode(model, ["a"]).shape[1])


def test_progress_counts_every_text(model):
    seen = []
    encoders.encode(model, TEXTS, batch_size=16, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS), len(TEXTS))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_mode_comes_back(bert_model):
    bert_model.train()
    encoders.encode(bert_model, ["a"])
    assert bert_model.training
    assert bert_model[0].training
    with evaluating(bert_model):
        assert not bert_model[0].training
    bert_model.eval()


def test_prompts(bert_folder):
    model = encoders.load(bert_folder, device="cpu")
    model.prompts = {"query": "the fox ", "document": "the dog "}
    plain = encoders.encode(model, ["jumps", "the fox jumps", "the dog jumps"])
    np.testing.assert_allclose(encoders.encode(model, ["jumps"], task="query")[0], plain[1], atol=1e-6)
    np.testing.assert_allclose(encoders.encode(model, ["jumps"], task="document")[0], plain[2], atol=1e-6)
    model.default_prompt_name = "query"
    np.testing.assert_allclose(encoders.encode(model, ["jumps"])[0], plain[1], atol=1e-6)
    np.testing.assert_allclose(
        encoders.encode(model, ["jumps"])[0], model.encode("jumps", normalize_embeddings=True), atol=1e-6
    )


def test_a_prompt_left_out_of_the_mean(bert_folder):
    model = encoders.load(bert_folder, device="cpu")
    model.prompts = {"query": "the fox "}
    model.set_pooling_include_prompt(False)
    expected = model.encode(["jumps", "sleeps now"], prompt_name="query", normalize_embeddings=True)
    np.testing.assert_allclose(encoders.encode(model, ["jumps", "sleeps now"], task="query"), expected, atol=1e-6)
    with_prompt = encoders.encode(model, ["the fox jumps"])
    assert np.abs(with_prompt[0] - expected[0]).max() > 1e-3


def test_truncated_dimensions(static_model, tmp_path):
    encoders.save(static_model, tmp_path / "m")
    model = encoders.load(tmp_path / "m", device="cpu")
    model.truncate_dim = 10
    embedded = encoders.encode(model, TEXTS[:3])
    np.testing.assert_allclose(embedded, model.encode(TEXTS[:3], normalize_embeddings=True), atol=1e-6)
    assert embedded.shape == (3, 10)


def test_what_is_refused(model):
    with pytest.raises(UsageError, match="batch size"):
        encoders.encode(model, ["a"], batch_size=0)
    with pytest.raises(UsageError, match="float32, float16, int8"):
        encoders.encode(model, ["a"], dtype="float64")
    with pytest.raises(UsageError, match="length 1"):
        encoders.encode(model, ["a"], dtype="int8", normalize=False)
    with pytest.raises(DataError, match="text 2"):
        encoders.encode(model, ["a", "b", 7])  # type: ignore[list-item]


def test_a_model_with_nan_is_reported(static_model, tmp_path):
    encoders.save(static_model, tmp_path / "m")
    broken = encoders.load(tmp_path / "m", device="cpu")
    with torch.no_grad():
        broken[0].embedding.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        encoders.encode(broken, ["fox", ""])
