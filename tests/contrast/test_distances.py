"""Euclidean distances: as exact as differences taken one by one, whichever way they are computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.contrast.distances import euclidean


def _random(seed: int, n: int, d: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _plain(query: Tensor, keys: Tensor) -> Tensor:
    return (query[:, None, :] - keys[None, :, :]).square().sum(-1).sqrt()


def _cases(dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    query, keys = _random(0, 20, dtype=dtype), _random(1, 30, dtype=dtype)
    close = keys.clone()
    close[:5] = query[:5] + 1e-3 * _random(2, 5, dtype=dtype)
    close[7] = query[3]
    crowd = 1 + 1e-3 * _random(3, 30, dtype=dtype)
    return {
        "apart": (query, keys),
        "near duplicates": (query, close),
        "all far from the origin": (query + 100, keys + 100),
        "all alike": (crowd[:20] + 1e-5 * query, crowd + 1e-4 * keys),
        "one of each": (query[:1], keys[:1]),
    }


@pytest.mark.parametrize("name", _cases(torch.float64))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparse", [True, False])
def test_values_and_gradients(name: str, dtype: torch.dtype, sparse: bool) -> None:
    query, keys = (value.requires_grad_() for value in _cases(dtype)[name])
    exact = [value.detach().double().requires_grad_() for value in (query, keys)]
    distances, expected = euclidean(query, keys), _plain(*exact)
    scale = 1e-5 if dtype == torch.float32 else 1e-12
    # a float32 item holds its own rounding: 100 + x is known to 1e-5
    torch.testing.assert_close(distances.double(), expected, rtol=scale, atol=0)
    upstream = _random(5, distances.numel(), 1).reshape(distances.shape)
    upstream = upstream * (distances.detach() > 0)  # at distance 0 the plain square root has no gradient
    if sparse:
        upstream = upstream * (torch.arange(distances.shape[1]) == torch.arange(len(query))[:, None])
    found = torch.autograd.grad(distances, (query, keys), upstream.to(dtype))
    safe = torch.where(expected > 0, expected, 1)
    pull = upstream / safe
    wanted = [pull.sum(1)[:, None] * exact[0] - pull @ exact[1], pull.sum(0)[:, None] * exact[1] - pull.T @ exact[0]]
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).norm() <= 10 * scale * other.norm()


def test_equal_items() -> None:
    items = _random(0, 6).requires_grad_()
    distances = euclidean(items, items.detach())
    assert (distances.diagonal() == 0).all()
    (gradient,) = torch.autograd.grad(distances.diagonal().sum(), items, retain_graph=True)
    assert (gradient == 0).all()
    (gradient,) = torch.autograd.grad(distances.sum(), items)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["apart", "all alike"])
def test_both_ways_have_all_derivatives(name: str) -> None:
    query, keys = (value[:4, :3].clone().requires_grad_() for value in _cases(torch.float64)[name])
    weights = _random(9, 4, 4)
    call = lambda q, k: (euclidean(q, k) * weights).sum()  # noqa: E731
    if name == "apart":
        assert torch.autograd.gradcheck(call, (query, keys))
        assert torch.autograd.gradgradcheck(call, (query, keys))
    else:
        scaled = [(1e4 * (value.detach() - 1)).requires_grad_() for value in (query, keys)]
        assert torch.autograd.gradcheck(lambda q, k: call(1 + 1e-4 * q, 1 + 1e-4 * k), scaled, atol=1e-7)


def test_what_is_not_a_number_shows() -> None:
    query = _random(0, 3)
    query[1, 2] = torch.nan
    distances = euclidean(query, _random(1, 4))
    assert torch.isnan(distances[1]).all()
    assert torch.isfinite(distances[[0, 2]]).all()


def test_huge_items_do_not_overflow_where_their_distance_does_not() -> None:
    query, keys = 1e25 * _random(0, 3, dtype=torch.float32), 1e25 * _random(1, 3, dtype=torch.float32)
    with_scale = euclidean(query / 1e25, keys / 1e25)
    found = euclidean(query, keys)
    assert torch.isinf(found).all() or torch.allclose(found / 1e25, with_scale, rtol=1e-5)
