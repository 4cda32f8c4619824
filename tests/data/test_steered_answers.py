"""Answers with levels on three axes, and writers whom cues steer."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.steered_answers import AXES, SteeredAnswers, SteeredWriter
from nearfar.errors import DataError, UsageError


def test_answers_are_their_levels() -> None:
    world = SteeredAnswers(3, levels=3, seed=1)
    assert world.quality.shape == (27, len(AXES))
    for number, text in enumerate(world.texts):
        assert world.number(text) == number
        assert [int(level) / 2 for level in text.split()] == world.quality[number].tolist()
    torch.testing.assert_close(world.logits(), world.habit)
    shifted = world.logits((0.5, 0, -1)) - world.habit
    torch.testing.assert_close(shifted[1], world.quality[:, 0] * 2 * 0.5 - world.quality[:, 2] * 2)
    assert not torch.equal(SteeredAnswers(3, seed=2).habit, SteeredAnswers(3, seed=3).habit)
    with pytest.raises(DataError):
        world.number("0 0")
    with pytest.raises(UsageError):
        SteeredAnswers(0)


def test_cues_steer_writers() -> None:
    world = SteeredAnswers(2, habit=0.0)
    writer = SteeredWriter(
        world, torch.Generator().manual_seed(0), {"kindly": (9, 0, 0), "curtly": (0, 0, -9)}, (0, 9, 0)
    )
    asked = f"{world.prompts[1]}, kindly and curtly"
    assert {writer(asked) for _ in range(20)} == {"3 3 0"}
    assert writer(f"{asked}. Answer:").endswith("Answer: 3 3 0")
    kind = [int(writer(world.prompts[0])[0]) for _ in range(400)]
    assert abs(sum(kind) / 400 - 1.5) < 4 * 1.118 / 20
    with pytest.raises(DataError):
        writer("kindly")
