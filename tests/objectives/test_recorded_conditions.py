"""Losses, gradient norms and states recorded from official code: temperatures, conditions, kernels, priors, mixtures.

Each case names the code that gave its numbers. Some of that code keeps constants and tables in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import ClassPriors, IndividualTemperature, Kernel, Labels, Paired, Views, evaluate
from nearfar.objectives import CACR, CCLK, GML, MACL, Hydra, ISogCLR, KernelInfoNCE, RowObjective, SogCLR, SupReMix
from support.recorded import WAYS, check, drawn, two_views


def _in_float32(value: float) -> float:
    return float(np.float32(value))


def _of_items(views: list[Tensor]) -> Views:
    return Views(2, ids=torch.arange(len(views[0])).repeat(2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("eps", "loss", "norms"),
    [
        # chenhaoxing/MACL, macl.py
        (0.0, 1.0962597240327645, [1.286541977908066, 0.9697705050671989]),
        # lightly 1.6.0, MACLLoss: 1e-8 is added to 1 - P
        (1e-8, 1.0962594065629068, [1.2865418365884207, 0.9697703604334291]),
    ],
)
def test_macl(way: dict[str, Any], eps: float, loss: float, norms: list[float]) -> None:
    views = two_views(41, 6, 8)
    objective = MACL(temperature=0.1, alpha=0.5, reference=0.0, eps=eps).double()
    check(evaluate(objective, torch.cat(views), relation=Views(2), **way), loss, views, norms)
    assert objective.temperature.value == pytest.approx(0.1378739087, rel=1e-9)
    assert float(objective.temperature.alignment) == pytest.approx(0.7574781740, rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "temperature", "gamma", "loss", "norms", "mass"),
    [
        (
            61, 6, 8, 0.1, 0.9, -0.6672938408260415, [0.2241366107190909, 0.28290113673261713],
            [11.079717946, 15.1746196044, 154.5015264103, 22.3458237769, 51.6843591891, 130.9500003341],
        ),
        (
            62, 4, 5, 0.5, 0.5, -1.417408148791666, [0.4144783025381446, 0.36806256340684457],
            [1.8362045264, 1.0153261154, 1.0380064622, 0.8247322347],
        ),
    ],
)  # fmt: skip
def test_sogclr(
    way: dict[str, Any], seed: int, n: int, d: int, temperature: float, gamma: float, loss: float, norms: list[float],
    mass: list[float],
) -> None:  # fmt: skip
    """Optimization-AI/SogCLR, sogclr/builder.py, dynamic_contrastive_loss, first call; it adds both views."""
    views = two_views(seed, n, d)
    objective = SogCLR(gamma, temperature=temperature).double()
    check(2 * evaluate(objective, torch.cat(views), relation=_of_items(views), **way), loss, views, norms)
    assert objective.log_mass.values[:n].exp().tolist() == pytest.approx(mass, rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["unimodal", "paper"])
@pytest.mark.parametrize(
    ("seed", "n", "d", "gamma", "options", "loss", "norms", "temperatures", "mass", "momentum"),
    [
        (
            63, 5, 6, 0.8, {"value": _in_float32(0.1), "rho": 0.4, "rate": 0.03, "momentum": 0.5},
            -0.7957561292962516, [0.22693819046298486, 0.22569604978877686],
            [0.1177017475, 0.1159386296, 0.1082480273, 0.1098455858, 0.1092652279],
            [178.90748578, 257.94226138, 0.94915779, 14.38186941, 416.35416281],
            [-0.5900582, -0.5312876, -0.2749342, -0.32818614, -0.30884088],
        ),
        (
            64, 4, 8, 0.9, {"value": 0.5, "rho": 6.0, "rate": 0.1, "momentum": 0.9},
            -1.0218257422415307, [0.22677734958150628, 0.3416739538559571],
            [0.23] * 4, [1.13761129, 1.22402037, 1.16808872, 1.17791125], [2.7] * 4,
        ),
    ],
)  # fmt: skip
def test_isogclr_of_images(
    way: dict[str, Any], form: str, seed: int, n: int, d: int, gamma: float, options: dict[str, float], loss: float,
    norms: list[float], temperatures: list[float], mass: list[float], momentum: list[float],
) -> None:  # fmt: skip
    """zhqiu/contrastive-learning-iSogCLR, unimodal_exps/losses.py, SogCLR_DRO_Loss, first call; it adds both views.

    At a first visit the form of the paper gives the same, but for what is followed.
    """
    views = two_views(seed, n, d)
    temperature = IndividualTemperature(minimum=0.05, maximum=1.0, **options)
    objective = ISogCLR(form, gamma=gamma, temperature=temperature).double()
    check(2 * evaluate(objective, torch.cat(views), relation=_of_items(views), **way), loss, views, norms)
    assert temperature.of(torch.arange(n)).tolist() == pytest.approx(temperatures, abs=2e-9)
    assert temperature.gradients(torch.arange(n)).tolist() == pytest.approx(momentum, abs=1e-8)
    if form == "unimodal":
        assert objective.log_mass.values[:n].exp().tolist() == pytest.approx(mass, rel=1e-8)


@pytest.mark.parametrize("way", WAYS)
def test_isogclr_of_images_and_texts(way: dict[str, Any]) -> None:
    """zhqiu/contrastive-learning-iSogCLR, bimodal_exps/models/losses.py, SogCLR_DRO_Loss, first call."""
    image, text = two_views(65, 5, 6)
    temperature = IndividualTemperature(
        _in_float32(0.07), minimum=0.005, maximum=1.0, rho=6.0, rate=0.01, momentum=0.9, clip=5.0
    )
    objective = ISogCLR("bimodal", gamma=0.8, temperature=temperature, two_sided=True).double()
    loss = 2 * evaluate(objective, image, text, relation=Paired(torch.arange(5)), **way)
    check(loss, -0.024421959928834905, [image, text], [0.056685371551961926, 0.04875742259473097])
    assert temperature.of(torch.arange(5)).tolist() == pytest.approx(
        [0.0250000003, 0.0304846085, 0.0288615985, 0.0250000003, 0.0250000003], abs=1e-10
    )
    other = objective.opposite.temperature
    assert (temperature.of(torch.arange(5)) - other.of(torch.arange(5))).abs().max() > 1e-4


@pytest.mark.parametrize("way", [{"memory": "dense"}, {"memory": "tiled"}])
@pytest.mark.parametrize(
    ("seed", "n", "d", "views", "arguments", "loss", "norms"),
    [
        (71, 5, 6, 3, {}, -1.4637608070686206, [0.3465504114678235, 0.30197185933205917, 0.2761576054494361]),
        (
            72, 4, 8, 5, {"t_negative": 2.0}, -1.0768667815525732,
            [0.14148086756447845, 0.11527344357205521, 0.08425861008813876, 0.13039135776210836, 0.11994862119444044],
        ),
        (
            74, 5, 6, 3, {"tau_plus": 0.1}, -0.8566919652681976,
            [0.24277366311801016, 0.264095284419012, 0.200989412721509],
        ),
    ],
)  # fmt: skip
def test_cacr_of_views(
    way: dict[str, Any], seed: int, n: int, d: int, views: int, arguments: dict[str, float], loss: float,
    norms: list[float],
) -> None:  # fmt: skip
    """JegZheng/CACR-SSL, small_scale_experiments/losses/__init__.py, our_loss1 + our_loss2."""
    given = two_views(seed, n, d, views)
    check(CACR(**arguments).of_views(*given, **way), loss, given, norms)


def test_cacr_of_queries() -> None:
    """JegZheng/CACR-SSL, imagenet_pretraining/moco/builder.py, cacr_euclideanloss, single process."""
    first, second, key = two_views(75, 5, 6, 3)
    loss = CACR().of_queries([first, second], key, temperature=0.2)
    check(loss, -1.8210494412529084, [first, second], [0.9296188939154825, 0.4066339785103082])
    assert torch.autograd.grad(CACR().of_queries([first, second], key), key, allow_unused=True)[0] is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "c", "form", "kernel", "regularization", "loss", "norms"),
    [
        (111, 6, 5, 3, "hard", "rbf", 0.1, 0.13032551248005314, [0.05376507514949367, 0.07252622827809052]),
        (112, 5, 4, 2, "weak", "cosine", 0.01, 2.316178167818558, [0.13971215580922405, 0.19532108032727613]),
    ],
)
def test_ccl_k(
    way: dict[str, Any], seed: int, n: int, d: int, c: int, form: str, kernel: str, regularization: float, loss: float,
    norms: list[float],
) -> None:  # fmt: skip
    """Crazy-Jack/CCLK-release, ConditionalSampling.py, ConditionalSamplingLoss (lambda in float32)."""
    views = two_views(seed, n, d)
    condition = torch.from_numpy(np.random.default_rng(1000 + seed).standard_normal((n, c)))
    relation = Kernel(condition.repeat(2, 1), kernel, ids=torch.arange(n).repeat(2))
    objective = CCLK(form, regularization=_in_float32(regularization), official=True, temperature=0.5)
    check(evaluate(objective, torch.cat(views), relation=relation, **way), loss, views, norms)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "objective", "loss", "norms"),
    [
        # gamma_loss (loss_type "origin")
        (
            0, 6, 4, KernelInfoNCE(temperature=0.5, eps=1e-6, normalize=False),
            5.051772270326495, [2.210365652534917, 2.1905980274641563],
        ),
        # nt_xent_loss (loss_type "sum")
        (
            1, 5, 8,
            KernelInfoNCE("simple-sum", mixture="losses", weight=0.3, temperature=0.4, eps=1e-6, normalize=False),
            2.7046211752920692, [1.9000231922233206, 1.911862486536423],
        ),
        # spectral_loss
        (
            2, 6, 4, KernelInfoNCE("spectral", normalize=False),
            1.5104697503092472, [1.5124266683302559, 1.4801648402380376],
        ),
    ],
)  # fmt: skip
def test_kernel_infonce(
    way: dict[str, Any], seed: int, n: int, d: int, objective: RowObjective, loss: float, norms: list[float]
) -> None:
    """yifanzhang-pro/Kernel-InfoNCE, simclr_module.py; gradients of rows that were normalised before."""
    views = [normalize(view).detach().requires_grad_() for view in drawn(seed, (n, d), (n, d))]
    check(evaluate(objective, torch.cat(views), relation=Views(2), **way), loss, views, norms)


def test_kernel_infonce_of_arc_cosine_is_a_number() -> None:
    """As released, the official code gives NaN here."""
    views = [normalize(view).detach().requires_grad_() for view in drawn(0, (6, 4), (6, 4))]
    loss = KernelInfoNCE("arc-cosine", order=2, temperature=0.5, normalize=False)(torch.cat(views), relation=Views(2))
    assert all(torch.isfinite(value).all() for value in (loss, *torch.autograd.grad(loss, views)))


@pytest.mark.parametrize("way", WAYS)
def test_gml(way: dict[str, Any]) -> None:
    """bluecdm/Long-tailed-recognition, losses.py, GMLLoss, beta and gamma 1: both terms of the contrast and the
    logit-adjusted classifier. Its temperatures go through float32."""
    query, key, logits = drawn(101, (5, 6), (12, 6), (5, 3))
    labels, key_labels, counts = torch.arange(5) % 3, torch.arange(12) % 3, [8, 4, 2]
    relation = ClassPriors(labels, key_labels, ids=torch.arange(5), key_ids=torch.arange(12) + 2)
    contrast = GML(prior=counts).double()
    with torch.no_grad():
        contrast.temperature.log_scale.copy_(-torch.tensor(0.07).log().double())
    classifier = GML(prior=counts, temperature=float(torch.tensor(1 / 30).log().exp()))
    loss = evaluate(contrast, query, key, relation=relation, **way)
    loss = loss + classifier(scores=logits / 30, relation=Labels(labels, torch.arange(3)))
    inputs = [query, key, logits, contrast.temperature.log_scale]
    norms = [1.8359780492675593, 2.2674129149592037, 11.322095128960278 / 30, 2.7215451649]
    assert loss.item() == pytest.approx(7.781598499129571, rel=1e-8)
    for gradient, norm in zip(torch.autograd.grad(loss, inputs), norms, strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-7)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_hydra(memory: Any) -> None:
    """The authors' simlap.py, SimLAP.disparate_loss and multipos_ce_loss, from gate logits; row 3 is its own
    partner."""
    z, gate = drawn(131, (6, 5), (6, 5))
    labels, partners = torch.tensor([0, 1, 2, 0, 1, 3]), torch.tensor([1, 0, 3, 0, 2, 2])
    objective = Hydra(include_self=True, temperature=0.1)
    loss = objective(z, gate=gate.sigmoid(), labels=labels, partners=partners, memory=memory)
    check(loss, 1.8714654777288118, [z, gate], [2.398587708055902, 0.640836531673612])
    without = Hydra()(z, gate=gate.sigmoid(), labels=labels, partners=partners)
    assert abs(without.item() - loss.item()) > 1e-3


class WithRecordedShares(SupReMix):
    """The shares of the anchors in the recorded case."""

    table = torch.from_numpy(np.random.default_rng(1141).beta(2, 8, size=(8, 8)))

    def shares(self, anchors: Tensor, others: Tensor) -> Tensor:
        return self.table[anchors, others]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("mix_negative", "loss", "norms"),
    [
        (True, 3.281122119582963, [0.4848561606498723, 0.5196700410901786]),
        (False, 2.610857515900448, [0.49274181797330274, 0.5680058640115434]),
    ],
)
def test_supremix(way: dict[str, Any], mix_negative: bool, loss: float, norms: list[float]) -> None:
    """SupReMix's supremix_loss.py, SupConLoss_v2, with mixing_func, in the form without its faults."""
    views = two_views(141, 4, 5)
    objective = WithRecordedShares(mixtures=None, mix_negative=mix_negative)
    relation = Kernel(torch.tensor([1.0, 3.0, 4.0, 7.0]).repeat(2))
    check(evaluate(objective, torch.cat(views), relation=relation, **way), loss, views, norms)
