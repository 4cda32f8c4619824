"""Beside sentence-transformers: MultipleNegativesRankingLoss in all directions, in one softmax and in one each."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from nearfar.contrast import evaluate
from nearfar.contrast.directions import DIRECTIONS
from nearfar.objectives import InfoNCE

Q_D, Q_Q, D_Q, D_D = DIRECTIONS


def _items(seed: int, n: int = 6, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _assert_equal(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
        assert other.norm() > 1e-6


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("directions", [(Q_D,), (Q_D, Q_Q), (Q_D, D_Q), (Q_D, Q_Q, D_Q), (Q_D, D_Q, D_D), DIRECTIONS])
def test_one_softmax(directions: tuple[str, ...], hard: int, memory: str) -> None:
    """The peer takes "doc_to_doc" without "doc_to_query" too, which is refused here."""
    embeddings = [_items(seed) for seed in range(2 + hard)]
    peer = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=10.0, directions=directions)
    expected = peer.compute_loss_from_embeddings(embeddings, torch.tensor([]))
    objective = InfoNCE(temperature=0.1, directions=directions)
    found = evaluate(objective, embeddings[0], torch.cat(embeddings[1:]), memory=memory, tile_rows=5)
    _assert_equal(found, expected, embeddings)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("hard", [0, 2])
def test_one_softmax_a_direction(hard: int, memory: str) -> None:
    embeddings = [_items(seed) for seed in range(2 + hard)]
    peer = losses.MultipleNegativesRankingLoss(
        nn.Identity(), scale=10.0, directions=(Q_D, D_Q), partition_mode="per_direction"
    )
    expected = peer.compute_loss_from_embeddings(embeddings, torch.tensor([]))
    objective = InfoNCE(temperature=0.1, two_sided=True)
    found = evaluate(objective, embeddings[0], torch.cat(embeddings[1:]), memory=memory, tile_rows=5)
    _assert_equal(found, expected, embeddings)
