"""The static encoder over distinct tokens: what it computes, and that its folder is sentence-transformers' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.errors import UsageError

TEXTS = [
    "sort a list of numbers",
    "def sortNumbers(numbers): return sorted(numbers, key=numbers.index)",
    "numbers numbers numbers",
    "numbers",
    "",
    "?!",
    "список чисел",
    "数字のリスト",
    "🙂 🙂 \x7f\u0300",
    "[UNK] [UNK] a",
]


@pytest.fixture(scope="module")
def model():
    return encoders.load("static", texts=TEXTS * 2, dimension=12, vocabulary_size=600, pooling="distinct", seed=3)


def test_each_token_counts_once(model):
    found = encoders.encode(model, TEXTS, normalize=False)
    table = model[0].embedding.weight.detach().double().numpy()
    for text, vector in zip(TEXTS, found, strict=True):
        ids = set(model.tokenizer.encode(text, add_special_tokens=False).ids)
        expected = sum((table[number] for number in ids), np.zeros(12))
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    np.testing.assert_array_equal(found[2], found[3])
    np.testing.assert_array_equal(found[4], 0)


def test_the_librarys_own_encode_agrees(model):
    np.testing.assert_allclose(model.encode(TEXTS), encoders.encode(model, TEXTS, normalize=False), atol=1e-6)


@pytest.mark.parametrize("max_length", [None, 3])
def test_saved_folder_loads_in_the_peer_and_here(tmp_path, max_length):
    from sentence_transformers import SentenceTransformer

    model = encoders.load(
        "static", texts=TEXTS * 2, dimension=12, vocabulary_size=600, pooling="distinct", max_length=max_length
    )
    encoders.save(model, tmp_path / "model")
    types = [module["type"] for module in json.loads((tmp_path / "model" / "modules.json").read_text())]
    assert all(name.startswith("sentence_transformers.") for name in types)
    expected = encoders.encode(model, TEXTS, normalize=False)
    peer = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(peer.encode(TEXTS), expected, atol=1e-5)
    again = encoders.load(tmp_path / "model")
    assert len(again) == 1
    assert encoders.token_limit(again) == max_length
    np.testing.assert_array_equal(encoders.encode(again, TEXTS, normalize=False), expected)
    assert encoders.fingerprint(again) == encoders.fingerprint(model)


def test_gradient_reaches_the_distinct_tokens_alone(model):
    features = encoders.tokenize(model, ["numbers numbers a"])
    model.zero_grad()
    model(features)["sentence_embedding"].sum().backward()
    touched = set(torch.nonzero(model[0].embedding.weight.grad.abs().sum(1)).flatten().tolist())
    assert touched == set(model.tokenizer.encode("numbers a", add_special_tokens=False).ids)
    assert model[0].embedding.weight.grad.max() == 1


def test_unknown_pooling_is_refused():
    with pytest.raises(UsageError, match="pooling"):
        encoders.load("static", texts=TEXTS, pooling="median")
