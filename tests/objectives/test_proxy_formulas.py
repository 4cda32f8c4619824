"""Proxies and classifiers against plain loops over scalars in float64: value and every gradient, dense and tiled."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Labels, evaluate
from nearfar.contrast.tagged import Tagged
from nearfar.objectives import (
    ArcFace,
    CatLIP,
    Center,
    CosFace,
    NormSoftmax,
    ProxyAnchor,
    ProxyNCA,
    ProxyObjective,
    SoftTriple,
    SphereFace,
)
from support.loops import cosine, dot
from support.scenarios import embeddings

LABELS = torch.tensor([0, 2, 2, -1, 0, 3, 2])  # an item without a class, and a class that nobody shows
CLASSES, DIMENSION = 5, 4
WAYS = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 1}, {"memory": "tiled", "tile_rows": 3}]
Loops = Callable[[Tensor, Tensor], Tensor]


def _softmax(logits: list[Tensor], target: int) -> Tensor:
    return -(logits[target].exp() / sum(logit.exp() for logit in logits)).log()


def _mean(costs: list[Tensor]) -> Tensor:
    return sum(costs) / len(costs)  # type: ignore[return-value]


def _labelled(items: Tensor) -> list[tuple[Tensor, int]]:
    return [(item, int(label)) for item, label in zip(items, LABELS, strict=True) if label >= 0]


def proxy_nca(items: Tensor, proxies: Tensor) -> Tensor:
    costs = []
    for x, y in _labelled(items):
        squared = [2 - 2 * cosine(x, p) for p in proxies]
        others = sum((-3 * squared[c]).exp() for c in range(CLASSES) if c != y)
        costs.append(-((-3 * squared[y]).exp() / others).log())
    return _mean(costs)


def proxy_anchor(items: Tensor, proxies: Tensor) -> Tensor:
    pull, push = [], []
    for c, p in enumerate(proxies):
        near = [cosine(x, p) for x, y in zip(items, LABELS, strict=True) if y == c]
        far = [cosine(x, p) for x, y in zip(items, LABELS, strict=True) if y != c]
        if near:
            pull.append((1 + sum((-8 * (s - 0.2)).exp() for s in near)).log())
        push.append((1 + sum((8 * (s + 0.2)).exp() for s in far)).log())
    return _mean(pull) + _mean(push)


def soft_triple(items: Tensor, proxies: Tensor) -> Tensor:
    costs = []
    for x, y in _labelled(items):
        logits = []
        for c in range(CLASSES):
            s = [cosine(x, proxies[3 * c + k]) for k in range(3)]
            q = [(value / 0.2).exp() for value in s]
            logits.append(5 * (sum(a * b for a, b in zip(q, s, strict=True)) / sum(q) - 0.1 * (c == y)))
        costs.append(_softmax(logits, y))
    apart = sum(
        (2 - 2 * cosine(proxies[3 * c + k], proxies[3 * c + other])).sqrt()
        for c in range(CLASSES) for k in range(3) for other in range(k + 1, 3)
    )  # fmt: skip
    return _mean(costs) + 0.3 * apart / (CLASSES * 3 * 2)


def norm_softmax(items: Tensor, proxies: Tensor) -> Tensor:
    return _mean([_softmax([cosine(x, p) / 0.2 for p in proxies], y) for x, y in _labelled(items)])


def _with_target(items: Tensor, proxies: Tensor, scale: float, target: Callable[[Tensor], Tensor]) -> Tensor:
    costs = []
    for x, y in _labelled(items):
        logits = [cosine(x, p) for p in proxies]
        logits[y] = target(logits[y])
        costs.append(_softmax([scale * logit for logit in logits], y))
    return _mean(costs)


def arcface(margin: float, *, easy: bool) -> Loops:
    def target(c: Tensor) -> Tensor:
        angle = torch.acos(c)
        if easy:
            return torch.cos(angle + margin) if c > 0 else c
        return torch.cos(angle + margin) if angle + margin <= math.pi else c - margin * math.sin(margin)

    return lambda items, proxies: _with_target(items, proxies, 4.0, target)


def sphereface(margin: int, annealing: float) -> Loops:
    def loops(items: Tensor, proxies: Tensor) -> Tensor:
        costs = []
        for x, y in _labelled(items):
            logits = [cosine(x, p) for p in proxies]
            angle = torch.acos(logits[y])
            k = int(angle.item() * margin / math.pi)
            psi = (-1) ** k * torch.cos(margin * angle) - 2 * k
            logits[y] = (annealing * logits[y] + psi) / (1 + annealing)
            costs.append(_softmax([dot(x, x).sqrt() * logit for logit in logits], y))
        return _mean(costs)

    return loops


def center(items: Tensor, proxies: Tensor) -> Tensor:
    costs = []
    for x, y in _labelled(items):
        away = x - CENTERS[y]
        costs.append(_softmax([dot(x, p) for p in proxies], y) + 0.7 / 2 * dot(away, away))
    return _mean(costs)


CENTERS = embeddings(62, CLASSES, DIMENSION)
CASES: dict[str, tuple[Callable[[], ProxyObjective], Loops]] = {
    "proxy-nca": (lambda: ProxyNCA(CLASSES, DIMENSION, scale=3.0), proxy_nca),
    "proxy-anchor": (lambda: ProxyAnchor(CLASSES, DIMENSION, alpha=8.0, delta=0.2), proxy_anchor),
    "soft-triple": (
        lambda: SoftTriple(CLASSES, DIMENSION, centers=3, scale=5.0, gamma=0.2, margin=0.1, tau=0.3), soft_triple
    ),
    "norm-softmax": (lambda: NormSoftmax(CLASSES, DIMENSION, temperature=0.2), norm_softmax),
    "arcface": (lambda: ArcFace(CLASSES, DIMENSION, margin=1.2, scale=4.0), arcface(1.2, easy=False)),
    "arcface easy": (
        lambda: ArcFace(CLASSES, DIMENSION, margin=1.2, scale=4.0, easy_margin=True), arcface(1.2, easy=True)
    ),
    "cosface": (
        lambda: CosFace(CLASSES, DIMENSION, margin=0.2, scale=4.0),
        lambda items, proxies: _with_target(items, proxies, 4.0, lambda c: c - 0.2),
    ),
    "sphereface": (lambda: SphereFace(CLASSES, DIMENSION, annealing=0.5), sphereface(4, 0.5)),
    "sphereface of margin 1": (lambda: SphereFace(CLASSES, DIMENSION, margin=1), sphereface(1, 0.0)),
    "center": (lambda: Center(CLASSES, DIMENSION, weight=0.7), center),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_proxies_equal_their_formula(name: str) -> None:
    make, loops = CASES[name]
    items = embeddings(60, len(LABELS), DIMENSION).requires_grad_()
    shown = make().proxies
    assert shown is not None
    proxies = embeddings(61, *shown.shape).requires_grad_()
    expected = loops(items, proxies)
    gradients = torch.autograd.grad(expected, (items, proxies))
    for way in WAYS:
        objective = make().double()
        objective.proxies = torch.nn.Parameter(proxies.detach())
        if isinstance(objective, Center):
            objective.centers = CENTERS.clone()
        found = evaluate(objective, items, relation=Labels(LABELS), **way)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        for one, other in zip(torch.autograd.grad(found, (items, objective.proxies)), gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_catlip_of_all_forms_of_labels() -> None:
    items, weights = embeddings(63, 4, 3).requires_grad_(), embeddings(64, 6, 3)
    carried = [[0, 5], [], [2, 2, 1], [3]]
    hot = torch.zeros(4, 6, dtype=torch.bool)
    for row, classes in enumerate(carried):
        hot[row, classes] = True
    objective = CatLIP(6, 3).double()
    assert objective.bias is not None
    objective.proxies = torch.nn.Parameter(weights)
    objective.bias.data = embeddings(65, 6)
    bias = objective.bias.detach()
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for c in range(6):
            p = 1 / (1 + (-(dot(items[row], weights[c]) + bias[c])).exp())
            expected = expected - (p if hot[row, c] else 1 - p).log() / 4
    gradient = torch.autograd.grad(expected, items)[0]
    for labels in (carried, hot, hot.double(), hot.float()):
        for way in WAYS:
            found = evaluate(objective, items, relation=Tagged(labels), **way)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(torch.autograd.grad(found, items)[0], gradient)
        torch.testing.assert_close(objective(items, labels=labels), expected)
    single = torch.tensor([3, 0, -1, 2])
    one = objective(items, labels=single)
    torch.testing.assert_close(one, objective(items, labels=[[3], [0], [], [2]]))
    torch.testing.assert_close(one, objective(items, relation=Labels(single)))


def test_catlip_of_soft_targets_lies_between() -> None:
    items = embeddings(66, 3, 3)
    objective = CatLIP(4, 3).double()
    target = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        items @ objective.proxies.T + objective.bias, target, reduction="sum"
    )
    torch.testing.assert_close(objective(items, labels=target), expected / 3)


def test_the_prior_of_catlip_is_what_it_starts_from() -> None:
    objective = CatLIP(1000, 8, prior=0.01)
    assert torch.sigmoid(objective.bias).mean().item() == pytest.approx(0.01)
    assert CatLIP(1000, 8).bias.abs().max() == 0
