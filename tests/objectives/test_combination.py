"""Combining losses: the shortest combination of gradients and its optimality conditions, descent, fixed weights."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nearfar.errors import UsageError
from nearfar.objectives import MGDA, Alignment, LinearScalarization, Uniformity, get, min_norm_weights


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _assert_optimal(gradients: Tensor, weights: Tensor, tolerance: float = 1e-9) -> None:
    """The Karush-Kuhn-Tucker conditions: all lean at least |d|^2 along d, those in use exactly that."""
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    shortest = weights @ gradients
    slack = gradients @ shortest - shortest @ shortest
    largest = gradients.square().sum(1).max()
    assert (slack >= -tolerance * largest).all()
    assert (slack[weights > 1e-9].abs() <= tolerance * largest).all()


@pytest.mark.parametrize(
    ("seed", "shape", "squared", "weights"),
    [
        (0, (2, 5), 0.7413466665237444, [1.0, 0.0]),
        (2, (4, 3), 0.015228414753823731, [0.56263548, 0.0, 0.43736452, 0.0]),
    ],
)
def test_recorded(seed: int, shape: tuple[int, int], squared: float, weights: list[float]) -> None:
    """torchjd 0.18.0, MGDA, and scipy's SLSQP on the quadratic programme; gradients standard normal, rows tasks."""
    gradients = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
    found = min_norm_weights(gradients @ gradients.T)
    assert (found @ gradients).square().sum().item() == pytest.approx(squared, rel=1e-9)
    assert found.tolist() == pytest.approx(weights, abs=1e-8)


def test_two_gradients_in_closed_form() -> None:
    for seed in range(200):
        g1, g2 = _normal(seed, 2, 3) * torch.tensor([[1.0], [0.1 + seed % 7]])
        products = torch.stack([g1, g2]) @ torch.stack([g1, g2]).T
        weight = min_norm_weights(products)[0].item()
        if g1 @ g2 >= g1 @ g1:
            expected = 1.0
        elif g1 @ g2 >= g2 @ g2:
            expected = 0.0
        else:
            expected = ((g2 - g1) @ g2 / (g1 - g2).square().sum()).item()
        assert weight == pytest.approx(expected, abs=1e-12)
        lengths = [(a * g1 + (1 - a) * g2).norm().item() for a in torch.linspace(0, 1, 21).tolist()]
        assert (weight * g1 + (1 - weight) * g2).norm().item() <= min(lengths) + 1e-12


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 9), d=st.integers(1, 6), seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 1.0, 4.0]))
def test_the_shortest_combination_is_optimal(m: int, d: int, seed: int, spread: float) -> None:
    """More gradients than dimensions, repeated ones, and lengths that differ by orders of magnitude."""
    gradients = _normal(seed, m, d) * torch.exp(spread * _normal(seed + 1, m, 1))
    gradients[m // 2] = gradients[0]
    _assert_optimal(gradients, min_norm_weights(gradients @ gradients.T))


def test_gradients_around_the_origin_cancel() -> None:
    simplex = torch.eye(4).double() - 0.25
    weights = min_norm_weights(simplex @ simplex.T)
    assert (weights @ simplex).norm().item() == pytest.approx(0, abs=1e-9)
    assert weights.tolist() == pytest.approx([0.25] * 4)


def test_special_gradients() -> None:
    assert min_norm_weights(torch.tensor([[4.0]])).tolist() == [1]
    assert min_norm_weights(torch.zeros(3, 3)).tolist() == pytest.approx([1 / 3] * 3)
    assert min_norm_weights(torch.ones(2, 2)).tolist() == [0.5, 0.5]  # equal gradients
    assert min_norm_weights(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0, 1]  # a stationary loss
    assert min_norm_weights(torch.diag(torch.tensor([1e-30, 4e-30]))).tolist() == pytest.approx([0.8, 0.2])
    assert min_norm_weights(torch.diag(torch.tensor([1.0, 2.0, 4.0]))).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    for seed, angle in itertools.product(range(3), (0.1, 1.0, 3.0)):  # of equal length, at any angle: the middle
        g = _normal(seed, 2)
        turned = (
            torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
            @ g
        )
        both = torch.stack([g, turned])
        assert min_norm_weights(both @ both.T).tolist() == pytest.approx([0.5, 0.5])


class _Tasks(nn.Module):
    """A shared layer and a head for each of three losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3)).double()
        self.register_buffer("x", _normal(1, 6, 4))
        self.register_buffer("y", _normal(2, 3, 6))

    def losses(self, represented: Tensor | None = None, count: int = 3) -> list[Tensor]:
        represented = self.body(self.x) if represented is None else represented
        scales = (1.0, 3.0, 0.2)
        return [scales[k] * (self.heads[k](represented)[:, 0] - self.y[k]).square().mean() for k in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_no_loss_rises_along_the_common_direction(count: int) -> None:
    tasks = _Tasks()
    shared = list(tasks.body.parameters())
    losses = tasks.losses(count=count)
    combined = MGDA()(losses, shared)
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]) for loss in losses]
    _assert_optimal(torch.stack(rows), combined.weights)
    torch.testing.assert_close(combined.loss, sum(w * loss for w, loss in zip(combined.weights, losses, strict=True)))
    expected = torch.autograd.grad(combined.loss, shared, retain_graph=True)
    for one, other in zip(combined.gradients, expected, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        for tensor, gradient in zip(shared, combined.gradients, strict=True):
            tensor -= 1e-3 * gradient
    for before, after in zip(losses, tasks.losses(count=count), strict=True):
        assert after < before


def test_heads_follow_their_own_loss() -> None:
    tasks = _Tasks()
    shared, own = list(tasks.body.parameters()), list(tasks.heads.parameters())
    losses = tasks.losses()
    of_own = torch.autograd.grad(sum(losses), own, retain_graph=True)
    for _ in range(2):  # gradients add up, as backward's do
        combined = MGDA().backward(losses, shared, own)
    for tensor, gradient in (*zip(shared, combined.gradients, strict=True), *zip(own, of_own, strict=True)):
        torch.testing.assert_close(tensor.grad, 2 * gradient)


def test_the_representation_stands_for_what_comes_before_it() -> None:
    """Sener and Koltun's upper bound: one pass through the body, the same direction of descent for all."""
    tasks = _Tasks()
    represented = tasks.body(tasks.x)
    losses = tasks.losses(represented)
    combined = MGDA()(losses, represented)
    rows = torch.stack([torch.autograd.grad(loss, represented, retain_graph=True)[0].flatten() for loss in losses])
    _assert_optimal(rows, combined.weights)
    torch.testing.assert_close(combined.gradients[0].flatten(), combined.weights @ rows)
    assert (rows @ (combined.weights @ rows) > 0).all()


@pytest.mark.parametrize("normalization", ["none", "l2", "loss", "loss+"])
def test_normalizations(normalization: str) -> None:
    tasks = _Tasks()
    shared = list(tasks.body.parameters())
    losses = tasks.losses()
    rows = torch.stack(
        [torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]) for loss in losses]
    )
    if normalization in ("l2", "loss+"):
        rows = rows / rows.norm(dim=1, keepdim=True)
    if normalization in ("loss", "loss+"):
        rows = rows / torch.stack(losses).detach()[:, None]
    weights = MGDA(normalization)(losses, shared).weights
    _assert_optimal(rows, weights)
    torch.testing.assert_close(weights, min_norm_weights(rows @ rows.T))


