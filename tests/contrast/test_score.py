"""Scores: values by loops, first and second derivatives, and edges."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Cosine, Dot, NegativeEuclidean, NegativeSquaredEuclidean, Score, normalize
from nearfar.contrast.score import SCORES, get
from nearfar.errors import UsageError


def _unit(x: list[float]) -> list[float]:
    return [value / math.hypot(*x) for value in x]


def _of_quotient(product: complex, q: list[float], k: list[float]) -> float:
    """Of three dimensions as the complex vector ``[x_0 + i x_2, x_1]``."""
    return abs(product.real + product.imag) / (math.hypot(*q) * math.hypot(*k))


LOOPS = {
    "dot": lambda q, k: sum(a * b for a, b in zip(q, k, strict=True)),
    "cosine": lambda q, k: sum(a * b for a, b in zip(q, k, strict=True)) / (math.hypot(*q) * math.hypot(*k)),
    "negative-euclidean": lambda q, k: -math.dist(q, k),
    "negative-squared-euclidean": lambda q, k: -sum((a - b) ** 2 for a, b in zip(q, k, strict=True)),
    "angle": lambda q, k: _of_quotient(complex(q[0], q[2]) * complex(k[0], -k[2]) + q[1] * k[1], q, k),
    "negative-normalized-euclidean": lambda q, k: -math.dist(_unit(q), _unit(k)),
    "negative-snr": lambda q, k: (
        -(statistics.pvariance(a - b for a, b in zip(_unit(q), _unit(k), strict=True)) / statistics.pvariance(_unit(q)))
    ),
}


def _items(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _scores(score: Score, query: Tensor, key: Tensor) -> Tensor:
    return score(score.embed(query), score.embed(key))


@pytest.mark.parametrize("name", SCORES)
def test_values(name: str) -> None:
    score, query, key = get(name), _items(0, 4), _items(1, 6)
    loops = [[LOOPS[name](q, k) for k in key.tolist()] for q in query.tolist()]
    expected = torch.tensor(loops, dtype=torch.float64)
    torch.testing.assert_close(_scores(score, query, key), expected, rtol=1e-12, atol=1e-12)
    pairs = score.paired(score.embed(query), score.embed(key[:4]))
    torch.testing.assert_close(pairs, expected.diagonal(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_first_and_second_derivatives(name: str) -> None:
    score = get(name)
    inputs = ((0.2 * _items(2, 3)).requires_grad_(), (0.2 * _items(3, 4)).requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: _scores(score, q, k), inputs)
    assert torch.autograd.gradgradcheck(lambda q, k: _scores(score, q, k), inputs)


@pytest.mark.parametrize("name", SCORES)
def test_equal_and_zero_vectors(name: str) -> None:
    """Finite values and gradients; the distance to oneself is exactly 0; a zero vector's cosine is 0."""
    score = get(name)
    query = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    key = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]], requires_grad=True)
    values = _scores(score, query, key)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(query.grad).all()
    assert torch.isfinite(key.grad).all()
    if "euclidean" in name:
        assert values[0, 0] == values[1, 1] == 0
    if name == "cosine":
        assert values[1].tolist() == [0, 0, 0]
        assert query.grad[1].tolist() == [0, 0]


def test_gradient_of_distance_zero_is_zero() -> None:
    for score in (NegativeEuclidean(), NegativeSquaredEuclidean()):
        query = torch.tensor([[1.0, 2.0]], requires_grad=True)
        key = torch.tensor([[1.0, 2.0]], requires_grad=True)
        score(query, key).sum().backward()
        assert query.grad.tolist() == key.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("name", SCORES)
def test_gradients_that_may_be_differentiated_again_are_the_same(name: str) -> None:
    query, key = _items(8, 4), _items(9, 5)
    key[1], key[2] = query[1], 0.5 * query[2]
    query.requires_grad_()
    key.requires_grad_()
    plain, again = (
        torch.autograd.grad(_scores(get(name), query, key).exp().sum(), (query, key), create_graph=create_graph)
        for create_graph in (False, True)
    )
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_near_duplicates_keep_their_direction() -> None:
    """float32 distances of 1e-3 between vectors of length 100: squares first would leave nothing of them."""
    query = torch.full((1, 4), 50.0, requires_grad=True)
    key = (query.detach() + torch.tensor([[0.0, 0.0, 1e-3, 0.0]])).requires_grad_()
    distance = float(key.detach()[0, 2] - 50.0)
    values = NegativeEuclidean()(query, key)
    values.sum().backward()
    assert values.item() == pytest.approx(-distance, rel=1e-6)
    torch.testing.assert_close(query.grad, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    torch.testing.assert_close(key.grad, torch.tensor([[0.0, 0.0, -1.0, 0.0]]))


def test_gradient_of_one_side_alone() -> None:
    score = NegativeEuclidean()
    query, key = _items(4, 3), _items(5, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(score(query, key).sum(), key)
    assert torch.autograd.gradcheck(lambda k: score(query, k), (key,))
    assert gradient.shape == key.shape


def test_normalize() -> None:
    items = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], requires_grad=True)
    unit = normalize(items)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0, 0], [0, -1]]))
    unit[:, 0].sum().backward()
    torch.testing.assert_close(items.grad, torch.tensor([[0.64 / 5, -0.48 / 5], [0, 0], [0.5, 0]]))


@pytest.mark.parametrize("length", [1e-15, 1e-4, 1e15])
def test_normalize_lengths_far_from_one(length: float) -> None:
    items = torch.tensor([[3.0, 4.0]]) * length
    assert normalize(items)[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


def test_ranges() -> None:
    query, key = _items(6, 30), _items(7, 40)
    cosine = _scores(Cosine(), query, key)
    assert (cosine.abs() <= 1 + 1e-12).all()
    assert (_scores(NegativeEuclidean(), query, key) <= 0).all()
    assert (_scores(NegativeSquaredEuclidean(), 1e6 * query, 1e6 * query) <= 0).all()
    torch.testing.assert_close(_scores(Cosine(), 5 * query, 0.1 * key), cosine)


def test_names() -> None:
    assert isinstance(get("cosine"), Cosine)
    own = Dot()
    assert get(own) is own
    with pytest.raises(UsageError, match="no score 'manhattan'") as caught:
        get("manhattan")
    assert "cosine, dot" in str(caught.value)


def test_a_row_that_is_not_a_number_is_not_hidden() -> None:
    rows = torch.tensor([[float("nan"), 1.0], [3.0, 4.0], [0.0, 0.0]])
    found = normalize(rows)
    assert torch.isnan(found[0]).all()
    assert torch.equal(found[1:], torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
