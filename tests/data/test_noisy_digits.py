from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.noisy_digits import NoisyDigits
from nearfar.errors import UsageError


@pytest.fixture(scope="module")
def digits() -> NoisyDigits:
    return NoisyDigits()


def test_the_split_is_fixed_and_complete(digits: NoisyDigits) -> None:
    assert digits.train_images.shape == (1297, 1, 8, 8)
    assert digits.test_images.shape == (500, 1, 8, 8)
    assert torch.equal(NoisyDigits().test_images, digits.test_images)
    everything = torch.cat([digits.train_images, digits.test_images])
    assert float(everything.max()) == 1
    assert float(everything.mean()) == pytest.approx(4.8842 / 16, abs=1e-4)
    assert int(torch.bincount(digits.test_labels, minlength=10).min()) > 30


def test_partners_are_other_images_of_the_same_digit(digits: NoisyDigits) -> None:
    index = torch.arange(1297)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(20):
        partners = digits.partners(index, generator=generator)
        assert torch.equal(digits.train_labels[partners], digits.train_labels)
        assert bool((partners != index).all())
        seen.add(int(partners[0]))
    assert len(seen) > 10


def test_views(digits: NoisyDigits) -> None:
    index = torch.arange(200)
    one, other = digits.views(index, generator=torch.Generator().manual_seed(1))
    again, _ = digits.views(index, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one, again)
    assert one.shape == other.shape == (200, 1, 8, 8)
    assert not torch.allclose(one, digits.train_images[index])
    assert 0 <= float(other.min()) <= float(other.max()) <= 1
    # noise fills the empty corners: uniform there, mean one half
    assert float(other[:, :, :, 0].mean()) == pytest.approx(0.5, abs=0.05)


def test_views_without_change() -> None:
    plain = NoisyDigits(degrees=0.0, noise=0.0)
    index = torch.arange(50)
    one, other = plain.views(index, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(one, plain.train_images[index])
    partners = plain.partners(index, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(plain.noisy(plain.train_images[partners]), plain.train_images[partners])
    assert other.shape == one.shape
    with pytest.raises(UsageError, match="noise"):
        NoisyDigits(noise=-1.0)
