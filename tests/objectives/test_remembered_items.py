"""SogCLR and iSogCLR over several batches, beside the official codes line by line; what they estimate and minimise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import IndividualTemperature, Paired, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import DCL, ISogCLR, RowObjective, SogCLR
from nearfar.objectives.live_temperature import UNSEEN

WAYS = [{"memory": "dense"}, {"memory": "tiled"}, {"memory": "tiled", "tile_rows": 3}]
BATCHES = [[0, 3, 5, 6], [1, 2, 4, 7], [6, 0, 3, 5], [4, 0, 2, 6], [0, 1, 2, 3]]
"""The first two are all new; the others have all been seen."""


def _views(step: int, n: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    base = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return [(base + torch.randn(n, 5, generator=generator, dtype=torch.float64)).requires_grad_() for _ in range(2)]


def _official_sogclr(u: Tensor, index: Tensor, a: Tensor, b: Tensor, gamma: float, temperature: float) -> Tensor:
    """Optimization-AI/SogCLR, sogclr/builder.py, dynamic_contrastive_loss."""
    n = len(a)
    a, b = normalize(a), normalize(b)
    gamma = 1.0 if u[index].sum() == 0 else gamma
    off = 1 - torch.eye(n, dtype=a.dtype)
    total, kept = torch.zeros((), dtype=a.dtype), []
    for one, other in ((a, b), (b, a)):
        similarity = torch.cat([one @ other.T * off, one @ one.T * off], dim=1)
        mask = torch.cat([off, off], dim=1)
        e = (similarity / temperature).exp() * mask
        mean = e.sum(1, keepdim=True) / (2 * (n - 1))
        followed = (1 - gamma) * u[index][:, None] + gamma * mean.detach()
        kept.append(followed)
        p = (e / followed).detach()
        total = total + ((p * similarity).sum(1) / (2 * (n - 1)) - (one * other).sum(1)).mean()
    u[index] = ((kept[0] + kept[1]) / 2)[:, 0]
    return total


@pytest.mark.parametrize("way", WAYS)
def test_sogclr_over_several_batches(way: dict[str, Any]) -> None:
    u, objective = torch.zeros(8, dtype=torch.float64), SogCLR(0.7, temperature=0.2).double()
    for step, batch in enumerate(BATCHES):
        views, index = _views(step), torch.tensor(batch)
        expected = _official_sogclr(u, index, *views, 0.7, 0.2)
        loss = 2 * evaluate(objective, torch.cat(views), relation=Views(2, ids=index.repeat(2)), **way)
        torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
        for one, other in zip(*(torch.autograd.grad(value, views) for value in (loss, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        seen = u > 0
        torch.testing.assert_close(objective.log_mass(torch.arange(8))[seen].exp(), u[seen], rtol=1e-10, atol=0)
        assert (objective.log_mass(torch.arange(8))[~seen] == UNSEEN).all()


class _OfImages:
    """zhqiu/contrastive-learning-iSogCLR, unimodal_exps/losses.py, SogCLR_DRO_Loss."""

    def __init__(self) -> None:
        self.s, self.momentum = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
        self.tau = torch.full((8,), 0.1, dtype=torch.float64)

    def __call__(self, index: Tensor, a: Tensor, b: Tensor, *, first: bool) -> Tensor:
        n = len(a)
        both = torch.cat([normalize(a), normalize(b)])
        similarity, tau = both @ both.T, self.tau[index].repeat(2)[:, None]
        own = torch.arange(2 * n) % n
        negative = (own[:, None] != own[None, :]).double()
        count = 2 * n - 2
        e = (similarity.detach() / tau).exp() * negative
        g = e.sum(1) / count
        s = g if first else 0.2 * self.s[index].repeat(2) + 0.8 * g
        w = e / s[:, None]
        positive = similarity[torch.arange(2 * n), (torch.arange(2 * n) + n) % (2 * n)]
        loss = ((w * similarity).sum(1) / count - positive).reshape(2, n).sum(0).mean()
        gradient = s.log() + 0.4 - (w * similarity.detach() / tau).sum(1) / count
        gradient = gradient.reshape(2, n).mean(0).clamp(-3, 3)
        self.s[index] = s.reshape(2, n).mean(0)
        self.momentum[index] = 0.5 * self.momentum[index] + 0.5 * gradient
        self.tau[index] = (self.tau[index] - 0.03 * self.momentum[index]).clamp(0.05, 1.0)
        return loss


@pytest.mark.parametrize("way", WAYS)
def test_isogclr_of_images_over_several_batches(way: dict[str, Any]) -> None:
    official, objective = _OfImages(), ISogCLR("unimodal").double()
    for step, batch in enumerate(BATCHES):
        views, index = _views(step), torch.tensor(batch)
        expected = official(index, *views, first=step < 2)
        loss = 2 * evaluate(objective, torch.cat(views), relation=Views(2, ids=index.repeat(2)), **way)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        for one, other in zip(*(torch.autograd.grad(value, views) for value in (loss, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        everyone = torch.arange(8)
        torch.testing.assert_close(objective.temperature.of(everyone), official.tau, rtol=1e-10, atol=0)
        torch.testing.assert_close(objective.temperature.gradients(everyone), official.momentum, rtol=1e-9, atol=1e-12)


class _OfImagesAndTexts:
    """zhqiu/contrastive-learning-iSogCLR, bimodal_exps/models/losses.py, SogCLR_DRO_Loss, one direction."""

    def __init__(self) -> None:
        self.s, self.b, self.momentum = (torch.zeros(8, dtype=torch.float64) for _ in range(3))
        self.tau = torch.full((8,), 0.07, dtype=torch.float64)

    def __call__(self, index: Tensor, one: Tensor, other: Tensor) -> Tensor:
        n = len(one)
        similarity = normalize(one) @ normalize(other).T
        apart = similarity - similarity.diagonal()[:, None]
        tau = self.tau[index][:, None]
        scaled = apart.detach() / tau
        old = self.b[index]
        self.b[index] = torch.maximum(scaled.max(1).values, old)
        e = (scaled - self.b[index][:, None]).exp()
        g = e.sum(1) / (n - 1)
        s = 0.2 * self.s[index] * (old - self.b[index]).exp() + 0.8 * g
        self.s[index] = s
        w = e / s[:, None]
        loss = ((w * apart).sum(1) / (n - 1)).mean()
        gradient = s.log() + self.b[index] + 6.0 - (w * scaled).sum(1) / (n - 1)
        self.momentum[index] = 0.1 * self.momentum[index] + 0.9 * gradient.clamp(-5, 5)
        self.tau[index] = (self.tau[index] - 0.01 * self.momentum[index]).clamp(0.005, 1.0)
        return loss


@pytest.mark.parametrize("way", WAYS)
def test_isogclr_of_images_and_texts_over_several_batches(way: dict[str, Any]) -> None:
    images, texts = _OfImagesAndTexts(), _OfImagesAndTexts()
    objective = ISogCLR("bimodal", two_sided=True).double()
    for step, batch in enumerate(BATCHES):
        views, index = _views(step), torch.tensor(batch)
        expected = images(index, *views) + texts(index, *views[::-1])
        loss = 2 * evaluate(objective, *views, relation=Paired(index), **way)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        for one, other in zip(*(torch.autograd.grad(value, views) for value in (loss, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
        for side, official in ((objective, images), (objective.opposite, texts)):
            torch.testing.assert_close(side.temperature.of(torch.arange(8)), official.tau, rtol=1e-9, atol=0)


# -- what they are for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: SogCLR(1.0, temperature=0.3), lambda: ISogCLR(gamma=1.0, temperature=0.3)])
def test_of_the_present_batch_alone_the_gradient_is_that_of_dcl(make: Any) -> None:
    views, ids = _views(9), torch.arange(4).repeat(2)
    relation = Views(2, ids=ids)
    objective = make().double()
    evaluate(objective, torch.cat(_views(8)), relation=relation)  # what was there before does not count
    temperature = (
        objective.temperature.of(ids[:4])
        if isinstance(objective, ISogCLR)
        else 0.3 * torch.ones(4, dtype=torch.float64)
    )
    loss = objective(torch.cat(views), relation=relation)
    rows = DCL(temperature=1.0, reduction="none")
    if isinstance(objective, ISogCLR):
        rows.temperature = IndividualTemperature(0.3)
        rows.temperature.temperatures.write(ids[:4], temperature)
    else:
        rows = DCL(temperature=0.3, reduction="none")
    expected = (temperature.repeat(2) * rows(torch.cat(views), relation=relation)).mean()
    for one, other in zip(*(torch.autograd.grad(value, views) for value in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_the_average_comes_to_the_mass_of_all_data() -> None:
    """Small batches of fixed embeddings: u_i nears the mean over all items, much nearer than a batch's mean is."""
    n, size, t = 32, 8, 0.5
    generator = torch.Generator().manual_seed(0)
    items = normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64))
    keys = normalize(items + 0.3 * torch.randn(n, 4, generator=generator, dtype=torch.float64))
    e = (items @ keys.T / t).exp()
    whole = (e.sum(1) - e.diagonal()) / (n - 1)
    batch_errors, errors = [], {}
    for gamma in (0.5, 0.07):
        objective = SogCLR(gamma, temperature=t).double()
        for _ in range(45):
            for ids in torch.randperm(n, generator=generator).split(size):
                objective(items[ids], keys[ids], relation=Paired(ids))
                if gamma == 0.5:
                    of_batch = (e[ids][:, ids].sum(1) - e[ids, ids]) / (size - 1)
                    batch_errors.append(((of_batch - whole[ids]) / whole[ids]).abs().mean())
        found = objective.log_mass(torch.arange(n)).exp()
        errors[gamma] = float(((found - whole) / whole).abs().mean())
    assert errors[0.07] < 0.1
    assert errors[0.07] < 0.5 * errors[0.5] < 0.5 * float(torch.stack(batch_errors).mean())


