"""The small task of a search: what it draws, what it measures, and that a good loss beats a wrong one."""

import pytest
import torch

from nearfar.alignment.discovery.proposals import Proposal
from nearfar.alignment.discovery.tabular import fitness, share_of_best, splits
from nearfar.data.synthetic.flipped_choices import FlippedChoices
from nearfar.errors import UsageError


def test_choices_follow_the_reward_but_for_the_turned_ones():
    generator = torch.Generator().manual_seed(0)
    for flips in (0.0, 0.3):
        world = FlippedChoices(flips=flips)
        drawn = world.draw(50, 4000, generator=generator)
        assert torch.allclose(drawn.reward, drawn.features @ world.weight, atol=1e-5)
        assert bool((drawn.chosen != drawn.rejected).all())
        wrong = drawn.reward[drawn.prompt, drawn.chosen] < drawn.reward[drawn.prompt, drawn.rejected]
        assert float(wrong.float().mean()) == pytest.approx(flips, abs=0.03)
    for arguments in ({"answers": 1}, {"flips": 0.5}, {"tails": 0}, {"dimension": 0}):
        with pytest.raises(UsageError):
            FlippedChoices(**arguments)


def test_splits_are_independent_and_a_larger_count_begins_alike():
    few, many = splits(3, count=1, pairs=20), splits(3, count=2, pairs=20)
    assert torch.equal(few[0].choices.features, many[0].choices.features)
    assert not torch.equal(many[0].choices.features, many[1].choices.features)
    assert not torch.equal(few[0].features, splits(4, count=1, pairs=20)[0].features)


def test_a_right_loss_is_worth_more_than_none_and_a_wrong_one_less():
    split = splits(0, count=1)[0]
    right, wrong = (Proposal.of(text).objective_of() for text in ("softplus(-z)", "softplus(z)"))
    found = share_of_best(right, split)
    assert 0.5 < found <= 1
    assert share_of_best(wrong, split) == pytest.approx(-found, abs=0.3)
    assert abs(share_of_best(right, split, steps=0)) < 0.1


def test_fitness_is_the_mean_over_its_splits():
    objective = Proposal.of("softplus(-z)").objective_of()
    each = [share_of_best(objective, split, steps=5) for split in splits(0, count=3)]
    assert fitness(0, count=3, steps=5)(objective) == pytest.approx(sum(each) / 3)
    assert fitness(0, first=2, count=1, steps=5)(objective) == pytest.approx(each[2])
