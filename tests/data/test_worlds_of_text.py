"""Running text with known truth: topics that stay, states that drift, two domains."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic import DriftingParagraphs, RotatedDomains, SlotGrammar, SlotImages, TopicChain
from nearfar.data.synthetic.drifting_paragraphs import ADDITION, CONTRAST, TIME
from nearfar.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_topics_stay_and_say_their_words() -> None:
    world = TopicChain(5, words=7, common_words=4, own=3, shared=2, stay=0.8)
    words, topics = world.draw(20_000, generator=generator())
    assert world.vocabulary == 39
    assert words.shape == (20_000, 5)
    assert torch.equal(words[:, :3] // 7, topics[:, None].expand(-1, 3))
    assert int(words[:, 3:].min()) >= 35
    assert int(words.max()) < 39
    stays = float((topics[1:] == topics[:-1]).float().mean())
    assert stays == pytest.approx(0.8 + 0.2 / 5, abs=0.01)
    assert (topics.bincount() / 20_000 - 0.2).abs().max() < 0.05
    again = world.draw(20_000, generator=generator())
    assert torch.equal(words, again[0])
    assert world.draw(0, generator=generator())[0].shape == (0, 5)
    assert len(set(TopicChain(stay=1.0).draw(50, generator=generator())[1].tolist())) == 1
    for wrong in ({"topics": 0}, {"stay": 1.5}, {"own": 0}):
        with pytest.raises(UsageError):
            TopicChain(**wrong)


def test_paragraphs_drift_by_their_rule() -> None:
    world = DriftingParagraphs(4, 6, jump=0.3, flip=0.4)
    drawn = world.draw(3000, generator=generator())
    assert drawn.document.unique().tolist() == list(range(3000))
    begins = torch.cat([torch.tensor([True]), drawn.document[1:] != drawn.document[:-1]])
    assert (drawn.stage[begins] == 0).all()
    assert torch.equal(drawn.conjunction < 0, begins)
    inside = ~begins
    step = (drawn.stage[1:] - drawn.stage[:-1])[inside[1:]]
    flipped = (drawn.polarity[1:] != drawn.polarity[:-1])[inside[1:]]
    assert set(step.tolist()) == {1, 2}
    assert ((drawn.topic[1:] == drawn.topic[:-1]) | begins[1:]).all()
    kind = drawn.conjunction[inside]
    expected = torch.where(step == 2, TIME, torch.where(flipped, CONTRAST, ADDITION))
    assert torch.equal(kind, expected)
    early = (drawn.stage[:-1] < 3)[inside[1:]]  # a jump beyond the last stage is not seen
    assert float((step == 2)[early].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(flipped.float().mean()) == pytest.approx(0.4, abs=0.02)
    # a paragraph ends only where its stages do
    ends = torch.cat([begins[1:], torch.tensor([True])])
    assert (drawn.stage[ends] >= 4).all()


def test_sentences_say_their_state() -> None:
    world = DriftingParagraphs(4, 6, words=5, common=7, each=2)
    drawn = world.draw(50, generator=generator(1))
    groups = drawn.words[:, :6].unflatten(1, (3, 2)) // 5
    state = torch.stack([drawn.topic, 4 + drawn.stage, 10 + drawn.polarity], 1)
    assert torch.equal(groups, state[..., None].expand(-1, -1, 2))
    assert int(drawn.words[:, 6:].min()) >= world.vocabulary - 7 == 60
    assert int(drawn.words.max()) < world.vocabulary
    assert len(drawn) == len(drawn.words)
    for wrong in ({"stages": 1}, {"jump": -0.1}, {"each": 0}):
        with pytest.raises(UsageError):
            DriftingParagraphs(**wrong)


def test_images_show_what_sentences_say() -> None:
    grammar = SlotGrammar(slots=3, concepts=4)
    images = SlotImages(grammar, 8, noise=0.0, seed=2)
    concepts = grammar.draw(5000, generator=generator())
    shown = images.of(concepts, generator=generator())
    assert shown.shape == (5000, 8)
    for row in range(5):
        expected = sum(images.map[slot * 4 + concepts[row, slot]] for slot in range(3))
        torch.testing.assert_close(shown[row], expected)
    assert float(images.map.std()) == pytest.approx(1 / 3, rel=0.2)
    noisy = SlotImages(grammar, 8, noise=0.5, seed=2).of(concepts, generator=generator(1)) - shown
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(SlotImages(grammar, 8, seed=2).map, images.map)
    for wrong in ({"dimension": 0}, {"noise": -1.0}):
        with pytest.raises(UsageError):
            SlotImages(grammar, **wrong)


def test_the_target_is_turned_and_shifted() -> None:
    world = RotatedDomains(6, angle=90, distance=2.0, noise=0.1)
    for domain, axis, offset in ((0, 0, [0, 0, 0]), (1, 1, [0, 1, 2])):
        items, classes = world.draw(4000, domain, generator=generator(domain))
        centred = items - torch.tensor([*offset, 0.0, 0.0, 0.0])
        sign = 2 * classes - 1
        torch.testing.assert_close((centred[:, axis] * sign).mean(), torch.tensor(2.0), atol=0.02, rtol=0)
        rest = [each for each in range(6) if each != axis]
        assert float(centred[:, rest].std()) == pytest.approx(0.1, rel=0.1)
        assert float(classes.float().mean()) == pytest.approx(0.5, abs=0.03)
    for wrong in ({"dimension": 2}, {"noise": -0.1}):
        with pytest.raises(UsageError):
            RotatedDomains(**wrong)
