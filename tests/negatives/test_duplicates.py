from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import DataError
from nearfar.negatives import NoDuplicateBatches

Columns = list[npt.NDArray[np.int64]]


def check(batches: NoDuplicateBatches, columns: Columns, epoch: int) -> set[int]:
    """No two rows of a batch share a text, no row comes twice; the rows that have a place."""
    seen: set[int] = set()
    for batch in batches.plan(epoch):
        texts: set[int] = set()
        for row in batch.tolist():
            own = {int(column[row]) for column in columns}
            assert not own & texts
            texts |= own
            assert row not in seen
            seen.add(row)
    assert batches.left_out == len(columns[0]) - len(seen)
    return seen


def quiet(columns: Columns, size: int, **options: bool | int) -> NoDuplicateBatches:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NoDuplicateBatches(columns, size, **options)  # type: ignore[arg-type]


@settings(max_examples=120, deadline=None)
@given(
    rows=st.integers(4, 60),
    anchors=st.integers(2, 60),
    positives=st.integers(2, 60),
    size=st.integers(2, 20),
    seed=st.integers(0, 99),
    drop=st.booleans(),
)
def test_batches_are_free_of_repeats_whatever_the_data(
    rows: int, anchors: int, positives: int, size: int, seed: int, drop: bool
) -> None:
    random = np.random.default_rng(seed)
    columns = [random.integers(0, anchors, rows), random.integers(anchors // 2, anchors + positives, rows)]
    try:
        batches = quiet(columns, size, seed=seed, drop_last=drop)
    except DataError:
        return
    for epoch in range(2):
        check(batches, columns, epoch)
    assert max(map(len, batches.plan(1))) <= size


@pytest.mark.parametrize(("anchors", "positives"), [(300, 900), (100, 100), (60, 1000)])
def test_every_row_has_its_place_and_batches_keep_their_size(anchors: int, positives: int) -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(0, anchors, 1000), random.integers(1000, 1000 + positives, 1000)]
    batches = NoDuplicateBatches(columns, 32)
    assert len(check(batches, columns, 0)) == 1000
    assert [len(batch) for batch in batches.plan(0)] == batches.sizes() == [32] * 30 + [20, 20]


def test_a_plain_shuffle_would_clash() -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(0, 300, 1000), np.arange(1000) + 1000]
    order = np.random.default_rng([0, 0]).permutation(1000)
    assert any(len(set(columns[0][part])) < len(part) for part in np.split(order, range(32, 1000, 32)))
    check(NoDuplicateBatches(columns, 32), columns, 0)


def test_an_anchor_never_meets_its_text_as_a_positive_of_another_row() -> None:
    chain = np.arange(200)
    columns = [chain, chain + 1]  # the positive of each row is the anchor of the next
    batches = NoDuplicateBatches(columns, 50)
    assert len(check(batches, columns, 0)) == 200


def test_a_row_whose_texts_are_equal_is_no_clash() -> None:
    same = np.arange(40)
    batches = NoDuplicateBatches([same, same], 8)
    assert len(check(batches, [same, same], 0)) == 40


def test_a_very_frequent_text_is_left_out_where_it_must_be_and_its_rows_take_turns() -> None:
    columns = [np.concatenate([np.zeros(60, np.int64), np.arange(1, 941)]), np.arange(1000) + 5000]
    batches = NoDuplicateBatches(columns, 50)
    seen = [check(batches, columns, epoch) for epoch in range(8)]
    assert all(len(rows) == 960 for rows in seen)  # one of the 60 in each of 20 batches
    assert all(set(range(60, 1000)) <= rows for rows in seen)
    assert len(set.union(*seen) & set(range(60))) > 50


def test_batches_shrink_where_none_of_the_size_exists() -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(0, 30, 1000), np.arange(1000) + 100]
    with pytest.warns(UserWarning, match="texts repeat so often"):
        batches = NoDuplicateBatches(columns, 64)
    assert len(check(batches, columns, 0)) >= 850


def test_all_rows_equal() -> None:
    with pytest.raises(DataError, match="nearly all hold the same text"):
        NoDuplicateBatches([np.zeros(100, np.int64)], 10)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(0, 60, 400), random.integers(0, 200, 400)]
    one, other = quiet(columns, 32, seed=5), quiet(columns, 32, seed=5)
    other.plan(0)
    assert all(np.array_equal(a, b) for a, b in zip(one.plan(3), other.plan(3), strict=True))
    assert not np.array_equal(np.concatenate(one.plan(3)), np.concatenate(one.plan(4)))


def test_rows_are_mixed_like_by_a_shuffle() -> None:
    """Rows of repeated texts, which are exchanged or dealt, are in every batch about equally often."""
    columns = [np.arange(400) // 2, np.arange(400) + 1000]
    batches = NoDuplicateBatches(columns, 40)
    batch_of = np.zeros((300, 400), np.int64)
    for epoch in range(300):
        for number, batch in enumerate(batches.plan(epoch)):
            batch_of[epoch, batch] = number
    shares = np.stack([(batch_of == number).mean(0) for number in range(10)])
    assert abs(shares - 0.1).max() < 0.09  # 5 standard deviations of a share of 300 draws


def test_processes_get_parts_of_the_same_batches() -> None:
    columns = [np.arange(100) // 2, np.arange(100) + 1000]
    whole = list(NoDuplicateBatches(columns, 20))
    parts = [list(NoDuplicateBatches(columns, 20, rank=rank, processes=2)) for rank in range(2)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert np.array_equal(np.concatenate([one, two]), batch)
