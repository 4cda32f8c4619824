"""Small convolutional encoders of images and clips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.encoders.vision import ClipEncoder, ConvolutionalEncoder, Norm
from nearfar.errors import UsageError

NORMS = ["group", "batch", None]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (17, 5)])
def test_images_of_any_size(norm: Norm | None, size: tuple[int, int]) -> None:
    encoder = ConvolutionalEncoder(3, (4, 6), 10, norm=norm)
    embeddings = encoder(torch.rand(4, 3, *size))
    assert embeddings.shape == (4, 10)
    embeddings.square().sum().backward()
    assert all(
        torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in [encoder.last.weight, encoder.last.bias]
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 8, 8), (7, 5, 6)])
def test_clips_of_any_size(norm: Norm | None, size: tuple[int, int, int]) -> None:
    encoder = ClipEncoder(1, (4, 6, 8), 10, norm=norm)
    embeddings = encoder(torch.rand(4, 1, *size))
    assert embeddings.shape == (4, 10)
    embeddings.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_strides() -> None:
    assert ConvolutionalEncoder(1, (4, 4, 4)).feature_map(torch.rand(2, 1, 8, 8)).shape == (2, 4, 2, 2)
    assert ClipEncoder(1, (4, 4, 4)).feature_map(torch.rand(2, 1, 8, 8, 8)).shape == (2, 4, 4, 2, 2)


def test_group_norm_leaves_items_independent() -> None:
    encoder, images = ConvolutionalEncoder(), torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(encoder(images)[:2], encoder(images[:2]), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())
    batch = ConvolutionalEncoder(norm="batch")
    assert not torch.allclose(batch(images)[:2], batch(images[:2]))


def test_a_clip_encoder_sees_the_direction_of_time() -> None:
    clip = torch.zeros(1, 1, 8, 8, 8)
    for t in range(8):
        clip[0, 0, t, :, t] = 1
    encoder = ClipEncoder()
    assert not torch.allclose(encoder(clip), encoder(clip.flip(2)), atol=1e-4)


def test_what_cannot_be_is_refused() -> None:
    for options in ({"widths": ()}, {"channels": 0}, {"dimension": 0}, {"norm": "layer"}):
        with pytest.raises(UsageError):
            ConvolutionalEncoder(**options)
    with pytest.raises(ValueError, match=r"\[n, 1, h, w\]"):
        ConvolutionalEncoder(1)(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\[n, 1, t, h, w\]"):
        ClipEncoder(1)(torch.rand(2, 1, 8, 8))
