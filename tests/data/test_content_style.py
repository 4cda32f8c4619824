"""The content and style world: what views share, what they redraw, and that everything comes from the seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.data.synthetic import ContentStyle, random_rotation
from nearfar.errors import UsageError


def _unmixed(world: ContentStyle, view: Tensor) -> tuple[Tensor, Tensor]:
    parts = view @ world.rotation.T
    return parts[:, :8], parts[:, 8:]


def test_shapes_and_the_truth() -> None:
    world = ContentStyle(4, 30, seed=1)
    assert world.dimension == 16
    assert world.content.shape == (30, 8)
    assert world.labels.shape == (30,)
    assert set(world.labels.tolist()) <= set(range(4))
    first, second, third = world.views(torch.tensor([3, 3, 7]), 3)
    assert first.shape == second.shape == third.shape == (3, 16)
    torch.testing.assert_close(world.means.norm(dim=1), torch.ones(4))
    fresh, labels = world.fresh(9)
    assert fresh.shape == (9, 16)
    assert labels.shape == (9,)


def test_all_comes_from_the_seed() -> None:
    one, same, other = (ContentStyle(5, 40, seed=seed) for seed in (2, 2, 3))
    for name in ("means", "rotation", "labels", "content"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))
    torch.manual_seed(0)
    expected = one.fresh(5)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(expected, same.fresh(5), strict=True))


def test_a_generator_decides_and_leaves_the_world_as_it_was() -> None:
    world, untouched = ContentStyle(seed=4), ContentStyle(seed=4)
    index = torch.arange(6)
    drawn = [world.view(world.content[index], generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert torch.equal(world.view(world.content[index]), untouched.view(untouched.content[index]))


def test_content_is_shared_and_style_redrawn() -> None:
    world = ContentStyle(3, 4000, spread=0.5, view_noise=0.2, style=1.5, seed=5)
    (content, style), (again, restyled) = (_unmixed(world, view) for view in world.views(torch.arange(4000)))
    noise = content - world.content
    assert noise.std().item() == pytest.approx(0.2, rel=0.03)
    assert (content - again).std().item() == pytest.approx(0.2 * 2**0.5, rel=0.03)
    assert style.std().item() == pytest.approx(1.5, rel=0.03)
    assert abs((style * restyled).mean().item()) < 0.05
    assert abs((noise * (again - world.content)).mean().item()) < 0.002
    assert (world.content - world.means[world.labels]).std().item() == pytest.approx(0.5, rel=0.03)


def test_no_input_dimension_is_style_alone() -> None:
    world = ContentStyle(seed=6)
    torch.testing.assert_close(world.rotation @ world.rotation.T, torch.eye(16), atol=1e-5, rtol=0)
    from_content = world.rotation[:8].square().sum(0)
    assert ((from_content > 0.01) & (from_content < 0.99)).all()


def test_a_long_tail_has_its_counts() -> None:
    world = ContentStyle([50, 20, 1], items=7, seed=7)
    assert torch.bincount(world.labels).tolist() == [50, 20, 1]
    assert len(world.content) == 71
    _, labels = world.fresh(3000)
    assert torch.bincount(labels, minlength=3).min() > 900


def test_rotations_are_orthogonal_and_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (random_rotation(5, generator) for _ in range(2))
    torch.testing.assert_close(one @ one.T, torch.eye(5), atol=1e-5, rtol=0)
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("arguments", [{"classes": 0}, {"items": 0}, {"classes": [3, 0]}])
def test_a_world_needs_classes_with_items(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one class"):
        ContentStyle(**arguments)
