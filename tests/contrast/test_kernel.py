"""Kernels of a condition, and the weights that estimate an expectation given it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.contrast import Kernel
from nearfar.contrast.kernel import ConditionalKernel
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE

CPU = torch.device("cpu")


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


LOOPS = {
    "rbf": lambda a, b: math.exp(-(_distance(a, b) ** 2) / 0.7),
    "laplacian": lambda a, b: math.exp(-_distance(a, b) / 0.7),
    "cosine": lambda a, b: float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)),
    "linear": lambda a, b: float(a @ b) / 0.7,
    "polynomial": lambda a, b: float(a @ b) ** 3 / 0.7,
    "delta": lambda a, b: float(_distance(a, b) == 0),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("far", ["complement", "all"])
@pytest.mark.parametrize("fn", LOOPS)
def test_weights_are_the_kernel(fn: str, far: str, own: bool) -> None:
    condition = _drawn(0, 5, 2)
    other = condition if own else torch.cat([_drawn(1, 3, 2), condition[1:2]])
    given = Kernel(condition, fn, key_condition=None if own else other, bandwidth=0.7, far=far)
    bound = given.bind(5, len(other), self_contrast=own, device=CPU)
    positive, negative = bound.tile(slice(0, 5))
    for i, a in enumerate(condition.numpy()):
        for j, b in enumerate(other.numpy()):
            kernel = max(LOOPS[fn](a, b), 0.0)
            expected = [kernel, 1.0 if far == "all" else max(1 - kernel, 0.0)]
            expected = [0.0, 0.0] if own and i == j else expected
            assert [positive[i, j].item(), negative[i, j].item()] == pytest.approx(expected, abs=1e-12)
    rows, columns = torch.tensor([3, 0]), torch.tensor([2, 1])
    for part, whole in zip(bound.tile(rows, columns), (positive, negative), strict=True):
        torch.testing.assert_close(part, whole[rows][:, columns])
    turned = bound.transpose()
    assert turned.shape == bound.shape[::-1]
    for part, whole in zip(turned.tile(slice(0, len(other))), (positive, negative), strict=True):
        torch.testing.assert_close(part, whole.T)


def test_functions_and_single_numbers() -> None:
    ages = torch.tensor([20, 30, 31])
    relation = Kernel(ages, lambda a, b: ((a - b.T).abs() < 5).double(), far=lambda a, b: 1 + (a - b.T).abs())
    positive, negative = relation.bind(3, 3, self_contrast=True, device=CPU).tile(slice(0, 3))
    assert positive.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert negative.tolist() == [[0, 11, 12], [11, 0, 2], [12, 2, 0]]


def test_it_takes_linear_memory_of_conditions() -> None:
    relation = Kernel(_drawn(2, 7, 3)).bind(7, 7, self_contrast=True, device=CPU)
    assert sum(value.numel() for value in relation.query_state.values()) == 7 * 3 + 7 + 7


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Kernel(_drawn(0, 3), "gauss"), "no kernel 'gauss'"),
        (lambda: Kernel(_drawn(0, 3), far="none"), "far must be"),
        (lambda: Kernel(_drawn(0, 3), bandwidth=0.0), "bandwidth"),
    ],
)
def test_arguments_that_make_no_sense(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Kernel(_drawn(0, 3, 2, 2)), r"\(3, 2, 2\)"),
        (lambda: Kernel(torch.tensor([1.0, math.nan])), "not finite"),
        (lambda: Kernel(_drawn(0, 3, 2), key_condition=_drawn(0, 3, 3)), r"\(3, 2\) and \(3, 3\)"),
        (lambda: Kernel(_drawn(0, 3), key_ids=torch.arange(3)), "without ids"),
        (lambda: Kernel(_drawn(0, 3), ids=torch.arange(4)), "3 queries|4 ids for 3"),
        (lambda: Kernel(_drawn(0, 4)), "describes 4 queries"),
    ],
)
def test_what_does_not_fit(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        InfoNCE()(_drawn(1, 3, 2), relation=make())


# -- expectations ------------------------------------------------------------------------------------------------------


def _conditional(given: Kernel, role: str, regularization: float, *, official: bool = False) -> ConditionalKernel:
    relation = given.of_kind(ConditionalKernel)
    relation.role, relation.regularization, relation.official = role, regularization, official
    return relation


def test_of_equal_conditions_the_expectation_is_the_mean() -> None:
    """The identity of the paper: with the delta kernel and no regularization."""
    groups = torch.tensor([0, 1, 0, 2, 1, 0])
    relation = _conditional(Kernel(groups, "delta"), "near", 1e-9).bind(6, 6, self_contrast=False, device=CPU)
    weights, negative = relation.tile(slice(0, 6))
    same = (groups[:, None] == groups[None, :]).double()
    torch.testing.assert_close(weights, same / same.sum(1, keepdim=True), rtol=0, atol=1e-6)
    assert torch.equal(negative, ~torch.eye(6, dtype=torch.bool))


@pytest.mark.parametrize("official", [False, True])
def test_weights_solve_the_regularized_kernel(official: bool) -> None:
    condition = _drawn(3, 6, 2)
    kernel = Kernel(condition, "rbf", bandwidth=0.5)
    relation = _conditional(kernel, "far", 0.1, official=official).bind(6, 6, self_contrast=False, device=CPU)
    positive, negative = relation.tile(slice(0, 6))
    k = kernel.compare(condition, condition)
    expected = torch.linalg.inv(k + 0.1 * torch.eye(6, dtype=torch.float64)) @ k
    if official:
        expected = expected.fill_diagonal_(0).masked_fill(expected < 1e-6, 0)
    torch.testing.assert_close(negative, 5 * expected.clamp_min(0), rtol=1e-10, atol=1e-12)
    assert torch.equal(positive, torch.eye(6, dtype=torch.bool))
    torch.testing.assert_close(relation.tile(torch.tensor([4, 1]))[1], negative[[4, 1]])


def test_views_of_an_item_count_as_one() -> None:
    """Weights of two views are those of the items; with much regularization they vanish."""
    condition, ids = _drawn(4, 4, 2), torch.tensor([2, 0, 1, 3, 0, 3, 2, 1])
    single = _conditional(Kernel(condition), "far", 0.1).bind(4, 4, self_contrast=False, device=CPU)
    both = _conditional(Kernel(condition[ids], ids=ids), "far", 0.1).bind(8, 8, self_contrast=True, device=CPU)
    expected = single.tile(slice(0, 4))[1][ids][:, ids].fill_diagonal_(0)
    torch.testing.assert_close(both.tile(slice(0, 8))[1], expected, rtol=1e-10, atol=1e-12)
    positive = both.tile(slice(0, 8))[0]
    assert positive.sum(1).tolist() == [1] * 8
    vanishing = _conditional(Kernel(condition), "far", 1e9).bind(4, 4, self_contrast=False, device=CPU)
    assert vanishing.tile(slice(0, 4))[1].max() < 1e-8


def test_hard_negatives_are_items_of_their_own() -> None:
    condition, keys = _drawn(5, 3, 2), _drawn(6, 5, 2)
    given = Kernel(condition, key_condition=keys)
    relation = _conditional(given, "near", 0.2).bind(3, 5, self_contrast=False, device=CPU)
    weights, negative = relation.tile(slice(0, 3))
    k = given.compare(keys, keys) + 0.2 * torch.eye(5, dtype=torch.float64)
    expected = torch.linalg.solve(k, given.compare(keys, condition)).T
    torch.testing.assert_close(weights, expected.clamp_min(0), rtol=1e-10, atol=1e-12)
    assert torch.equal(negative, ~torch.eye(3, 5, dtype=torch.bool))
