"""What every view promises, whatever it does: shapes, types, repeatability, what stays untouched."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar import views
from nearfar.errors import DataError, UsageError
from nearfar.views.base import View, checked_range


def _drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))


IMAGES = {"colour": _drawn(6, 3, 9, 7), "grey": _drawn(6, 1, 8, 8), "clips": _drawn(4, 3, 5, 8, 8)}
SERIES = {"channels": _drawn(5, 12, 3), "plain": _drawn(5, 12)}
ROWS = {"rows": _drawn(8, 6)}
EMBEDDED = {"vectors": _drawn(8, 6) - 0.5, "tokens": _drawn(4, 5, 6) - 0.5}
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]])

Maker = Callable[[float], View]
CASES: list[tuple[str, Maker, dict[str, Tensor]]] = [
    ("crop", lambda p: views.RandomResizedCrop(p=p), IMAGES),
    ("flip", lambda p: views.HorizontalFlip(p), IMAGES),
    ("rotate", lambda p: views.Rotate(40, p=p), IMAGES),
    ("jitter", lambda p: views.ColourJitter(p=p), IMAGES),
    ("greyscale", lambda p: views.Greyscale(p), {"colour": IMAGES["colour"], "clips": IMAGES["clips"]}),
    ("blur", lambda p: views.GaussianBlur((0.5, 2), p=p), IMAGES),
    ("erase", lambda p: views.Erase((0.1, 0.3), p=p), IMAGES),
    ("erase with noise", lambda p: views.Erase((0.1, 0.3), value="noise", p=p), IMAGES),
    ("noise", lambda p: views.Noise((0.05, 0.1), p=p), IMAGES),
    ("solarise", lambda p: views.Solarise(p=p), IMAGES),
    ("series jitter", lambda p: views.Jitter(p=p), SERIES),
    ("rescale", lambda p: views.Rescale(p=p), SERIES),
    ("permute", lambda p: views.PermuteSegments((4, 6), p=p), SERIES),
    ("slice", lambda p: views.WindowSlice((0.3, 0.8), p=p), SERIES),
    ("warp", lambda p: views.TimeWarp(0.5, p=p), SERIES),
    ("time mask", lambda p: views.TimeMask((0.2, 0.4), p=p), SERIES),
    ("reverse", lambda p: views.Reverse(p), SERIES),
    ("corrupt", lambda p: views.Corrupt(p=p), ROWS),
    ("corrupt each", lambda p: views.Corrupt(_drawn(20, 6), exact=False, p=p), ROWS),
    ("feature noise", lambda p: views.FeatureNoise(p=p), ROWS),
    ("feature dropout", lambda p: views.FeatureDropout(0.5, p=p), ROWS),
    ("column mix", lambda p: views.ColumnMix(0.5, p=p), ROWS),
    ("interpolate", lambda p: views.Interpolate((0.1, 0.3), p=p), ROWS),
    ("interpolate columns", lambda p: views.Interpolate((0.1, 0.3), by="column", p=p), ROWS),
    ("sphere noise", lambda p: views.SphereNoise(p=p), EMBEDDED),
    ("dropout", lambda p: views.EmbeddingDropout(0.4, p=p), EMBEDDED),
    ("feature cutoff", lambda p: views.FeatureCutoff(0.4, p=p), EMBEDDED),
    ("token cutoff", lambda p: views.TokenCutoff(0.4, p=p), {"tokens": EMBEDDED["tokens"]}),
]
EACH = [
    pytest.param(make, items, id=f"{name}, {kind}") for name, make, inputs in CASES for kind, items in inputs.items()
]


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("make", "items"), EACH)
def test_a_generator_decides_and_the_input_stays(make: Maker, items: Tensor) -> None:
    view, before = make(1.0), items.clone()
    first, again, other = (view(items, generator=_seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(items, before)
    assert first.shape == items.shape
    if type(view) not in (views.HorizontalFlip, views.Greyscale, views.Solarise, views.Reverse):
        assert not torch.equal(first, other)
    assert not torch.equal(first, items)


@pytest.mark.parametrize(("make", "items"), EACH)
def test_without_a_generator_torchs_seed_decides(make: Maker, items: Tensor) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = make(1.0)(items)
        torch.manual_seed(3)
        assert torch.equal(make(1.0)(items), first)


@pytest.mark.parametrize(("make", "items"), EACH)
def test_each_item_is_changed_with_its_probability_and_the_others_not_by_a_bit(make: Maker, items: Tensor) -> None:
    assert torch.equal(make(0.0)(items, generator=_seeded()), items)
    many = items.repeat(60, *[1] * (items.dim() - 1))
    same = (make(0.5)(many, generator=_seeded()) == many).flatten(1).all(1)
    # a few changes may leave an item as it was: all rates here make that rare
    assert 0.4 < same.double().mean() < 0.68


@pytest.mark.parametrize(("make", "items"), EACH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types_stay_and_half_precision_is_close(make: Maker, items: Tensor, dtype: torch.dtype) -> None:
    found = make(0.6)(items.to(dtype), generator=_seeded())
    assert found.dtype == dtype
    if type(make(1.0)) is not views.Solarise:  # a threshold may round to the other side
        reference = make(0.6)(items.to(dtype).float(), generator=_seeded())
        close = {"rtol": 0.02, "atol": 0.02} if dtype != torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found.float(), reference, **close)


@pytest.mark.parametrize(("make", "items"), EACH)
def test_items_stay_on_their_device_with_a_generator_of_the_cpu(make: Maker, items: Tensor) -> None:
    # the meta device computes nothing, but refuses what mixes devices or waits for values
    found = make(1.0)(items.to("meta"), generator=_seeded())
    assert found.is_meta
    assert (found.shape, found.dtype) == (items.shape, items.dtype)


@pytest.mark.parametrize(("make", "items"), EACH)
def test_one_item_none_and_constant_ones(make: Maker, items: Tensor) -> None:
    for p in (1.0, 0.5):
        assert make(p)(items[:1], generator=_seeded()).shape == items[:1].shape
        assert make(p)(items[:0], generator=_seeded()).shape == items[:0].shape
        assert torch.isfinite(make(p)(torch.zeros_like(items), generator=_seeded())).all()


@pytest.mark.parametrize(("make", "items"), EACH)
def test_gradients_reach_the_items(make: Maker, items: Tensor) -> None:
    given = items.clone().requires_grad_()
    make(0.5)(given, generator=_seeded()).square().sum().backward()
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()
    assert (given.grad != 0).flatten(1).any(1).float().mean() > 0.7


@pytest.mark.parametrize(("make", "items"), EACH[:21])
def test_images_stay_in_range(make: Maker, items: Tensor) -> None:
    if items.dim() >= 4:
        extremes = torch.cat([torch.zeros_like(items), torch.ones_like(items), items.round()])
        found = make(1.0)(extremes, generator=_seeded())
        assert -1e-6 <= float(found.min()) <= float(found.max()) <= 1 + 1e-6


def test_compose_applies_in_order_and_views_of_draws_anew() -> None:
    items = IMAGES["grey"]
    flip, erase = views.HorizontalFlip(1.0), views.Erase((0.2, 0.2), p=1.0)
    expected = erase(flip(items, generator=_seeded()), generator=_seeded())
    generator = _seeded()
    found = views.Compose(flip)(items, generator=generator)
    assert torch.equal(found, items.flip(-1))
    assert torch.equal(views.Compose(flip, erase)(items, generator=_seeded()), expected)
    assert views.Compose()(items) is items
    first, second, third = views.views_of(views.Compose(erase), items, 3, generator=_seeded())
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    with pytest.raises(UsageError, match="at least one view"):
        views.views_of(erase, items, 0)


def test_a_plain_function_is_a_view() -> None:
    def halved(items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return items / 2

    items = IMAGES["grey"]
    assert torch.equal(views.Compose(halved, views.HorizontalFlip(1.0))(items), (items / 2).flip(-1))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), True, np.float32(1.5), "0.5", None])
def test_a_probability_outside_0_1_is_refused(p: Any) -> None:
    with pytest.raises(UsageError, match="p must lie in"):
        views.HorizontalFlip(p)


def test_ranges_are_checked() -> None:
    assert checked_range("x", 0.3, 0, 9, around=1) == pytest.approx((0.7, 1.3))
    assert checked_range("x", 1.3, 0, 9, around=1) == pytest.approx((0, 2.3))
    assert checked_range("x", (1, 2), 0, 9) == (1, 2)
    wrong_ones: list[Any] = [(2, 1), (-1, 1), (1, 10), (float("nan"), 1), (1, 2, 3), (1,), True, (0, True), None, "ab"]
    for wrong in [*wrong_ones, np.bool_(True), np.float32("nan"), torch.nn, [[1, 2], [3, 4]]]:
        with pytest.raises(UsageError, match="x must be a range"):
            checked_range("x", wrong, 0, 9)
    for infinite in (float("inf"), np.float64("inf"), (1, float("inf"))):
        with pytest.raises(UsageError, match="finite"):
            checked_range("x", infinite, 0, float("inf"), around=1)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, Fraction])
def test_numbers_of_any_kind_are_options(kind: Any) -> None:
    found = checked_range("x", kind(0.25), 0, 9, around=1)
    assert found == (0.75, 1.25)
    assert set(map(type, found)) == {float}
    assert checked_range("x", (kind(0.5), np.int64(3)), 0, 9) == (0.5, 3)
    for ours, plain in (
        (views.HorizontalFlip(kind(0.5)), views.HorizontalFlip(0.5)),
        (views.Noise(kind(0.5)), views.Noise(0.5)),
        (views.Rotate(kind(-30)), views.Rotate(30)),
        (views.Rotate((np.float32(-30), kind(60))), views.Rotate((-30, 60))),
        (views.ColourJitter(hue=kind(0.25)), views.ColourJitter(hue=(-0.25, 0.25))),
        (views.PermuteSegments(np.int64(3)), views.PermuteSegments(3)),
        (views.RandomResizedCrop(np.int64(3)), views.RandomResizedCrop(3)),
        (views.simclr_views(np.int32(16)), views.simclr_views(16)),
    ):
        assert repr(ours) == repr(plain)


@pytest.mark.parametrize(
    ("view", "items"),
    [
        (views.Rotate(), torch.rand(3, 8, 8)),
        (views.Rotate(), torch.ones(2, 1, 8, 8, dtype=torch.uint8)),
        (views.Rotate(), torch.rand(2, 1, 0, 8)),
        (views.ColourJitter(), torch.rand(2, 2, 8, 8)),
        (views.Greyscale(1.0), torch.rand(2, 4, 8, 8)),
        (views.Jitter(), torch.rand(4)),
        (views.Jitter(), torch.ones(4, 3, dtype=torch.long)),
        (views.Corrupt(), torch.rand(4)),
        (views.SphereNoise(), torch.ones(4, 3, dtype=torch.long)),
        (views.TokenCutoff(), torch.rand(4, 3)),
        (views.CropIds(), torch.rand(4, 3)),
    ],
)
def test_items_of_another_form_are_refused(view: View, items: Tensor) -> None:
    with pytest.raises(DataError):
        view(items, generator=_seeded())


def test_options_are_shown() -> None:
    assert repr(views.Compose(views.Solarise(0.4, p=0.1))) == "Compose(Solarise(p=0.1, threshold=0.4))"
