"""The order of two kinds of numbers, and of distances between embeddings and between numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar.errors import DataError
from nearfar.evaluation.order import distance_order, rank_correlation


def _arc(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_an_arc_is_in_order_and_a_shuffled_one_is_not() -> None:
    labels = torch.arange(60.0)
    arc = 3 * _arc(labels / 60 * 3)
    # labels that are equally far apart are ties, their places in space are so but for rounding
    assert distance_order(arc, labels) > 0.999
    shuffled = labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert abs(distance_order(arc, shuffled)) < 0.2


def test_it_is_the_correlation_of_ranks_over_pairs() -> None:
    """Pairs 01, 02, 12 differ by 1, 3, 2 in their labels and by 1.0, 0.4, 0.6 in their angles."""
    found = distance_order(_arc(torch.tensor([0.0, 1.0, 0.4])), torch.tensor([0.0, 1.0, 3.0]))
    assert found == pytest.approx(np.corrcoef([1, 3, 2], [3, 1, 2])[0, 1])


def test_lengths_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings, labels = torch.randn(20, 4, generator=generator), torch.rand(20, generator=generator)
    longer = embeddings * torch.linspace(0.1, 9, 20)[:, None]
    assert distance_order(longer, labels) == pytest.approx(distance_order(embeddings, labels))


@pytest.mark.parametrize(
    ("embeddings", "labels", "what"),
    [
        (torch.eye(3), torch.zeros(2), "labels"),
        (torch.zeros(3), torch.zeros(3), "embeddings"),
        (torch.eye(2), torch.arange(2), "3 items"),
        (torch.eye(4)[:, :2] + 1, torch.zeros(4), "no order"),
        (torch.ones(4, 2), torch.arange(4), "no order"),
        (torch.full((4, 2), float("nan")), torch.arange(4), "finite"),
    ],
)
def test_what_has_no_order(embeddings: torch.Tensor, labels: torch.Tensor, what: str) -> None:
    with pytest.raises(DataError, match=what):
        distance_order(embeddings, labels)


def test_ranks_count_and_ties_share_theirs() -> None:
    generator = torch.Generator().manual_seed(2)
    one = torch.randint(6, (40,), generator=generator)
    other = one + 3 * torch.randn(40, generator=generator)

    def ranks(values: list[float]) -> list[float]:
        return [sum(each < value for each in values) + (values.count(value) - 1) / 2 for value in values]

    expected = np.corrcoef(ranks(one.tolist()), ranks(other.tolist()))[0, 1]
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(one.numpy(), (other / 3).exp().bfloat16().double()) == pytest.approx(expected, abs=0.01)
    assert rank_correlation(other, -other.exp()) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (torch.arange(3), torch.arange(4), "values are"),
        (torch.zeros(2, 2), torch.zeros(2, 2), "values are"),
        (torch.zeros(1), torch.zeros(1), "2 or more"),
        (torch.arange(3), torch.ones(3), "all values are the same"),
        (torch.arange(3), torch.tensor([0.0, float("inf"), 1.0]), "finite"),
    ],
)
def test_values_that_have_no_order(first: torch.Tensor, second: torch.Tensor, what: str) -> None:
    with pytest.raises(DataError, match=what):
        rank_correlation(first, second)
