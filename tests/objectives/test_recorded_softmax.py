"""Losses and gradient norms of the softmax family recorded from official code and from peers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Dot, Explicit, Labels, Paired, Views, evaluate
from nearfar.contrast.directions import Directions
from nearfar.objectives import (
    DHEL,
    MVDHEL,
    NCA,
    Debiased,
    HardNegative,
    InfoNCE,
    MoCoDualHard,
    MVInfoNCE,
    NPairs,
    PolyView,
    SigLIP,
    SpectralContrastive,
    SupCon,
    Triplet,
    get,
)
from nearfar.objectives.pairwise_softmax import one_pair_a_label
from support.recorded import WAYS, check, drawn, two_views

FOUR_CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
WITH_SINGLETONS = torch.tensor([0, 0, 1, 1, 1, 2, 3])


@pytest.mark.parametrize("way", WAYS)
def test_info_nce_in_four_directions_from_embeddings(way: dict[str, Any]) -> None:
    """sentence-transformers 6.2.0, MultipleNegativesRankingLoss, scale 20, all four directions in one softmax."""
    a, b, c = drawn(0, (6, 5), (6, 5), (6, 5))
    expected = 23.570784660716587, [a, b, c], [5.7589891357892835, 6.308483294955413, 0.331188594549858]
    objective = get("gte", temperature=1 / 20)
    check(evaluate(objective, a, torch.cat([b, c]), **way), *expected)
    check(evaluate(objective, torch.cat([a, b, c]), relation=Directions(6, 12), **way), *expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "labels", "d", "loss", "norm"),
    [
        (0, FOUR_CLASSES, 8, 2.7348760302763666, 0.2854571512572607),
        (1, WITH_SINGLETONS, 5, 1.5589820252761846, 1.1507197743930633),
    ],
)
def test_nt_xent_with_labels(seed: int, labels: Tensor, d: int, loss: float, norm: float, way: dict[str, Any]) -> None:
    """pytorch-metric-learning 2.9.0, NTXentLoss, temperature 0.5: the mean is over pairs."""
    (x,) = drawn(seed, (len(labels), d))
    objective = get("nt-xent-labels", temperature=0.5)
    check(evaluate(objective, x, relation=Labels(labels), **way), loss, [x], [norm])


@pytest.mark.parametrize("way", WAYS)
def test_n_pairs(way: dict[str, Any]) -> None:
    """pytorch-metric-learning 2.9.0, NPairsLoss, whose default distance normalises the embeddings."""
    (x,) = drawn(0, (12, 8))
    anchors, positives = one_pair_a_label(FOUR_CLASSES)
    check(
        evaluate(NPairs(score="cosine"), x[anchors], x[positives], **way), 1.583960816400141, [x], [0.22478691916073384]
    )


@pytest.mark.parametrize("way", WAYS)
def test_simcse(way: dict[str, Any]) -> None:
    """SimCSE's cl_forward: one direction; the weight of hard negatives is added to the logit of the own one."""
    z1, z2 = drawn(0, (4, 8), (4, 8))
    check(
        evaluate(InfoNCE(temperature=0.05), z1, z2, **way),
        6.519276896982005, [z1, z2], [5.40520961587593, 3.3599269829516953],
    )  # fmt: skip
    z1, z2, z3 = drawn(2, (5, 8), (5, 8), (5, 8))
    own = torch.eye(5, dtype=torch.float64)
    far = torch.cat([1 - own, 1 + (np.exp(0.7) - 1) * own], dim=1)
    relation = Explicit(torch.cat([own, 0 * own], dim=1), far)
    loss = evaluate(InfoNCE(temperature=0.1), z1, torch.cat([z2, z3]), relation=relation, **way)
    check(loss, 5.579259607860715, [z1, z2, z3], [2.5081918371878538, 1.7157164958613875, 0.6354295880707881])


