from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.encoders.distil import SIF_COEFFICIENT, principal_components
from nearfar.encoders.static import document_frequency, evenly_spaced, idf_norms, static_encoder
from nearfar.errors import DataError, UsageError

from .conftest import SCRIPTS, corpus


def table(model) -> np.ndarray:
    return model[0].embedding.weight.detach().numpy()


def test_the_embedding_is_the_mean_of_the_token_vectors(static_model):
    text = "the fox jumps getHttpResponse"
    ids = static_model.tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) >= 6
    expected = np.sum([table(static_model)[token].astype(np.float64) for token in ids], axis=0) / len(ids)
    np.testing.assert_allclose(encoders.encode(static_model, [text], normalize=False)[0], expected, rtol=1e-5)


def test_texts_without_tokens_give_zero_and_never_nan(static_model):
    embedded = encoders.encode(static_model, ["", " \n", "---", "the fox"])
    assert not embedded[:3].any()
    assert np.linalg.norm(embedded[3]) == pytest.approx(1, abs=1e-6)
    assert not encoders.encode(static_model, ["", ""]).any(), "also when no text of the batch has a token"


def test_like_texts_are_nearer_than_unlike_ones_in_every_script(static_model):
    texts = list(SCRIPTS.values())
    embedded = encoders.encode(static_model, texts)
    halves = encoders.encode(static_model, [text[: 2 * len(text) // 3] for text in texts])
    assert (np.argmax(halves @ embedded.T, axis=1) == np.arange(len(texts))).all()


def test_seed_and_texts_decide_the_encoder():
    first = static_encoder(corpus(), dimension=8, seed=3)
    again = static_encoder(iter(corpus()), dimension=8, seed=3)
    other = static_encoder(corpus(), dimension=8, seed=4)
    assert encoders.fingerprint(first) == encoders.fingerprint(again)
    assert encoders.fingerprint(first) != encoders.fingerprint(other)


def test_idf_norms_follow_the_formula():
    texts = ["fox fox dog", "fox cat", "fox"]
    model = static_encoder(texts, dimension=4096, initial="idf")
    frequency, count = document_frequency(model.tokenizer, texts)
    counted = np.zeros(model.tokenizer.get_vocab_size(), dtype=int)
    for text in texts:
        for token in set(model.tokenizer.encode(text).ids):
            counted[token] += 1
    assert count == 3
    np.testing.assert_array_equal(frequency, counted)
    weights = np.array([math.log(1 + 3 / max(n, 1)) for n in counted])
    weights /= math.sqrt(sum(weights**2) / len(weights))
    np.testing.assert_allclose(idf_norms(frequency, count)[:, 0], weights, rtol=1e-6)
    norms = np.linalg.norm(table(model), axis=1)
    np.testing.assert_allclose(norms, weights, rtol=0.08)  # a Gaussian vector of 4,096 numbers: 5 standard deviations


def test_random_vectors_have_length_about_one():
    model = static_encoder(corpus(), dimension=1024, initial="random")
    norms = np.linalg.norm(table(model), axis=1)
    assert abs(norms.mean() - 1) < 0.01
    assert norms.std() < 0.05


def test_one_row_is_enough_to_train_on():
    model = static_encoder(["hello"], dimension=4)
    features = encoders.tokenize(model, ["hello", "", "world"])
    embedded = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)
    embedded.sum().backward()
    assert torch.isfinite(model[0].embedding.weight.grad).all()
    assert embedded[0].norm().item() == pytest.approx(1, abs=1e-6)


def test_the_mean_of_a_distilled_table_keeps_what_the_model_knows(static_model):
    distilled = static_encoder(corpus(), dimension=24, vocabulary_size=800, initial=static_model)
    np.testing.assert_allclose(np.mean(np.sum(table(distilled).astype(np.float64) ** 2, axis=1)), 1, rtol=1e-5)
    texts = ["the fox jumps", "the dog sleeps", "the whale sings", SCRIPTS["Greek"]]
    new, old = encoders.encode(distilled, texts), encoders.encode(static_model, texts)
    assert np.corrcoef((new @ new.T)[np.triu_indices(4, 1)], (old @ old.T)[np.triu_indices(4, 1)])[0, 1] > 0.7
    again = static_encoder(corpus(), dimension=24, vocabulary_size=800, initial=static_model)
    assert encoders.fingerprint(again) == encoders.fingerprint(distilled)


def test_distilled_vectors_are_weighted_principal_components(static_model):
    model = static_encoder(corpus(), dimension=5, vocabulary_size=400, initial=static_model)
    names = sorted(model.tokenizer.get_vocab(), key=model.tokenizer.get_vocab().get)
    spelt = [place for place, name in enumerate(names) if place > 256]
    embedded = encoders.encode(static_model, [names[place] for place in spelt], normalize=False).astype(float)
    centred = embedded - embedded.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    frequency, _ = document_frequency(model.tokenizer, corpus())
    share = frequency[spelt] / frequency.sum()
    expected = (centred @ axes[:5].T) * (SIF_COEFFICIENT / (SIF_COEFFICIENT + share))[:, None]
    actual = table(model)[spelt].astype(float)
    ratio = np.linalg.norm(actual) / np.linalg.norm(expected)
    np.testing.assert_allclose(actual @ actual.T, ratio**2 * (expected @ expected.T), atol=2e-4)


def test_principal_components_keep_the_variance():
    rows = np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7)
    components = principal_components(rows, 6)
    np.testing.assert_allclose(components.var(axis=0).sum(), rows.var(axis=0).sum())
    assert (np.diff(components.var(axis=0)) <= 1e-9).all()


def test_much_text_is_thinned_out_evenly():
    texts = [f"{number:04}" for number in range(1000)]
    assert evenly_spaced(texts, 4000) is texts
    chosen = [int(text) for text in evenly_spaced(texts, 400)]
    assert len(chosen) == 100
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert set(np.diff(chosen)) <= {10, 11}
    assert list(evenly_spaced(["long " * 100], 3)) == ["long " * 100]
    generator = iter(texts)
    assert evenly_spaced(generator, 3) is generator


def test_initial_model_must_be_wide_enough(static_model):
    with pytest.raises(UsageError, match="24 dimensions"):
        static_encoder(corpus(), dimension=25, initial=static_model)


def test_a_token_limit_is_kept_when_saved(tmp_path):
    model = static_encoder(corpus(), dimension=8, max_length=2)
    assert encoders.token_limit(model) == 2
    first = encoders.encode(model, ["fox jumps"])
    np.testing.assert_array_equal(encoders.encode(model, ["fox jumps over the dog"]), first)
    assert encoders.token_lengths(model)(["the fox jumps the dog"]) == [5]
    encoders.save(model, tmp_path / "m")
    loaded = encoders.load(tmp_path / "m", device="cpu")
    assert encoders.token_limit(loaded) == 2
    np.testing.assert_array_equal(encoders.encode(loaded, ["fox jumps over the dog"]), first)


def test_what_is_refused():
    with pytest.raises(UsageError, match="dimension"):
        static_encoder(["a"], dimension=0)
    with pytest.raises(UsageError, match="max_length"):
        static_encoder(["a"], max_length=0)
    with pytest.raises(DataError):
        static_encoder([])
    with pytest.raises(UsageError, match="texts"):
        encoders.load("static")
