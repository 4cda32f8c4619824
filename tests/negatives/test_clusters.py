"""The memory of clusters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nearfar.errors import UsageError
from nearfar.negatives import ClusterMemory
from nearfar.objectives import ClusterNS


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _topics(seed: int, per_topic: int) -> tuple[Tensor, Tensor]:
    """Items around the three axes, and which axis each lies at."""
    topic = torch.arange(3).repeat(per_topic)
    return 4 * torch.eye(3, 5, dtype=torch.float64)[topic] + 0.3 * _drawn(seed, 3 * per_topic, 5), topic


def test_it_starts_when_embeddings_have_spread() -> None:
    memory = ClusterMemory(2, 3, start_at=0.4)
    narrow = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [1, 0, 0.1]])
    memory.update(narrow)
    assert not memory.started
    assert memory.assign(narrow).tolist() == [-1, -1, -1]
    with pytest.raises(ValueError, match="has not started"):
        memory.hard_negatives(narrow)
    spread = torch.eye(3)
    pairs = [float(cosine_similarity(one, other, dim=0)) for one in spread for other in spread]
    assert sum(pairs) / 9 <= 0.4
    memory.update(spread)
    assert memory.started
    assert "started" in repr(memory)
    strict = ClusterMemory(2, 3, start_at=0.33)
    strict.update(spread)
    assert not strict.started


def test_each_centroid_is_farthest_from_the_last() -> None:
    z1, z2 = _drawn(0, 7, 4), _drawn(1, 7, 4)
    memory = ClusterMemory(4, 4).double()
    memory.start(z1, z2, first=2)
    chosen, last = [2], 2
    for _ in range(3):
        cosines = {j: float(cosine_similarity(z1[last], z2[j], dim=0)) for j in range(7) if j not in chosen}
        last = min(cosines, key=lambda j: cosines[j])
        chosen.append(last)
    torch.testing.assert_close(memory.centroids, z1[chosen], rtol=0, atol=0)
    all_of_them = ClusterMemory(7, 4).double()
    all_of_them.start(z1)
    assert sorted(all_of_them.centroids.tolist()) == sorted(z1.tolist())
    with pytest.raises(ValueError, match="8 clusters cannot start from 7 rows"):
        ClusterMemory(8, 4).start(z1)
    same = [ClusterMemory(3, 4, seed=5).double() for _ in range(2)]
    for each in same:
        each.start(z1)
    assert torch.equal(same[0].centroids, same[1].centroids)


@pytest.mark.parametrize("average", ["mean", "sum"])
def test_centroids_follow_their_members(average: str) -> None:
    items = _drawn(2, 9, 4)
    memory = ClusterMemory(5, 4, rate=0.25, average=average).double()
    memory.start(_drawn(3, 6, 4))
    before = memory.centroids.clone()
    memory.update(items)
    emptied = 0
    for k in range(5):
        own = [z for z in items if max(range(5), key=lambda c: float(cosine_similarity(z, before[c], dim=0))) == k]
        expected = before[k]
        if own:
            total = torch.stack(own).sum(0)
            expected = 0.75 * before[k] + 0.25 * (total if average == "sum" else total / len(own))
        emptied += not own
        torch.testing.assert_close(memory.centroids[k], expected, rtol=1e-12, atol=1e-12)
    assert 0 < emptied < 5


def test_hard_negatives_are_the_second_nearest() -> None:
    memory = ClusterMemory(4, 3).double()
    memory.start(_drawn(4, 6, 3))
    items = _drawn(5, 8, 3).requires_grad_()
    hard = memory.hard_negatives(items)
    assert not hard.requires_grad
    for item, row, own in zip(items.detach(), hard, memory.assign(items), strict=True):
        order = sorted(range(4), key=lambda c: -float(cosine_similarity(item, memory.centroids[c], dim=0)))
        assert order[0] == own
        assert torch.equal(row, memory.centroids[order[1]])


def test_topics_are_found_online_and_at_once() -> None:
    memory = ClusterMemory(3, 5, rate=0.1).double()
    for step in range(30):
        memory.update(_topics(step, 5)[0])
    at_once = ClusterMemory(3, 5).double()
    items, topic = _topics(99, 20)
    at_once.fit(items)
    for each in (memory, at_once):
        found = each.assign(items)
        assert len({(int(a), int(b)) for a, b in zip(found, topic, strict=True)}) == 3
    before = at_once.centroids.clone()
    at_once.fit(items, iterations=0)
    assert not torch.equal(before, at_once.centroids)  # without rounds, only the start


def test_it_is_saved_and_goes_on() -> None:
    memory = ClusterMemory(3, 5, rate=0.2).double()
    memory.update(_topics(0, 4)[0])
    copy = ClusterMemory(3, 5, rate=0.2).double()
    copy.load_state_dict(memory.state_dict())
    assert copy.started
    for each in (memory, copy):
        each.update(_topics(1, 4)[0])
    assert torch.equal(copy.centroids, memory.centroids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_feeds_the_objective(dtype: torch.dtype) -> None:
    memory = ClusterMemory(3, 5)
    z1, z2 = (_topics(seed, 4)[0].to(dtype).requires_grad_() for seed in (0, 1))
    memory.update(z1, z2)
    clusters, hard = memory.assign(z1), memory.hard_negatives(z1)
    assert hard.dtype == dtype
    loss = ClusterNS(1.0, 0.1, 0.3)(z1, z2, clusters=clusters, hard_negatives=hard)
    assert loss.item() > ClusterNS(0.0)(z1, z2, hard_negatives=hard).item()
    loss.backward()
    assert torch.isfinite(z1.grad).all()


def test_zero_vectors() -> None:
    memory = ClusterMemory(2, 2, rate=0.5)
    memory.update(torch.tensor([[0.0, 0], [0, 0], [1, 0]]))
    memory.update(torch.zeros(3, 2))
    assert torch.isfinite(memory.centroids).all()
    assert math.isfinite(float(memory.hard_negatives(torch.zeros(1, 2)).sum()))


def test_what_does_not_fit() -> None:
    for arguments, message in (
        ({"clusters": 1}, "at least 2 clusters"),
        ({"rate": 1.5}, r"\[0, 1\]"),
        ({"average": "median"}, "average must be"),
    ):
        with pytest.raises(UsageError, match=message):
            ClusterMemory(**{"clusters": 2, "dimension": 3, **arguments})
    memory = ClusterMemory(2, 3)
    with pytest.raises(ValueError, match=r"\[n, 3\]"):
        memory.update(torch.ones(4, 2))
    with pytest.raises(ValueError, match="alike"):
        memory.update(torch.ones(4, 3), torch.ones(3, 3))
