"""Comparators against plain loops; what a symmetric one cannot tell."""

from __future__ import annotations

import pytest
import torch

from nearfar.encoders.discourse import Comparator, Discourse, Highway
from nearfar.errors import UsageError

D = 4


def test_a_highway_layer_by_its_formula() -> None:
    layer = Highway(D).double()
    x = torch.randn(5, D, dtype=torch.float64)
    for row, out in zip(x, layer(x), strict=True):
        gate = 1 / (1 + torch.exp(-(layer.gate.weight @ row + layer.gate.bias)))
        change = (layer.change.weight @ row + layer.change.bias).clamp_min(0)
        torch.testing.assert_close(out, gate * change + (1 - gate) * row)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_scores_by_plain_loops(classes: int, symmetric: bool) -> None:
    head = Comparator(D, classes, symmetric=symmetric).double()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    left, right = torch.randn(3, D, dtype=torch.float64), torch.randn(3, 2, D, dtype=torch.float64)
    scores = head(left, right)
    assert scores.shape == (3, 2, classes)
    for n in range(3):
        for k in range(2):
            for q in range(classes):
                core = head.core[q] + (head.core[q].T if symmetric else 0)
                asked = core @ head.left(left[n]) + (0 if head.bias is None else head.bias[q])
                torch.testing.assert_close(scores[n, k, q], asked @ head.right(right[n, k]))
    torch.testing.assert_close(head(left, right[:, 0]), scores[:, 0])


def test_only_a_symmetric_comparator_ignores_the_order() -> None:
    one, other = torch.randn(2, 6, D)
    symmetric, plain = Comparator(D, symmetric=True), Comparator(D)
    torch.testing.assert_close(symmetric(one, other), symmetric(other, one))
    assert not torch.allclose(plain(one, other), plain(other, one))


def test_gradients_reach_both_sides_and_every_weight() -> None:
    head = Discourse(D, 3, context=2)
    vectors = torch.randn(7, D, requires_grad=True)
    loss = (
        head.order(vectors[:2], vectors[1:3]).sum()
        + head.next(vectors[None, :2], vectors[None, 2:6]).sum()
        + head.conjunction(vectors[:1], vectors[6:]).sum()
    )
    loss.backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(1) > 0).all()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_shapes_of_the_three_tasks() -> None:
    head = Discourse(D, 9)
    assert head.order(torch.randn(5, D), torch.randn(5, D)).shape == (5,)
    assert head.next(torch.randn(5, 3, D), torch.randn(5, 4, D)).shape == (5, 4)
    assert head.conjunction(torch.randn(5, D), torch.randn(5, D)).shape == (5, 9)
    assert head.order(torch.randn(0, D), torch.randn(0, D)).shape == (0,)


def test_sizes_that_cannot_be() -> None:
    for sizes in ((0, 1), (3, 0)):
        with pytest.raises(UsageError, match="at least 1"):
            Comparator(*sizes)
    with pytest.raises(UsageError, match="context"):
        Discourse(D, context=0)
    with pytest.raises(UsageError, match="without kinds"):
        Discourse(D, 0).conjunction(torch.randn(1, D), torch.randn(1, D))
