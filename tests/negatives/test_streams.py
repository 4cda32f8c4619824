"""Batches of one kind of rows each, and batches of equally many of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import DataError, UsageError
from nearfar.negatives import Batches, NoDuplicateBatches
from nearfar.negatives.streams import Interleaved, Pools


def streams(few: int = 20, many: int = 60, size: int = 5) -> list[tuple[np.ndarray, Batches]]:
    rows = np.random.default_rng(0).permutation(few + many)
    return [(rows[:few], Batches(few, size, seed=1)), (rows[few:], Batches(many, size, seed=1))]


@pytest.mark.parametrize(("few", "many"), [(20, 60), (60, 20), (40, 40), (10, 95)])
def test_streams_are_evenly_mixed(few: int, many: int) -> None:
    parts = streams(few, many)
    batches = Interleaved(parts)
    plan = batches.plan(0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(few + many))
    assert [len(batch) for batch in plan] == batches.sizes()
    first = set(parts[0][0].tolist())
    kind = [bool(first & set(batch.tolist())) for batch in plan]
    assert all(set(batch.tolist()) <= first or not first & set(batch.tolist()) for batch in plan)
    # between two batches of the rarer stream as many of the other as everywhere, to within one
    rare = np.flatnonzero(np.array(kind) == (few <= many))
    gaps = np.diff(rare)
    assert len(set(gaps.tolist())) <= 2
    assert gaps.max() - gaps.min() <= 1


def test_one_stream_is_itself() -> None:
    rows = np.arange(12)[::-1]
    alone = Interleaved([(rows, Batches(12, 4, seed=3))])
    expected = Batches(12, 4, seed=3).plan(2)
    assert [batch.tolist() for batch in alone.plan(2)] == [rows[batch].tolist() for batch in expected]
    assert alone.left_out == 0


def test_epochs_differ_and_processes_share() -> None:
    assert [b.tolist() for b in Interleaved(streams()).plan(0)] != [b.tolist() for b in Interleaved(streams()).plan(1)]
    whole = Interleaved(streams()).plan(0)
    parts = [list(Interleaved(streams(), rank=rank, processes=2)) for rank in range(2)]
    for number, batch in enumerate(whole):
        assert np.concatenate([parts[0][number], parts[1][number]]).tolist() == batch.tolist()


def test_rows_without_a_place_are_counted() -> None:
    few = NoDuplicateBatches([np.array([7, 7, 7, 7, 1, 2, 3, 4, 5, 6])], 5, seed=0)
    batches = Interleaved([(np.arange(10), few)])
    assert sum(map(len, batches.plan(0))) + batches.left_out == 10


def test_streams_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="stream"):
        Interleaved([])
    with pytest.raises(UsageError, match="as many places"):
        Interleaved([(np.arange(9), Batches(10, 5))])


# -- pools ------------------------------------------------------------------------------------------------------------


def pools() -> list[np.ndarray]:
    return [np.arange(0, 10), np.arange(100, 133), np.arange(200, 207)]


@pytest.mark.parametrize("batch_size", [3, 6, 8, 12, 20])
def test_batches_have_equally_many_of_every_pool(batch_size: int) -> None:
    batches = Pools(pools(), batch_size, seed=2)
    share = batch_size // 3
    for epoch in range(3):
        plan = batches.plan(epoch)
        assert len(plan) == len(batches) == -(-10 // share)
        for batch in plan:
            assert len(set(batch.tolist())) == len(batch) == 3 * share
            assert [(batch // 100 == pool).sum() for pool in range(3)] == [share] * 3
            assert (np.diff(batch // 100) >= 0).all()  # the first pool's rows first


def test_every_row_comes_in_its_turn() -> None:
    batches = Pools(pools(), 6, seed=2)  # shares of two: five batches an epoch
    seen = [row for epoch in range(20) for batch in batches.plan(epoch) for row in batch.tolist()]
    counts = {row: seen.count(row) for pool in pools() for row in pool.tolist()}
    assert {counts[row] for row in range(10)} == {20}
    # 200 rows of a pool of 33, 32 in each turn; 6 of 7 in each turn
    assert all(4 <= counts[row] <= 8 for row in range(100, 133))
    assert all(20 <= counts[row] <= 34 for row in range(200, 207))
    first = [row for batch in batches.plan(0) for row in batch.tolist() if row < 10]
    assert sorted(first) == list(range(10))
    # a turn of a larger pool goes on in the next epoch
    large = [row for epoch in range(3) for batch in batches.plan(epoch) for row in batch.tolist() if 100 <= row < 200]
    assert len(set(large)) == 30


def test_seed_and_epoch_alone_decide() -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in Pools(pools(), 6, seed=seed).plan(epoch)]

    assert plan(0, 3) == plan(0, 3)
    assert plan(0, 3) != plan(0, 4)
    assert plan(0, 3) != plan(1, 3)


def test_pools_that_are_too_small() -> None:
    with pytest.raises(DataError, match="empty"):
        Pools([np.arange(3), np.arange(0)], 4)
    with pytest.raises(UsageError, match="no row for each"):
        Pools(pools(), 2)
    with pytest.warns(UserWarning, match="batches have 6 rows"):
        small = Pools([np.arange(10), np.arange(100, 102), np.arange(200, 220)], 12)
    assert small.batch_size == 6
    assert {len(batch) for batch in small.plan(0)} == {6}
