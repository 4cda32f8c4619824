"""Losses and gradient norms of margins, proxies and classifiers, from pytorch-metric-learning 2.9.0 and others.

Items are drawn from ``numpy.random.default_rng(seed).standard_normal``; proxies from a seed of their own, or after the
items from the same one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.contrast import Labels, evaluate
from nearfar.objectives import (
    ArcFace,
    CatLIP,
    Circle,
    Contrastive,
    CosFace,
    FastAP,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    ProxyAnchor,
    ProxyNCA,
    ProxyObjective,
    RankedList,
    RowObjective,
    SoftTriple,
    SphereFace,
    Triplet,
    TupletMargin,
)
from support.recorded import WAYS, check, drawn

FOUR_CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
WITH_SINGLETONS = torch.tensor([0, 0, 1, 1, 1, 2, 3])
IN_TURN = torch.arange(12) % 4
NORMALIZED = "negative-normalized-euclidean"
DEGREES = math.radians(28.6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "d", "labels", "objective", "loss", "norm"),
    [
        # ContrastiveLoss: no squares, means over the pairs with a cost on each side
        (
            0, 8, FOUR_CLASSES, Contrastive("linear", margin=4.0, average="active"),
            4.695393792343101, 0.339734211472106,
        ),
        (
            0, 8, FOUR_CLASSES, Contrastive("linear", average="active", score=NORMALIZED),
            1.5939807364094132, 0.2118902633591329,
        ),
        (
            0, 6, IN_TURN, Contrastive("linear", average="active", score=NORMALIZED),
            1.6674424259949632, 0.2962360560812108,
        ),
        # TripletMarginLoss, swap
        (0, 8, FOUR_CLASSES, Triplet(margin=0.5, swap=True), 1.2613762646882773, 0.31167007563744864),
        # TripletMarginLoss, smooth, on normalised items
        (0, 6, IN_TURN, Triplet(margin=0.2, smooth=True, score=NORMALIZED), 0.8222351582851313, 0.10379262573324081),
        # LiftedStructureLoss, GeneralizedLiftedStructureLoss
        (0, 8, FOUR_CLASSES, LiftedStructure(), 10.152861284878131, 1.5273066180828765),
        (0, 8, FOUR_CLASSES, LiftedStructure("generalized"), 4.583028579859754, 0.35986070313738616),
        (
            0, 6, IN_TURN, LiftedStructure("generalized", score=NORMALIZED),
            3.9797835539097046, 0.20531788823614455,
        ),
        # MultiSimilarityLoss without its miner
        (
            0, 8, FOUR_CLASSES, MultiSimilarity(base=0.5, epsilon=None),
            1.1893699166438128, 0.1847352447731843,
        ),
        (
            1, 5, WITH_SINGLETONS, MultiSimilarity(base=0.5, epsilon=None),
            0.6533900168943798, 0.4563193891632063,
        ),
        # CircleLoss
        (0, 8, FOUR_CLASSES, Circle(0.4, 80.0), 142.98334249905224, 28.650126194229227),
        (1, 5, WITH_SINGLETONS, Circle(0.4, 80.0), 94.54812146200626, 93.82807189294113),
        (0, 6, IN_TURN, Circle(0.4, 80.0), 138.70495690364643, 47.419574224274555),
        # RankedListLoss
        (
            0, 8, FOUR_CLASSES, RankedList(temperature_far=2.5, detach_weights=False, smoothing=1e-5),
            0.4636069343228719, 0.07813654863199625,
        ),
        # MarginLoss, beta in float64
        (
            0, 6, IN_TURN, Margin("triplets"),
            0.4247232844655405, 0.13075882487794385,
        ),
        # TupletMarginLoss
        (0, 6, IN_TURN, TupletMargin(), 37.064447360686636, 21.182199002162918),
        # FastAPLoss
        (0, 6, IN_TURN, FastAP(), 0.752963304128046, 0.15850433778675596),
    ],
)  # fmt: skip
def test_margins(
    seed: int, d: int, labels: Tensor, objective: RowObjective, loss: float, norm: float, way: dict[str, Any]
) -> None:
    (x,) = drawn(seed, (len(labels), d))
    check(evaluate(objective, x, relation=Labels(labels), **way), loss, [x], [norm])


def test_triplets_of_one_class() -> None:
    """TripletMarginLoss: 0, with a zero gradient."""
    (x,) = drawn(0, (12, 6))
    with pytest.warns(UserWarning, match="no anchor"):
        loss = Triplet(margin=0.2)(x, relation=Labels(torch.zeros(12, dtype=torch.long)))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, x)[0].norm() == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "labels", "objective", "proxies_seed", "loss", "norms"),
    [
        # ProxyNCALoss
        (
            0, FOUR_CLASSES, ProxyNCA(4, 8, include_own=True), 100,
            1.4347675696434135, [0.17888477598328392, 0.18151293114361128],
        ),
        (
            1, WITH_SINGLETONS, ProxyNCA(5, 5, include_own=True), 101,
            2.077072971182743, [0.48110759750811816, 0.33332861521494617],
        ),
        (
            0, IN_TURN, ProxyNCA(4, 6, include_own=True), None,
            1.20147452502106, [0.24054722639831838, 0.16442148530497241],
        ),
        # ProxyAnchorLoss
        (0, FOUR_CLASSES, ProxyAnchor(4, 8), 100, 27.694219520238963, [6.742095088302611, 7.209881934235726]),
        # ArcFaceLoss, 28.6 degrees
        (
            0, FOUR_CLASSES, ArcFace(4, 8, margin=DEGREES), 100,
            46.36473712140838, [8.52625780003257, 9.769694398538721],
        ),
        (
            1, WITH_SINGLETONS, ArcFace(5, 5, margin=DEGREES), 101,
            60.26452438029175, [22.81250548323524, 13.709576053368819],
        ),
        # CosFaceLoss
        (0, FOUR_CLASSES, CosFace(4, 8), 100, 40.35176798677731, [8.626391774386502, 9.501397095921249]),
        (1, WITH_SINGLETONS, CosFace(5, 5), 101, 56.771632200934924, [18.09851506775393, 13.711492114215721]),
    ],
)  # fmt: skip
def test_proxies(
    seed: int,
    labels: Tensor,
    objective: ProxyObjective,
    proxies_seed: int | None,
    loss: float,
    norms: list[float],
    way: dict[str, Any],
) -> None:
    assert objective.classes is not None
    assert objective.dimension is not None
    shapes = (len(labels), objective.dimension), (objective.classes, objective.dimension)
    if proxies_seed is None:
        x, proxies = drawn(seed, *shapes)
    else:
        (x,), (proxies,) = drawn(seed, shapes[0]), drawn(proxies_seed, shapes[1])
    objective.proxies = torch.nn.Parameter(proxies.detach())
    found = evaluate(objective, x, relation=Labels(labels), **way)
    check(found, loss, [x, objective.proxies], norms)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("objective", "columns", "loss", "norms"),
    [
        (SoftTriple(4, 6, centers=2, tau=0.0), 8, 4.889768617869329, [2.9473457796002394, 2.653907381435972]),
        (CosFace(4, 6), 4, 41.62062207372114, [12.269882226648496, 10.336389269936372]),
        (SphereFace(4, 6), 4, 7.790590233270694, [1.279051772157695, 0.7898377640498883]),
    ],
)
def test_classifiers_whose_weights_are_columns(
    objective: ProxyObjective, columns: int, loss: float, norms: list[float], way: dict[str, Any]
) -> None:
    """SoftTripleLoss, CosFaceLoss and SphereFaceLoss: weights ``[6, columns]`` drawn after the items."""
    x, weights = drawn(0, (12, 6), (6, columns))
    objective.proxies = torch.nn.Parameter(weights.detach().T.contiguous())
    check(evaluate(objective, x, relation=Labels(IN_TURN), **way), loss, [x, objective.proxies], norms)


def test_catlip() -> None:
    """corenet's BinaryCrossEntropy, reduction "batch_mean"."""
    generator = np.random.default_rng(161)
    logits = torch.from_numpy(3 * generator.standard_normal((4, 7))).requires_grad_()
    targets = torch.from_numpy(generator.random((4, 7)) < 0.3)
    check(CatLIP()(scores=logits, labels=targets), 13.470556054149418, [logits], [0.9713818531392621])
    lists = [row.nonzero()[:, 0].tolist() for row in targets]
    check(CatLIP()(scores=logits, labels=lists), 13.470556054149418, [logits], [0.9713818531392621])
