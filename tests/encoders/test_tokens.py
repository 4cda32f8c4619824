from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.encoders.tokens import model_features, set_token_limit
from nearfar.errors import DataError, UsageError

from .conftest import corpus

TEXTS = ["the fox jumps", "", "the dog sleeps 3 times a day", "unseen 🦜 words here", "fox " * 40]


@pytest.fixture(params=["static_model", "bert_model"])
def model(request):
    return request.getfixturevalue(request.param)


def same(first: dict, second: dict) -> bool:
    assert set(first) == set(second)
    return all(
        torch.equal(first[name], second[name]) if isinstance(first[name], torch.Tensor) else first[name] == second[name]
        for name in first
    )


def test_tokenize_gives_what_the_model_itself_would(model):
    assert same(encoders.tokenize(model, TEXTS), model_features(model, TEXTS))


def test_a_batch_of_ready_tokens_equals_tokenizing_it(model):
    tokens = encoders.pretokenize(model, iter(TEXTS))
    assert len(tokens) == len(TEXTS)
    for rows in ([0], [2, 0, 2], [4, 3, 2, 1, 0], [1], [1, 1]):
        assert same(tokens.batch(rows), encoders.tokenize(model, [TEXTS[row] for row in rows])), rows


def test_a_batch_embeds_as_the_texts_do_and_lets_gradients_through(model):
    tokens = encoders.pretokenize(model, TEXTS)
    model.eval()
    embedded = model(tokens.batch(np.array([3, 0])))["sentence_embedding"]
    expected = model.encode([TEXTS[3], TEXTS[0]], convert_to_tensor=True)
    torch.testing.assert_close(embedded.detach(), expected, atol=1e-6, rtol=1e-5)
    embedded.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


def test_many_blocks_join_to_one(static_model, bert_model):
    texts = [corpus()[number % 100] for number in range(5000)]
    for model in (static_model, bert_model):
        tokens = encoders.pretokenize(model, texts)
        assert len(tokens) == 5000
        assert same(tokens.batch([4999, 4095, 1024]), encoders.tokenize(model, [texts[r] for r in (4999, 4095, 1024)]))


def test_left_padding():
    tokens = encoders.Tokenized(
        ids=np.array([5, 6, 7], dtype=np.int32), offsets=np.array([0, 1, 3]), static=False, pad_id=9, pad_left=True
    )
    features = tokens.batch([0, 1])
    assert features["input_ids"].tolist() == [[9, 5], [6, 7]]
    assert features["attention_mask"].tolist() == [[0, 1], [1, 1]]


def test_no_texts(static_model):
    tokens = encoders.pretokenize(static_model, [])
    assert len(tokens) == 0
    assert tokens.batch([])["input_ids"].shape == (0,)


def test_lengths_are_counted_before_the_cut(static_model, bert_model):
    assert encoders.token_limit(static_model) is None
    assert encoders.token_lengths(static_model)(["the fox", ""]) == [2, 0]
    assert encoders.token_limit(bert_model) == 20
    assert encoders.token_lengths(bert_model)(["the fox", "", "fox " * 40]) == [4, 2, 42]
    assert encoders.token_lengths(bert_model)([]) == []
    assert encoders.pretokenize(bert_model, ["fox " * 40]).lengths.tolist() == [20]


def test_the_limit_of_a_transformer(bert_folder, tmp_path):
    model = encoders.load(bert_folder, max_length=6, device="cpu")
    assert encoders.token_limit(model) == 6
    encoders.save(model, tmp_path / "m")
    loaded = encoders.load(tmp_path / "m", device="cpu")
    assert encoders.token_limit(loaded) == 6
    text = "the fox jumps 3 times a day"
    np.testing.assert_array_equal(encoders.encode(loaded, [text]), encoders.encode(model, [text]))
    with pytest.raises(UsageError, match="20 positions"):
        set_token_limit(model, 21)
    with pytest.raises(UsageError, match="at least 3"):
        set_token_limit(model, 2)


def test_items_must_be_text(model):
    with pytest.raises(DataError, match="text 1"):
        encoders.tokenize(model, ["a", None])  # type: ignore[list-item]
    with pytest.raises(DataError, match="text 0"):
        encoders.pretokenize(model, [1.5])  # type: ignore[list-item]


def test_reading_less_of_a_text_ends_with_the_block(tmp_path):
    from support.sentence_models import WORDS, bert

    transformer = encoders.load(bert(tmp_path / "bert"), device="cpu")
    static = encoders.load("static", texts=WORDS * 2, dimension=8, vocabulary_size=600, device="cpu")
    limited = encoders.load("static", texts=WORDS * 2, dimension=8, vocabulary_size=600, max_length=9, device="cpu")
    text = [" ".join(WORDS[:20])]
    for model, usual in ((transformer, 22), (static, None), (limited, 9)):
        before = encoders.token_limit(model)
        length = encoders.pretokenize(model, text).lengths[0]
        assert usual is None or length == usual
        with contextlib.suppress(KeyError), encoders.reading(model, 5):
            assert encoders.token_limit(model) == 5
            assert encoders.pretokenize(model, text).lengths[0] == 5
            raise KeyError
        assert encoders.token_limit(model) == before
        assert encoders.pretokenize(model, text).lengths[0] == length
        for more in (None, 10_000):
            with encoders.reading(model, more):
                assert encoders.pretokenize(model, text).lengths[0] == length
