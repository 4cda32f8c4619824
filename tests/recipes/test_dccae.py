"""What holds exactly of deep canonical correlation analysis with linear encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.objectives import DCCA
from nearfar.training.steps import seeded, train_steps


def test_linear_encoders_reach_the_closed_form_and_never_more() -> None:
    generator = torch.Generator().manual_seed(4)
    shared = torch.randn(500, 2, generator=generator)
    x, y = (
        torch.cat(
            [shared + 0.7 * torch.randn(500, 2, generator=generator), torch.randn(500, 3, generator=generator)], 1
        )
        @ torch.randn(5, 5, generator=generator)
        for _ in range(2)
    )
    # the correlations of the two spaces: singular values of the product of their orthonormal bases
    bases = [torch.linalg.qr((view - view.mean(0)).double()).Q for view in (x, y)]
    expected = float(torch.linalg.svdvals(bases[0].T @ bases[1])[:2].sum())
    dcca = DCCA(ridge=1e-8)
    with seeded(0):
        f, g = nn.Linear(5, 2), nn.Linear(5, 2)
    losses = train_steps(lambda _: dcca(f(x), g(y)), [f, g], [torch.zeros(0)] * 300, learning_rate=2e-2)
    assert -losses[0] < expected - 0.3
    assert max(-loss for loss in losses) <= expected + 1e-4
    assert -losses[-1] == pytest.approx(expected, abs=1e-3)
