"""Beside pytorch-metric-learning: Smooth-AP, where the peer is right."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.losses import SmoothAPLoss

from nearfar.contrast import Labels, evaluate
from nearfar.objectives import SmoothAP


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize(("classes", "temperature"), [(3, 0.1), (4, 0.05), (2, 0.5)])
def test_smooth_ap(classes: int, temperature: float, memory: str) -> None:
    """As many classes as items a class, grouped; the peer's precisions are rounded to float32."""
    generator = torch.Generator().manual_seed(classes)
    x = torch.randn(classes * classes, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(classes).repeat_interleave(classes)
    expected = SmoothAPLoss(temperature=temperature)(x, labels)
    objective = SmoothAP(own=True, temperature=temperature)
    found = evaluate(objective, x, relation=Labels(labels), memory=memory, tile_rows=4)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-7)
    one, other = torch.autograd.grad(found, x)[0], torch.autograd.grad(expected, x)[0]
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    order = torch.randperm(len(x), generator=generator)
    moved = evaluate(objective, x[order], relation=Labels(labels[order]), memory=memory)
    torch.testing.assert_close(moved, found)


def test_smooth_ap_where_the_peer_takes_wrong_positives() -> None:
    """Three classes of two: the peer reads them as two classes of three."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(2)
    peer = SmoothAPLoss(temperature=0.1)(x, labels)
    as_read = SmoothAP(own=True, temperature=0.1)(x, relation=Labels(torch.arange(2).repeat_interleave(3)))
    found = SmoothAP(own=True, temperature=0.1)(x, relation=Labels(labels))
    assert abs(float(found - peer)) > 1e-3
    assert abs(float(found - as_read)) > 1e-3
