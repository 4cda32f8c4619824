"""Views of a hidden number: their information and the best critic against numerical integration and samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from nearfar.contrast import Views
from nearfar.data.synthetic import GaussianViews
from nearfar.errors import UsageError
from nearfar.objectives import PolyView


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_information_is_that_of_the_covariances(count: int) -> None:
    world = GaussianViews(count, variance=0.7)
    covariance = torch.ones(count, count, dtype=torch.float64) + 0.7 * torch.eye(count, dtype=torch.float64)
    one, rest, all_of_them = covariance[0, 0].log(), covariance[1:, 1:].logdet(), covariance.logdet()
    assert world.information == pytest.approx(0.5 * float(one + rest - all_of_them))


def test_the_critic_is_the_log_ratio_of_the_densities() -> None:
    world = GaussianViews(variance=0.7)
    x, y = (torch.linspace(-2, 3, n, dtype=torch.float64) for n in (4, 5))
    joint = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1.7, 1.0], [1.0, 1.7]]).double())
    alone = Normal(0.0, math.sqrt(1.7))
    pairs = torch.stack(torch.meshgrid(x, y, indexing="ij"), 2)
    expected = joint.log_prob(pairs) - alone.log_prob(x)[:, None] - alone.log_prob(y)[None]
    torch.testing.assert_close(world.log_ratios(x, y), expected)


def test_views_are_drawn_in_the_order_of_views() -> None:
    world = GaussianViews(3, variance=0.5)
    drawn = world.draw(200_000, generator=torch.Generator().manual_seed(0)).view(3, -1)
    expected = torch.ones(3, 3, dtype=torch.float64) + 0.5 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(drawn), expected, atol=0.02, rtol=0)
    again = world.draw(200_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.flatten(), again)


def test_a_denominator_that_misses_terms_breaks_the_bound() -> None:
    world = GaussianViews(4)
    generator = torch.Generator().manual_seed(0)
    bounds = {"all": 0.0, "same-view": 0.0}
    for _ in range(50):
        views = world.draw(16, generator=generator)
        for negatives in bounds:
            relation = Views(4, negatives=negatives)
            cost = PolyView("arithmetic", temperature=1.0)(scores=world.log_ratios(views, views), relation=relation)
            bounds[negatives] += (math.log(1 + 4 * 15) - float(cost)) / 50
    assert 0.2 < bounds["all"] < world.information < bounds["same-view"] - 0.5


@pytest.mark.parametrize("arguments", [{"count": 1}, {"variance": 0.0}, {"variance": math.inf}])
def test_views_that_make_no_sense(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        GaussianViews(**arguments)  # type: ignore[arg-type]
