"""Worlds whose items have a colour that is turned, or a nuisance that views share."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.colour_angle import ColourAngle, on_circle
from nearfar.data.synthetic.nuisance import ContentNuisance
from nearfar.errors import UsageError


def test_turning_the_colour_rotates_the_view() -> None:
    world = ColourAngle(items=50, view_noise=0.0, noise=0.0, seed=3)
    view, turned = (world.view(world.content, world.colour + turn) @ world.rotation.T for turn in (0.0, 0.7))
    torch.testing.assert_close(view[:, :4], world.content)
    torch.testing.assert_close(turned[:, :4], world.content)
    torch.testing.assert_close(view[:, 4:6], on_circle(world.colour))
    turn = torch.tensor(0.7)
    rotation = torch.stack([on_circle(turn[None])[0], on_circle(turn[None] + torch.pi / 2)[0]])
    torch.testing.assert_close(turned[:, 4:6], view[:, 4:6] @ rotation)
    assert view.shape == (50, world.dimension)
    assert float(view[:, 6:].abs().max()) < 1e-6


@pytest.mark.parametrize("parts", [None, 3])
def test_turned_views_have_an_angle_for_each_item_or_part(parts: int | None) -> None:
    world = ColourAngle(items=50, view_noise=0.0, noise=0.0, seed=3)
    index = torch.tensor([4, 0, 7, 7, 30, 2, 9])
    views = world.turned(index, 3, strongest=1.5, parts=parts, generator=torch.Generator().manual_seed(0))
    assert len(views) == 3
    turns = []
    for view in views:
        shown = view @ world.rotation.T
        torch.testing.assert_close(shown[:, :4], world.content[index])
        angle = torch.atan2(shown[:, 5], shown[:, 4]) - world.colour[index]
        turns.append((angle + torch.pi).remainder(2 * torch.pi) - torch.pi)
        assert float(turns[-1].abs().max()) < 1.5
    found = torch.stack(turns).round(decimals=4)
    assert [len(set(of.tolist())) for of in found] == [parts or len(index)] * 3
    assert not torch.equal(found[0], found[1])
    if parts is not None:  # seven rows in three parts of two; the last row is of the last part
        assert torch.equal(found[:, ::2][:, :3], found[:, 1::2])
        assert torch.equal(found[:, 6], found[:, 5])
    assert not torch.equal(*world.turned(index, strongest=1.5))


def test_colours_are_uniform_and_say_nothing_of_the_class() -> None:
    world = ColourAngle(items=8000, seed=0)
    assert float(world.colour.min()) >= 0
    assert float(world.colour.max()) < 2 * torch.pi
    centres = torch.stack([on_circle(world.colour[world.labels == label]).mean(0) for label in range(8)])
    assert float(centres.norm(dim=1).max()) < 0.1
    assert float((world.content - world.means[world.labels]).std()) == pytest.approx(0.15, rel=0.02)


def test_a_seed_makes_a_world_and_a_generator_its_draws() -> None:
    one, other, third = ColourAngle(seed=1), ColourAngle(seed=1), ColourAngle(seed=2)
    assert torch.equal(one.rotation, other.rotation)
    assert torch.equal(one.colour, other.colour)
    assert not torch.equal(one.colour, third.colour)
    drawn = [world.fresh(5, generator=torch.Generator().manual_seed(0))[0] for world in (one, other)]
    assert torch.equal(*drawn)
    with pytest.raises(UsageError, match="at least one class"):
        ColourAngle(0)


def test_views_share_the_nuisance_and_nothing_of_it_is_in_the_class() -> None:
    world = ContentNuisance(4, 4000, view_noise=0.0, nuisance_noise=0.0, seed=5)
    assert torch.equal(world.nuisance, world.content[:, -1])
    one, other = (view @ world.rotation.T for view in world.views(torch.arange(4000)))
    torch.testing.assert_close(one[:, :8], world.content[:, :8])
    torch.testing.assert_close(one[:, 16:], world.nuisance[:, None].expand(-1, 4))
    torch.testing.assert_close(one[:, 16:], other[:, 16:])
    assert not torch.allclose(one[:, 8:16], other[:, 8:16])
    means = [float(world.nuisance[world.labels == label].mean()) for label in range(4)]
    assert max(map(abs, means)) < 0.12
    assert float(world.nuisance.std()) == pytest.approx(1.0, rel=0.05)


def test_the_nuisance_is_seen_through_noise() -> None:
    world = ContentNuisance([3, 2000], nuisance_dimensions=2, nuisance_noise=0.5, seed=0)
    assert world.labels.bincount().tolist() == [3, 2000]
    shown = (world.view(world.content) @ world.rotation.T)[:, 16:]
    assert float((shown - world.nuisance[:, None]).std()) == pytest.approx(0.5, rel=0.05)
    view, labels = world.fresh(7)
    assert (view.shape, labels.shape) == ((7, world.dimension), (7,))
