from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import DataError, UsageError
from nearfar.negatives import Batches, batch_sizes


@pytest.mark.parametrize("rows", [2, 5, 8, 9, 11, 12, 15, 16, 17, 100])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_sizes_cover_all_rows_and_none_is_tiny(rows: int, size: int) -> None:
    sizes = batch_sizes(rows, size)
    assert sum(sizes) == rows
    assert max(sizes) <= size
    assert len(sizes) == -(-rows // size)
    if rows >= size:
        assert min(sizes) >= size / 2
    assert all(each == size for each in sizes[:-2])


def test_drop_last_keeps_only_full_batches() -> None:
    assert batch_sizes(23, 8, drop_last=True) == [8, 8]
    assert batch_sizes(5, 8, drop_last=True) == [5]


def test_every_row_once_an_epoch_in_an_order_of_seed_and_epoch() -> None:
    batches = Batches(50, 8, seed=3)
    first = np.concatenate(batches.plan(0))
    assert sorted(first) == list(range(50))
    assert np.array_equal(first, np.concatenate(Batches(50, 8, seed=3).plan(0)))
    assert not np.array_equal(first, np.concatenate(batches.plan(1)))
    assert not np.array_equal(first, np.concatenate(Batches(50, 8, seed=4).plan(0)))


def test_iteration_follows_the_epoch_and_resumes_at_any_batch() -> None:
    batches = Batches(50, 8)
    batches.set_epoch(2)
    whole = list(batches)
    assert len(whole) == len(batches) == 7
    assert all(np.array_equal(a, b) for a, b in zip(whole, batches.plan(2), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(whole[4:], batches.iterate(4), strict=True))


def test_processes_share_each_global_batch() -> None:
    whole = list(Batches(50, 8, seed=1))
    parts = [list(Batches(50, 8, seed=1, rank=rank, processes=3)) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert np.array_equal(np.concatenate(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_drop_last_leaves_other_rows_out_in_other_epochs() -> None:
    batches = Batches(23, 8, drop_last=True)
    seen = [set(np.concatenate(batches.plan(epoch)).tolist()) for epoch in range(4)]
    assert all(len(rows) == 16 for rows in seen)
    assert batches.left_out == 7
    assert seen[0] != seen[1]
    assert len(set.union(*seen)) == 23


def test_a_batch_larger_than_the_data_warns_and_is_all_of_it() -> None:
    with pytest.warns(UserWarning, match="larger than the data"):
        batches = Batches(5, 64)
    assert [len(batch) for batch in batches] == [5]


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="1 row cannot be contrasted"):
        Batches(1, 8)
    with pytest.raises(DataError, match="3 processes"):
        Batches(2, 2, processes=3)


@pytest.mark.parametrize("arguments", [{"batch_size": 1}, {"batch_size": 4, "rank": 2, "processes": 2}])
def test_arguments_that_make_no_sense(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Batches(10, **arguments)
