"""Partner classes of the items of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.negatives.partners import partner_classes


def test_arbitrary_partners_are_the_classes_of_the_batch() -> None:
    labels = torch.arange(100) % 7
    found = partner_classes(labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.sort().values, labels.sort().values)
    assert 0.05 < float((found == labels).float().mean()) < 0.3
    assert torch.equal(found, partner_classes(labels, generator=torch.Generator().manual_seed(0)))


def test_identical_partners_are_a_copy() -> None:
    labels = torch.tensor([3, 1, 3])
    found = partner_classes(labels, "identical")
    assert torch.equal(found, labels)
    assert found.data_ptr() != labels.data_ptr()


def test_distinct_partners_are_every_other_class_equally_often() -> None:
    labels = torch.full((3000,), 2)
    found = partner_classes(labels, "distinct", classes=4, generator=torch.Generator().manual_seed(0))
    counts = found.bincount(minlength=4).tolist()
    assert counts[2] == 0
    assert all(900 < count < 1100 for number, count in enumerate(counts) if number != 2)


@pytest.mark.parametrize("arguments", [{"how": "any"}, {"how": "distinct"}, {"how": "distinct", "classes": 1}])
def test_partners_that_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        partner_classes(torch.tensor([0, 0]), **arguments)
