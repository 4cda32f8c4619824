"""Worlds of attributes, of a curve and of two sets: what they say is there is there, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.data.synthetic import AttributeCodes, BackgroundTarget, ContentCurve, ContentStyle, StyledItems
from nearfar.errors import UsageError


@pytest.mark.parametrize("kind", [AttributeCodes, ContentCurve, ContentStyle])
def test_views_keep_the_content_and_redraw_the_style(kind: type[ContentStyle]) -> None:
    world: StyledItems = kind(items=60, view_noise=0.0, seed=2)
    one, other = world.views(torch.arange(60), generator=torch.Generator().manual_seed(5))
    assert one.shape == (60, world.dimension)
    kept = world.content.shape[1]
    first, second = (view @ world.rotation.T for view in (one, other))
    torch.testing.assert_close(first[:, :kept], world.content, atol=1e-5, rtol=0)
    torch.testing.assert_close(second[:, :kept], world.content, atol=1e-5, rtol=0)
    styles = torch.cat([first, second])[:, kept:]
    assert float(styles.std()) == pytest.approx(world.style, rel=0.1)
    assert abs(float((first * second)[:, kept:].mean())) < 0.2 * world.style**2
    again = world.views(torch.arange(60), generator=torch.Generator().manual_seed(5))
    assert torch.equal(one, again[0])
    assert torch.equal(other, again[1])
    assert not torch.equal(one, other)


def test_classes_are_codes_and_as_far_apart_as_their_codes_differ() -> None:
    world = AttributeCodes((2, 3), 300, attribute_dimensions=3, seed=1)
    assert world.codes.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert world.shared.diagonal().tolist() == [2] * 6
    assert world.shared[0].tolist() == [2, 1, 1, 1, 0, 0]
    differ = world.codes[:, None] != world.codes[None]
    # two values are opposite unit vectors, three are corners of an equilateral triangle in the unit circle
    expected = differ[..., 0] * 4.0 + differ[..., 1] * 3.0
    torch.testing.assert_close(torch.cdist(world.means, world.means).square(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(world.means.square().sum(1), torch.full((6,), 2.0))
    assert set(world.labels.tolist()) == set(range(6))
    assert float((world.content - world.means[world.labels]).std()) == pytest.approx(0.35, rel=0.1)


def test_a_single_attribute_is_a_world_too() -> None:
    world = AttributeCodes((4,), 10)
    assert world.codes.tolist() == [[0], [1], [2], [3]]
    assert world.view(world.content).shape == (10, 16)


def test_fresh_items_are_of_the_same_world() -> None:
    codes, curve = AttributeCodes(seed=4, style=0.0), ContentCurve(seed=4, style=0.0, view_noise=0.0, spread=0.0)
    view, labels = codes.fresh(2000, generator=torch.Generator().manual_seed(0))
    found = (view @ codes.rotation.T)[:, :12]
    assert float((found - codes.means[labels]).std()) == pytest.approx(0.35, rel=0.05)
    view, numbers = curve.fresh(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((view @ curve.rotation.T)[:, :8], curve.centre(numbers), atol=1e-5, rtol=0)


def test_near_numbers_have_near_contents() -> None:
    world = ContentCurve(highest=30.0, items=500, smoothness=4.0, content_dimensions=400, spread=0.0, seed=0)
    assert ((world.labels >= 0) & (world.labels <= 30)).all()
    assert torch.equal(world.labels, world.labels.round())
    assert len(set(world.labels.tolist())) == 31
    apart = torch.cdist(world.centre(torch.tensor([0.0, 1.0, 4.0, 30.0])), world.centre(torch.zeros(1)))[:, 0].square()
    # E (cos(wy + b) - cos(b))^2 = 1 - exp(-y^2 / (2 smoothness^2))
    expected = 1 - (-torch.tensor([0.0, 1.0, 4.0, 30.0]).square() / 32).exp()
    torch.testing.assert_close(apart / 400, expected, atol=0.12, rtol=0)
    assert not torch.equal(ContentCurve(whole=False).labels, ContentCurve(whole=False).labels.round())


def test_only_targets_show_the_salient_factor() -> None:
    world = BackgroundTarget(5, 2, 400, seed=3)
    assert 0.4 < float(world.target.float().mean()) < 0.6
    assert (world.salient[~world.target] == -1).all()
    assert set(world.salient[world.target].tolist()) == {0, 1}
    assert set(world.common[world.target].tolist()) == set(world.common[~world.target].tolist()) == set(range(5))
    one_hot = torch.nn.functional.one_hot
    found = world.signal @ torch.cat([world.common_axes, world.salient_axes]).T
    torch.testing.assert_close(found[:, :5], one_hot(world.common, 5).float(), atol=1e-5, rtol=0)
    expected = one_hot(world.salient.clamp_min(0), 2) * world.target[:, None]
    torch.testing.assert_close(found[:, 5:], expected.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(world.signal.square().sum(1), 1 + world.target.float())


def test_both_factors_are_drawn_apart() -> None:
    world = BackgroundTarget(2, 2, 4000, seed=1)
    ours = world.target
    together = float((world.common[ours] * world.salient[ours]).float().mean())
    assert together == pytest.approx(0.25, abs=0.05)


def test_views_of_both_sets_redraw_the_noise() -> None:
    world = BackgroundTarget(items=300, noise=0.2, spread=0.5, seed=1)
    index = torch.tensor([3, 1, 200])
    one, other = world.views(index, generator=torch.Generator().manual_seed(0))
    assert one.shape == (3, 16)
    assert not torch.equal(one, other)
    noise = torch.cat(world.views(torch.arange(300))) - world.signal.repeat(2, 1)
    assert float(noise.std()) == pytest.approx(0.2, rel=0.05)
    around = world.signal @ world.common_axes.T - torch.nn.functional.one_hot(world.common, 4)
    assert float(around.std()) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("kind", [AttributeCodes, ContentCurve, ContentStyle, BackgroundTarget])
def test_the_seed_decides_everything(kind: Any) -> None:
    def seen(world: Any) -> torch.Tensor:
        found: torch.Tensor = world.views(torch.arange(10))[0]
        return found

    assert torch.equal(seen(kind(items=20, seed=7)), seen(kind(items=20, seed=7)))
    assert not torch.equal(seen(kind(items=20, seed=7)), seen(kind(items=20, seed=8)))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: AttributeCodes(()), "2 values"),
        (lambda: AttributeCodes((2, 1)), "2 values"),
        (lambda: AttributeCodes((6,), attribute_dimensions=4), "equally far apart"),
        (lambda: ContentCurve(highest=0), "above 0"),
        (lambda: ContentCurve(smoothness=0), "above 0"),
        (lambda: BackgroundTarget(common=0), "at least one"),
        (lambda: BackgroundTarget(dimensions=6), "right angles"),
    ],
)
def test_worlds_that_cannot_be(make: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        make()
