"""Beside pytorch-metric-learning: the same values and gradients where the losses are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers
from torch import Tensor

from nearfar.contrast import Labels, Views, evaluate
from nearfar.objectives import InfoNCE, SupCon, Triplet, VICReg

LABELS = [
    torch.tensor([0, 0, 1, 1, 2, 2, 2, 0]),
    torch.tensor([3, 0, 1, 1, 2, 7, 2, 2]),  # with labels that only one item has
]
WAYS: list[dict[str, Any]] = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 3}]


def _items(seed: int, n: int, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _assert_equal(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    one, other = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        assert b.norm() > 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon(temperature: float, labels: Tensor, way: dict[str, Any]) -> None:
    items = _items(0, 8)
    expected = losses.SupConLoss(temperature=temperature)(items, labels)
    _assert_equal(evaluate(SupCon(temperature=temperature), items, relation=Labels(labels), **way), expected, items)


@pytest.mark.parametrize("way", WAYS)
def test_supcon_against_references(way: dict[str, Any]) -> None:
    items, references = _items(1, 8), _items(2, 6)
    labels, other = LABELS[0], torch.tensor([0, 1, 1, 2, 5, 0])
    expected = losses.SupConLoss(temperature=0.2)(items, labels, ref_emb=references, ref_labels=other)
    found = evaluate(SupCon(temperature=0.2), items, references, relation=Labels(labels, other), **way)
    _assert_equal(found, expected, items, references)


@pytest.mark.parametrize("way", WAYS)
def test_nt_xent_of_two_views(way: dict[str, Any]) -> None:
    one, other = _items(3, 6), _items(4, 6)
    expected = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=0.3), symmetric=True)(one, other)
    found = evaluate(InfoNCE(temperature=0.3), torch.cat([one, other]), relation=Views(2), **way)
    _assert_equal(found, expected, one, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("smooth", [False, True])
def test_triplet(smooth: bool, power: int, labels: Tensor, way: dict[str, Any]) -> None:
    items = _items(5, 8)
    score = {1: "negative-euclidean", 2: "negative-squared-euclidean"}[power]
    distance = distances.LpDistance(normalize_embeddings=False, power=power)
    for average, reducer in (("all", reducers.MeanReducer()), ("active", reducers.AvgNonZeroReducer())):
        peer = losses.TripletMarginLoss(margin=0.4, distance=distance, smooth_loss=smooth, reducer=reducer)
        objective = Triplet(margin=0.4, average=average, smooth=smooth, score=score)
        _assert_equal(evaluate(objective, items, relation=Labels(labels), **way), peer(items, labels), items)


@pytest.mark.parametrize("way", WAYS)
def test_triplet_of_cosines(way: dict[str, Any]) -> None:
    items = _items(6, 8)
    peer = losses.TripletMarginLoss(margin=0.4, distance=distances.CosineSimilarity(), reducer=reducers.MeanReducer())
    objective = Triplet(margin=0.4, score="cosine")
    _assert_equal(evaluate(objective, items, relation=Labels(LABELS[0]), **way), peer(items, LABELS[0]), items)


def test_vicreg() -> None:
    one, other = _items(7, 9), _items(8, 9)
    _assert_equal(VICReg()(one, other), losses.VICRegLoss()(one, ref_emb=other), one, other)
