"""One augmentation for a part of the batch."""

from __future__ import annotations

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.objectives import Equivariance
from nearfar.views.shared import shared_by_part


def test_parts_are_those_of_equivariance() -> None:
    values = torch.tensor([10.0, 20.0, 30.0])
    assert shared_by_part(values, 8).tolist() == [10, 10, 20, 20, 30, 30, 30, 30]
    angles = torch.rand(3, generator=torch.Generator().manual_seed(0))
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = shared_by_part(angles, 8).double()
    c, s = turn.cos(), turn.sin()
    turned = torch.stack([c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]], 1)
    assert float(Equivariance(3)(points, turned)) == pytest.approx(0.0, abs=1e-20)
    assert float(Equivariance(2)(points, turned)) > 1e-3


def test_settings_of_any_shape() -> None:
    values = torch.arange(6.0).view(2, 3)
    assert torch.equal(shared_by_part(values, 2), values)
    assert torch.equal(shared_by_part(values[:1], 4), values[:1].expand(4, 3))


@pytest.mark.parametrize(("parts", "rows"), [(0, 4), (5, 4)])
def test_parts_that_do_not_fit(parts: int, rows: int) -> None:
    with pytest.raises(UsageError, match=f"{rows} rows cannot be divided into {parts} parts"):
        shared_by_part(torch.zeros(parts), rows)