@pytest.mark.parametrize("way", WAYS)
def test_supcon_by_its_options(way: dict[str, Any]) -> None:
    """SupContrast's SupConLoss: base temperature 0.07, and contrast mode "one" (first views are anchors)."""
    x1, x2 = two_views(11, 6, 5)
    relation = Labels(torch.tensor([0, 1, 0, 2, 1, 0]).repeat(2))
    objective = get("supcontrast", temperature=0.1)
    loss = evaluate(objective, torch.cat([x1, x2]), relation=relation, **way)
    check(loss, 7.981931367924388, [x1, x2], [4.196857770314194, 1.7452058013943945])
    x1, x2 = two_views(13, 6, 5)
    first = torch.arange(12) < 6
    memory = {"memory": way["memory"]}
    loss = SupCon(temperature=0.1)(torch.cat([x1, x2]), relation=relation, anchors=first, **memory)
    check(loss, 5.0989708976392425, [x1, x2], [2.0092353389276347, 0.5892777320320267])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "labels", "loss", "norm"),
    [
        (0, [0, 0, 1, 1], 7.869153129074466, 2.9640418986744668),
        (2, [0, 1, 2, 3], 10.556739345418354, 5.1714661639362065),
    ],
)
def test_supcl_seq(seed: int, labels: list[int], loss: float, norm: float, way: dict[str, Any]) -> None:
    """SupCL-Seq's SupConLoss, temperature 0.05, base temperature 0.07, two views of each of four sentences."""
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((4, 2, 8))).requires_grad_()
    relation = Labels(torch.tensor(labels).repeat_interleave(2))
    objective = SupCon(temperature=0.05, base_temperature=0.07)
    check(evaluate(objective, x.flatten(0, 1), relation=relation, **way), loss, [x], [norm])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("objective", "loss", "norms"),
    [
        (Debiased(0.1), 1.3070885306877376, [0.26783903742416726, 0.23422915109436077]),
        (Debiased(0.0), 1.501400476021409, [0.20504745492935042, 0.17957051750246958]),
        (HardNegative(0.0, 0.1), 1.3070885306877376, [0.26783903742416726, 0.23422915109436077]),
    ],
)
def test_debiased(objective: Debiased, loss: float, norms: list[float], way: dict[str, Any]) -> None:
    """DCL (C.-Y. Chuang), loss of main.py's train, temperature 0.5, tau_plus 0.1 and biased."""
    x1, x2 = two_views(21, 6, 8)
    check(evaluate(objective, torch.cat([x1, x2]), relation=Views(2), **way), loss, [x1, x2], norms)


MULTI_VIEW = [
    # Multi-View-CL (P. Koromilas), MVINFONCE, MVDHEL and PVCLoss("geometric"), tau 0.5
    (51, 5, 6, 4, MVInfoNCE(), 0.9438832839963727,
     [0.08722059214071949, 0.03689112581543528, 0.06309823390657916, 0.057850573915206746]),
    (53, 3, 4, 2, MVInfoNCE(), 1.0688567653837178, [0.40660585440822505, 0.770771523236126]),
    (51, 5, 6, 4, MVDHEL(temperature=0.5), 3.4379778210303202,
     [0.3992772645399959, 0.2434184260079584, 0.3461742928328525, 0.33857701661221423]),
    (53, 3, 4, 2, MVDHEL(temperature=0.5), 0.18392967768239973, [0.7620376672322152, 1.3486634025275932]),
    (53, 3, 4, 2, DHEL(temperature=0.5), 0.18392967768239973, [0.7620376672322152, 1.3486634025275932]),
    (54, 5, 6, 4, PolyView(temperature=0.5), 1.719212145460954,
     [0.1227433841645485, 0.07731938297532966, 0.055161793919556, 0.05881339732112099]),
    (56, 4, 5, 2, PolyView(temperature=0.5), 0.9570680608157986, [0.19975245675162717, 0.15286228202452606]),
    (56, 4, 5, 2, PolyView("arithmetic", temperature=0.5), 0.9570680608157986,
     [0.19975245675162717, 0.15286228202452606]),
    # the paper's formula of sufficient statistics, written out
    (54, 5, 6, 4, PolyView("sufficient", temperature=0.5), 1.704807911031081,
     [0.1155358583702884, 0.07560095398475922, 0.05241778495778389, 0.05862048705099904]),
    (56, 4, 5, 2, PolyView("sufficient", temperature=0.5), 0.9570680608157986,
     [0.19975245675162723, 0.15286228202452606]),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("seed", "n", "d", "count", "objective", "loss", "norms"), MULTI_VIEW)
