"""What CCL-K estimates: an expectation given the condition."""

from __future__ import annotations

import pytest
import torch

from nearfar.contrast import Kernel
from nearfar.objectives import CCLK


@pytest.mark.parametrize("form", ["fair", "weak"])
def test_of_discrete_conditions_it_is_the_mean_over_equal_ones(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    condition = torch.tensor([0, 1, 0, 2, 2, 1, 0, 2, 3])
    t = 0.5
    e = (torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=2) / t).exp()
    alike = condition[:, None] == condition[None]
    mean = (e * alike).sum(1) / alike.sum(1)
    own = e.diagonal()
    expected = -(own / (own + 8 * mean)).log() if form == "fair" else -(mean / (mean + e.sum(1) - own)).log()
    found = CCLK(form, regularization=1e-9, temperature=t)(x, y, relation=Kernel(condition, "delta"))
    torch.testing.assert_close(found, expected.mean(), rtol=1e-6, atol=1e-6)
