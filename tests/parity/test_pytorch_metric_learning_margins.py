"""Beside pytorch-metric-learning: margins on pairs, rows and tuples give the same values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor

from nearfar.contrast import Labels, evaluate
from nearfar.objectives import (
    SNR,
    Angular,
    Circle,
    Contrastive,
    FastAP,
    Histogram,
    IntraPairVariance,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    RankedList,
    RowObjective,
    Triplet,
    TupletMargin,
)

EVEN = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0, 1])
SINGLETONS = torch.tensor([3, 0, 1, 1, 2, 7, 2, 2, 1])  # three labels that only one item has
WAYS: list[dict[str, Any]] = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 4}]
NORMALIZED = "negative-normalized-euclidean"
Peer = Callable[[Tensor, Tensor], Tensor]


def _raw(power: int = 1) -> distances.LpDistance:
    return distances.LpDistance(normalize_embeddings=False, power=power)


def _swap(score: str, power: int, average: str, *, smooth: bool) -> tuple[RowObjective, Peer]:
    reducer = reducers.MeanReducer() if average == "all" else reducers.AvgNonZeroReducer()
    return (
        Triplet(margin=0.5, swap=True, smooth=smooth, average=average, score=score),
        losses.TripletMarginLoss(0.5, swap=True, smooth_loss=smooth, distance=_raw(power), reducer=reducer),
    )


PAIRS: dict[str, tuple[RowObjective, Peer]] = {
    # theirs: no squares, no halves, normalised, and means over the pairs with a cost on each side
    "contrastive": (Contrastive("linear", average="active", score=NORMALIZED), losses.ContrastiveLoss()),
    "contrastive unnormalised": (
        Contrastive("linear", average="active", margin=3.5),
        losses.ContrastiveLoss(neg_margin=3.5, distance=_raw()),
    ),
    "contrastive sides": (
        Contrastive("linear", average="sides", positive_margin=0.3, score=NORMALIZED),
        losses.ContrastiveLoss(pos_margin=0.3, reducer=reducers.MeanReducer()),
    ),
    # theirs: margins on similarities; ours on 1 - cosine
    "contrastive of cosines": (
        Contrastive("linear", average="active", positive_margin=0.1, margin=0.8, score="cosine"),
        losses.ContrastiveLoss(pos_margin=0.9, neg_margin=0.2, distance=distances.CosineSimilarity()),
    ),
    "snr": (SNR("active"), losses.SignalToNoiseRatioContrastiveLoss()),
    "snr sides": (
        SNR(margin=2.0),
        losses.SignalToNoiseRatioContrastiveLoss(neg_margin=2.0, reducer=reducers.MeanReducer()),
    ),
    # theirs counts each pair once for every triplet that holds it; beta is kept in float32, in which 1.25 is exact
    "margin": (Margin("triplets", margin=0.3, beta=1.25), losses.MarginLoss(margin=0.3, beta=1.25)),
    "margin learned": (
        Margin("triplets", beta=1.25, learned=True, nu=0.2),
        losses.MarginLoss(beta=1.25, nu=0.2, learn_beta=True),
    ),
    "intra-pair-variance": (IntraPairVariance(0.05, 0.02), losses.IntraPairVarianceLoss(0.05, 0.02)),
    "multi-similarity": (MultiSimilarity(base=0.5, epsilon=None), losses.MultiSimilarityLoss()),
    "circle": (Circle(0.4, 80.0), losses.CircleLoss()),
    # theirs: weights carry a gradient, and 1e-5 is added to the sum of weights for each column
    "ranked-list": (
        RankedList(temperature_far=2.5, detach_weights=False, smoothing=1e-5),
        losses.RankedListLoss(margin=0.4, Tn=2.5, alpha=1.2),
    ),
    "ranked-list both": (
        RankedList(temperature_near=1.5, temperature_far=3.0, balance=0.3, detach_weights=False, smoothing=1e-5),
        losses.RankedListLoss(margin=0.4, Tn=3.0, Tp=1.5, imbalance=0.3, alpha=1.2),
    ),
    "tuplet-margin": (TupletMargin(), losses.TupletMarginLoss()),
    "lifted-structure": (LiftedStructure(score=NORMALIZED), losses.LiftedStructureLoss()),
    "lifted-structure unnormalised": (LiftedStructure(margin=0.7), losses.LiftedStructureLoss(0.7, distance=_raw())),
    # theirs normalises anchors and positives but not what is far
    "angular": (Angular(math.radians(40), normalize_far=False), losses.AngularLoss()),
    "swap": _swap("negative-euclidean", 1, "all", smooth=False),
    "swap smooth": _swap("negative-euclidean", 1, "all", smooth=True),
    "swap squared active": _swap("negative-squared-euclidean", 2, "active", smooth=False),
    "fast-ap": (FastAP(), losses.FastAPLoss()),
    "fast-ap 6": (FastAP(6), losses.FastAPLoss(6)),
}


def _items(seed: int, n: int = 9, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _assert_same(
    objective: RowObjective, peer: Peer, labels: Tensor, *, factor: float = 1.0, tolerance: float = 1e-9
) -> None:
    items = _items(20)
    expected = peer(items, labels)
    (gradient,) = torch.autograd.grad(expected, items)
    assert gradient.norm() > 1e-4
    for way in WAYS:
        found = factor * evaluate(objective.double(), items, relation=Labels(labels), **way)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(torch.autograd.grad(found, items)[0], gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("labels", [EVEN, SINGLETONS], ids=["even", "singletons"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_same_loss(name: str, labels: Tensor) -> None:
    _assert_same(*PAIRS[name], labels)


@pytest.mark.parametrize("labels", [EVEN, SINGLETONS], ids=["even", "singletons"])
def test_mined_multi_similarity(labels: Tensor) -> None:
    """Theirs counts anchors without a near item as 0 in the mean; here they leave it."""
    loss, miner = losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(0.2)
    share = 6 / 9 if labels is SINGLETONS else 1.0
    _assert_same(MultiSimilarity(base=0.5, epsilon=0.2), lambda x, y: loss(x, y, miner(x, y)), labels, factor=share)


@pytest.mark.parametrize("labels", [EVEN, SINGLETONS, torch.zeros(9, dtype=torch.long), torch.arange(9)])
def test_generalized_lifted_structure(labels: Tensor) -> None:
    """Theirs lets what is far from an item, or what is near, cost something by itself."""
    peer = losses.GeneralizedLiftedStructureLoss()
    _assert_same(LiftedStructure("generalized", anchors="all", score=NORMALIZED), peer, labels)
    if labels is EVEN:
        _assert_same(LiftedStructure("generalized", score=NORMALIZED), peer, labels)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("bins", [8, 64])
def test_histogram(bins: int) -> None:
    """Without labels that only one item has: theirs leaves out far pairs of two of those."""
    _assert_same(Histogram(bins), losses.HistogramLoss(bins), EVEN)


def test_against_references() -> None:
    """Queries against keys with labels of their own."""
    items, references = _items(21), _items(22, 7)
    other = torch.tensor([0, 1, 1, 2, 5, 0, 2])
    for objective, peer in (
        PAIRS["contrastive"], PAIRS["margin"], PAIRS["multi-similarity"], PAIRS["circle"], PAIRS["tuplet-margin"],
        PAIRS["snr"], PAIRS["angular"], PAIRS["intra-pair-variance"],
    ):  # fmt: skip
        expected = peer(items, EVEN, ref_emb=references, ref_labels=other)  # type: ignore[call-arg]
        for way in WAYS:
            found = evaluate(objective.double(), items, references, relation=Labels(EVEN, other), **way)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            ours, theirs = (
                torch.autograd.grad(loss, (items, references), retain_graph=True) for loss in (found, expected)
            )
            for one, two in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)