def _dual(scores: Tensor, rho: float, t: float) -> float:
    return t * (float(torch.logsumexp(scores / t, 0)) - math.log(len(scores))) + t * rho


@pytest.mark.parametrize("rho", [0.2, 0.6, 1.2])
def test_the_temperature_comes_to_the_minimiser_of_the_dual(rho: float) -> None:
    """Of a fixed row; there the distribution of its negatives is rho away from the uniform one."""
    scores = torch.tensor([[0.9, 0.7, 0.1, -0.3, 0.55, 0.2, -0.8, 0.4]], dtype=torch.float64)
    temperature = IndividualTemperature(0.3, minimum=0.01, rho=rho, rate=0.06, momentum=1.0)
    objective = ISogCLR(temperature=temperature, gamma=1.0)
    relation = Paired(torch.tensor([5]), torch.tensor([5, *[-1] * 7]))
    for _ in range(150):
        objective(scores=scores, relation=relation)
    found = float(temperature.of(torch.tensor([5])))
    behind = scores[0, 1:] - scores[0, 0]
    grid = [0.01 + 0.001 * step for step in range(990)]
    best = min(grid, key=lambda t: _dual(behind, rho, t))
    assert found == pytest.approx(best, abs=2e-3)
    share = torch.softmax(behind / found, 0)
    assert float((share * (share * len(share)).log()).sum()) == pytest.approx(rho, rel=1e-2)
    assert share.sum().item() == pytest.approx(1.0)


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SogCLR, ISogCLR])
def test_only_training_writes_down(make: type[SogCLR]) -> None:
    views, relation = torch.cat(_views(1)), Views(2, ids=torch.tensor([4, 1, 0, 2]).repeat(2))
    objective = make().double()
    objective(views, relation=relation)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    losses = [objective.eval()(views, relation=relation) for _ in range(2)]
    assert losses[0] == losses[1]
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    objective.train()(views, relation=relation)
    assert any(not torch.equal(value, before[name]) for name, value in objective.state_dict().items())


