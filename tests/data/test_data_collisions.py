"""Expected false negatives and lonely anchors against enumeration of every batch."""

from __future__ import annotations

import itertools
import unicodedata
from hashlib import blake2b

import numpy as np
import pytest

from nearfar.data.collisions import expected_class_batches, expected_false_negatives
from nearfar.data.fingerprints import combined, normalise, text_hashes


def enumerated_false_negatives(anchors: list[str], positives: list[str], batch_size: int) -> float:
    """The mean over all batches, by plain loops."""
    batches = list(itertools.combinations(range(len(anchors)), batch_size))
    total = 0
    for batch in batches:
        for i in batch:
            for j in batch:
                if i != j and (anchors[i] == anchors[j] or positives[i] == positives[j]):
                    total += 1
    return total / len(batches)


CASES = [
    ("abcd", "wxyz"), ("aabc", "wxyz"), ("aabb", "wxwx"), ("aaaa", "wwww"), ("aabbc", "wwxyx"), ("abcdefg", "wwwxxyz"),
    ("aabbccd", "wwxwyyz"), ("ab", "ww"),
]  # fmt: skip


@pytest.mark.parametrize(("anchors", "positives"), CASES)
def test_false_negatives_are_exact(anchors: str, positives: str) -> None:
    first, second = text_hashes(anchors), text_hashes(positives)
    for batch_size in range(2, len(anchors) + 1):
        expected = expected_false_negatives(first, second, batch_size)
        assert expected.batch_size == batch_size
        assert expected.per_batch == pytest.approx(
            enumerated_false_negatives(list(anchors), list(positives), batch_size), abs=1e-12
        )
        assert expected.per_anchor == pytest.approx(expected.per_batch / batch_size, abs=1e-12)
        assert expected.share == pytest.approx(expected.per_batch / (batch_size * (batch_size - 1)), abs=1e-12)


def test_batches_beyond_the_data_and_batches_of_one() -> None:
    first, second = text_hashes("aab"), text_hashes("xyz")
    assert expected_false_negatives(first, second, 99) == expected_false_negatives(first, second, 3)
    assert expected_false_negatives(first, second, 1).per_batch == 0.0
    assert expected_false_negatives(first[:1], second[:1], 8).per_batch == 0.0


def test_many_equal_rows_do_not_overflow() -> None:
    same = np.zeros(300_000, np.uint64)
    expected = expected_false_negatives(same, same, 100)
    assert expected.share == pytest.approx(1.0)
    assert expected.per_batch == pytest.approx(9900.0)


@pytest.mark.parametrize("labels", ["aabb", "aaab", "abcd", "aaaa", "aabbbc", "a", "abbcccc"])
def test_class_batches_are_exact(labels: str) -> None:
    counts = np.unique(list(labels), return_counts=True)[1]
    for batch_size in range(1, len(labels) + 1):
        positives = lonely = anchors = batches = 0
        for batch in itertools.combinations(labels, batch_size):
            batches += 1
            for place, label in enumerate(batch):
                others = batch[:place] + batch[place + 1 :]
                anchors += 1
                positives += others.count(label)
                lonely += label not in others
        expected = expected_class_batches(counts, batch_size)
        assert expected.positives_per_anchor == pytest.approx(positives / anchors, abs=1e-12)
        assert expected.lonely == pytest.approx(lonely / batches, abs=1e-9)
        assert expected.lonely_share == pytest.approx(lonely / anchors, abs=1e-9)


def test_class_batches_of_large_data() -> None:
    """Two classes of a million: the chance to stand alone among 32 is about 2^-31."""
    expected = expected_class_batches(np.array([10**6, 10**6]), 32)
    assert expected.lonely_share == pytest.approx(2.0**-31, rel=1e-3)
    assert expected.positives_per_anchor == pytest.approx(15.5, rel=1e-4)
    assert expected_class_batches(np.array([5]), 99).batch_size == 5


@pytest.mark.parametrize(("first", "second"), [
    ("Hello  World", " hello world\n"), ("STRASSE", "straße"), ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"), ("é", "e\u0301"),
    ("ﬁne", "FINE"), ("a\u00a0b", "a b"), ("ΣΑΣ", "σας"), ("Å", "Å"),
])  # fmt: skip
def test_texts_that_are_equal_after_normalisation(first: str, second: str) -> None:
    assert normalise(first) == normalise(second)
    assert text_hashes([first])[0] == text_hashes([second])[0]


@pytest.mark.parametrize(("first", "second"), [("a b", "ab"), ("a.", "a"), ("é", "e"), ("1", "2"), ("", "a")])
def test_texts_that_are_not(first: str, second: str) -> None:
    assert text_hashes([first])[0] != text_hashes([second])[0]


def test_normalising_twice_changes_nothing() -> None:
    assigned = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) != "Cn"]
    assert all(normalise(normalise(sign)) == normalise(sign) for sign in assigned)


def test_hashes_are_the_same_in_every_process() -> None:
    for text, normal in (("Hello", b"hello"), ("", b""), ("  Ä ", "ä".encode())):
        assert text_hashes([text])[0] == int.from_bytes(blake2b(normal, digest_size=8).digest(), "little")
    assert text_hashes([]).dtype == np.uint64


def test_pairs_of_hashes() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2**64, (2, 1000), np.uint64)
    assert not np.any(combined(first, second) == combined(second, first))
    assert np.array_equal(combined(first, second, ordered=False), combined(second, first, ordered=False))
    small = np.arange(60, dtype=np.uint64)
    grid = combined(np.repeat(small, 60), np.tile(small, 60))
    assert len(np.unique(grid)) == 3600
