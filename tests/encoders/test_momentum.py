"""The slowly following copy of an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nearfar.encoders.momentum import MomentumCopy
from nearfar.errors import UsageError


def _encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_moves_by_one_minus_the_momentum() -> None:
    encoder = _encoder()
    copy = MomentumCopy(encoder, 0.9)
    before = encoder[0].weight.detach().clone()
    with torch.no_grad():
        encoder[0].weight.add_(1.0)
    copy.update()
    torch.testing.assert_close(copy.module[0].weight, before + 0.1)
    copy.update()
    torch.testing.assert_close(copy.module[0].weight, before + 0.19)


def test_running_statistics_are_copied() -> None:
    encoder = _encoder()
    copy = MomentumCopy(encoder, 0.9)
    encoder(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)))
    copy.update()
    torch.testing.assert_close(copy.module[1].running_mean, encoder[1].running_mean)
    assert copy.module[1].num_batches_tracked == 1


def test_gives_no_gradient_and_has_no_trained_parameter() -> None:
    encoder = _encoder()
    copy = MomentumCopy(encoder)
    assert not copy(torch.zeros(2, 3)).requires_grad
    assert not any(value.requires_grad for value in copy.parameters())
    assert all(value.requires_grad for value in encoder.parameters())


def test_a_rising_momentum() -> None:
    copy = MomentumCopy(_encoder(), 0.9, final_momentum=1.0, steps=4)
    seen = []
    for _ in range(6):
        seen.append(copy.present_momentum)
        copy.update()
    expected = [1 - 0.1 * (math.cos(math.pi * min(step, 4) / 4) + 1) / 2 for step in range(6)]
    assert seen == pytest.approx(expected)


def test_the_state_holds_the_copy_alone_and_resumes() -> None:
    encoder = _encoder()
    copy = MomentumCopy(encoder, 0.5, final_momentum=1.0, steps=10)
    with torch.no_grad():
        encoder[0].weight.add_(1.0)
    copy.update()
    assert {name.split(".")[0] for name in copy.state_dict()} == {"module", "updates"}
    other = MomentumCopy(encoder, 0.5, final_momentum=1.0, steps=10)
    other.load_state_dict(copy.state_dict())
    for each in (copy, other):
        each.update()
    torch.testing.assert_close(copy.module[0].weight, other.module[0].weight, rtol=0, atol=0)


@pytest.mark.parametrize("arguments", [{"momentum": 1.1}, {"final_momentum": 1.0}, {"final_momentum": 1.0, "steps": 0}])
def test_bad_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        MomentumCopy(_encoder(), **arguments)
