"""Beside sentence-transformers: its contrastive loss on labelled pairs."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer import losses
from torch import nn

from nearfar.contrast import Explicit
from nearfar.objectives import Contrastive

DISTANCES = {
    "cosine": losses.SiameseDistanceMetric.COSINE_DISTANCE,
    "negative-euclidean": losses.SiameseDistanceMetric.EUCLIDEAN,
}


@pytest.mark.parametrize("score", DISTANCES)
def test_contrastive(score: str) -> None:
    """The mean over the given pairs alone, half the squares. Their Euclidean distance adds 1e-6 to each difference."""
    generator = torch.Generator().manual_seed(0)
    one, other = (
        torch.randn(8, 5, generator=generator, dtype=torch.float64).mul(0.3).requires_grad_() for _ in range(2)
    )
    label = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
    peer = losses.ContrastiveLoss(nn.Identity(), distance_metric=DISTANCES[score], margin=0.9)
    expected = peer.compute_loss_from_embeddings([one, other], label)
    relation = Explicit(torch.diag(label).double(), torch.diag(1 - label).double())
    found = Contrastive(margin=0.9, score=score)(one, other, relation=relation)
    tolerance = 1e-9 if score == "cosine" else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    ours, theirs = (torch.autograd.grad(loss, (one, other), retain_graph=True) for loss in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        assert b.norm() > 1e-3
