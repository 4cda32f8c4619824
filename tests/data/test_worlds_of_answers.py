"""Worlds of answers with known truth: what they promise is so."""

import pytest
import torch

from nearfar.data.synthetic.answer_islands import AnswerIslands
from nearfar.data.synthetic.cyclic_answers import CyclicAnswers
from nearfar.data.synthetic.featured_answers import FeaturedAnswers
from nearfar.data.synthetic.graded_questions import GradedQuestions
from nearfar.data.synthetic.peaked_bandit import PeakedBandit
from nearfar.errors import UsageError


def test_the_peak_is_where_it_is_said_to_be():
    world = PeakedBandit(70)
    assert int(world.reward.argmax()) == 70
    assert float(world.reward[0, 80]) == pytest.approx(torch.exp(torch.tensor(-1.0)).item())
    assert int(world.reference.argmax()) == 20
    assert float(world.reference[0, 35]) == pytest.approx(-0.5)
    assert float(world.reference.min()) == -12
    # what the reference gets of the far peak, as the card's trial had it
    assert float((world.reference.softmax(1) * world.reward).sum()) == pytest.approx(0.005, abs=0.001)
    with pytest.raises(UsageError):
        PeakedBandit(70, width=0)


def test_questions_are_answered_rightly_at_the_rates_that_are_said():
    world = GradedQuestions(12, 20, right_answers=3, hardest=0.05, easiest=0.9, seed=3)
    assert world.right.sum(1).tolist() == [3.0] * 12
    rate = (world.reference.softmax(1) * world.right).sum(1)
    assert torch.allclose(rate, torch.linspace(0.05, 0.9, 12, dtype=torch.float64))
    assert torch.allclose(rate, world.rate)
    assert not torch.equal(world.right, GradedQuestions(12, 20, right_answers=3, seed=4).right)
    for wrong in ({"right_answers": 20}, {"hardest": 0.0}, {"easiest": 1.0}, {"questions": 1}):
        with pytest.raises(UsageError):
            GradedQuestions(**{"answers": 20, **wrong})


def test_features_explain_rewards():
    world = FeaturedAnswers(400, 10, width=5, offset=3.0, seed=1)
    flat = world.features.reshape(-1, 5)
    found = torch.linalg.lstsq(flat, world.reward.reshape(-1, 1)).solution
    assert torch.allclose(flat @ found, world.reward.reshape(-1, 1), atol=1e-8)
    assert float(found.norm()) == pytest.approx(1.0)
    assert float(world.reward.var()) == pytest.approx(1.0, abs=0.1)
    assert float(world.offset.std()) == pytest.approx(3.0, abs=0.4)
    assert not bool(FeaturedAnswers().offset.any())
    with pytest.raises(UsageError):
        FeaturedAnswers(offset=-1.0)


def test_each_answer_beats_the_next_one_and_none_is_best():
    world = CyclicAnswers(5, seed=2)
    beats = world.preference > 0.5
    for first, second in ((0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)):
        assert bool(beats[:, first, second].all())
        assert not bool(beats[:, second, first].any())
    assert torch.allclose(world.preference + world.preference.transpose(1, 2), torch.ones((), dtype=torch.float64))
    assert bool((world.preference[:, :3, 3] == 0.9).all())
    with pytest.raises(UsageError):
        CyclicAnswers(low=0.4)


def test_islands_lie_apart_and_one_is_overrated():
    world = AnswerIslands(8, seed=5)
    assert world.island.bincount().tolist() == [10] * 6
    mean = torch.stack([world.reward[:, world.island == i].mean() for i in range(6)])
    assert torch.allclose(mean, torch.tensor([1.0, -1.0, -0.7, -0.8, -0.9, -1.0]).double(), atol=0.03)
    apart = world.judged - world.reward
    assert torch.allclose(apart, 1.2 * (world.island == 1).double().expand(8, -1))
    nearest = torch.cdist(world.embeddings, world.embeddings) + 99 * torch.eye(60)
    same = world.island[nearest.argmin(2)] == world.island
    assert float(same.double().mean()) > 0.95
    mass = world.mass(world.reference.softmax(1))
    assert mass.shape == (8, 6)
    assert torch.allclose(mass.sum(1), torch.ones(8, dtype=torch.float64))
    by_hand = sum(float(world.reference.softmax(1)[3, a]) for a in range(60) if int(world.island[a]) == 2)
    assert float(mass[3, 2]) == pytest.approx(by_hand)
    with pytest.raises(UsageError):
        AnswerIslands(levels=(1.0,))
