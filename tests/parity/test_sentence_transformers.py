"""Beside sentence-transformers: the same values and gradients where the losses are the same."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from nearfar.contrast import Labels, Paired, evaluate
from nearfar.objectives import InfoNCE, RowObjective, Triplet


class Passing(nn.Module):
    """Stands in for a model: the losses are called on embeddings."""


def _items(seed: int, n: int, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _assert_equal(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
        assert other.norm() > 1e-6


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("hard", [0, 1, 3])
@pytest.mark.parametrize("scale", [5.0, 20.0])
def test_multiple_negatives_ranking(scale: float, hard: int, memory: str) -> None:
    """One-sided InfoNCE; each query's hard negatives are candidates of all queries."""
    embeddings = [_items(seed, 7) for seed in range(2 + hard)]
    peer = losses.MultipleNegativesRankingLoss(Passing(), scale=scale)
    expected = peer.compute_loss_from_embeddings(embeddings, None)
    found = evaluate(
        InfoNCE(temperature=1 / scale), embeddings[0], torch.cat(embeddings[1:]), memory=memory, tile_rows=3
    )
    _assert_equal(found, expected, embeddings)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_multiple_negatives_symmetric_ranking(memory: str) -> None:
    embeddings = [_items(10, 6), _items(11, 6)]
    peer = losses.MultipleNegativesRankingLoss(
        Passing(), directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    expected = peer.compute_loss_from_embeddings(embeddings, None)
    _assert_equal(evaluate(InfoNCE(temperature=0.05, two_sided=True), *embeddings, memory=memory), expected, embeddings)


def test_query_to_query_negatives() -> None:
    """Other queries as candidates: one relation over concatenated keys, which leaves out the query itself."""
    query, document = _items(12, 6), _items(13, 6)
    peer = losses.MultipleNegativesRankingLoss(
        Passing(), directions=("query_to_doc", "query_to_query"), partition_mode="joint"
    )
    expected = peer.compute_loss_from_embeddings([query, document], None)
    number = torch.arange(6)
    relation = Paired(
        number,
        torch.cat([number, torch.full((6,), -1)]),
        query_exclude=number,
        key_exclude=torch.cat([number, number]),
    )
    for memory in ("dense", "tiled"):
        found = evaluate(InfoNCE(), query, torch.cat([document, query]), relation=relation, memory=memory, tile_rows=4)
        _assert_equal(found, expected, [query, document])


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("peer", "objective"),
    [
        (lambda: losses.BatchAllTripletLoss(Passing(), margin=1.0), Triplet(margin=1.0, average="active")),
        (lambda: losses.BatchHardTripletLoss(Passing(), margin=1.0), Triplet("hard", margin=1.0)),
        (lambda: losses.BatchHardSoftMarginTripletLoss(Passing()), Triplet("hard", margin=0.0, smooth=True)),
        (lambda: losses.BatchSemiHardTripletLoss(Passing(), margin=1.0), Triplet("semi-hard", margin=1.0)),
    ],
)
def test_triplets(peer: object, objective: RowObjective, seed: int, memory: str) -> None:
    # no label alone: such an anchor leaves the mean here, see test_anchors_without_a_positive
    labels = torch.arange(16)[torch.randperm(16, generator=torch.Generator().manual_seed(seed))] % (3 + seed)
    items = _items(20 + seed, 16)
    expected = peer().compute_loss_from_embeddings([items], labels)
    _assert_equal(evaluate(objective, items, relation=Labels(labels), memory=memory, tile_rows=5), expected, [items])


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0, 0]])
def test_anchors_without_a_positive(labels: list[int], memory: str) -> None:
    """The peer's batch-hard losses count every item: alone of its label, it still pushes its nearest negative away."""
    items, label = _items(25, 7), torch.tensor(labels)
    for peer, objective in (
        (losses.BatchHardTripletLoss(Passing(), margin=5.0), Triplet("hard", margin=5.0, anchors="all")),
        (
            losses.BatchHardSoftMarginTripletLoss(Passing()),
            Triplet("hard", margin=0.0, smooth=True, anchors="all"),
        ),
    ):
        expected = peer.compute_loss_from_embeddings([items], label)
        found = evaluate(objective, items, relation=Labels(label), memory=memory, tile_rows=3)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        gradients = [torch.autograd.grad(loss, items, retain_graph=True)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
        assert expected > 0.1


def test_triplet_of_three_columns() -> None:
    anchor, positive, negative = _items(30, 6), _items(31, 6), _items(32, 6)
    peer = losses.TripletLoss(Passing(), triplet_margin=1.0)
    expected = peer.compute_loss_from_embeddings([anchor, positive, negative], None)
    number = torch.arange(6)
    relation = Paired(number, torch.cat([number, torch.full((6,), -1)])).ignore(
        lambda rows, columns: rows[:, None] != columns % 6
    )
    found = Triplet(margin=1.0)(anchor, torch.cat([positive, negative]), relation=relation)
    # the peer's distance adds 1e-6 to each difference
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
