from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import UsageError
from nearfar.negatives import LabelBatches


@pytest.mark.parametrize(
    ("rows", "classes", "size"), [(100, 3, 7), (100, 3, 8), (50, 20, 8), (1000, 77, 64), (997, 500, 33), (300, 2, 5)]
)
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_class_in_a_batch_has_at_least_two_rows(rows: int, classes: int, size: int, epoch: int) -> None:
    labels = np.random.default_rng(rows + size).integers(0, classes, rows)
    batches = LabelBatches(labels, size)
    plan = batches.plan(epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(rows))
    assert len(plan) == len(batches)
    assert sorted(map(len, plan)) == sorted(batches.sizes())
    assert max(map(len, plan)) <= size
    assert max(map(len, plan)) - min(map(len, plan)) <= 5
    common = np.bincount(labels, minlength=classes)
    for batch in plan:
        here = np.bincount(labels[batch], minlength=classes)
        assert not np.any((here == 1) & (common > 1))
    assert batches.lonely == int((common == 1).sum())


def test_the_number_of_batches_is_near_the_smallest_possible() -> None:
    labels = np.random.default_rng(0).integers(0, 40, 1000)
    assert len(LabelBatches(labels, 64)) <= 17  # 16 full ones would hold them


def test_partners_change_with_the_epoch() -> None:
    labels = np.zeros(40, np.int64)
    labels[20:] = 1
    batches = LabelBatches(labels, 8)
    together = [{frozenset(batch.tolist()) for batch in batches.plan(epoch)} for epoch in range(2)]
    assert together[0] != together[1]
    assert together[0] == {frozenset(batch.tolist()) for batch in LabelBatches(labels, 8).plan(0)}


def test_labels_may_be_any_integers() -> None:
    labels = np.array([-5, 10**12, -5, 10**12, 7, 7])
    for batch in LabelBatches(labels, 4).plan(0):
        assert len(set(labels[batch].tolist())) * 2 == len(batch)


def test_a_batch_must_have_room_for_two_classes() -> None:
    with pytest.raises(UsageError, match="nothing to contrast"):
        LabelBatches(np.arange(10) // 2, 3)
