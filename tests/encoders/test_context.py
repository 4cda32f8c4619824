"""Several vectors of an item become one."""

from __future__ import annotations

import pytest
import torch

from nearfar.encoders.context import Context
from nearfar.errors import UsageError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_mean_is_the_mean() -> None:
    context, vectors = Context(4, 3, kind="mean"), torch.randn(5, 6, 4)
    torch.testing.assert_close(context(vectors), context.linear(vectors.mean(1)))


def test_attention_weighs_by_its_formula() -> None:
    context, vectors = Context(4, 3), torch.randn(5, 6, 4)
    assert context.attention is not None
    below, _, above, _ = context.attention
    logits = torch.stack(
        [torch.tanh(vectors[:, j] @ below.weight.T + below.bias) @ above.weight[0] for j in range(6)], 1
    )
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(context.weights(vectors), weights)
    expected = context.linear((weights[..., None] * vectors).sum(1))
    torch.testing.assert_close(context(vectors), expected)
    assert float(weights.detach().std()) > 0.01


@pytest.mark.parametrize("kind", ["attention", "mean"])
def test_order_and_padding_do_not_matter(kind: str) -> None:
    context, vectors = Context(4, 3, kind=kind), torch.randn(2, 5, 4)  # type: ignore[arg-type]
    torch.testing.assert_close(context(vectors), context(vectors.flip(1)))
    mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    padded = vectors.masked_fill(~mask[..., None], torch.nan)
    torch.testing.assert_close(context(padded, mask)[0], context(vectors[:1, [0, 2, 3]])[0])
    torch.testing.assert_close(context(padded, mask)[1], context.linear.bias)


def test_gradients_reach_every_vector() -> None:
    context, vectors = Context(4, 3), torch.randn(2, 5, 4, requires_grad=True)
    context(vectors).square().sum().backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(2) > 0).all()


@pytest.mark.parametrize("kind", ["attention", "mean"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_masked_reaches_neither_result_nor_gradients(kind: str, value: float) -> None:
    context = Context(4, 3, kind=kind)  # type: ignore[arg-type]
    mask = torch.tensor([[True, False, True], [False] * 3])
    vectors = torch.randn(2, 3, 4)

    def run(filling: float) -> list[torch.Tensor]:
        context.zero_grad()
        given = vectors.masked_fill(~mask[..., None], filling).requires_grad_()
        outputs = context(given, mask)
        outputs.square().sum().backward()
        assert given.grad is not None
        return [outputs, context.weights(given, mask), given.grad, *(each.grad for each in context.parameters())]

    for found, expected in zip(run(value), run(0.0), strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    context = Context(4, 3)
    with pytest.raises(ValueError, match=r"\[n, width, 4\]"):
        context(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="mask must be"):
        context(torch.zeros(2, 5, 4), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UsageError, match="'attention' or 'mean'"):
        Context(4, 3, kind="sum")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        Context(0, 3)
