"""Tables of numbers by item, and means over the rows of an item."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast import IndividualTemperature, Paired, Views
from nearfar.contrast.items import log_mean_exp_by_id, mean_by_id
from nearfar.objectives import SogCLR


def test_means_of_items_are_as_exact_as_their_values() -> None:
    values = torch.tensor([0.3, 1.7, -2.1, 0.9, 4.0], dtype=torch.float64)
    ids = torch.tensor([2, 0, 2, 2, 0])
    names, means = mean_by_id(values, ids)
    assert names.tolist() == [0, 2]
    torch.testing.assert_close(
        means, torch.stack([values[[1, 4]].mean(), values[[0, 2, 3]].mean()]), rtol=1e-15, atol=0
    )
    names, logs = log_mean_exp_by_id(values, ids)
    assert names.tolist() == [0, 2]
    expected = torch.stack([values[[1, 4]].exp().mean().log(), values[[0, 2, 3]].exp().mean().log()])
    torch.testing.assert_close(logs, expected, rtol=1e-14, atol=0)


def test_sogclr_follows_the_mean_of_both_views_to_the_last_digits() -> None:
    """Optimization-AI/SogCLR sogclr/builder.py, dynamic_contrastive_loss: u after a call is the mean of both views'."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.nn.functional.normalize(torch.randn(4, 5, generator=generator).double()) for _ in range(2))
    ids = torch.arange(4)
    objective = SogCLR(0.6, temperature=0.2)

    def present(one: Tensor, other: Tensor) -> Tensor:
        own = torch.eye(4, dtype=torch.bool)
        scores = torch.cat(
            [(one @ one.T).masked_fill(own, -torch.inf), (one @ other.T).masked_fill(own, -torch.inf)], 1
        )
        return (scores / 0.2).exp().sum(1) / 6

    mass = None
    for _ in range(3):
        now = (present(a, b) + present(b, a)) / 2
        mass = now if mass is None else 0.4 * mass + 0.6 * now
        objective(torch.cat([a, b]), relation=Views(2, ids=ids.repeat(2)))
        torch.testing.assert_close(objective.log_mass(ids).exp(), mass, rtol=1e-12, atol=0)
        a, b = b, -a


def test_sogclr_with_a_temperature_of_each_item() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randn(4, 5, generator=generator).double() for _ in range(2))
    temperature = IndividualTemperature(0.3)
    temperature.temperatures.write(torch.arange(4), torch.tensor([0.1, 0.2, 0.3, 0.9], dtype=torch.float64))
    costs = SogCLR(temperature=temperature, reduction="none")(a, b, relation=Paired(torch.arange(4)))
    for i, value in enumerate((0.1, 0.2, 0.3, 0.9)):
        alone = SogCLR(temperature=value, reduction="none")(a, b, relation=Paired(torch.arange(4)))
        torch.testing.assert_close(costs[i], alone[i], rtol=1e-12, atol=0)
