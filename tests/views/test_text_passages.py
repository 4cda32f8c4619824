"""Views of passages, of sentences' trees and by models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from nearfar.errors import DataError, ModelError, UsageError
from nearfar.views.text.rewriting import BackTranslation, Rewriting, SequenceToSequence
from nearfar.views.text.sentences import (
    Concatenation,
    SentenceDeletion,
    SentencePermutation,
    Templates,
    sentences,
)
from nearfar.views.text.spans import InverseCloze, NeighbourSentences, SpanPairs, TwoCrops
from nearfar.views.text.trees import BranchDeletion, TreeCrop, TreeRotation
from support import sentence_models

PARTS = [f"Sentence {number} is here." for number in range(8)]
PASSAGE = " ".join(PARTS)
WORDS = [f"w{number}" for number in range(400)]
LONG = " ".join(WORDS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sentences_end_with_marks_and_lines() -> None:
    assert sentences('He said "go!" She went. And 3.5 more\nlast') == [
        'He said "go!"',
        "She went.",
        "And 3.5 more",
        "last",
    ]
    assert sentences("") == []
    assert sentences("one") == ["one"]


def test_permuted_sentences_are_the_same() -> None:
    seen = SentencePermutation()([PASSAGE] * 30, generator())
    assert all(Counter(sentences(each)) == Counter(PARTS) for each in seen)
    assert len(set(seen)) > 20


@pytest.mark.parametrize(("share", "left"), [(0.2, 6), (0.5, 4), (1.0, 1), (0.0, 8)])
def test_sentences_left_out_are_counted(share: float, left: int) -> None:
    for each in SentenceDeletion(share)([PASSAGE] * 20, generator()):
        kept = sentences(each)
        assert len(kept) == left
        assert kept == [part for part in PARTS if part in kept]


@pytest.mark.parametrize("view", [SentencePermutation(), SentenceDeletion(0.9)])
def test_a_sentence_alone_stays(view: Any) -> None:
    assert view(["only  one", "", "One. "]) == ["only  one", "", "One. "]


def test_templates() -> None:
    seen = Templates(["a {text} b", "c {text}"])(["x {text}"] * 50, generator())
    assert set(seen) == {"a x {text} b", "c x {text}"}
    for wrong in (["none"], ["{text} {text}"], []):
        with pytest.raises(UsageError):
            Templates(wrong)


def test_concatenation_takes_the_beginning_of_another() -> None:
    view = Concatenation(0.5)
    for one, other in (view(["a b", "c d e f"], generator(seed)) for seed in range(20)):
        assert one in ("a b c d", "c d a b")
        assert other in ("c d e f a", "a c d e f")
    assert view(["alone"]) == ["alone"]
    assert Concatenation(0.1, partners=["x y"])(["a", "b"], generator())[0] in ("a x", "x a")


def test_spans_are_as_long_as_they_may_and_near_each_other() -> None:
    pairs = SpanPairs(8, 64)
    lengths: list[tuple[int, int]] = []
    for seed in range(3000):
        (start, end), (other, last) = pairs.places(400, Random(seed))
        assert 0 <= start < end <= 400
        assert 0 <= other < last <= 400
        own, length = end - start, last - other
        lengths.append((own, length))
        assert 8 <= own <= 64
        assert 8 <= length <= 64
        assert start - length <= other <= end, "too far away"
    mean = [sum(each) / 3000 for each in zip(*lengths, strict=True)]
    # Beta(4, 2) has mean 2/3, Beta(2, 4) 1/3; floored
    assert abs(mean[0] - (8 + 56 * 2 / 3 - 0.5)) < 1
    assert abs(mean[1] - (8 + 56 / 3 - 0.5)) < 1


@pytest.mark.parametrize("pairs", [SpanPairs(), InverseCloze(), NeighbourSentences(), TwoCrops()])
def test_pairs_of_short_texts_and_their_randomness(pairs: Any) -> None:
    assert pairs([""]) == ([""], [""])
    assert pairs(["one"]) == (["one"], ["one"])
    assert pairs([]) == ([], [])
    one, other = pairs([PASSAGE] * 10, generator(1))
    assert (one, other) == pairs([PASSAGE] * 10, generator(1))
    assert len(set(zip(one, other, strict=True))) > 3
    assert all(each.strip() for each in (*one, *other))
    assert pairs.by_seeds(["x y", PASSAGE], [5, 9])[0][1] == pairs.by_seeds([PASSAGE], [9])[0][0]


def test_spans_and_crops_are_runs_of_words() -> None:
    for pairs in (SpanPairs(8, 64), TwoCrops((0.05, 0.5))):
        for each in (each for side in pairs([LONG] * 30, generator()) for each in side):
            words = each.split()
            start = WORDS.index(words[0])
            assert words == WORDS[start : start + len(words)]
            assert 8 <= len(words) <= (64 if isinstance(pairs, SpanPairs) else 200)


def test_a_sentence_and_the_rest() -> None:
    kept = 0
    for one, rest in zip(*InverseCloze(0.3)([PASSAGE] * 1000, generator()), strict=True):
        assert one in PARTS
        if one in sentences(rest):
            kept += 1
            assert rest == PASSAGE
        else:
            assert sentences(rest) == [part for part in PARTS if part != one]
    assert 250 < kept < 350


def test_neighbours_are_at_most_so_far_away() -> None:
    distances = Counter(
        PARTS.index(other) - PARTS.index(one)
        for one, other in zip(*NeighbourSentences(3)([PASSAGE] * 500, generator()), strict=True)
    )
    assert set(distances) == {1, 2, 3}


def parse(text: str) -> tuple[list[str], list[int]]:
    """'she gave him a red book': gave is the root, with the branches she, him, book (a, red)."""
    return text.split(), [1, -1, 1, 5, 5, 1] if text.startswith("she") else [-1] * len(text.split())


def test_branches_of_a_tree() -> None:
    said = ["she gave him a red book"] * 60
    assert set(TreeCrop(parse)(said, generator())) == {"she gave", "gave him", "gave a red book"}
    assert set(BranchDeletion(parse)(said, generator())) == {
        "gave him a red book",
        "she gave a red book",
        "she gave him",
    }
    rotated = set(TreeRotation(parse)(said, generator()))
    assert len(rotated) > 15
    assert all("a red book" in each and sorted(each.split()) == sorted(said[0].split()) for each in rotated)
    for view in (TreeCrop(parse), BranchDeletion(parse), TreeRotation(parse)):
        assert view(["word", ""]) == ["word", ""]
    circle = TreeCrop(lambda text: (text.split(), [1, 0]))
    assert circle(["a b"]) == ["a b"]
    with pytest.raises(DataError, match="as many heads as words"):
        TreeCrop(lambda text: (text.split(), [-1]))(["a b"])


def test_rewriting_by_a_function() -> None:
    given: list[list[str]] = []

    def model(texts: list[str]) -> list[str]:
        given.append(texts)
        return ["" if text == "b" else text.upper() for text in texts]

    assert Rewriting(model)(["a", "b", "", "c"]) == ["A", "b", "", "C"]
    assert given == [["a", "b", "c"]]
    view = BackTranslation(
        lambda texts: [f"<{text}>" for text in texts], lambda texts: [text[1:-1] + "!" for text in texts]
    )
    assert view(["x", "y"]) == ["x!", "y!"]
    with pytest.raises(DataError, match="gave 0"):
        Rewriting(lambda texts: [])(["a"])


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of two small layers with the tokenizer of the small BERT."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("models")
    bert = sentence_models.bert(folder / "bert")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=3,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    return folder / "t5"


def test_rewriting_by_an_encoder_decoder(t5: Path) -> None:
    model = SequenceToSequence(t5, max_length=8, batch_size=2)
    texts = sentence_models.texts(3)
    before = torch.get_rng_state()
    said = model(texts, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert len(said) == 3
    assert said == model(texts, seed=1)
    assert said != model(texts, seed=2)
    likeliest = SequenceToSequence(t5, sample=False, max_length=8)
    assert likeliest(texts, seed=1) == likeliest(texts, seed=2)
    view = Rewriting(str(t5), prefix=f"{sentence_models.WORDS[0]} ")
    assert view(texts, generator(1)) == view(texts, generator(1)) != view(texts, generator(2))


def test_what_is_no_encoder_decoder_is_refused(t5: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        SequenceToSequence(tmp_path / "none")
    with pytest.raises(ModelError, match="no encoder-decoder"):
        SequenceToSequence(t5.parent / "bert")
