"""Halves of sentences: every word in one of them, in order, cut in the middle third."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.encoders.states import SpecialTokens
from nearfar.views.text.halves import halves

SPECIAL = SpecialTokens(padding=0, first=1, last=2, all=frozenset({0, 1, 2}))


def sentence(words: int, length: int = 14) -> list[int]:
    ids = [1, *range(10, 10 + words), 2]
    return ids + [0] * (length - len(ids))


@pytest.mark.parametrize("words", range(2, 12))
def test_words_are_divided_in_the_middle_third(words: int) -> None:
    ids = torch.tensor([sentence(words)] * 400)
    parts, there = halves(ids, SPECIAL, generator=torch.Generator().manual_seed(words))
    assert parts.shape == there.shape == (400, 2, 14)
    assert torch.equal(there, parts != 0)
    counts = []
    for row in parts.tolist():
        left, right = ([i for i in part if i] for part in row)
        assert left[0] == right[0] == 1
        assert left[-1] == right[-1] == 2
        assert left[1:-1] + right[1:-1] == list(range(10, 10 + words))
        assert row[0][: len(left)] == left, "words do not stand together"
        counts.append(len(left) - 2)
    allowed = range(math.ceil(words / 3), math.floor(2 * words / 3) + 1)
    assert set(counts) == set(allowed)
    for cut in allowed:
        assert counts.count(cut) > 400 / len(allowed) * 0.6


def test_one_word_or_none_is_both_halves() -> None:
    ids = torch.tensor([sentence(1), sentence(0), [0] * 14])
    parts, there = halves(ids, SPECIAL)
    assert torch.equal(parts, ids[:, None].expand(3, 2, 14))
    assert torch.equal(there, parts != 0)
    assert halves(ids[:0], SPECIAL)[0].shape == (0, 2, 14)


def test_a_mask_says_which_tokens_there_are_and_its_gaps_close_up() -> None:
    ids = torch.tensor([[0, 0, 1, 10, 11, 2]])
    left, right = halves(ids, SPECIAL)[0][0]
    assert left.tolist() == [1, 10, 2, 0, 0, 0]
    assert right.tolist() == [1, 11, 2, 0, 0, 0]
    # where the padding's id is a word elsewhere, the mask alone decides
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    parts, there = halves(torch.tensor([[1, 10, 11, 2, 11, 11]]), SPECIAL, mask=mask)
    assert parts[0].tolist() == [[1, 10, 2, 0, 0, 0], [1, 11, 2, 0, 0, 0]]
    assert there.sum(2).tolist() == [[3, 3]]


def test_the_generator_decides() -> None:
    ids = torch.tensor([sentence(9)] * 50)

    def drawn(seed: int) -> torch.Tensor:
        return halves(ids, SPECIAL, generator=torch.Generator().manual_seed(seed))[0]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    torch.manual_seed(5)
    first = halves(ids, SPECIAL)[0]
    torch.manual_seed(5)
    assert torch.equal(halves(ids, SPECIAL)[0], first)
