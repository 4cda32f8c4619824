"""Losses and gradient norms recorded from official code and from peers, on inputs that a seed makes again.

Each case names the code that gave its numbers. ``A``, ``B`` and ``C`` are drawn one after the other from
``numpy.random.default_rng(seed).standard_normal``.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Explicit, Labels, Paired, Relation, Views, evaluate
from nearfar.objectives import (
    DCL,
    DCLW,
    Alignment,
    BarlowTwins,
    InfoNCE,
    PairwiseLogistic,
    RowObjective,
    SupCon,
    Triplet,
    Uniformity,
    VICReg,
)
from support.recorded import WAYS, check, drawn, two_views

FOUR_CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
WITH_SINGLETONS = torch.tensor([0, 0, 1, 1, 1, 2, 3])


@pytest.mark.parametrize("way", WAYS)
def test_info_nce_with_hard_negatives(way: dict[str, Any]) -> None:
    """sentence-transformers 6.2.0, MultipleNegativesRankingLoss, scale 20, query to document."""
    a, b, c = drawn(0, (6, 5), (6, 5), (6, 5))
    loss = evaluate(InfoNCE(temperature=1 / 20), a, torch.cat([b, c]), **way)
    check(loss, 20.368264788682826, [a, b, c], [5.708866736303399, 4.594195438550874, 2.772680334447277])


def test_info_nce_in_four_directions() -> None:
    """sentence-transformers 6.2.0, MultipleNegativesRankingLoss, scale 20, all four directions in one softmax.

    A row holds scores of the query and scores of its document, which only ready-made scores can say. The pair itself
    stands among the scores from document to query again, as a candidate.
    """
    a, b, c = drawn(0, (6, 5), (6, 5), (6, 5))
    query, positive, documents = normalize(a), normalize(b), normalize(torch.cat([b, c]))
    scores = torch.cat([query @ documents.T, query @ query.T, positive @ query.T, positive @ documents.T], dim=1)
    own, nobody = torch.eye(6).bool(), torch.zeros(6, 6, dtype=torch.bool)
    near = torch.cat([own, nobody, nobody, nobody, nobody, nobody], dim=1)
    same = torch.cat([nobody, nobody, own, nobody, own, own], dim=1)
    loss = InfoNCE(temperature=1 / 20)(scores=scores, relation=Explicit(near).ignore(same))
    check(loss, 23.570784660716587, [a, b, c], [5.7589891357892835, 6.308483294955413, 0.331188594549858])


@pytest.mark.parametrize("way", WAYS)
def test_clip(way: dict[str, Any]) -> None:
    """open_clip 3.3.0, ClipLoss, logit scale 1/0.07, on normalised rows; gradients of the raw rows."""
    a, b = drawn(0, (6, 5), (6, 5))
    loss = evaluate(InfoNCE(temperature=0.07, two_sided=True), a, b, **way)
    check(loss, 13.816619759057264, [a, b], [4.6156600740177165, 4.202769997507476])


@pytest.mark.parametrize("way", WAYS)
def test_nt_xent(way: dict[str, Any]) -> None:
    """lightly 1.6.0, NTXentLoss, temperature 0.5."""
    a, b = drawn(0, (6, 5), (6, 5))
    loss = evaluate(InfoNCE(temperature=0.5), torch.cat([a, b]), relation=Views(2), **way)
    check(loss, 3.4061338355493107, [a, b], [0.5804259209045475, 0.47528396977594484])


@pytest.mark.parametrize("way", WAYS)
def test_supcon_with_its_base_temperature(way: dict[str, Any]) -> None:
    """SupContrast's SupConLoss, temperature 0.1, base temperature 0.07: it multiplies by 0.1/0.07."""
    x1, x2 = two_views(11, 6, 5)
    labels = torch.tensor([0, 1, 0, 2, 1, 0]).repeat(2)
    loss = evaluate(SupCon(temperature=0.1), torch.cat([x1, x2]), relation=Labels(labels), **way) * (0.1 / 0.07)
    check(loss, 7.981931367924388, [x1, x2], [4.196857770314194, 1.7452058013943945])


