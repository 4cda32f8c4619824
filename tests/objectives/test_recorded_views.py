"""Losses and gradient norms of view objectives recorded from official code and from peers.

Inputs are drawn one after the other from ``numpy.random.default_rng(seed).standard_normal``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Temperature
from nearfar.objectives import (
    CARE,
    DCCA,
    DINO,
    UNSEE,
    AlignUniform,
    CorInfoMax,
    Equivariance,
    KoLeo,
    MiCSE,
    NegativeCosine,
    SepCLR,
    SwaV,
    Uniformity,
    VICReg,
    get,
)
from support.recorded import check, drawn, two_views


def test_alignment_and_uniformity_with_a_queue() -> None:
    """moco_align_uniform's loss (alpha 2, t 3, weights 3 and 1); gradient of the normalised queries."""
    q, k, queue = (normalize(z).detach() for z in drawn(3, (4, 6), (4, 6), (10, 6)))
    q.requires_grad_()
    objective = AlignUniform(3.0, 1.0, t=3.0, normalize=False, form="dot")
    check(objective(q, k, queue=queue), 0.7665370992068787, [q], [3.971219456666211])
    assert Uniformity(3.0)(q, queue=queue).item() == pytest.approx(-4.202358952801253, rel=1e-9)
    assert Uniformity(3.0, within=False)(q, queue=queue).item() == pytest.approx(-4.148845561759499, rel=1e-9)
    by_differences = AlignUniform(3.0, 1.0, t=3.0)(q, k, queue=queue)
    assert by_differences.item() == pytest.approx(0.7665370992068787, rel=1e-9)


def test_negative_cosine() -> None:
    """lightly 1.6.0, NegativeCosineSimilarity, no gradient on the second view."""
    a, b = drawn(0, (6, 5), (6, 5))
    loss = NegativeCosine(stop_gradient=True)(a, b)
    check(loss, 0.3811670221330458, [a], [0.2676898478967663])
    assert torch.autograd.grad(NegativeCosine(stop_gradient=True)(a, b), b, allow_unused=True) == (None,)


def test_dino() -> None:
    """lightly 1.6.0, DINOLoss, temperatures 0.1 and 0.04, centre 0 (its temperatures are float32)."""
    views = drawn(0, *[(5, 7)] * 6)
    loss = DINO()(*views[2:], targets=views[:2])
    check(loss, 17.6015622588871, [views[2], views[5]], [0.870043991242711, 1.7237376866017016])


def test_dino_with_a_centre() -> None:
    """lightly 1.6.0, DINOLoss, second call, teacher temperature 0.07 (in float32)."""
    objective, views, later = DINO(0.1, 0.04), drawn(9, *[(5, 7)] * 6), drawn(10, *[(5, 7)] * 6)
    objective(*views[2:], targets=views[:2])
    objective.teacher_temperature = Temperature(float(torch.tensor(0.07)))
    loss = objective(*later[2:], targets=later[:2])
    check(loss, 12.8281503232265, [later[2], later[5]], [0.794743700199201, 1.5367107210696402])


def test_swav_with_queues() -> None:
    """lightly 1.6.0, SwaVLoss on ready-made scores: two high-resolution crops, one low, two queues."""
    scores, queues = drawn(11, *[(6, 5)] * 3), drawn(12, (8, 5), (8, 5))
    loss = SwaV().of_scores(scores, queues)
    check(loss, 12.029866079692312, scores, [1.3241025980785188, 1.2925648891343082, 2.066497521856151])


def test_koleo() -> None:
    """lightly 1.6.0, KoLeoLoss; it adds its eps of 1e-8 to each coordinate, not to the distance."""
    (z,) = drawn(7, (9, 4))
    loss = KoLeo()(z)
    assert loss.item() == pytest.approx(0.7124211774850581, abs=1e-8)
    assert torch.autograd.grad(loss, z)[0].norm().item() == pytest.approx(0.970153189851852, rel=1e-8)


def test_hypersphere() -> None:
    """lightly 1.6.0, HypersphereLoss: alignment and uniformity, t 1."""
    a, b = drawn(8, (7, 4), (7, 4))
    check(get("hypersphere")(a, b), 0.25960039825999326, [a, b], [1.017445856770705, 0.32017874863735096])


def test_swav() -> None:
    """lightly 1.6.0, SwaVLoss: three crops, of which two give codes; prototypes differ by crop."""
    generator = np.random.default_rng(0)
    generator.standard_normal((6, 5, 7))
    scores = []
    for _ in range(3):
        z, prototypes = (normalize(torch.from_numpy(generator.standard_normal((n, 4)))) for n in (6, 7))
        scores.append((z @ prototypes.T).requires_grad_())
    loss = SwaV().of_scores(scores)
    check(loss, 6.280267722418506, [scores[0], scores[2]], [0.9777269884106138, 1.6431562465034975])


