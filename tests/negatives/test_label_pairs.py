from __future__ import annotations

from collections import Counter
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from scipy import stats

from nearfar.errors import DataError, UsageError
from nearfar.negatives.label_pairs import LabelPairBatches, LabelPairs, permuted

LABELS = np.array([3, 1, 3, 0, 1, 1, 3, 7, 0])


def all_pairs(labels: np.ndarray, itself: bool = True) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    choose = combinations_with_replacement if itself else combinations
    every = list(choose(range(len(labels)), 2))
    near = {pair for pair in every if labels[pair[0]] == labels[pair[1]]}
    return near, set(every) - near


def taken(pairs: LabelPairs, **options: int) -> list[tuple[int, int, int]]:
    first, second, near = pairs.pairs(**options)
    return [(min(a, b), max(a, b), y) for a, b, y in zip(first.tolist(), second.tolist(), near.tolist(), strict=True)]


@pytest.mark.parametrize("itself", [True, False])
def test_each_pair_comes_once_and_says_whether_it_is_near(itself: bool) -> None:
    near, far = all_pairs(LABELS, itself)
    pairs = LabelPairs(LABELS, strategy="unique", itself=itself)
    found = taken(pairs)
    assert (pairs.positives, pairs.negatives) == (len(near), len(far))
    assert len(pairs) == len(found) == len(near) + len(far)
    assert {(a, b) for a, b, y in found if y} == near
    assert {(a, b) for a, b, y in found if not y} == far


@pytest.mark.parametrize("strategy", ["oversampling", "undersampling"])
def test_kinds_take_turns_in_equal_numbers(strategy: str) -> None:
    near, far = all_pairs(LABELS)
    each = max(len(near), len(far)) if strategy == "oversampling" else min(len(near), len(far))
    found = taken(LabelPairs(LABELS, strategy=strategy))
    assert [y for *_, y in found] == [1, 0] * each
    for kind, of in ((1, near), (0, far)):
        counts = Counter((a, b) for a, b, y in found if y == kind)
        assert set(counts) <= of
        # gone through again and again: no pair comes twice before all have come
        assert max(counts.values()) == -(-each // len(of))
        assert each < len(of) or min(counts.values()) == each // len(of)


def test_what_is_left_of_the_larger_kind_comes_last() -> None:
    near, far = all_pairs(LABELS)
    kinds = [y for *_, y in taken(LabelPairs(LABELS, strategy="unique"))]
    assert kinds == [1, 0] * len(near) + [0] * (len(far) - len(near))
    alike = np.array([0] * 6 + [1])  # here the positives are more
    near, far = all_pairs(alike)
    assert [y for *_, y in taken(LabelPairs(alike, strategy="unique"))] == [1, 0] * len(far) + [1] * (
        len(near) - len(far)
    )


def test_iterations_are_so_many_pairs_of_each_kind_for_an_item() -> None:
    found = taken(LabelPairs(LABELS, iterations=20))
    assert Counter(y for *_, y in found) == {1: 20 * len(LABELS), 0: 20 * len(LABELS)}


def test_the_bound_takes_half_of_each_kind_and_other_ones_in_another_epoch() -> None:
    pairs = LabelPairs(np.repeat(np.arange(20), 8), most=101, seed=1)
    assert len(pairs) == 100
    first, other = set(taken(pairs)), set(taken(pairs, epoch=1))
    assert len(first) == 100
    assert sum(y for *_, y in first) == 50
    assert len(first & other) < 20
    assert set(taken(pairs)) == first


def test_parts_are_those_of_the_whole_and_the_seed_decides() -> None:
    pairs = LabelPairs(LABELS, seed=4)
    whole = taken(pairs)
    assert taken(pairs, start=7, stop=19) == whole[7:19]
    assert taken(pairs, start=len(whole) - 2) == whole[-2:]
    assert taken(LabelPairs(LABELS, seed=4)) == whole
    assert taken(LabelPairs(LABELS, seed=5)) != whole


def test_labels_may_be_any_integers_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(len(LABELS))
    near, _ = all_pairs(LABELS[order])
    found = taken(LabelPairs(LABELS[order] * 1000 - 5, strategy="unique"))
    assert {(a, b) for a, b, y in found if y} == near


def test_memory_grows_with_the_items_not_with_the_pairs() -> None:
    import tracemalloc

    labels = np.arange(200_000) % 1000
    tracemalloc.start()
    pairs = LabelPairs(labels, strategy="oversampling")
    first, second, near = pairs.pairs(10**9, 10**9 + 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) > 3.9e10
    assert ((labels[first] == labels[second]) == near.astype(bool)).all()
    assert peak < 100 * len(labels)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_a_permutation_holds_every_number_once(count: int) -> None:
    found = permuted(np.arange(count), count, seed=(3, 0))
    assert sorted(found.tolist()) == list(range(count))


def test_a_permutation_looks_random() -> None:
    found = permuted(np.arange(10_000), 10_000, seed=(1, 2, 3))
    assert abs(stats.spearmanr(np.arange(10_000), found).statistic) < 0.04
    firsts = [int(permuted(np.arange(1), 12, seed=(seed,))[0]) for seed in range(2400)]
    assert stats.chisquare(np.bincount(firsts, minlength=12)).pvalue > 1e-4


def test_batches_hold_pairs_side_by_side() -> None:
    pairs = LabelPairs(LABELS, seed=2)
    batches = LabelPairBatches(pairs, 8)
    found = list(batches)
    assert [len(batch) for batch in found] == batches.sizes()
    assert len(found) == len(batches)
    rows = np.concatenate(found)
    first, second, near = pairs.pairs()
    assert rows[0::2].tolist() == first.tolist()
    assert rows[1::2].tolist() == second.tolist()
    assert ((LABELS[rows[0::2]] == LABELS[rows[1::2]]) == near.astype(bool)).all()
    assert [each.tolist() for each in batches.plan(0)] == [each.tolist() for each in found]
    assert [each.tolist() for each in batches.iterate(3)] == [each.tolist() for each in found[3:]]
    batches.set_epoch(1)
    assert np.concatenate(list(batches)).tolist() != rows.tolist()


def test_processes_share_the_pairs_of_a_batch() -> None:
    pairs = LabelPairs(LABELS, seed=2)
    whole = list(LabelPairBatches(pairs, 14))
    parts = [list(LabelPairBatches(pairs, 14, rank=rank, processes=3)) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert all(len(part[number]) % 2 == 0 for part in parts)
        assert np.concatenate([part[number] for part in parts]).tolist() == batch.tolist()


def test_what_makes_no_pairs_is_said() -> None:
    with pytest.raises(UsageError, match="drawn by"):
        LabelPairs(LABELS, strategy="all")
    with pytest.raises(UsageError):
        LabelPairs(LABELS, iterations=0)
    with pytest.raises(UsageError):
        LabelPairs(LABELS, most=1)
    with pytest.raises(DataError, match="the same"):
        LabelPairs(np.zeros(5, int))
    with pytest.raises(DataError, match="twice"):
        LabelPairs(np.arange(5), itself=False)
    with pytest.raises(DataError):
        LabelPairs(np.empty(0, int))
    with pytest.raises(DataError):
        LabelPairs(np.zeros((2, 2), int))
    with pytest.raises(UsageError):
        LabelPairBatches(LabelPairs(LABELS), 1)
    assert taken(LabelPairs(np.arange(3), strategy="unique"))[0][2] == 1  # each with itself
