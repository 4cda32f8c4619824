"""What the cost of an objective says that it estimates, against plain loops and worlds whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Views
from nearfar.data.synthetic import GaussianViews
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.estimates import information_bound, negative_mass_error
from nearfar.objectives import CACR, Debiased, InfoNCE, PolyView


def _scores(anchors: int, negatives: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.rand(anchors, 1 + negatives, generator=generator, dtype=torch.float64) - 1
    return scores, torch.rand(anchors, negatives, generator=generator) < 0.7


@pytest.mark.parametrize(("tau_plus", "temperature"), [(0.0, 0.5), (0.3, 0.5), (0.3, 1.0)])
def test_the_estimate_of_the_debiased_loss_by_loops(tau_plus: float, temperature: float) -> None:
    scores, true = _scores(9, 6)
    estimates, truth = [], []
    for row, kept in zip(scores.tolist(), true.tolist(), strict=True):
        near, *far = (math.exp(score / temperature) for score in row)
        mean = (sum(far) / len(far) - tau_plus * near) / (1 - tau_plus)
        estimates.append(max(mean, math.exp(-1 / temperature)))
        truth += [value for value, counts in zip(far, kept, strict=True) if counts]
    expected = abs(sum(estimates) / len(estimates) - sum(truth) / len(truth))
    objective = Debiased(tau_plus, temperature=temperature, reduction="none")
    assert negative_mass_error(objective, scores, true) == pytest.approx(expected, rel=1e-9)


def test_without_false_negatives_the_plain_mean_has_no_error() -> None:
    scores, true = _scores(5, 7)
    objective = InfoNCE(temperature=0.5, reduction="none")
    assert negative_mass_error(objective, scores, torch.ones_like(true)) == pytest.approx(0, abs=1e-12)


def test_estimates_that_cannot_be_read() -> None:
    scores, true = _scores(3, 4)
    for objective in (Debiased(), CACR(reduction="none")):
        with pytest.raises(UsageError, match="reduction"):
            negative_mass_error(objective, scores, true)
    objective = Debiased(reduction="none")
    for wrong in (true[:, 1:], torch.zeros_like(true), true.T):
        with pytest.raises(DataError, match="at least one"):
            negative_mass_error(objective, scores, wrong)


def test_the_bound_lies_below_the_information_and_counts_its_negatives() -> None:
    world, generator = GaussianViews(4), torch.Generator().manual_seed(0)
    batches = [world.log_ratios(views, views) for views in (world.draw(16, generator=generator) for _ in range(40))]
    objective = PolyView("arithmetic", temperature=1.0)
    found = information_bound(objective, iter(batches), Views(4), negatives=4 * 15)
    losses = [float(objective(scores=scores, relation=Views(4))) for scores in batches]
    assert found == pytest.approx(math.log(61) - sum(losses) / 40)
    assert 0.2 < found < world.information
    # a denominator that misses most of what is counted
    assert information_bound(objective, batches, Views(4, negatives="same-view"), negatives=60) > world.information


def test_a_critic_that_knows_nothing_has_no_information() -> None:
    # of one positive and six negatives that look alike, the right one is told with probability 1/7
    found = information_bound(InfoNCE(temperature=1.0), [torch.zeros(8, 8)] * 2, Views(2), negatives=6)
    assert found == pytest.approx(0, abs=1e-6)


def test_bounds_that_cannot_be() -> None:
    with pytest.raises(DataError, match="no batch"):
        information_bound(PolyView(), [], Views(2), negatives=3)
    with pytest.raises(UsageError, match="at least 1"):
        information_bound(PolyView(), [torch.zeros(4, 4)], Views(2), negatives=0)