@pytest.mark.parametrize(
    ("seed", "n", "d", "objective", "loss", "norms"),
    [
        # CARE's equivariance_loss; with 9 rows in 4 chunks the last row is left out
        (91, 8, 5, Equivariance(), 1.6606413292756905, [1.7327832080801608, 1.4228608289867715]),
        (93, 9, 4, Equivariance(4), 0.5706462157300748, [0.8061491072891985, 0.7146175756154773]),
        # CARE's infoNCE + 0.01 equivariance_loss, the same views for both
        (91, 8, 5, CARE(0.01, chunks=2), 1.7509850361764663, [0.383140157239451, 0.278289306415146]),
    ],
)
def test_care(seed: int, n: int, d: int, objective: Equivariance, loss: float, norms: list[float]) -> None:
    x1, x2 = two_views(seed, n, d)
    check(objective(x1, x2), loss, [x1, x2], norms)


def test_sepclr() -> None:
    """The SepCLR repository's loss functions, put together as in its CIFAR-MNIST script, all weights 1."""
    inputs = drawn(81, (8, 4), (8, 4), (8, 3), (8, 3))
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    objective = SepCLR(joint_weight=1.0)
    found = {name: value.item() for name, value in objective.terms(*inputs, labels).items()}
    expected = [-1.124245980856, 5.187150906448, 2.446193328987, -1.690191573703]
    assert found == pytest.approx(dict(zip(("common", "salient", "infoless", "joint_entropy"), expected, strict=True)))
    norms = [0.563320691361467, 0.5630827339148345, 2.727017253799986, 2.5473107601368827]
    check(objective(*inputs, labels), 4.8189066808749565, inputs, norms)


@pytest.mark.parametrize(
    ("seed", "width", "top", "loss", "norms", "correlations"),
    [
        (
            151, 3, 3, -2.0614631003574697, [0.36891765032716806, 0.28277530444138355],
            [0.9500274151, 0.9061041521, 0.2053315332],
        ),
        (
            153, 4, 2, -1.8394276397305283, [0.08529093126861462, 0.07158929622320688],
            [0.9427065875, 0.8967210522, 0.1513738848, 0.0342635653],
        ),
    ],
)  # fmt: skip
def test_dcca(seed: int, width: int, top: int, loss: float, norms: list[float], correlations: list[float]) -> None:
    """The closed form in numpy (Cholesky and symmetric roots agree), ridge 0.0001."""
    generator = np.random.default_rng(seed)
    shapes = ((40, 2), (2, 4), (2, width), (40, 4), (40, width))
    common, a, b, noise1, noise2 = (generator.standard_normal(shape) for shape in shapes)
    x, y = (torch.from_numpy(z).requires_grad_() for z in (common @ a + 0.5 * noise1, common @ b + 0.5 * noise2))
    check(DCCA(top)(x, y), loss, [x, y], norms)
    assert DCCA().correlations(x, y).tolist() == pytest.approx(correlations, abs=1e-10)


@pytest.mark.parametrize(
    ("seed", "n", "d", "form", "loss", "norm"),
    [
        (0, 8, 6, "vicreg", 44.26433678168745, 8.753114275505391),
        (0, 8, 6, "corinfomax", 3126.604713538903, 721.7854345472028),
        (1, 16, 10, "vicreg", 44.9575538339254, 4.674141417906624),
        (1, 16, 10, "corinfomax", 3210.0474111566964, 400.58277000115044),
    ],
)
def test_unsee(seed: int, n: int, d: int, form: str, loss: float, norm: float) -> None:
    """UNSEE's VICRegLoss and CorInfoMaxLoss (first call): one direction, the target without a gradient."""
    x, y = drawn(seed, (n, d), (n, d))
    target = y.detach()
    objective = {"vicreg": VICReg(), "corinfomax": CorInfoMax(2000.0, 0.2)}[form]
    check(objective(x, target), loss, [x], [norm])
    # with the roles exchanged in the other direction, whose value is the same for VICReg, both directions add up
    if form == "vicreg":
        both = UNSEE(form)(x, y, targets=(x, y))
        assert both.item() == pytest.approx(2 * loss, rel=1e-9)


def test_micse() -> None:
    """acl2023-micse, style miCSE: layers 2 to 5 of 6, lambda 0.5, all 50 entries of a pair of vectors drawn."""
    generator = np.random.default_rng(0)
    z1, z2 = (torch.from_numpy(generator.standard_normal((3, 8))).requires_grad_() for _ in range(2))
    layers: list[Tensor] = [
        torch.from_numpy(generator.dirichlet(np.ones(5), size=(6, 2, 5))).requires_grad_() for _ in range(6)
    ]
    maps = torch.stack(layers[2:], 1)
    objective = MiCSE(0.5, scale_offset=1e-6)
    norms = [5.202413712587636, 6.38097743191339, 0.4940542135070595, 0.23591081457596144]
    loss = objective(z1, z2, attention=(maps[0::2], maps[1::2]))
    check(loss, 12.135778596235467, [z1, z2, layers[2], layers[5]], norms)
