"""Euclidean distances between all pairs: by a matrix product, and by differences where that would cancel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CANCELLATION = 0.01
"""Pairs whose squared distance is below this share of ``|q|^2 + |k|^2`` are computed from their difference, so that no
distance loses more than two of its digits to the product."""

_CHUNK = 2**15
"""Pairs whose differences are held at once."""


def euclidean(query: Tensor, keys: Tensor) -> Tensor:
    """``|q_i - k_j|``, ``[t, m]``; equal items have distance exactly 0, where the gradient is 0.

    Differentiable any number of times (`torch.cdist` is once).
    """
    distances: Tensor = _Distances.apply(query, keys)  # type: ignore[no-untyped-call]
    return distances


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor) -> Tensor:
        # a common offset of all items cancels in every difference; without it fewer pairs need theirs taken
        centre = keys.mean(0)
        one, other = query - centre, keys - centre
        squares = one.square().sum(1)[:, None] + other.square().sum(1)[None, :]
        squared = torch.addmm(squares, one, other.T, alpha=-2.0)
        near = ~(squared >= CANCELLATION * squares)  # also what is not a number
        ctx.by_product = int(near.sum()) * 16 <= near.numel()
        if not ctx.by_product:
            distances = torch.cdist(query, keys, compute_mode="donot_use_mm_for_euclid_dist")
            ctx.save_for_backward(query, keys, distances)
            return distances
        rows, columns = near.nonzero(as_tuple=True)
        distances = squared.sqrt_()
        for part in _parts(rows):
            difference = query[rows[part]] - keys[columns[part]]
            distances[rows[part], columns[part]] = torch.linalg.vector_norm(difference, dim=1)
        ctx.save_for_backward(query, keys, distances, rows, columns)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        query, keys, distances, *near = ctx.saved_tensors
        if torch.is_grad_enabled():
            pull = _over(gradient, distances)
            return _towards(pull, query, keys), _towards(pull.T, keys, query)
        nonzero = gradient != 0
        if int(nonzero.sum()) <= 4 * sum(gradient.shape):  # what mining leaves: a few pairs a row
            return _of_pairs(gradient, query, keys, distances, *nonzero.nonzero(as_tuple=True))
        if not ctx.by_product:
            return _exact(gradient, query, keys, distances), _exact(gradient.T, keys, query, distances.T)
        pull = _over(gradient, distances)
        pull[near[0], near[1]] = 0
        d_query, d_keys = _of_pairs(gradient, query, keys, distances, *near)
        centre = keys.mean(0)
        one, other = query - centre, keys - centre
        return d_query + _towards(pull, one, other), d_keys + _towards(pull.T, other, one)


def _over(gradient: Tensor, distances: Tensor) -> Tensor:
    """``gradient / distance``, 0 where the distance is 0."""
    apart = distances > 0
    return torch.where(apart, gradient / torch.where(apart, distances, 1), 0)


def _towards(pull: Tensor, items: Tensor, others: Tensor) -> Tensor:
    """``sum_j pull_ij (x_i - y_j)``."""
    return pull.sum(1)[:, None] * items - torch.mm(pull, others)


def _of_pairs(
    gradient: Tensor, query: Tensor, keys: Tensor, distances: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of queries and keys that the given pairs alone make, from their differences."""
    d_query, d_keys = torch.zeros_like(query), torch.zeros_like(keys)
    for part in _parts(rows):
        row, column = rows[part], columns[part]
        pull = _over(gradient[row, column], distances[row, column])
        moved = pull[:, None] * (query[row] - keys[column])
        d_query.index_add_(0, row, moved)
        d_keys.index_add_(0, column, moved, alpha=-1)
    return d_query, d_keys


def _exact(gradient: Tensor, items: Tensor, others: Tensor, distances: Tensor) -> Tensor:
    exact: Tensor = torch.ops.aten._cdist_backward(
        gradient.contiguous(), items.contiguous(), others.contiguous(), 2.0, distances.contiguous()
    )
    return exact


def _parts(rows: Tensor) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, rows.numel(), _CHUNK)]