def test_small_gradients_attract_the_weight_unless_normalized() -> None:
    z = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)
    losses = [(z - torch.tensor([3.0, 0.0])).square().sum(), 1e-3 * (z - torch.tensor([0.0, 3.0])).square().sum()]
    assert MGDA()(losses, z).weights[1] > 0.99
    assert MGDA("l2")(losses, z).weights.tolist() == pytest.approx([0.5, 0.5])


def test_it_stops_at_pareto_stationary_points_alone() -> None:
    """Two targets: every point between them is stationary, and descent ends at one of these."""
    ends = torch.tensor([[1.0, 0.0], [-1.0, 2.0]]).double()
    z = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        combined = MGDA()([(z - end).square().sum() for end in ends], z)
        with torch.no_grad():
            z -= 0.1 * combined.gradients[0]
    assert combined.gradients[0].norm() < 1e-6
    along = ends[1] - ends[0]
    share = ((z.detach() - ends[0]) @ along / along.square().sum()).item()
    assert 0 < share < 1
    torch.testing.assert_close(z.detach(), ends[0] + share * along, atol=1e-6, rtol=0)


def test_objectives_of_the_catalogue_combine() -> None:
    """Alignment and uniformity pull apart; their shortest combination still lowers both."""
    z = _normal(3, 8, 3).requires_grad_()
    views = z[:4], z[4:]
    losses = [Alignment()(*views), Uniformity()(*views)]
    combined = get("mgda")(losses, z)
    gradients = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses]
    for gradient in gradients:
        assert (gradient * combined.gradients[0]).sum() >= combined.gradients[0].square().sum() - 1e-12
    combined.loss.backward()
    torch.testing.assert_close(z.grad, combined.gradients[0])


def test_linear_scalarization() -> None:
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    assert LinearScalarization()([a, b]).loss.item() == 3.5
    combined = get("linear", weights=[1.0, 0.25])([a, b])
    assert combined.loss.item() == 3.25
    assert combined.weights.tolist() == [1, 0.25]
    combined.loss.backward()
    assert (a.grad.item(), b.grad.item()) == (1, 0.25)


def test_a_loss_that_shares_nothing_has_no_gradient() -> None:
    z, other = _normal(4, 3).requires_grad_(), _normal(5, 3).requires_grad_()
    combined = MGDA()([z.square().sum(), other.square().sum()], z)
    assert combined.weights.tolist() == [0, 1]
    assert (combined.gradients[0] == 0).all()


def test_what_does_not_fit() -> None:
    z = _normal(6, 3).requires_grad_()
    loss = z.square().sum()
    with pytest.raises(ValueError, match=r"scalars, got \[\(3,\)\]"):
        MGDA()([z], z)
    with pytest.raises(ValueError, match="one or more scalars"):
        LinearScalarization()([])
    with pytest.raises(ValueError, match="2 weights for 1 losses"):
        LinearScalarization([1.0, 2.0])([loss])
    with pytest.raises(ValueError, match="that the losses share"):
        MGDA()([loss])
    with pytest.raises(ValueError, match="no loss depends"):
        MGDA()([loss.detach()], z)
    with pytest.raises(ValueError, match=r"\[m, m\], got \(2, 3\)"):
        min_norm_weights(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="finite"):
        min_norm_weights(torch.full((2, 2), math.nan))
    for make in (lambda: MGDA("L2"), lambda: LinearScalarization([]), lambda: LinearScalarization([-1.0])):
        with pytest.raises(UsageError):
            make()
