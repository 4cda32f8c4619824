"""What holds the gradient of NT-Xent back in small batches: the share that the positive leaves."""

from __future__ import annotations

import torch

from nearfar.contrast import Views
from nearfar.objectives import DCL, InfoNCE


def test_the_factor_grows_with_the_batch() -> None:
    """On the same scores the gradient at the positive is that of DCL times ``1 - P``, which rises towards 1."""
    generator = torch.Generator().manual_seed(0)
    means = []
    for items in (4, 16, 64, 256):
        first = torch.nn.functional.normalize(torch.randn(items, 16, generator=generator), dim=1).double()
        noise = torch.randn(items, 16, generator=generator).double()
        second = torch.nn.functional.normalize(first + 0.2 * noise, dim=1)
        scores = torch.cat([first, second]) @ torch.cat([first, second]).T
        scores.requires_grad_()
        pulls = [
            torch.autograd.grad(objective(scores=scores, relation=Views(2)), scores)[0].diagonal(items)
            for objective in (InfoNCE(temperature=0.1), DCL(temperature=0.1))
        ]
        factors = pulls[0] / pulls[1]
        assert ((factors > 0) & (factors < 1)).all()
        means.append(float(factors.mean()))
    assert means == sorted(means)
    assert means[0] < 0.5 < means[-1]
