"""Beside pytorch-metric-learning: NTXentLoss with labels, NPairsLoss, NCALoss, SupConLoss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses
from torch import Tensor

from nearfar.contrast import Labels, evaluate
from nearfar.objectives import NCA, NPairs, get
from nearfar.objectives.pairwise_softmax import one_pair_a_label

LABELS = [
    torch.tensor([0, 0, 1, 1, 2, 2, 2, 0, 0]),
    torch.tensor([3, 0, 1, 1, 2, 7, 2, 2, 1]),  # with labels that only one item has
]
WAYS: list[dict[str, Any]] = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 4}]


def _items(seed: int, n: int = 9, d: int = 5) -> Tensor:
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
def test_nt_xent_with_labels(temperature: float, labels: Tensor, way: dict[str, Any]) -> None:
    """Each positive pair has a denominator of its own, and the mean is over pairs."""
    items = _items(0)
    objective = get("nt-xent-labels", temperature=temperature)
    expected = losses.NTXentLoss(temperature=temperature)(items, labels)
    _assert_equal(evaluate(objective, items, relation=Labels(labels), **way), expected, items)


@pytest.mark.parametrize("way", WAYS)
def test_nt_xent_against_references(way: dict[str, Any]) -> None:
    items, references, other = _items(1), _items(2, 6), torch.tensor([0, 1, 1, 2, 5, 0])
    expected = losses.NTXentLoss(temperature=0.3)(items, LABELS[0], ref_emb=references, ref_labels=other)
    objective = get("nt-xent-labels", temperature=0.3)
    found = evaluate(objective, items, references, relation=Labels(LABELS[0], other), **way)
    _assert_equal(found, expected, items, references)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("normalized", [True, False])
def test_n_pairs(normalized: bool, labels: Tensor) -> None:
    """The peer's default distance normalises; the paper's dot products are of embeddings as they are."""
    items = _items(3)
    peer = losses.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=normalized))
    anchors, positives = one_pair_a_label(labels)
    objective = NPairs(score="cosine" if normalized else "dot")
    _assert_equal(objective(items[anchors], items[positives]), peer(items, labels), items)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_nca(scale: float, labels: Tensor, way: dict[str, Any]) -> None:
    items = _items(4)
    peer = losses.NCALoss(softmax_scale=scale, distance=distances.LpDistance(normalize_embeddings=False, power=2))
    found = evaluate(NCA(temperature=1 / scale), items, relation=Labels(labels), **way)
    _assert_equal(found, peer(items, labels), items)
