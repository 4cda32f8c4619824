"""Queries and documents without a word in common."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.bridged_topics import BridgedTopics
from nearfar.errors import UsageError


def test_texts_are_of_their_topic_but_for_a_word() -> None:
    world = BridgedTopics(5, words=3, length=4)
    topic = torch.arange(5).repeat(40)
    for side in ("q", "d"):
        for number, text in zip(topic.tolist(), world.texts(topic, side, generator=torch.Generator()), strict=True):
            words = text.split()
            assert all(word[0] == side for word in words)
            of = [int(word[1:]) // 3 for word in words]
            assert of.count(number) == 3
            assert len(set(of)) == 2
    with pytest.raises(UsageError):
        world.texts(topic, "t", generator=torch.Generator())
    with pytest.raises(UsageError):
        BridgedTopics(1)


def test_bags_and_rationales() -> None:
    world = BridgedTopics(4)
    bags = world.bags(["t1 q0 q0", "d15"])
    assert bags.sum() == 4
    assert bags[0, 1] == 1
    assert bags[0, world.symbols.index("q0")] == 2
    assert bags[1, -1] == 1
    topic = torch.randint(4, (4000,), generator=torch.Generator().manual_seed(0))
    said = world.rationales(topic, right=0.5, generator=torch.Generator().manual_seed(1))
    right = sum(
        name == f"t{number}" for number, text in zip(topic.tolist(), said, strict=True) for name in text.split()
    )
    assert abs(right / 8000 - 0.625) < 4 * (0.625 * 0.375 / 8000) ** 0.5
