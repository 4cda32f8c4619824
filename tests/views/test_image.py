"""What each view of images does, against exact cases and plain loops."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch
from torch import Tensor

from nearfar import views
from nearfar.errors import DataError, UsageError
from nearfar.views import pixels


def _images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_those_of_rot90(quarter: int) -> None:
    images = _images(4, 3, 8, 8)
    found = pixels.rotate(images, torch.full((4,), 90.0 * quarter))
    torch.testing.assert_close(found, torch.rot90(images, quarter, (2, 3)), rtol=1e-4, atol=1e-5)


def test_a_half_turn_of_an_oblong_image_and_a_turn_for_each() -> None:
    images = _images(3, 1, 5, 9)
    found = pixels.rotate(images, torch.tensor([0.0, 180.0, -180.0]))
    torch.testing.assert_close(found[0], images[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1:], images[1:].flip(2, 3), rtol=1e-4, atol=1e-5)


def test_an_oblong_image_is_turned_without_shear() -> None:
    # a horizontal bar through the centre, a quarter turned, is a vertical bar through the centre
    images = torch.zeros(1, 1, 9, 15)
    images[0, 0, 4, 5:10] = 1
    expected = torch.zeros(1, 1, 9, 15)
    expected[0, 0, 2:7, 7] = 1
    torch.testing.assert_close(pixels.rotate(images, torch.tensor([90.0])), expected, rtol=0, atol=1e-5)


def test_padding_of_a_rotation() -> None:
    white = torch.ones(1, 1, 8, 8)
    assert pixels.rotate(white, torch.tensor([45.0]))[0, 0, 0, 0] == 0
    torch.testing.assert_close(pixels.rotate(white, torch.tensor([45.0]), padding="border"), white)


def test_crops_that_are_pixels_exactly() -> None:
    images = _images(2, 3, 8, 8)
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 0.5, 0.25]])
    found = pixels.crop_and_resize(images, boxes, (2, 4))
    torch.testing.assert_close(found[0], images[0, :, 4:6, 2:6], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], images[1, :, 0:2, 0:4], rtol=1e-5, atol=1e-6)


def test_boxes_have_the_area_and_shape_asked_for_and_lie_inside() -> None:
    crop = views.RandomResizedCrop(scale=(0.1, 0.3), ratio=(0.5, 2.0))
    left, top, width, height = crop.boxes(4000, 20, 40, torch.Generator().manual_seed(0)).unbind(1)
    assert float(torch.stack([left, top]).min()) >= 0
    assert float((left + width).max()) <= 1 + 1e-6
    assert float((top + height).max()) <= 1 + 1e-6
    area, ratio = width * height, (width * 40) / (height * 20)
    assert 0.1 - 1e-6 <= float(area.min()) <= 0.11
    assert 0.29 <= float(area.max()) <= 0.3 + 1e-6
    assert 0.5 - 1e-5 <= float(ratio.min()) <= 0.52
    assert 1.95 <= float(ratio.max()) <= 2 + 1e-5
    assert abs(float(ratio.log().mean())) < 0.03
    # any place is as likely
    assert abs(float((left / (1 - width)).mean()) - 0.5) < 0.02


def test_a_crop_to_another_size() -> None:
    images = _images(5, 1, 8, 8)
    crop = views.RandomResizedCrop((6, 4), p=0.5)
    assert crop(images, generator=torch.Generator().manual_seed(0)).shape == (5, 1, 6, 4)
    assert crop(images[:0]).shape == (0, 1, 6, 4)
    constant = torch.full((5, 1, 8, 8), 0.3)
    torch.testing.assert_close(crop(constant), torch.full((5, 1, 6, 4), 0.3))
    whole = views.RandomResizedCrop(16, p=0.0)(images)
    torch.testing.assert_close(whole, torch.nn.functional.interpolate(images, (16, 16), mode="bilinear"))


def test_the_frames_of_a_clip_are_changed_alike() -> None:
    still = _images(4, 3, 1, 8, 8).expand(4, 3, 6, 8, 8)
    chain = views.Compose(
        views.RandomResizedCrop(), views.Rotate(), views.ColourJitter(p=1.0), views.GaussianBlur(p=1.0), views.Erase()
    )
    found = chain(still, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, found[:, :, :1].expand_as(found))
    single = chain(still[:, :, 0], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[:, :, 0], single)


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.45, 0.5])
def test_hue_is_that_of_hsv(shift: float) -> None:
    images = torch.cat([_images(1, 3, 4, 4), _images(1, 3, 4, 4).round()])
    found = pixels.adjust_hue(images, torch.full((2,), shift))
    for item in range(2):
        for row in range(4):
            for column in range(4):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[item, :, row, column].tolist())
                expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
                torch.testing.assert_close(
                    found[item, :, row, column], torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5
                )


def test_brightness_contrast_and_saturation_by_hand() -> None:
    images = torch.tensor([0.2, 0.4, 0.9]).reshape(1, 3, 1, 1).repeat(2, 1, 1, 2)
    images[..., 1] = 0.5
    factor = torch.tensor([0.5, 2.0])
    bright = pixels.adjust_brightness(images, factor)
    torch.testing.assert_close(bright[:, :, 0, 0], torch.tensor([[0.1, 0.2, 0.45], [0.4, 0.8, 1.0]]))
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.9
    saturated = pixels.adjust_saturation(images, factor)
    expected = torch.tensor([[grey + f * (v - grey) for v in (0.2, 0.4, 0.9)] for f in (0.5, 2.0)]).clamp(0, 1)
    torch.testing.assert_close(saturated[:, :, 0, 0], expected)
    torch.testing.assert_close(saturated[..., 1], images[..., 1])
    mean = (grey + 0.5) / 2
    contrast = pixels.adjust_contrast(images, factor)
    expected = torch.tensor([[mean + f * (v - mean) for v in (0.2, 0.4, 0.9)] for f in (0.5, 2.0)]).clamp(0, 1)
    torch.testing.assert_close(contrast[:, :, 0, 0], expected)


def test_grey_is_grey() -> None:
    found = views.Greyscale(1.0)(_images(2, 3, 4, 4))
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    assert torch.equal(views.Greyscale(1.0)(_images(2, 1, 4, 4)), _images(2, 1, 4, 4))
    assert torch.equal(pixels.adjust_hue(_images(2, 1, 4, 4), torch.ones(2)), _images(2, 1, 4, 4))


def test_blur_is_a_gaussian_mean() -> None:
    images, sigma = _images(2, 1, 5, 6).double(), torch.tensor([0.7, 1.9], dtype=torch.float64)
    found = pixels.blur(images, sigma)
    for item in range(2):
        for row, column in ((0, 0), (2, 3), (4, 5)):
            total = weight = 0.0
            for y in range(5):
                for x in range(6):
                    near = math.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * float(sigma[item]) ** 2))
                    total += near * float(images[item, 0, y, x])
                    weight += near
            assert float(found[item, 0, row, column]) == pytest.approx(total / weight)
    constant = torch.full((2, 1, 5, 6), 0.4)
    torch.testing.assert_close(pixels.blur(constant, sigma), constant)
    torch.testing.assert_close(pixels.blur(images, torch.zeros(2)), images)


@pytest.mark.parametrize(("h", "w"), [(10, 10), (6, 14), (1, 9)])
def test_erasing_takes_one_box_of_the_share(h: int, w: int) -> None:
    images = torch.ones(500, 2, h, w)
    gone = views.Erase((0.1, 0.3), p=1.0)(images, generator=torch.Generator().manual_seed(0)) == 0
    assert torch.equal(gone[:, 0], gone[:, 1])
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        starts = line[:, :1].int().sum(1) + (line.int().diff(dim=1) == 1).sum(1)
        assert torch.equal(starts, torch.ones_like(starts))
    share = gone[:, 0].double().mean((1, 2))
    if h > 1:
        assert 0.15 < float(share.mean()) < 0.23
    assert float(share.min()) > 0


def test_noise_has_its_deviation_and_solarise_turns_the_bright() -> None:
    images = torch.full((4, 1, 50, 50), 0.5)
    found = views.Noise(0.1)(images, generator=torch.Generator().manual_seed(0))
    assert float((found - images).std()) == pytest.approx(0.1, rel=0.05)
    solar = views.Solarise(0.5, p=1.0)(torch.tensor([0.2, 0.5, 0.9]).reshape(1, 1, 1, 3))
    torch.testing.assert_close(solar.flatten(), torch.tensor([0.2, 0.5, 0.1]))


def test_nan_stays_in_its_image() -> None:
    images = _images(3, 3, 8, 8)
    images[1, 0, 2, 2] = float("nan")
    found = views.simclr_views(8, blur=True)(images, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(found[[0, 2]]).all()


def test_the_preset_of_simclr() -> None:
    large, small = views.simclr_views(224), views.simclr_views(32)
    assert [type(view).__name__ for view in large.views] == [
        "RandomResizedCrop",
        "HorizontalFlip",
        "ColourJitter",
        "Greyscale",
        "GaussianBlur",
    ]
    assert large.views[0].scale == (0.08, 1.0)
    assert large.views[2].hue == pytest.approx((-0.2, 0.2))
    assert large.views[4].sigma == pytest.approx((0.1, 2.0))
    assert [type(view).__name__ for view in small.views][-1] == "Greyscale"
    assert small.views[2].brightness == pytest.approx((0.6, 1.4))
    assert views.simclr_views(8).views[0].scale == (0.5, 1.0)
    assert views.simclr_views(16, crop=(0.1, 0.2)).views[0].scale == (0.1, 0.2)
    assert not any(isinstance(view, views.HorizontalFlip) for view in views.simclr_views(32, flip=False).views)
    assert views.simclr_views((12, 20))(_images(3, 3, 40, 40)).shape == (3, 3, 12, 20)
    with pytest.raises(UsageError):
        views.simclr_views(0)


def test_wrong_options_are_refused() -> None:
    for make in (
        lambda: views.RandomResizedCrop(scale=(0.5, 0.1)),
        lambda: views.RandomResizedCrop(0),
        lambda: views.Rotate(500),
        lambda: views.Rotate(padding="mirror"),
        lambda: views.ColourJitter(hue=0.6),
        lambda: views.Erase(value="rainbow"),
        lambda: views.GaussianBlur((-1, 2)),
    ):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(DataError, match="255"):
        views.Rotate()(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
