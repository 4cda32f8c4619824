from __future__ import annotations

import pytest

from nearfar.encoders.vocabulary import BYTES, SMALLEST_VOCABULARY, UNKNOWN, train_tokenizer
from nearfar.errors import DataError, UsageError

from .conftest import SCRIPTS, corpus


def words(tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(corpus(), vocabulary_size=1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getHTTPResponseCode", ["get", "http", "response", "code"]),
        ("snake_case.name(x)", ["snake", "case", "name", "x"]),
        ("two APIs, 3 PDFs", ["two", "apis", "3", "pdfs"]),
        ("float32", ["float", "32"]),
        ("Hello, WORLD!", ["hello", "world", "!"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("你好，世界", ["你", "好", "世", "界"]),
        ("東京タワーへ行く", ["東", "京", "タワー", "へ", "行", "く"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("เสือกิน", ["เสื", "อ", "กิ", "น"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("मैं १२", ["मैं", "१२"]),
        ("ｆｕｌｌ　ｗｉｄｔｈ", ["full", "width"]),
        ("مرحبا؟", ["مرحبا", "؟"]),
        ("ok 🦜€5", ["ok", "🦜", "€", "5"]),
        ("", []),
        ("()--::", []),
    ],
)
def test_words(tokenizer, text, expected):
    assert words(tokenizer, text) == expected


def test_long_words_are_cut(tokenizer):
    assert [len(word) for word in words(tokenizer, "a" * 150)] == [64, 64, 22]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_read_without_unknown_tokens_and_back(tokenizer, script):
    text = SCRIPTS[script]
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert not set(encoding.tokens) & {UNKNOWN, *BYTES}
    assert "".join(encoding.tokens) == "".join(words(tokenizer, text))
    if script not in ("Han", "Thai"):
        assert len(encoding.tokens) < len(text) / 2, "the merges join letters to longer pieces"


def test_unseen_characters_become_their_bytes(tokenizer):
    assert tokenizer.encode("🦜", add_special_tokens=False).tokens == [f"<0x{byte:02X}>" for byte in "🦜".encode()]


def test_no_text_can_spell_a_byte_or_the_unknown_token(tokenizer):
    tokens = tokenizer.encode("<0x41> [UNK] <0xFF>", add_special_tokens=False).tokens
    assert not set(tokens) & {UNKNOWN, "<0x41>", "<0xFF>"}


def test_the_result_depends_on_the_texts_alone():
    texts = corpus()
    first = train_tokenizer(texts, vocabulary_size=500).to_str()
    assert train_tokenizer(list(reversed(texts)), vocabulary_size=500).to_str() == first
    assert train_tokenizer(iter(texts), vocabulary_size=500).to_str() == first
    assert train_tokenizer(texts[:-3], vocabulary_size=500).to_str() != first or texts[:-3] == texts


def test_the_vocabulary_is_bounded():
    assert train_tokenizer(corpus(), vocabulary_size=400).get_vocab_size() == 400
    assert train_tokenizer(corpus(), vocabulary_size=30_000).get_vocab_size() < 1500


def test_one_text_is_enough():
    tokenizer = train_tokenizer(["hello"])
    assert "".join(tokenizer.encode("hello", add_special_tokens=False).tokens) == "hello"


def test_more_characters_than_room_leave_the_frequent_ones():
    texts = [chr(0x4E00 + number) * (500 - number) for number in range(400)] + ["fox fox fox"] * 500
    tokenizer = train_tokenizer(texts, vocabulary_size=400)
    assert tokenizer.get_vocab_size() <= 400
    vocabulary = tokenizer.get_vocab()
    assert [chr(0x4E00 + number) in vocabulary for number in (0, 60, 75, 399)] == [True, True, False, False]
    assert tokenizer.encode("fox", add_special_tokens=False).tokens == ["fox"]
    assert train_tokenizer(texts[::-1], vocabulary_size=400).to_str() == tokenizer.to_str()


@pytest.mark.parametrize("texts", [[""], ["...", "--"]])
def test_texts_without_words_give_the_bytes_alone(texts):
    assert train_tokenizer(texts).get_vocab_size() == len(BYTES) + 1


def test_what_is_refused():
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([])
    with pytest.raises(DataError, match="text 1"):
        train_tokenizer(["fine", 3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="surrogate"):
        train_tokenizer(["fine", "\ud800"])
    with pytest.raises(UsageError, match="too small"):
        train_tokenizer(["fine"], vocabulary_size=SMALLEST_VOCABULARY - 1)
