from __future__ import annotations

import itertools

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.negatives import OrderedBatches


def test_rows_of_a_batch_follow_each_other_and_every_row_has_one_place() -> None:
    batches = OrderedBatches(50, 8, seed=3)
    plan = batches.plan(0)
    assert all((np.diff(batch) == 1).all() for batch in plan)
    assert sorted(np.concatenate(plan).tolist()) == list(range(50))
    assert max(map(len, plan)) == batches.batch_size == 8
    assert len(plan) == len(batches)


def test_epochs_differ_in_the_order_of_batches_only() -> None:
    batches = OrderedBatches(60, 6, seed=0)
    first, second = ([tuple(batch) for batch in batches.plan(epoch)] for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert [tuple(batch) for batch in OrderedBatches(60, 6, seed=0).plan(1)] == second
    assert [tuple(batch) for batch in OrderedBatches(60, 6, seed=1).plan(1)] != second


@pytest.mark.parametrize("drop_last", [False, True])
def test_no_batch_mixes_documents(drop_last: bool) -> None:
    offsets = np.array([0, 1, 4, 4, 21, 23, 24])
    batches = OrderedBatches(24, 5, offsets=offsets, drop_last=drop_last)
    document = np.repeat(np.arange(6), np.diff(offsets))
    plan = batches.plan(0)
    for batch in plan:
        assert len(set(document[batch].tolist())) == 1
        assert len(batch) >= 2
    seen = sorted(np.concatenate(plan).tolist())
    alone = {0, 23}  # documents of one row
    if not drop_last:
        assert seen == sorted(set(range(24)) - alone)
        assert batches.left_out == 2
    assert batches.left_out == 24 - len(seen)


def test_processes_share_each_batch() -> None:
    parts = [OrderedBatches(40, 8, rank=rank, processes=3) for rank in range(3)]
    whole = OrderedBatches(40, 8).plan(0)
    for batch, *pieces in zip(whole, *parts, strict=True):
        assert np.concatenate(pieces).tolist() == batch.tolist()


def test_documents_without_neighbours_are_refused() -> None:
    with pytest.raises(DataError, match="no document has 2 rows"):
        OrderedBatches(4, 4, offsets=np.arange(5))
    with pytest.raises(DataError, match="no document has 3 rows"):
        OrderedBatches(6, 6, offsets=np.array([0, 2, 4, 6]), processes=3)


def test_a_batch_can_be_resumed_at() -> None:
    batches = OrderedBatches(30, 4, seed=5)
    for start in (0, 3):
        rest = list(itertools.islice(batches.iterate(start), 2))
        assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in batches.plan(0)[start : start + 2]]
