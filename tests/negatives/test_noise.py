"""Negatives made of noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired
from nearfar.errors import UsageError
from nearfar.negatives import gaussian, harder
from nearfar.objectives import InfoNCE


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussian_rows() -> None:
    like = torch.zeros(2000, 4, dtype=torch.float64)
    noise = gaussian(like, 2.5, generator=torch.Generator().manual_seed(0))
    assert noise.shape == (5000, 4)
    assert noise.dtype == torch.float64
    assert noise.mean().abs() < 0.03
    assert (noise.std() - 1).abs() < 0.03
    assert torch.equal(noise, gaussian(like, 2.5, generator=torch.Generator().manual_seed(0)))
    assert gaussian(like, 0).shape == (0, 4)
    with pytest.raises(UsageError, match="times"):
        gaussian(like, -1)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_steps_uphill(memory: Any) -> None:
    query, key, noise = _drawn(0, 5, 4).requires_grad_(), _drawn(1, 5, 4).requires_grad_(), _drawn(2, 3, 4)
    made = harder(noise, query, key, steps=3, step_size=0.1, temperature=0.2, memory=memory)
    expected = noise.clone()
    for _ in range(3):
        moved = expected.clone().requires_grad_()
        scores = torch.stack([torch.cosine_similarity(q[None], torch.cat([key, moved])) for q in query]) / 0.2
        loss = (scores.logsumexp(1) - scores[torch.arange(5), torch.arange(5)]).mean()
        (gradient,) = torch.autograd.grad(loss, moved)
        expected = expected + 0.1 * gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)
    assert not made.requires_grad
    assert query.grad is None
    contrast = InfoNCE(temperature=0.2)
    assert contrast(query, torch.cat([key, made])) > contrast(query, torch.cat([key, noise])) + 1e-3
    assert torch.equal(harder(noise, query, key, steps=0), noise)
    with torch.no_grad():
        torch.testing.assert_close(
            harder(noise, query, key, steps=3, step_size=0.1, temperature=0.2, memory=memory), made
        )


def test_rows_without_a_gradient_stay() -> None:
    query, key = _drawn(3, 3, 4), _drawn(4, 3, 4)
    noise = torch.cat([torch.zeros(1, 4), _drawn(5, 1, 4)])
    made = harder(noise, query, key)
    assert torch.isfinite(made).all()
    assert not torch.equal(made[1], noise[1])
    nobody = Paired(torch.tensor([0, 1, 2]), torch.tensor([7, 8, 9, -1, -1]))
    assert torch.equal(harder(noise, query, key, relation=nobody), noise)
    assert harder(noise[:0], query, key).shape == (0, 4)
    with pytest.raises(UsageError, match="steps"):
        harder(noise, query, key, steps=-1)
