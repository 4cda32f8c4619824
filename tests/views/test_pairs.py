"""The five sources of positive pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.views.pairs import (
    SOURCES,
    Block,
    Clustering,
    ContextInstance,
    Multisensory,
    RandomPairs,
    Sequential,
    Transformation,
    looks,
)

ITEMS = torch.arange(24.0).reshape(12, 2) + 1


def _numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _partners(source: object, item: int, draws: int = 600) -> dict[int, int]:
    """How often each item was the partner of one."""
    pairs = source(torch.full((draws,), item), _numbers())  # type: ignore[operator]
    values, counts = pairs.partner.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _uniform(counts: dict[int, int], over: set[int]) -> None:
    assert set(counts) == over
    expected = sum(counts.values()) / len(over)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_multisensory_pairs_are_one_event_by_two_sensors() -> None:
    source = Multisensory(looks(ITEMS), sensors=3, events=4)
    _uniform(_partners(source, 5), {1, 9})
    pairs = source(torch.tensor([1, 5, 10]))
    assert pairs.ids.tolist() == [1, 1, 2]
    torch.testing.assert_close(pairs.query, ITEMS[pairs.index])
    torch.testing.assert_close(pairs.key, ITEMS[pairs.partner])


def test_transformation_pairs_are_two_draws_of_one_view() -> None:
    def noisy(items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return items + torch.randn(items.shape, generator=generator)

    index = torch.arange(12)
    pairs = Transformation(looks(ITEMS, noisy))(index, _numbers())
    again = Transformation(looks(ITEMS, noisy))(index, _numbers())
    assert torch.equal(pairs.partner, index)
    assert torch.equal(pairs.ids, index)
    assert (pairs.query != pairs.key).all()
    assert torch.equal(pairs.query, again.query)
    assert torch.equal(pairs.key, again.key)


def test_context_instance_pairs_are_a_part_and_the_whole() -> None:
    items = torch.ones(50, 3, 10)
    pairs = ContextInstance(looks(items), Block(0.3))(torch.arange(50), _numbers())
    assert torch.equal(pairs.key, items)
    kept = pairs.query[:, 0]
    assert (kept.sum(1) == 3).all()
    assert torch.equal(pairs.query, kept[:, None].expand(-1, 3, -1))
    first, last = kept.argmax(1), 9 - kept.flip(1).argmax(1)
    assert (last - first == 2).all()
    assert set(first.tolist()) == set(range(8))
    assert (ContextInstance(looks(items))(torch.arange(4)).query.sum(2) == 5).all()


def test_sequential_pairs_are_neighbours_within_their_sequence() -> None:
    source = Sequential(looks(ITEMS), length=6, distance=2)
    _uniform(_partners(source, 6), {7, 8})
    _uniform(_partners(source, 7), {6, 8, 9})
    _uniform(_partners(source, 9), {7, 8, 10, 11})
    _uniform(_partners(source, 5), {3, 4})
    _uniform(_partners(Sequential(looks(ITEMS), length=6, distance=99), 2), {0, 1, 3, 4, 5})


def test_clustering_pairs_are_other_items_of_the_class() -> None:
    source = Clustering(looks(ITEMS), torch.tensor([7, 3, 7, 3, 7, 5, 7, 3, 9, 9, 7, 3]))
    _uniform(_partners(source, 4), {0, 2, 6, 10})
    _uniform(_partners(source, 1), {3, 7, 11})
    assert set(_partners(source, 5)) == {5}
    assert set(_partners(source, 8)) == {9}
    assert source(torch.tensor([0, 5])).ids.tolist() == [7, 5]


def test_random_pairs_share_nothing() -> None:
    _uniform(_partners(RandomPairs(looks(ITEMS), 12), 3, draws=2400), set(range(12)))


def test_the_sources_are_found_by_name() -> None:
    assert list(SOURCES) == ["multisensory", "transformation", "context-instance", "sequential", "clustering"]
    assert all(name == source.name for name, source in SOURCES.items())


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(UsageError, match="2 sensors"):
        Multisensory(looks(ITEMS), sensors=1, events=3)
    with pytest.raises(UsageError, match="length of 2"):
        Sequential(looks(ITEMS), length=1)
    with pytest.raises(UsageError, match="integers"):
        Clustering(looks(ITEMS), torch.zeros(12))
    with pytest.raises(UsageError, match=r"\(0, 1\]"):
        Block(0.0)
