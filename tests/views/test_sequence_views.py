"""Views of time series and of sequences of ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar import views
from nearfar.errors import DataError, UsageError
from nearfar.views.sequence import resample

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 0, 0, 0, 0, 0], [21] + [0] * 9, [0] * 10])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _own(row: Tensor) -> list[int]:
    return [value for value in row.tolist() if value]


def test_resampling_is_linear_interpolation() -> None:
    series = torch.rand(3, 9, 2, generator=_generator(), dtype=torch.float64)
    times = 8 * torch.rand(3, 14, generator=_generator(1), dtype=torch.float64)
    found = resample(series, times)
    for i in range(3):
        for c in range(2):
            expected = np.interp(times[i].numpy(), np.arange(9), series[i, :, c].numpy())
            np.testing.assert_allclose(found[i, :, c].numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(resample(series, torch.arange(9.0).expand(3, 9)), series)
    assert torch.equal(resample(series[:, :1], torch.zeros(3, 4)), series[:, :1].expand(3, 4, 2))


def test_a_window_of_a_ramp_is_a_ramp() -> None:
    ramp = torch.arange(21.0).expand(300, 21)
    found = views.WindowSlice((0.25, 0.75))(ramp, generator=_generator())
    steps = found.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-3, atol=1e-4)
    length = found[:, -1] - found[:, 0]
    assert 5 - 1e-3 <= float(length.min()) < 5.5
    assert 14.5 < float(length.max()) <= 15 + 1e-3
    assert float(found.min()) >= 0
    assert float(found.max()) <= 20
    torch.testing.assert_close(views.WindowSlice(1.0)(ramp, generator=_generator()), ramp)


def test_warped_time_runs_forward_between_the_same_ends() -> None:
    ramp = torch.arange(21.0, dtype=torch.float64).expand(300, 21)
    found = views.TimeWarp(0.5)(ramp, generator=_generator())
    assert float(found.diff(dim=1).min()) > 0
    torch.testing.assert_close(found[:, [0, -1]], ramp[:, [0, -1]], rtol=0, atol=1e-5)
    assert float((found - ramp).abs().max()) > 1
    torch.testing.assert_close(views.TimeWarp(0.0)(ramp, generator=_generator()), ramp, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "segments"), [(20, 5), (13, 4), (6, 40)])
def test_permuted_segments_keep_their_inside(length: int, segments: int) -> None:
    series = torch.arange(float(length)).expand(50, length)
    found = views.PermuteSegments(segments)(series, generator=_generator())
    assert torch.equal(found.sort(1).values, series)
    count = min(segments, length)
    bounds = {step for step in range(length) if step * count // length != (step - 1) * count // length}
    for row in found.tolist():
        jumps = [row[i] for i in range(1, length) if row[i] != row[i - 1] + 1]
        assert set(jumps) <= bounds
    assert len(found.unique(dim=0)) > 10


def test_the_number_of_segments_varies() -> None:
    series = torch.arange(24.0).expand(400, 24)
    found = views.PermuteSegments((1, 3))(series, generator=_generator())
    unchanged = (found == series).all(1).double().mean()
    assert float(unchanged) == pytest.approx((1 + 1 / 2 + 1 / 6) / 3, abs=0.08)


def test_masked_time_is_one_stretch() -> None:
    series = torch.ones(500, 20, 3)
    found = views.TimeMask((0.2, 0.4))(series, generator=_generator())
    gone = found[:, :, 0] == 0
    assert torch.equal(found == 0, gone[:, :, None].expand_as(found))
    starts = gone[:, :1].int().sum(1) + (gone.int().diff(dim=1) == 1).sum(1)
    assert torch.equal(starts, torch.ones_like(starts))
    assert set(gone.sum(1).unique().tolist()) == {4, 5, 6, 7, 8}
    assert gone.any(0).all()  # every step can be reached
    assert torch.equal(views.TimeMask(1.0, value=9)(series), torch.full_like(series, 9))


def test_jitter_and_rescaling() -> None:
    series = torch.ones(200, 50, 2)
    assert float((views.Jitter(0.2)(series, generator=_generator()) - 1).std()) == pytest.approx(0.2, rel=0.05)
    found = views.Rescale(0.3)(series, generator=_generator())
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert float(found[:, 0].std()) == pytest.approx(0.3, rel=0.15)
    assert torch.equal(views.Reverse(1.0)(series.cumsum(1))[:, 0], series.cumsum(1)[:, -1])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", range(5))
def test_ids_keep_their_order_in_a_crop(side: str, seed: int) -> None:
    ids = IDS if side == "right" else IDS.flip(1)
    found = views.CropIds(0.6, padding_side=side)(ids, generator=_generator(seed))
    for before, after, length in zip(ids, found, (6, 3, 1, 0), strict=True):
        own = _own(before)
        kept = _own(after)
        assert len(kept) == length
        assert kept in [own[i : i + length] for i in range(len(own) - length + 1)]
        padded = after.tolist()
        assert padded == (kept + [0] * (10 - length) if side == "right" else [0] * (10 - length) + kept)


@pytest.mark.parametrize("seed", range(5))
def test_masked_ids_are_counted_exactly(seed: int) -> None:
    found = views.MaskIds(99, 0.3)(IDS, generator=_generator(seed))
    assert (found == 99).sum(1).tolist() == [3, 1, 0, 0]
    assert torch.equal(torch.where(found == 99, IDS, found), IDS)
    assert not ((found == 99) & (IDS == 0)).any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_reordering_shuffles_one_stretch(side: str) -> None:
    ids = IDS if side == "right" else IDS.flip(1)
    many = ids.repeat(100, 1)
    found = views.ReorderIds(0.6, padding_side=side)(many, generator=_generator())
    assert torch.equal(found == 0, many == 0)
    assert torch.equal(found.sort(1).values, many.sort(1).values)
    changed = found != many
    for row, size in ((0, 6), (1, 3)):
        where = changed[row::4].int()
        first, last = where.argmax(1), 9 - where.flip(1).argmax(1)
        assert int((last - first + 1)[where.any(1)].max()) == size
        assert where.any(0).sum() == (10 if row == 0 else 5)  # any of its places can be meant
    assert not changed[2::4].any()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="mask and padding"):
        views.MaskIds(0)
    with pytest.raises(UsageError, match="padding_side"):
        views.CropIds(padding_side="middle")
    with pytest.raises(UsageError, match="share"):
        views.CropIds(1.5)
    with pytest.raises(UsageError, match="knots"):
        views.TimeWarp(knots=1)
    with pytest.raises(UsageError, match="stretches"):
        views.TimeMask(stretches=0)
    with pytest.raises(DataError):
        views.MaskIds(5)(torch.rand(3, 4))


def test_ids_come_from_the_generator_and_p() -> None:
    view = views.Compose(views.CropIds(), views.MaskIds(99), views.ReorderIds())
    assert torch.equal(view(IDS, generator=_generator(3)), view(IDS, generator=_generator(3)))
    assert torch.equal(views.ReorderIds(1.0, p=0.0)(IDS), IDS)
    half = views.CropIds(0.5, p=0.5)(IDS[:1].repeat(400, 1), generator=_generator())
    assert float((half == IDS[0]).all(1).double().mean()) == pytest.approx(0.5, abs=0.08)