@pytest.mark.parametrize("make", [SogCLR, ISogCLR])
def test_a_state_goes_on_in_another_objective(make: type[SogCLR]) -> None:
    first, second = make(two_sided=True).double(), make(two_sided=True, items=100).double()
    for step, batch in enumerate(BATCHES[:3]):
        first(*_views(step), relation=Paired(torch.tensor(batch)))
    second.load_state_dict(first.state_dict())
    for step, batch in enumerate(BATCHES[3:], 3):
        one, other = (each(*_views(step), relation=Paired(torch.tensor(batch))) for each in (first, second))
        assert one.item() == other.item()


def test_sides_remember_apart_but_share_a_scheduled_temperature() -> None:
    objective = SogCLR(temperature="cosine:0.1:0.5:10", two_sided=True).double()
    assert objective.opposite.temperature is objective.temperature
    objective(*_views(0), relation=Paired(torch.arange(4)))
    one, other = objective.log_mass(torch.arange(4)), objective.opposite.log_mass(torch.arange(4))
    assert (one - other).abs().max() > 1e-3
    scores = normalize(_views(0)[0]) @ normalize(_views(0)[1]).T
    views = [view.detach() for view in _views(0)]
    for relation in (Paired(torch.arange(4)), Paired(torch.tensor([3, 1, 0, 2]), torch.tensor([3, 1, 0, 2]))):
        one, other = (SogCLR(two_sided=True).double() for _ in range(2))
        torch.testing.assert_close(one(*views, relation=relation), other(scores=scores, relation=relation))


def test_they_need_ids_and_no_learned_temperature() -> None:
    for relation in (None, Views(2)):
        with pytest.raises(ValueError, match="needs their ids"):
            SogCLR()(_views(0)[0], None if relation else _views(0)[1], relation=relation)
    with pytest.raises(ValueError, match="reduction='none'"):
        SogCLR(two_sided=True, reduction="none")(*_views(0), relation=Paired(torch.arange(4)))
    with pytest.raises(UsageError, match="cannot be learned"):
        SogCLR(temperature="learned")
    for wrong in ("learned", "0.1", True):
        with pytest.raises(UsageError, match="number"):
            ISogCLR(temperature=wrong)
    for make in (SogCLR, ISogCLR):
        for gamma in (0.0, 1.1, math.nan):
            with pytest.raises(UsageError, match="gamma"):
                make(gamma=gamma)
    with pytest.raises(UsageError, match="'paper', 'unimodal' or 'bimodal'"):
        ISogCLR("images")


@pytest.mark.parametrize("make", [lambda: SogCLR(temperature=0.005), lambda: ISogCLR("bimodal", temperature=0.005)])
def test_no_temperature_overflows(make: Any) -> None:
    """exp(1/0.005) is far beyond float32 and float64 alike can hold sums of it only as logarithms."""
    objective: RowObjective = make()
    items = normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for _ in range(3):
        loss = objective(items, -items, relation=Paired(torch.arange(6)))
        (gradient,) = torch.autograd.grad(loss, items)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert torch.isfinite(objective.log_mass(torch.arange(6))).all()
