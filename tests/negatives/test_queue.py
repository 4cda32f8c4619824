"""The queue of earlier keys, and cross-batch memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Labels, Paired, evaluate
from nearfar.errors import UsageError
from nearfar.negatives import CrossBatchMemory, Queue
from nearfar.objectives import InfoNCE, SupCon


def _rows(*values: float) -> Tensor:
    return torch.tensor([[value, -value] for value in values])


def _contents(queue: Queue) -> list[tuple[float, int]]:
    embeddings, numbers = queue.stored()
    return sorted((float(row[0]), int(number)) for row, number in zip(embeddings, numbers, strict=True))


def test_first_in_first_out() -> None:
    queue = Queue(4, 2)
    assert len(queue) == 0
    assert queue.stored()[0].shape == (0, 2)
    queue.push(_rows(1, 2, 3), torch.tensor([10, 20, 30]))
    assert _contents(queue) == [(1, 10), (2, 20), (3, 30)]
    queue.push(_rows(4, 5, 6), torch.tensor([40, 50, 60]))
    assert len(queue) == 4
    assert _contents(queue) == [(3, 30), (4, 40), (5, 50), (6, 60)]
    queue.push(_rows(7))
    assert _contents(queue) == [(4, 40), (5, 50), (6, 60), (7, -1)]


@pytest.mark.parametrize("sizes", [[1] * 9, [2, 7], [9], [5, 1, 3]])
def test_a_push_of_any_size_keeps_the_last(sizes: list[int]) -> None:
    queue, value = Queue(4, 2), 0
    for size in sizes:
        queue.push(_rows(*range(value, value + size)), torch.arange(value, value + size))
        value += size
    assert _contents(queue) == [(5, 5), (6, 6), (7, 7), (8, 8)]


def test_the_state_is_saved() -> None:
    queue = Queue(4, 2)
    queue.push(_rows(1, 2, 3, 4, 5), torch.arange(5))
    other = Queue(4, 2)
    other.load_state_dict(queue.state_dict())
    other.push(_rows(6))
    queue.push(_rows(6))
    assert _contents(other) == _contents(queue)


def test_what_is_stored_has_no_gradient_and_is_a_copy() -> None:
    queue = Queue(4, 2)
    pushed = _rows(1.0, 2.0).requires_grad_()
    queue.push(pushed)
    stored, _ = queue.stored()
    assert not stored.requires_grad
    queue.push(_rows(8, 9, 10, 11))
    assert stored.flatten().tolist() == [1, -1, 2, -2]


def test_bad_calls() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Queue(0, 2)
    queue = Queue(4, 2)
    with pytest.raises(ValueError, match=r"\[n, 2\], got \(3, 5\)"):
        queue.push(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"numbers must be \[3\] integers"):
        queue.push(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))


def _embeddings(seed: int, n: int) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_moco_by_hand(memory: str) -> None:
    """Cross-entropy over [its own key | the batch's other keys | the queue], an older key of the same item left out."""
    queue = Queue(6, 5, dtype=torch.float64)
    old = _embeddings(2, 5).detach()
    queue.push(old, torch.tensor([100, 3, 101, 102, 7]))
    query, key, ids = _embeddings(0, 3), _embeddings(1, 3), torch.tensor([3, 5, 7])
    keys, relation = queue.extend(key, ids)
    loss = evaluate(InfoNCE(temperature=0.2), query, keys, relation=relation, memory=memory)
    unit = [torch.nn.functional.normalize(value, dim=1) for value in (query, key, old)]
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        candidates = [unit[0][i] @ unit[1][i], *(unit[0][i] @ unit[1][j] for j in range(3) if j != i)]
        candidates += [unit[0][i] @ unit[2][j] for j in range(5) if not (i == 0 and j == 1) and not (i == 2 and j == 4)]
        expected = expected - torch.log_softmax(torch.stack(candidates) / 0.2, 0)[0] / 3
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(value, (query, key)) for value in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_cross_batch_memory_is_the_batch_and_the_memory() -> None:
    memory = CrossBatchMemory(SupCon(temperature=0.3), 6, 5, weight=0.5, start=1)
    first, second = _embeddings(0, 4).float(), _embeddings(1, 4).float()
    labels = torch.tensor([0, 0, 1, 1])
    alone = SupCon(temperature=0.3)(first, relation=Labels(labels))
    torch.testing.assert_close(memory(first, labels), alone)
    again = memory(second, torch.tensor([1, 1, 2, 2]))
    near = torch.tensor([1, 1, 2, 2])[:, None] == labels[None, :]
    expected = SupCon(temperature=0.3)(second, relation=Labels(torch.tensor([1, 1, 2, 2])))
    expected = expected + 0.5 * SupCon(temperature=0.3)(second, first, relation=Explicit(near))
    torch.testing.assert_close(again, expected)
    assert len(memory.memory) == 6


def test_cross_batch_memory_waits_and_rests() -> None:
    memory = CrossBatchMemory(SupCon(temperature=0.3), 8, 5, start=2)
    z, labels = _embeddings(0, 4).float(), torch.tensor([0, 0, 1, 1])
    alone = SupCon(temperature=0.3)(z, relation=Labels(labels)).item()
    assert memory(z, labels).item() == pytest.approx(alone)
    assert memory(z, labels).item() == pytest.approx(alone)
    assert memory(z, labels).item() > alone + 0.1
    state = copy.deepcopy(memory.state_dict())
    memory.eval()(z, labels)
    for name, value in memory.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_an_empty_queue_changes_nothing() -> None:
    query, key, ids = _embeddings(0, 3), _embeddings(1, 3), torch.tensor([3, 5, 7])
    keys, relation = Queue(4, 5).extend(key, ids)
    expected = InfoNCE()(query, key, relation=Paired(ids))
    torch.testing.assert_close(InfoNCE()(query, keys, relation=relation), expected)
