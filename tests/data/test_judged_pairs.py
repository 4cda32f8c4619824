"""Scored pairs by a judge: gaps in texts, what is dropped, smoothed and added."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from nearfar.data.judged_pairs import (
    GAP,
    gapped,
    gapped_pairs,
    judged_pairs,
    number_in,
    smoothed,
    without_gaps,
)
from nearfar.errors import DataError, UsageError

WORDS = "one two three four five six seven eight nine ten"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.05, 1), (0.1, 1), (0.3, 3), (0.7, 7), (0.75, 8), (1.0, 10)])
def test_as_many_gaps_as_asked_for(rate: float, count: int) -> None:
    text = gapped(WORDS, rate, merge=0.0, generator=generator())
    assert text.split().count(GAP) == count
    assert len(text.split()) == 10
    assert [word for word in text.split() if word != GAP] == [word for word in WORDS.split() if word in text.split()]


def test_gaps_side_by_side_become_one() -> None:
    assert gapped(WORDS, 1.0, merge=1.0, generator=generator()) == GAP
    text = gapped(WORDS, 0.5, merge=1.0, generator=generator())
    assert f"{GAP} {GAP}" not in text
    assert len([word for word in text.split() if word != GAP]) == 5
    drawn = generator()
    merged = sum(gapped(WORDS, 1.0, generator=drawn) == GAP for _ in range(400))
    assert 150 < merged < 250  # half of the time
    assert gapped("", 0.5, generator=generator()) == ""
    with pytest.raises(UsageError, match="rate and merge"):
        gapped(WORDS, 1.5)


def test_every_text_at_every_rate() -> None:
    pairs = list(gapped_pairs(["a b c d", "e f"], lambda text: text.replace(GAP, "x"), rates=(0.0, 0.5)))
    assert [one for one, _ in pairs] == ["a b c d", "a b c d", "e f", "e f"]
    assert pairs[0][1] == "a b c d"  # here a language model would say it otherwise
    assert "x" in pairs[1][1]
    assert list(gapped_pairs(["a b c"], seed=3)) == list(gapped_pairs(["a b c"], seed=3))
    assert without_gaps(f"a {GAP}  b {GAP}") == "a b"


@pytest.mark.parametrize(
    ("answer", "last", "number"),
    [
        ("0.8", False, 0.8), ("Similarity: 1", False, 1.0), ("They agree in 2 of 4 points, so 0.5.", True, 0.5),
        ("0.25, since 1 of 4 agree", False, 0.25), ("no idea", False, math.nan), ("7 of 10", False, math.nan),
        ("-0.5", False, math.nan), ("", True, math.nan),
    ],
)  # fmt: skip
def test_numbers_in_answers(answer: str, last: bool, number: float) -> None:
    found = number_in(answer, last=last)
    assert found == pytest.approx(number, nan_ok=True)


def rows(examples: Any) -> list[tuple[str, str, float]]:
    return list(zip(*(examples.column(name) for name in ("sentence1", "sentence2", "score")), strict=True))


def test_the_procedure() -> None:
    score = {"a b": 0.5, "a c": 0.5, "a d": 0.5, "a e": 1.0, "f g": math.nan, "f h": 0.0}
    pairs = [
        ("a", "A"),  # equal
        ("a", f"b {GAP}"),  # a gap is left
        ("a", " "),  # nothing
        ("a", "b"),
        ("a", "b"),  # again
        ("a", "c"),
        ("a", "d"),  # a third of that score
        ("a", "e"),
        ("f", "g"),  # the judge has no answer
        ("f", "h"),
    ]
    made = judged_pairs(
        pairs, lambda one, other: [score[f"{a} {b}"] for a, b in zip(one, other, strict=True)], zeros=0, batch_size=2
    )
    assert made.shape == "scored pairs"
    expected = [("a", "b", 0.5), ("a", "c", 0.5), ("a", "e", 0.9), ("f", "h", 0.1)]
    assert [(one, other) for one, other, _ in rows(made)] == [(one, other) for one, other, _ in expected]
    assert [each[2] for each in rows(made)] == pytest.approx([each[2] for each in expected])
    assert smoothed(0.0) == 0.1
    plain = judged_pairs(pairs[3:4], lambda one, other: torch.tensor([0.25]), smooth=False, zeros=0)
    assert rows(plain) == [("a", "b", 0.25)]


def test_random_partners_have_the_score_0() -> None:
    texts = [f"text {number}" for number in range(9)]
    made = rows(judged_pairs([(text, text + "!") for text in texts], lambda one, _: [1.0] * len(one), zeros=2))
    zeros = [(one, other) for one, other, score in made if score == 0]
    assert Counter(one for one, _ in zeros) == dict.fromkeys(texts, 2)
    assert len(set(zeros)) == 18
    assert all(one != other and other in texts for one, other in zeros)
    alone = rows(judged_pairs([("a", "b")], lambda one, _: [1.0]))
    assert alone == [("a", "b", pytest.approx(0.9))]  # there is no other text


def test_judges_that_do_not_keep_to_it() -> None:
    with pytest.raises(DataError, match="2 scores for 1 pairs"):
        judged_pairs([("a", "b")], lambda one, other: [0.1, 0.2])
    with pytest.raises(DataError, match="this one gave 7"):
        judged_pairs([("a", "b")], lambda one, other: [7.0])
    with pytest.raises(DataError, match="no pair is left"):
        judged_pairs([("a", "a")], lambda one, other: [])
    with pytest.raises(UsageError, match="most and batch_size"):
        judged_pairs([("a", "b")], lambda one, other: [1.0], most=0)
