"""Objectives of sentence papers beside the peers that have them: the same values and gradients."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses as metric_losses
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.objectives import CLAIF, SGBert


def _items(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _assert_equal(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
        assert other.norm() > 1e-6


def test_cosine_similarity_loss() -> None:
    u, v = _items(0, 6, 4), _items(1, 6, 4)
    grade = torch.tensor([0, 0.125, 0.25, 0.5, 0.75, 1], dtype=torch.float64)  # the peer makes them float32
    peer = losses.CosineSimilarityLoss(nn.Module())
    _assert_equal(CLAIF()(u, v, grade), peer.compute_loss_from_embeddings([u, v], grade), [u, v])


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_nt_xent_of_several_positives(memory: str) -> None:
    """pytorch-metric-learning contrasts each positive with the negatives alone, as SG-OPT does, in a mean over pairs:
    the same where every row has as many positives."""
    c, h = _items(2, 5, 4), _items(3, 5, 3, 4)
    ids = torch.arange(5)
    peer = metric_losses.NTXentLoss(temperature=0.2)
    expected = peer(c, ids, ref_emb=h.flatten(0, 1), ref_labels=ids.repeat_interleave(3))
    _assert_equal(SGBert(temperature=0.2)(c, h, memory=memory), expected, [c, h])
    uneven = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4])
    per_pair = peer(c, ids, ref_emb=h.flatten(0, 1), ref_labels=uneven)
    per_row = SGBert(temperature=0.2)(c, h.flatten(0, 1), relation=Paired(ids, uneven), memory=memory)
    assert per_row.item() != pytest.approx(per_pair.item(), rel=1e-3)
