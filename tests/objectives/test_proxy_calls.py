"""Proxies and classifiers: how they are called, limits and identities, the ends of their ranges, what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from nearfar.contrast import Explicit, Labels, Paired
from nearfar.contrast.tagged import Tagged
from nearfar.errors import UsageError
from nearfar.objectives import (
    ArcFace,
    CatLIP,
    Center,
    CosFace,
    InfoNCE,
    NormSoftmax,
    ProxyAnchor,
    ProxyNCA,
    ProxyObjective,
    SoftTriple,
    SphereFace,
    catalogue,
    get,
)
from support.scenarios import embeddings

LABELS = torch.tensor([0, 2, 2, -1, 0, 3, 2])  # an item without a class, and a class that nobody shows
CLASSES, DIMENSION = 5, 4
MAKE: dict[str, Callable[[], ProxyObjective]] = {
    "proxy-nca": lambda: ProxyNCA(CLASSES, DIMENSION),
    "proxy-anchor": lambda: ProxyAnchor(CLASSES, DIMENSION),
    "soft-triple": lambda: SoftTriple(CLASSES, DIMENSION, centers=3),
    "norm-softmax": lambda: NormSoftmax(CLASSES, DIMENSION),
    "arcface": lambda: ArcFace(CLASSES, DIMENSION),
    "arcface easy": lambda: ArcFace(CLASSES, DIMENSION, easy_margin=True, sub_centers=2),
    "cosface": lambda: CosFace(CLASSES, DIMENSION),
    "sphereface": lambda: SphereFace(CLASSES, DIMENSION),
    "center": lambda: Center(CLASSES, DIMENSION, weight=0.7),
}


def test_labels_and_relation_say_the_same() -> None:
    items = embeddings(67, 7, DIMENSION)
    for make in MAKE.values():
        objective = make().double().eval()
        torch.testing.assert_close(objective(items, labels=LABELS), objective(items, relation=Labels(LABELS)))


def test_items_without_a_class_have_no_cost() -> None:
    items, labelled = embeddings(68, 7, DIMENSION), LABELS >= 0
    for name, make in MAKE.items():
        if name == "proxy-anchor":  # pushes them from all proxies
            continue
        objective = make().double().eval()
        some = objective(items, labels=LABELS)
        torch.testing.assert_close(some, objective(items[labelled], labels=LABELS[labelled]))
        objective.reduction = "none"
        assert objective(items, labels=LABELS)[~labelled].abs().max() == 0


def test_norm_softmax_is_info_nce_against_proxies() -> None:
    items = embeddings(69, 7, DIMENSION)
    objective = NormSoftmax(CLASSES, DIMENSION, temperature=0.1).double()
    expected = InfoNCE(temperature=0.1)(items, objective.proxies, relation=Labels(LABELS, torch.arange(CLASSES)))
    torch.testing.assert_close(objective(items, labels=LABELS), expected)


def test_margins_of_nothing_are_the_normalised_softmax() -> None:
    items = embeddings(70, 7, DIMENSION)
    plain = NormSoftmax(CLASSES, DIMENSION, temperature=0.25).double()
    for objective in (
        ArcFace(CLASSES, DIMENSION, margin=0.0, scale=4.0),
        ArcFace(CLASSES, DIMENSION, margin=0.0, scale=4.0, easy_margin=True),
        CosFace(CLASSES, DIMENSION, margin=0.0, scale=4.0),
        SoftTriple(CLASSES, DIMENSION, centers=1, margin=0.0, scale=4.0),
        ProxyNCA(CLASSES, DIMENSION, include_own=True, scale=2.0),
    ):
        objective.double().load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(objective(items, labels=LABELS), plain(items, labels=LABELS))


def test_sub_centers_count_by_the_nearest() -> None:
    items = embeddings(71, 7, DIMENSION)
    one = ArcFace(CLASSES, DIMENSION).double()
    two = ArcFace(CLASSES, DIMENSION, sub_centers=2).double()
    with torch.no_grad():
        away = -torch.nn.functional.normalize(items.sum(0), dim=0)
        two.proxies.copy_(torch.stack([one.proxies, one.proxies], dim=1).flatten(0, 1))
    torch.testing.assert_close(two(items, labels=LABELS), one(items, labels=LABELS))
    with torch.no_grad():
        two.proxies[0::2] = away * 1e-3  # of any length
    nearest = torch.stack([one.proxies, away.expand_as(one.proxies)], 1)
    scores = torch.nn.functional.normalize(items, dim=1) @ torch.nn.functional.normalize(nearest, dim=2).mT
    expected = ArcFace()(scores=scores.amax(2).T.contiguous(), labels=LABELS)
    torch.testing.assert_close(two(items, labels=LABELS), expected)


def test_ready_made_scores_need_no_proxies() -> None:
    items, proxies = embeddings(72, 7, DIMENSION), embeddings(73, CLASSES, DIMENSION)
    scores = torch.nn.functional.normalize(items, dim=1) @ torch.nn.functional.normalize(proxies, dim=1).T
    for cls in (ArcFace, CosFace, NormSoftmax, ProxyNCA):
        objective = cls(CLASSES, DIMENSION).double()
        objective.proxies = torch.nn.Parameter(proxies)
        torch.testing.assert_close(cls()(scores=scores, labels=LABELS), objective(items, labels=LABELS))


@pytest.mark.parametrize("same", [1.0, -1.0])
def test_arcface_at_the_ends_of_the_cosine(same: float) -> None:
    """Where the derivative of the sine is infinite."""
    for dtype in (torch.float32, torch.float64):
        for objective in (ArcFace(3, 3), ArcFace(3, 3, easy_margin=True), SphereFace(3, 3)):
            objective.to(dtype)
            items = (same * objective.proxies.detach()).requires_grad_()
            loss = objective(items, labels=torch.arange(3))
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(items.grad).all()
            assert torch.isfinite(objective.proxies.grad).all()


def test_the_target_of_arcface_falls_with_the_angle() -> None:
    angle = torch.linspace(0, math.pi, 1000, dtype=torch.float64)
    for margin in (0.3, 0.5, 1.5):
        target = ArcFace(margin=margin).target(angle.cos())
        assert (target.diff() < 0).all()
    psi = SphereFace(margin=4).target(angle.cos())
    assert (psi.diff() < 0).all()
    assert psi[0] == 1
    assert psi[-1] == pytest.approx(-7)


def test_centers_move_in_training_alone() -> None:
    items, labels = embeddings(74, 6, 3), torch.tensor([0, 0, 2, 2, 2, -1])
    objective = Center(4, 3, rate=0.5).double()
    objective.centers = embeddings(75, 4, 3)
    before = objective.centers.clone()
    objective.eval()(items, labels=labels)
    assert torch.equal(objective.centers, before)
    objective.train()(items, labels=labels)
    assert torch.equal(objective.centers[[1, 3]], before[[1, 3]])
    for c in (0, 2):
        rows = items[labels == c]
        step = 0.5 * (before[c] - rows).sum(0) / (1 + len(rows))
        torch.testing.assert_close(objective.centers[c], before[c] - step)


def test_proxies_are_made_later() -> None:
    items = embeddings(76, 4, 6)
    for cls in catalogue():
        if not issubclass(cls, ProxyObjective):
            continue
        objective = get(cls.name)
        assert isinstance(objective, ProxyObjective)
        with pytest.raises(UsageError, match="no proxies yet") as caught:
            objective(items, labels=torch.arange(4))
        assert "dimension=6" in str(caught.value.hint)
        assert not list(objective.parameters())
        objective.make_proxies(4, 6)
        objective.double()
        assert objective(items, labels=torch.arange(4)).item() != 0
        copy = get(cls.name, classes=4, dimension=6)
        copy.load_state_dict(objective.state_dict())


def test_half_precision_items_meet_float32_proxies() -> None:
    for make in MAKE.values():
        objective = make().eval()
        items = embeddings(77, 7, DIMENSION).bfloat16().requires_grad_()
        loss = objective(items, labels=LABELS)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, objective(items.float(), labels=LABELS))
        loss.backward()
        assert items.grad.dtype == torch.bfloat16
        assert objective.double()(items.double(), labels=LABELS).dtype == torch.float64


@pytest.mark.parametrize("name", [*MAKE, "catlip"])
def test_what_does_not_fit(name: str) -> None:
    objective = CatLIP(CLASSES, DIMENSION) if name == "catlip" else MAKE[name]()
    items = torch.randn(3, DIMENSION, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=rf"items must be \[n, {DIMENSION}\] floating point, got \(3, 7\)"):
        objective(torch.zeros(3, 7), labels=labels)
    with pytest.raises(ValueError, match=f"there are {CLASSES} classes, got the label {CLASSES}"):
        objective(items, labels=torch.tensor([0, CLASSES, 2]))
    with pytest.raises(ValueError, match="takes labelled items"):
        objective(items)
    for relation in (Paired(labels), Explicit(torch.eye(3)), Labels(labels, labels)):
        with pytest.raises(ValueError, match="takes labelled items"):
            objective(items, relation=relation)
    with pytest.raises(ValueError, match="takes no keys"):
        objective(items, items, relation=Labels(labels))
    with pytest.raises(ValueError, match="not both"):
        objective(items, labels=labels, relation=Labels(labels))
    with pytest.raises(ValueError, match="there are 3 items and labels of 2"):
        objective(items, labels=labels[:2])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ArcFace(3), "both classes and dimension"),
        (lambda: ArcFace(dimension=3), "both classes and dimension"),
        (lambda: ArcFace(0, 3), "classes must be a whole number"),
        (lambda: ArcFace(3, 2.5), "dimension must be a whole number"),
        (lambda: ArcFace(margin=28.6), "an angle"),
        (lambda: ArcFace(scale=0.0), "scale"),
        (lambda: ArcFace(sub_centers=0), "at least one proxy"),
        (lambda: CosFace(margin=-0.1), "margin"),
        (lambda: SphereFace(margin=2.5), "whole number"),
        (lambda: SphereFace(annealing=-1.0), "annealing"),
        (lambda: ProxyNCA(scale=0.0), "scale"),
        (lambda: ProxyAnchor(alpha=0.0), "alpha"),
        (lambda: ProxyAnchor(delta=-0.1), "delta"),
        (lambda: SoftTriple(gamma=0.0), "gamma"),
        (lambda: SoftTriple(tau=-1.0), "tau"),
        (lambda: SoftTriple(centers=0), "at least one proxy"),
        (lambda: CatLIP(prior=1.0), "prior"),
        (lambda: Center(weight=-1.0), "weight"),
        (lambda: Center(rate=1.5), "rate"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_tags_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Tagged(torch.full((2, 3), 1.5))
    with pytest.raises(ValueError, match="from 0 on"):
        Tagged([[0], [-2]])
    with pytest.raises(ValueError, match="give the tags"):
        Tagged([[0], [1]]).bind(2, 2, self_contrast=True, device=torch.device("cpu"))


def test_zero_vectors_and_duplicates() -> None:
    for name, make in MAKE.items():
        objective = make()
        items = torch.zeros(4, DIMENSION)
        items[2:] = objective.proxies.detach()[:1]
        items.requires_grad_()
        with torch.no_grad():
            objective.proxies[-1] = 0
        loss = objective(items, labels=torch.tensor([0, 1, 0, 4]))
        loss.backward()
        assert torch.isfinite(loss), name
        assert torch.isfinite(items.grad).all(), name
        assert torch.isfinite(objective.proxies.grad).all(), name
