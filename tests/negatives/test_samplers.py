"""Samplers of labelled items, and the queue with places for every class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from nearfar.contrast import Labels
from nearfar.errors import DataError, UsageError
from nearfar.negatives import ClassQueue, ClassSampler, PerClassBatches, class_shares, class_slots, draw_per_class
from nearfar.objectives import GML

COUNTS = torch.tensor([50, 30, 12, 5, 2, 1])
LABELS = torch.repeat_interleave(torch.arange(6), COUNTS)[
    torch.randperm(100, generator=torch.Generator().manual_seed(0))
]


def test_shares_by_power() -> None:
    torch.testing.assert_close(class_shares(COUNTS, "natural"), COUNTS.double() / 100)
    torch.testing.assert_close(class_shares(COUNTS, "balanced"), torch.full((6,), 1 / 6, dtype=torch.float64))
    roots = COUNTS.double().sqrt()
    torch.testing.assert_close(class_shares(COUNTS, "square-root"), roots / roots.sum())
    torch.testing.assert_close(class_shares(COUNTS, 0.25), (roots.sqrt()) / roots.sqrt().sum())
    torch.testing.assert_close(class_shares([0, 3, 1], "balanced"), torch.tensor([0, 0.5, 0.5], dtype=torch.float64))


def test_effective_numbers_lie_between_natural_and_balanced() -> None:
    effective = [sum(0.9**k for k in range(n)) for n in COUNTS.tolist()]
    expected = torch.tensor([n / e for n, e in zip(COUNTS.tolist(), effective, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(class_shares(COUNTS, "effective", beta=0.9), expected / expected.sum())
    # with every item of a class new (beta near 1) all classes come alike, with all the same (beta 0) all items do
    torch.testing.assert_close(class_shares(COUNTS, "effective", beta=0.0), class_shares(COUNTS, "natural"))
    torch.testing.assert_close(
        class_shares(COUNTS, "effective", beta=1 - 1e-9), class_shares(COUNTS, "balanced"), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(("total", "base"), [(18, 3), (100, 3), (101, 0), (57, 5), (10_000, 8)])
def test_slots_add_up(total: int, base: int) -> None:
    slots = class_slots(COUNTS, total, base=base)
    assert int(slots.sum()) == total
    assert int(slots.min()) >= base
    exact = base + (total - 6 * base) * COUNTS.double() / 100
    assert float((slots - exact).abs().max()) < 1
    assert torch.equal(class_slots(COUNTS / 100, total, base=base), slots)
    assert class_slots([1, 1, 1], 4, base=1).tolist() == [2, 1, 1]


def test_drawing_takes_all_once_before_any_twice() -> None:
    slots = torch.tensor([20, 10, 12, 7, 5, 3])
    chosen = draw_per_class(LABELS, slots, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.bincount(LABELS[chosen]), slots)
    assert torch.equal(LABELS[chosen], LABELS[chosen].sort().values)
    for label, (count, number) in enumerate(zip(COUNTS.tolist(), slots.tolist(), strict=True)):
        times = torch.bincount(chosen[LABELS[chosen] == label]).tolist()
        times = [number for number in times if number]
        assert len(times) == min(count, number)
        assert max(times) - min(times) <= 1
    again = draw_per_class(LABELS, slots, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, draw_per_class(LABELS, slots, generator=torch.Generator().manual_seed(2)))
    assert torch.bincount(LABELS[draw_per_class(LABELS, 2)]).tolist() == [2] * 6
    with pytest.raises(DataError, match="class 1"):
        draw_per_class(torch.tensor([0, 2]), 1)


@pytest.mark.parametrize("scheme", ["natural", "square-root", "balanced", "effective", 0.2])
def test_a_sampler_draws_by_its_shares(scheme: Any) -> None:
    sampler = ClassSampler(LABELS + 7, scheme, draws=20_000, seed=3, beta=0.9)
    drawn = torch.tensor(list(sampler))
    found = torch.bincount(LABELS[drawn], minlength=6).double() / len(drawn)
    torch.testing.assert_close(found, class_shares(COUNTS, scheme, beta=0.9), rtol=0, atol=0.012)
    # items of one class alike
    times = torch.bincount(drawn, minlength=100)[LABELS == 1].double()
    assert float(times.std() / times.mean()) < 0.25


def test_a_sampler_depends_on_seed_and_epoch_alone() -> None:
    sampler = ClassSampler(LABELS, seed=1)
    assert len(sampler) == len(LABELS) == len(list(sampler))
    first = list(sampler)
    assert first == list(sampler) == list(ClassSampler(LABELS.numpy(), seed=1))
    assert first != list(ClassSampler(LABELS, seed=2))
    sampler.set_epoch(1)
    assert first != list(sampler)
    loader = DataLoader(TensorDataset(torch.arange(100)), batch_size=10, sampler=ClassSampler(LABELS, seed=1))
    assert [int(row) for (batch,) in loader for row in batch] == first


@pytest.mark.parametrize(("classes", "items"), [(3, 4), (6, 1), (2, 8), (1, 2)])
def test_batches_of_p_classes_with_k_items(classes: int, items: int) -> None:
    batches = PerClassBatches(LABELS, classes=classes, items=items, batches=30, seed=1)
    made = list(batches)
    assert len(made) == len(batches) == 30
    for batch in made:
        labels = LABELS[torch.tensor(batch)]
        assert torch.equal(torch.bincount(labels)[labels.unique()], torch.full((classes,), items))
        for label in labels.unique():
            rows = [row for row in batch if LABELS[row] == label]
            assert len(set(rows)) == min(items, int(COUNTS[label]))
    times = torch.bincount(torch.tensor([int(LABELS[batch[i]]) for batch in made for i in range(0, len(batch), items)]))
    assert int(times.max() - times.min()) <= 1
    own = torch.bincount(torch.tensor(made).flatten(), minlength=100)[LABELS == 2]
    assert int(own.max() - own.min()) <= 1
    assert made == list(batches)
    batches.set_epoch(1)
    assert made != list(batches)


def test_the_length_of_an_epoch_and_a_loader() -> None:
    batches = PerClassBatches(LABELS, classes=4, items=5)
    assert len(batches) == 5
    loader = DataLoader(TensorDataset(LABELS), batch_sampler=batches)
    assert [len(batch) for (batch,) in loader] == [20] * 5


def _queue_rows(*values: float) -> Tensor:
    return torch.tensor([[value, -value] for value in values])


def test_a_class_queue_is_first_in_first_out_by_class() -> None:
    queue = ClassQueue([3, 2, 1], 2)
    assert len(queue) == 0
    queue.push(_queue_rows(1, 2, 3, 4), torch.tensor([0, 1, 0, 1]))
    assert len(queue) == 4
    queue.push(_queue_rows(5, 6, 7), torch.tensor([1, 1, 1]))  # more than there are places: the last ones stay
    queue.push(_queue_rows(8, 9), torch.tensor([0, 0]))
    found, labels = queue.stored()
    contents = {label: sorted(found[labels == label, 0].tolist()) for label in range(3)}
    assert contents == {0: [3, 8, 9], 1: [6, 7], 2: []}
    queue.push(_queue_rows(10), torch.tensor([2]))
    assert len(queue) == 6
    assert sorted(queue.stored()[0][:, 0].tolist()) == [3, 6, 7, 8, 9, 10]
    restored = ClassQueue([3, 2, 1], 2)
    restored.load_state_dict(queue.state_dict())
    assert torch.equal(restored.stored()[0], queue.stored()[0])


@pytest.mark.parametrize("size", [1, 3, 10, 60])
def test_a_class_queue_does_what_a_list_for_each_class_does(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    slots, queue, lists = [4, 1, 7], ClassQueue([4, 1, 7], 2), {0: [], 1: [], 2: []}
    for start in range(0, 60, size):
        values = torch.arange(start, min(60, start + size)).float()
        labels = torch.randint(3, values.shape, generator=generator)
        queue.push(torch.stack([values, values], 1), labels)
        for value, label in zip(values.tolist(), labels.tolist(), strict=True):
            lists[label] = [*lists[label], value][-slots[label] :]
        found, stored = queue.stored()
        for label in range(3):
            assert sorted(found[stored == label, 0].tolist()) == lists[label]


def test_a_class_queue_serves_gml() -> None:
    queue = ClassQueue(class_slots(COUNTS, 40), 8)
    keys = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    queue.push(keys, LABELS)
    stored, labels = queue.stored()
    assert set(labels.tolist()) == set(range(6))
    query = torch.randn(5, 8, requires_grad=True)
    GML(prior=COUNTS)(query, stored, relation=Labels(torch.arange(5), labels)).backward()
    assert query.grad is not None
    assert not stored.requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda: class_shares([0, 0]),
        lambda: class_shares([1, -1]),
        lambda: class_shares(COUNTS, "root"),
        lambda: class_shares(COUNTS, "effective", beta=1.0),
        lambda: class_slots(COUNTS, 17),
        lambda: ClassSampler(LABELS, draws=0),
        lambda: PerClassBatches(LABELS, items=0),
        lambda: PerClassBatches(LABELS, classes=7),
        lambda: ClassSampler(torch.rand(3)),
        lambda: ClassQueue([1, 0], 4),
        lambda: ClassQueue([1, 2], 2).push(_queue_rows(1), torch.tensor([2])),
        lambda: ClassQueue([1, 2], 2).push(_queue_rows(1), torch.tensor([0.5])),
        lambda: ClassQueue([1, 2], 3).push(_queue_rows(1), torch.tensor([0])),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):  # UsageError and DataError are ValueErrors
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda labels: ClassSampler(labels),
        lambda labels: PerClassBatches(labels, classes=1, items=1),
        lambda labels: draw_per_class(labels, 1),
    ],
)
def test_labels_below_zero_are_refused_with_their_place(make: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(DataError, match=r"that at position 2 is -7"):
        make(torch.tensor([0, 1, -7, 2, -1]))


def test_errors_are_the_librarys() -> None:
    with pytest.raises(UsageError, match="too few"):
        class_slots(COUNTS, 17)
    with pytest.raises(DataError, match="fewer than"):
        PerClassBatches(LABELS, classes=7)