@pytest.mark.parametrize("way", WAYS)
def test_supcon_with_anchors_of_one_view(way: dict[str, Any]) -> None:
    """SupContrast's SupConLoss, contrast mode "one", both temperatures 0.1."""
    x1, x2 = two_views(13, 6, 5)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    relation = Labels(labels, labels.repeat(2)).ignore(lambda rows, columns: rows[:, None] == columns)
    loss = evaluate(SupCon(temperature=0.1), x1, torch.cat([x1, x2]), relation=relation, **way)
    check(loss, 5.0989708976392425, [x1, x2], [2.0092353389276347, 0.5892777320320267])


@pytest.mark.parametrize("way", WAYS)
def test_supcon_where_anchors_lack_positives(way: dict[str, Any]) -> None:
    """pytorch-metric-learning 2.9.0, SupConLoss, temperature 0.5: the mean is over the two anchors with a positive."""
    (x1,) = two_views(14, 4, 5, count=1)
    loss = evaluate(SupCon(temperature=0.5), x1, relation=Labels(torch.tensor([0, 1, 1, 2])), **way)
    check(loss, 0.19827911863787506, [x1], [0.14465960878764397])


@pytest.mark.parametrize("way", WAYS)
def test_supcon(way: dict[str, Any]) -> None:
    """SupContrast's SupConLoss, both temperatures 0.1."""
    x1, x2 = two_views(15, 5, 6)
    relation = Labels(torch.tensor([0, 1, 0, 2, 1]).repeat(2))
    loss = evaluate(SupCon(temperature=0.1), torch.cat([x1, x2]), relation=relation, **way)
    check(loss, 4.104297334769384, [x1, x2], [0.9434794248245626, 1.1975911210360388])
    within = evaluate(SupCon("in", temperature=0.1), torch.cat([x1, x2]), relation=relation, **way)
    assert within.item() < loss.item() - 1e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "objective", "loss", "norms"),
    [
        # Decoupled-Contrastive-Learning (R. Nakhli), DCL and DCLW, mean of both directions
        (31, 6, 8, DCL(temperature=0.1), -2.0488783882511825, [1.241340840352572, 1.1851807096578615]),
        (31, 6, 8, DCLW(0.5, temperature=0.1), -1.4548062798505366, [1.6171980241244008, 1.754462431254872]),
        (33, 5, 4, DCLW(1.0, temperature=0.2), 1.8533816267546057, [4.512934077249363, 3.4770951659222655]),
        # lightly 1.6.0, DCLLoss: two items, two negatives an anchor
        (34, 2, 4, DCL(temperature=0.1), -7.080735632715021, [6.3872898501869395, 5.882967515510596]),
    ],
)
def test_decoupled(
    seed: int, n: int, d: int, objective: RowObjective, loss: float, norms: list[float], way: dict[str, Any]
) -> None:
    x1, x2 = two_views(seed, n, d)
    check(evaluate(objective, torch.cat([x1, x2]), relation=Views(2), **way), loss, [x1, x2], norms)


@pytest.mark.parametrize(
    ("seed", "n", "d", "loss", "parts", "norms"),
    [
        (
            0, 8, 4, -0.5675039835624252,
            [1.94630010362118, -2.686937747605533, -2.3406704267616774],
            [0.7259218690882198, 0.905845430758644],
        ),
        (
            2, 16, 8, -0.8545584795841474,
            [2.193794676806494, -2.927964819190324, -3.1687414935909595],
            [0.6573165032801488, 0.5935999250814944],
        ),
    ],
)  # fmt: skip
def test_alignment_and_uniformity(
    seed: int, n: int, d: int, loss: float, parts: list[float], norms: list[float]
) -> None:
    """align_uniform's align_loss (alpha 2) and uniform_loss (t 2); gradients of the normalised rows."""
    x, y = (normalize(z).detach().requires_grad_() for z in drawn(seed, (n, d), (n, d)))
    alignment, uniformity = Alignment(normalize=False), Uniformity(normalize=False)
    found = [alignment(x, y), uniformity(x), uniformity(y)]
    assert [part.item() for part in found] == pytest.approx(parts, rel=1e-9)
    check(alignment(x, y) + uniformity(x, y), loss, [x, y], norms)