def test_multi_view(
    seed: int, n: int, d: int, count: int, objective: InfoNCE, loss: float, norms: list[float], way: dict[str, Any]
) -> None:
    views = two_views(seed, n, d, count)
    check(evaluate(objective, torch.cat(views), relation=Views(count), **way), loss, views, norms)


def test_a_view_against_the_mean_of_the_others() -> None:
    """Multi-View-CL, NTXent("average"), tau 0.5: NT-Xent of each view and the mean of the others, not normalised."""
    views = two_views(54, 5, 6, 4)
    unit = torch.stack([normalize(view) for view in views])
    objective = InfoNCE(temperature=0.5, score=Dot())
    losses = [
        objective(torch.cat([one, (unit.sum(0) - one) / 3]), relation=Views(2)) for one in unit
    ]  # fmt: skip
    norms = [0.09856439027803318, 0.06241580866351472, 0.04409224790735278, 0.04897371666514585]
    check(torch.stack(losses).mean(), 1.1798298162474428, views, norms)


@pytest.mark.parametrize("way", WAYS)
def test_siglip(way: dict[str, Any]) -> None:
    """open_clip 3.3.0, SigLipLoss, logit scale 10, bias -10, on normalised rows; gradients of the raw rows."""
    a, b = drawn(0, (6, 5), (6, 5))
    check(
        evaluate(SigLIP(temperature=0.1), a, b, **way),
        13.875834430105627,
        [a, b],
        [2.6704125933181495, 2.08522486798174],
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "labels", "d", "loss", "norm"),
    [
        (0, FOUR_CLASSES, 8, 5.507247993238376, 2.4949054677050455),
        (1, WITH_SINGLETONS, 5, 1.3687081270202908, 2.6242947194287862),
    ],
)
def test_nca(seed: int, labels: Tensor, d: int, loss: float, norm: float, way: dict[str, Any]) -> None:
    """pytorch-metric-learning 2.9.0, NCALoss, softmax_scale 1."""
    (x,) = drawn(seed, (len(labels), d))
    check(evaluate(NCA(), x, relation=Labels(labels), **way), loss, [x], [norm])


@pytest.mark.parametrize("way", WAYS)
def test_spectral_contrastive(way: dict[str, Any]) -> None:
    """kooplearn 2.0.3, SpectralContrastiveLoss."""
    x, y = drawn(0, (6, 5), (6, 5))
    loss = evaluate(SpectralContrastive(), x, y, **way)
    check(loss, 6.385993012019117, [x, y], [3.250905843030143, 2.545308714870639])


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_moco_dual_hard(memory: str) -> None:
    """The formula of both directions written out, the four hardest of a queue of 20, temperature 0.2."""
    x1, x2 = two_views(181, 5, 6)
    queue = normalize(torch.from_numpy(np.random.default_rng(1181).standard_normal((20, 6))))
    objective = MoCoDualHard("dual", hardest=4, temperature=0.2)
    loss = objective(x1, x2.detach(), queue=queue, memory=memory)
    check(loss, 1.189525819723718, [x1], [0.7822204039923881])


def test_scincl() -> None:
    """SciNCL's loss, torch's TripletMarginLoss(margin=1): one negative an anchor, 1e-6 added to the differences."""
    a, p, n = drawn(0, (6, 8), (6, 8), (6, 8))
    own, nobody = torch.arange(6), torch.full((6,), -1)
    relation = Paired(query_within=own, key_within=torch.cat([nobody, own]))
    loss = Triplet(margin=1.0)(a + 1e-6, torch.cat([p, n]), relation=relation)
    check(loss, 1.6010522712984132, [a, p, n], [0.4046468004810692, 0.3726779962499649, 0.3726779962499649])
