"""Texts that say the same several times, and sentences with verdicts."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.retold import RetoldTexts
from nearfar.data.synthetic.verdicts import Verdicts
from nearfar.errors import UsageError


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_text_says_its_concepts_three_times_in_one_of_two_orders() -> None:
    world = RetoldTexts(seed=1)
    concepts = world.draw(300, generator=drawn())
    ids, backward = world.texts(concepts, generator=drawn(1))
    assert ids.shape == (300, 21) == (300, world.length)
    assert torch.equal(world.concepts_of(ids), concepts)
    assert 100 < int(backward.sum()) < 200
    for row, said, turned in zip(ids.tolist(), concepts.tolist(), backward.tolist(), strict=True):
        words = [token for token in row if token]
        assert row == words + [0] * (21 - len(words))
        assert 12 + 3 <= len(words) <= 21
        means = [(int(world.slot[w]), int(world.concept[w])) for w in words]
        content = [mean for mean in means if mean[0] >= 0]
        assert sorted(content) == sorted([(slot, concept) for slot, concept in enumerate(said)] * 3)
        edge = means[12:] if not turned else means[: len(words) - 12]
        assert all(slot < 0 for slot, _ in edge), "function words stand together"
    again, _ = world.texts(concepts, generator=drawn(1))
    assert torch.equal(again, ids)


def test_pairs_of_texts_say_the_same_in_as_many_slots_as_they_say() -> None:
    world = RetoldTexts(2, slots=3, seed=0)
    one, other, overlap = world.text_pairs(400, generator=drawn())
    assert one.shape == (400, 12)
    assert torch.equal((world.concepts_of(one) == world.concepts_of(other)).sum(1), overlap)
    assert overlap.unique().tolist() == [0, 1, 2, 3]


def test_opinions_have_no_verdict_and_verdicts_follow_their_class() -> None:
    world = Verdicts(seed=2)
    concepts = world.draw(4000, generator=drawn())
    labels = world.labels(concepts)
    assert torch.equal(labels, concepts[:, 0] % 4)
    ids = world.opinions(concepts, generator=drawn(1))
    assert not (world.slot[ids] == 3).any()
    assert torch.equal(((world.slot[ids] >= 0).sum(1)), torch.full((4000,), 3))
    verdicts = world.verdicts(concepts, certainty=0.7, generator=drawn(2))
    assert (world.slot[verdicts] == 3).all()
    known = concepts[:, 0] < 8
    right = (world.concept[verdicts] == labels).float()
    assert abs(float(right[known].mean()) - (0.7 + 0.3 / 4)) < 0.04
    assert abs(float(right[~known].mean()) - 0.25) < 0.06
    assert set(world.concept[verdicts].tolist()) == {0, 1, 2, 3}
    sure = world.verdicts(concepts, certainty=1.0, generator=drawn(2))
    assert torch.equal(world.concept[sure][known], labels[known])
    assert world.concept[world.answers].tolist() == [0, 1, 2, 3]
    assert set(world.answers.tolist()) < set(sure.tolist())
    for frame in world.frames:
        assert frame.count("text") == frame.count("answer") == 1
        assert all(piece in ("text", "answer") or int(world.slot[piece]) < 0 for piece in frame)


def test_sizes_that_make_no_verdicts() -> None:
    for wrong in ({"slots": 2}, {"classes": 13}, {"classes": 1}, {"function_words": 10}):
        with pytest.raises(UsageError, match="verdicts need"):
            Verdicts(**wrong)