def test_barlow_twins() -> None:
    """lightly 1.6.0, BarlowTwinsLoss, lambda 0.005."""
    a, b = drawn(0, (6, 5), (6, 5))
    check(BarlowTwins()(a, b), 7.9332248359785975, [a, b], [2.2356065634698314, 2.027962133120366])


def test_vicreg() -> None:
    """lightly 1.6.0, VICRegLoss, 25, 25, 1, eps 0.0001."""
    a, b = drawn(0, (6, 5), (6, 5))
    check(VICReg()(a, b), 59.79873275962482, [a, b], [13.217511268090387, 13.20730775059099])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "d", "labels", "objective", "loss", "norm"),
    [
        # pytorch-metric-learning 2.9.0, TripletMarginLoss over all triplets, mean over all of them
        (0, 8, FOUR_CLASSES, Triplet(margin=0.5), 0.8969808795448425, 0.21914905337429635),
        (1, 5, WITH_SINGLETONS, Triplet(margin=0.5, smooth=True), 0.890645123435431, 0.4080567045552918),
        # the same on squared distances (the triplet of SIRL, 2023)
        (
            0, 8, FOUR_CLASSES, Triplet(margin=1.0, score="negative-squared-euclidean"),
            4.863462522841625, 1.8498466316150215,
        ),
        # sentence-transformers 6.2.0, BatchAllTripletLoss, BatchHardTripletLoss, BatchSemiHardTripletLoss
        (0, 8, FOUR_CLASSES, Triplet(margin=5.0, average="active"), 5.192949851626197, 0.2873010069222385),
        (0, 8, FOUR_CLASSES, Triplet("hard", margin=5.0), 7.050368684905446, 0.5730052346551017),
        (0, 8, FOUR_CLASSES, Triplet("semi-hard", margin=5.0), 4.866106743407294, 0.32654047090511057),
    ],
)  # fmt: skip
def test_triplet(
    seed: int, d: int, labels: Tensor, objective: RowObjective, loss: float, norm: float, way: dict[str, Any]
) -> None:
    (x,) = drawn(seed, (len(labels), d))
    check(evaluate(objective, x, relation=Labels(labels), **way), loss, [x], [norm])


@pytest.mark.parametrize(
    ("seed", "queries", "loss", "norms"),
    [
        (0, 4, 2.030925942981124, [1.226171124964913, 0.8799764068683965]),
        (2, 1, 4.251521178169487, [1.9610299891504268, 5.304378849056878]),
    ],
)
def test_mann_whitney(seed: int, queries: int, loss: float, norms: list[float]) -> None:
    """Equation 3 of "Optimizing What Matters" (Sheikholeslami 2025), mean over positives and negatives, tau 0.1.

    All pairs of the batch laid out as one row: every positive against every negative, whatever the query.
    """
    q, p = drawn(seed, (queries, 8), (4, 8))
    scores = (normalize(q) @ normalize(p).T).reshape(1, -1)
    relation: Relation = Explicit(torch.eye(queries, 4).reshape(1, -1))
    check(PairwiseLogistic(temperature=0.1)(scores=scores, relation=relation), loss, [q, p], norms)


def test_the_numbers_depend_on_every_choice() -> None:
    """What the recorded cases tell apart: nothing above would pass with a neighbouring form of the formula."""
    a, b, c = drawn(0, (6, 5), (6, 5), (6, 5))
    both = torch.cat([b, c])
    several = Paired(torch.arange(6), torch.arange(6).repeat(2))
    losses = [
        InfoNCE(temperature=0.5)(a, both),
        InfoNCE(temperature=0.5)(a, b),
        InfoNCE(temperature=0.5, two_sided=True)(a, both),
        InfoNCE(temperature=0.5, score="dot")(a, both),
        DCL(temperature=0.5)(a, both),
        InfoNCE(temperature=0.5)(a, both, relation=several),
        SupCon("in", temperature=0.5)(a, both, relation=several),
    ]
    values = sorted(loss.item() for loss in losses)
    assert min(high - low for low, high in itertools.pairwise(values)) > 1e-3
