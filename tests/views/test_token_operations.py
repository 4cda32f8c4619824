"""CLEAR's four operations on words: how many, where, and what stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.encoders.states import SpecialTokens
from nearfar.errors import DataError, UsageError
from nearfar.views.text.token_operations import (
    OPERATIONS,
    DeleteSpans,
    DeleteWords,
    SubstituteWords,
    SwapSpans,
    TokenOperation,
    closed_up,
    operation,
    similar_tokens,
)

PADDING, FIRST, LAST, MASK, DELETED = range(5)
SPECIAL = SpecialTokens(padding=PADDING, first=FIRST, last=LAST, mask=MASK, all=frozenset(range(5)))
LENGTHS = [0, 1, 2, 3, 4, 7, 10, 20, 33, 60]


def sentences(side: str = "right", repeats: int = 40) -> Tensor:
    """[CLS] words [SEP] of all lengths, all words of a sentence different."""
    width = max(LENGTHS) + 4
    rows = []
    for length in LENGTHS * repeats:
        own = torch.tensor([FIRST, *range(10, 10 + length), LAST])
        filler = torch.zeros(width - len(own), dtype=torch.long)
        rows.append(torch.cat([own, filler] if side == "right" else [filler, own]))
    return torch.stack(rows)


def words(row: Tensor) -> list[int]:
    return [token for token in row.tolist() if token not in SPECIAL.all]


def runs(before: list[int], after: list[int]) -> int:
    """How many runs of ``before`` are missing in ``after``."""
    gone = [token not in after for token in before]
    return sum(now and not last for last, now in zip([False, *gone], gone, strict=False))


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mark", [DELETED, None])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("share", [0.7, 0.3, 1.0, 0.0])
def test_deleted_words_are_counted_exactly(share: float, side: str, mark: int | None) -> None:
    before = sentences(side)
    after = DeleteWords(share, special=SPECIAL, mark=mark, padding_side=side)(before, drawn())  # type: ignore[arg-type]
    for row, new in zip(before, after, strict=True):
        own, left = words(row), words(new)
        gone = min(int(share * len(own) + 1e-9), len(own) - 1) if len(own) > 2 else 0
        assert len(left) == len(own) - gone
        assert left == sorted(left), "the words that stay keep their order"
        assert new.tolist().count(DELETED) == (runs(own, left) if mark is not None else 0)
        assert closed(new, side)


def closed(row: Tensor, side: str) -> bool:
    """Whether the row is [CLS] ... [SEP] and all padding stands on one side."""
    values = row.tolist() if side == "right" else row.tolist()[::-1]
    own = [value for value in values if value != PADDING]
    begins, ends = (FIRST, LAST) if side == "right" else (LAST, FIRST)
    return values[: len(own)] == own and own[0] == begins and own[-1] == ends


@pytest.mark.parametrize(("share", "spans"), [(0.05, 5), (0.2, 3), (0.5, 4), (0.9, 1)])
def test_deleted_spans_are_counted_exactly(share: float, spans: int) -> None:
    before = sentences()
    after = DeleteSpans(share, special=SPECIAL, mark=DELETED, spans=spans)(before, drawn())
    for row, new in zip(before, after, strict=True):
        own, left = words(row), words(new)
        length = max(int(share * len(own) + 1e-9), 1)
        fitting = min(spans, (len(own) - 1) // length) if len(own) > 2 else 0
        assert len(left) == len(own) - fitting * length
        assert new.tolist().count(DELETED) == runs(own, left) <= max(fitting, 0)
        assert closed(new, "right")
        for run in gone_runs(own, left):
            assert run % length == 0, "spans are deleted whole"


def gone_runs(own: list[int], left: list[int]) -> list[int]:
    lengths, now = [], 0
    for token in [*own, None]:
        if token is not None and token not in left:
            now += 1
        elif now:
            lengths.append(now)
            now = 0
    return lengths


def test_all_choices_of_spans_are_equally_likely() -> None:
    row = torch.tensor([[10, 11, 12, 13, 14, 15]]).expand(12_000, -1)
    after = DeleteSpans(0.34, special=SPECIAL, mark=None, spans=2)(row, drawn())  # two spans of two of six words
    found, counts = after.unique(dim=0, return_counts=True)
    # what two spans can leave: 3 choices of where one free word stands ... 6 places of spans among 4, by hand
    assert found[:, :2].tolist() == [[10, 11], [10, 13], [10, 15], [12, 13], [12, 15], [14, 15]]
    assert counts.min() > 2000 - 5 * 41
    assert counts.max() < 2000 + 5 * 41


@pytest.mark.parametrize(("share", "pairs"), [(0.05, 5), (0.2, 2), (0.5, 1), (0.5, 3)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_swapped_spans_keep_every_word(share: float, pairs: int, side: str) -> None:
    before = sentences(side)
    after = SwapSpans(share, special=SPECIAL, pairs=pairs, padding_side=side)(before, drawn())  # type: ignore[arg-type]
    for row, new in zip(before, after, strict=True):
        own, moved = words(row), words(new)
        assert sorted(moved) == own
        assert torch.equal(new == PADDING, row == PADDING)
        assert closed(new, side)
        length = max(int(share * len(own) + 1e-9), 1)
        fitting = min(pairs, len(own) // (2 * length)) if len(own) > 2 else 0
        assert sum(a != b for a, b in zip(own, moved, strict=True)) == 2 * fitting * length
        # what stands at another place came from a place whose word stands here
        place = {token: number for number, token in enumerate(own)}
        assert all(moved[place[moved[number]]] == own[number] for number in range(len(own)))


def test_substitutes_are_similar_words_and_as_many_as_said() -> None:
    similar = torch.full((100, 3), -1)
    similar[10:60, 0] = torch.arange(10, 60) + 30  # every word has one or two, some stand after a gap
    similar[10:40, 2] = torch.arange(10, 40) + 20
    similar[12] = -1
    before = sentences()
    after = SubstituteWords(similar, 0.5, special=SPECIAL)(before, drawn())
    seen = set()
    for row, new in zip(before, after, strict=True):
        own = words(row)
        changed = [(a, b) for a, b in zip(row.tolist(), new.tolist(), strict=True) if a != b]
        known = [token for token in own if (similar[token] >= 0).any()]
        assert len(changed) == min(int(0.5 * len(own) + 1e-9), len(known))
        assert all(b in similar[a].tolist() for a, b in changed)
        seen |= set(changed)
    assert {(11, 41), (11, 31)} <= seen, "each of the similar words is drawn"
    assert not any(a == 12 for a, _ in seen)


def test_similar_tokens_are_those_of_the_largest_cosine() -> None:
    vectors = torch.randn(40, 6, generator=drawn(), dtype=torch.float64)
    vectors[7] = 0
    found = similar_tokens(vectors, SPECIAL, count=4)
    assert (found[:5] == -1).all()
    for token in range(5, 40):
        others = [other for other in range(5, 40) if other != token]
        cosine = {o: float(torch.cosine_similarity(vectors[token], vectors[o], dim=0)) for o in others}
        if token != 7:
            assert found[token].tolist() == sorted(others, key=lambda o: -cosine[o])[:4]
    some = similar_tokens(vectors, SPECIAL, count=4, of=torch.tensor([9, 9, 2, 30]))
    assert torch.equal(some[[9, 30]], found[[9, 30]])
    assert (some >= 0).any(1).nonzero()[:, 0].tolist() == [9, 30]
    few = similar_tokens(vectors[:7], SPECIAL, count=4)
    assert few[5].tolist() == [6, -1, -1, -1]


MAKERS: dict[str, Callable[[float], TokenOperation]] = {
    "del-word": lambda p: DeleteWords(special=SPECIAL, mark=DELETED, p=p),
    "del-span": lambda p: DeleteSpans(special=SPECIAL, mark=DELETED, p=p),
    "reorder": lambda p: SwapSpans(special=SPECIAL, p=p),
    "subs": lambda p: SubstituteWords((torch.arange(80) + 1).clamp_min(6)[:, None], special=SPECIAL, p=p),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_every_operation_keeps(name: str) -> None:
    view, before = MAKERS[name](1.0), sentences()
    kept = before.clone()
    after = view(before, drawn())
    assert torch.equal(before, kept), "the input was written to"
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert torch.equal(after, view(before, drawn()))
    assert not torch.equal(after, view(before, drawn(1)))
    short = torch.tensor([len(words(row)) <= 2 for row in before])
    assert torch.equal(after[short], before[short])
    enough = torch.tensor([len(words(row)) > 3 for row in before])  # 0.3 of 3 words are none
    assert (after[enough] != before[enough]).any(1).all()
    half = MAKERS[name](0.5)(before, drawn())
    changed = (half != before).any(1)
    assert 0.3 < changed[enough].float().mean() < 0.7
    assert view(before[:0]).shape == before[:0].shape
    one = before[7:8].to(torch.int32)
    assert view(one, drawn()).dtype == torch.int32


@pytest.mark.parametrize("name", MAKERS)
def test_special_tokens_inside_a_text_stay_among_the_words(name: str) -> None:
    row = torch.tensor([[FIRST, *range(10, 20), MASK, *range(20, 30), LAST, *range(30, 40), LAST, 0, 0]])
    for seed in range(30):
        after = MAKERS[name](1.0)(row, drawn(seed))[0].tolist()
        assert [token for token in after if token in (FIRST, LAST, MASK)] == [FIRST, MASK, LAST, LAST]


def test_the_paper_s_names() -> None:
    similar = torch.ones(80, 1, dtype=torch.long) * 9
    for name in OPERATIONS:
        made = operation(name, special=SPECIAL, mark=DELETED, similar=lambda: similar)
        assert type(made) is type(MAKERS[name](1.0))
    with pytest.raises(UsageError, match="no operation 'swap'"):
        operation("swap", special=SPECIAL, mark=None)


def test_closing_up_keeps_the_order() -> None:
    items = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])
    kept = torch.tensor([[False, True, False, True], [True, True, True, True]])
    assert closed_up(items, kept, 0).tolist() == [[6, 8, 0, 0], [5, 6, 7, 8]]
    assert closed_up(items, kept, 0, "left").tolist() == [[0, 0, 6, 8], [5, 6, 7, 8]]


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="masked words"):
        DeleteWords(special=SPECIAL, mark=MASK)
    with pytest.raises(UsageError, match="padding"):
        DeleteSpans(special=SPECIAL, mark=PADDING)
    with pytest.raises(UsageError, match="spans must be"):
        DeleteSpans(special=SPECIAL, mark=None, spans=0)
    with pytest.raises(UsageError, match="pairs must be"):
        SwapSpans(special=SPECIAL, pairs=True)
    with pytest.raises(UsageError, match="share"):
        DeleteWords(1.5, special=SPECIAL, mark=None)
    with pytest.raises(UsageError, match="similar"):
        SubstituteWords(torch.zeros(3), special=SPECIAL)
    with pytest.raises(DataError, match="integers"):
        SwapSpans(special=SPECIAL)(torch.zeros(2, 3))
