"""The correlations of attention maps that miCSE works with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.objectives import MiCSE


def maps(seed: int = 0, *, n: int = 3, layers: int = 4, heads: int = 2, length: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(n, layers, heads, length, length, generator=generator, dtype=torch.float64)
    return drawn / drawn.sum(4, keepdim=True)


def test_by_loops() -> None:
    """One for each sentence, head and parity of the layer, over the entries that are above 0 in both."""
    one, other = maps(0), maps(1)
    one[:, :, :, 1, 2] = 0
    other[:, :, :, 3] = 0
    rho, share = MiCSE(samples=38).correlations(one, other)
    expected = []
    for sentence in range(3):
        for head in range(2):
            for parity in range(2):
                x, y = (
                    torch.cat([each[sentence, k, head].flatten() for k in (parity, parity + 2)])
                    for each in (one, other)
                )
                kept = (x > 0) & (y > 0)
                assert int(kept.sum()) == 38
                x, y = x[kept].log(), y[kept].log()
                x, y = x - x.mean(), y - y.mean()
                expected.append((x @ y) / (x.norm() * y.norm()))
    torch.testing.assert_close(rho, torch.stack(expected), atol=1e-12, rtol=1e-12)
    assert float(share) == pytest.approx(38 / 50)


def test_equal_maps_have_one_and_reciprocal_ones_minus_one() -> None:
    one = maps(0)
    assert MiCSE(samples=20).correlations(one, one)[0].allclose(torch.ones(12, dtype=torch.float64))
    found = MiCSE(samples=20).correlations(one, 0.01 / one)[0]
    assert found.allclose(-torch.ones(12, dtype=torch.float64))


def test_a_sample_is_the_same_for_both_and_follows_the_generator() -> None:
    one, other = maps(0), maps(1)
    first, again = (
        MiCSE(samples=10, generator=torch.Generator().manual_seed(3)).correlations(one, other)[0] for _ in range(2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(
        first, MiCSE(samples=10, generator=torch.Generator().manual_seed(4)).correlations(one, other)[0]
    )
    assert MiCSE(samples=10).correlations(one, 2 * one)[0].allclose(torch.ones(12, dtype=torch.float64))


def test_maps_without_entries_have_none() -> None:
    empty = torch.zeros(2, 2, 1, 3, 3, requires_grad=True)
    rho, share = MiCSE().correlations(empty, empty)
    assert (len(rho), float(share)) == (0, 0.0)
    loss = MiCSE().attention_term(empty, empty)
    loss.backward()
    assert float(loss.detach()) == 0
    assert empty.grad is not None


def test_more_keys_than_queries() -> None:
    """Maps of an encoder with a prefix."""
    wide = torch.rand(2, 2, 1, 3, 7, generator=torch.Generator().manual_seed(0))
    assert len(MiCSE(samples=5).correlations(wide, wide.flip(0))[0]) == 4
