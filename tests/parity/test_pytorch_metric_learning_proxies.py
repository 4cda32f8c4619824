"""Beside pytorch-metric-learning: proxies and classifiers give the same values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import losses, regularizers
from torch import Tensor, nn

from nearfar.contrast import Labels, evaluate
from nearfar.objectives import (
    ArcFace,
    CosFace,
    NormSoftmax,
    ProxyAnchor,
    ProxyNCA,
    ProxyObjective,
    SoftTriple,
    SphereFace,
)

CLASSES, DIMENSION = 5, 6
LABELS = torch.tensor([0, 0, 3, 1, 1, 1, 3, 0, 2])  # nobody shows class 4
SPARSE = regularizers.SparseCentersRegularizer(CLASSES, 3)

CASES: dict[str, tuple[Callable[[int, int], ProxyObjective], Callable[..., nn.Module], str]] = {
    # theirs has the own proxy in the sum, as Proxy-NCA++; the paper leaves it out
    "proxy-nca": (lambda c, d: ProxyNCA(c, d, include_own=True), losses.ProxyNCALoss, "proxies"),
    "proxy-nca scaled": (
        lambda c, d: ProxyNCA(c, d, include_own=True, scale=3.0),
        lambda c, d: losses.ProxyNCALoss(c, d, softmax_scale=3.0),
        "proxies",
    ),
    "proxy-anchor": (ProxyAnchor, losses.ProxyAnchorLoss, "proxies"),
    "soft-triple": (
        lambda c, d: SoftTriple(c, d, centers=2, tau=0.0),
        lambda c, d: losses.SoftTripleLoss(c, d, centers_per_class=2),
        "fc",
    ),
    "soft-triple regularised": (
        lambda c, d: SoftTriple(c, d, centers=3, tau=0.3),
        lambda c, d: losses.SoftTripleLoss(c, d, centers_per_class=3, weight_regularizer=SPARSE, weight_reg_weight=0.3),
        "fc",
    ),
    "norm-softmax": (NormSoftmax, losses.NormalizedSoftmaxLoss, "W"),
    # theirs gives the margin in degrees
    "arcface": (lambda c, d: ArcFace(c, d, margin=math.radians(28.6)), losses.ArcFaceLoss, "W"),
    "arcface of large margin": (
        lambda c, d: ArcFace(c, d, margin=math.radians(80)),
        lambda c, d: losses.ArcFaceLoss(c, d, margin=80),
        "W",
    ),
    "sub-center-arcface": (
        lambda c, d: ArcFace(c, d, margin=math.radians(28.6), sub_centers=3),
        lambda c, d: losses.SubCenterArcFaceLoss(num_classes=c, embedding_size=d, sub_centers=3),
        "W",
    ),
    "cosface": (CosFace, losses.CosFaceLoss, "W"),
    "sphereface": (SphereFace, losses.SphereFaceLoss, "W"),
    "sphereface of margin 3": (
        lambda c, d: SphereFace(c, d, margin=3, scale=2.0),
        lambda c, d: losses.SphereFaceLoss(c, d, margin=3, scale=2.0),
        "W",
    ),
}


def _drawn(seed: int, rows: int) -> Tensor:
    return torch.randn(rows, DIMENSION, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_the_same_loss(name: str) -> None:
    make, make_peer, weights = CASES[name]
    objective, peer = make(CLASSES, DIMENSION).double(), make_peer(CLASSES, DIMENSION).double()
    assert objective.proxies is not None
    items, proxies = _drawn(0, 9).requires_grad_(), _drawn(1, len(objective.proxies))
    theirs = getattr(peer, weights)
    theirs.data = (proxies if weights == "proxies" else proxies.T).clone()
    objective.proxies.data = proxies
    expected = peer(items, LABELS)
    d_items, d_proxies = torch.autograd.grad(expected, (items, theirs))
    assert d_proxies.norm() > 1e-3
    for way in ({"memory": "dense"}, {"memory": "tiled", "tile_rows": 4}):
        found = evaluate(objective, items, relation=Labels(LABELS), **way)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        one, two = torch.autograd.grad(found, (items, objective.proxies))
        torch.testing.assert_close(one, d_items, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(two, d_proxies if weights == "proxies" else d_proxies.T, rtol=1e-9, atol=1e-9)
