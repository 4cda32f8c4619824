"""Quantising heads: codes out of a few, and gradients straight through them."""

from __future__ import annotations

import pytest
import torch

from nearfar.encoders.quantization import BalancedCodes, ProductQuantizer
from nearfar.errors import UsageError
from nearfar.objectives import sinkhorn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_output_is_the_codewords_side_by_side() -> None:
    head, x = ProductQuantizer(5, 6, groups=3, codes=4).eval(), torch.randn(7, 5)
    codes = head.code_numbers(x)
    assert codes.shape == (7, 3)
    expected = torch.stack([torch.cat([head.codewords[g, codes[i, g]] for g in range(3)]) for i in range(7)])
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(x[:1]), expected[:1])
    assert len(head(torch.randn(500, 5)).detach().round(decimals=4).unique(dim=0)) <= 4**3


def test_in_training_codes_are_drawn_by_their_probabilities() -> None:
    head = ProductQuantizer(2, 1, groups=1, codes=3).train()
    x = torch.tensor([[0.7, -1.0]]).expand(20_000, 2)
    wanted = torch.softmax(head.code_logits(x[0]), -1)[0]
    drawn = (head(x).detach() - head.codewords[0, :, 0]).abs().argmin(1)
    torch.testing.assert_close(torch.bincount(drawn, minlength=3) / 20_000, wanted, atol=0.015, rtol=0)


def test_the_gradient_is_that_of_the_softmax() -> None:
    head = ProductQuantizer(5, 6, groups=2, codes=4, temperature=0.5).eval()
    x = torch.randn(7, 5, requires_grad=True)
    weight = torch.randn(7, 6)
    (found,) = torch.autograd.grad((head(x) * weight).sum(), x)
    soft = torch.softmax(head.code_logits(x) / 0.5, -1)
    (expected,) = torch.autograd.grad((torch.einsum("ngk,gkd->ngd", soft, head.codewords).flatten(1) * weight).sum(), x)
    torch.testing.assert_close(found, expected)
    assert float(found.abs().sum()) > 0


def test_perplexity_counts_codewords() -> None:
    head, x = ProductQuantizer(5, 4, groups=2, codes=8), torch.randn(300, 5)
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.zero_()
        assert head.perplexity(x) == pytest.approx(8)
        head.logits.bias[[0, 8]] = 50.0
        assert head.perplexity(x) == pytest.approx(1)


def test_balanced_codes_are_those_of_sinkhorn_with_the_gradient_of_a_softmax() -> None:
    head, x = BalancedCodes(5, 4, iterations=200), torch.randn(32, 5, requires_grad=True)
    codes = head(x)
    torch.testing.assert_close(codes, sinkhorn(head.prototypes(x), iterations=200))
    torch.testing.assert_close(codes.sum(1), torch.ones(32))
    torch.testing.assert_close(codes.mean(0), torch.full((4,), 0.25), atol=0.01, rtol=0)
    weight = torch.randn(32, 4)
    (found,) = torch.autograd.grad((codes * weight).sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad((torch.softmax(head.prototypes(x) / 0.1, 1) * weight).sum(), x)
    torch.testing.assert_close(found, expected)


def test_in_evaluation_a_code_does_not_depend_on_its_batch() -> None:
    head, x = BalancedCodes(5, 4).eval(), torch.randn(32, 5)
    torch.testing.assert_close(head(x)[:3], head(x[:3]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of the groups"):
        ProductQuantizer(5, 7, groups=2)
    with pytest.raises(UsageError, match="finite number > 0"):
        ProductQuantizer(5, 6, temperature=0.0)
    with pytest.raises(UsageError, match="temperature and epsilon"):
        BalancedCodes(5, 4, epsilon=0.0)
