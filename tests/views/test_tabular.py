"""Views of rows of a table."""

from __future__ import annotations

import pytest
import torch

from nearfar import views
from nearfar.errors import DataError, UsageError


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("features", "rate", "expected"), [(5, 0.6, 3), (10, 0.3, 3), (7, 0.5, 3), (4, 1.0, 4), (4, 0, 0)]
)
def test_corruption_changes_the_exact_number(features: int, rate: float, expected: int) -> None:
    items, reference = torch.zeros(200, features), 1 + torch.rand(50, features)
    found, mask = views.Corrupt(reference, rate=rate).with_mask(items, _generator())
    assert torch.equal(mask, found != 0)
    assert torch.equal(mask.sum(1), torch.full((200,), expected))
    if 0 < expected < features:
        assert (mask.double().mean(0) - expected / features).abs().max() < 0.15  # no column is preferred


def test_corruption_draws_from_the_marginal_of_its_column() -> None:
    reference = torch.tensor([[0.0, 10.0], [0.0, 20.0], [0.0, 20.0], [1.0, 30.0]])
    found = views.Corrupt(reference, rate=1.0)(torch.full((8000, 2), -1.0), _generator())
    assert float((found[:, 0] == 1).double().mean()) == pytest.approx(0.25, abs=0.02)
    for value, share in ((10, 0.25), (20, 0.5), (30, 0.25)):
        assert float((found[:, 1] == value).double().mean()) == pytest.approx(share, abs=0.02)
    # columns are drawn one by one: no correlation is left
    assert abs(float(torch.corrcoef(found.T)[0, 1])) < 0.05


def test_groups_move_together() -> None:
    hot = torch.nn.functional.one_hot(torch.arange(40) % 4, 4).float()
    items = torch.cat([hot, torch.arange(40.0)[:, None]], 1)
    found, mask = views.Corrupt(rate=0.5, groups=[(0, 1, 2, 3)]).with_mask(items, _generator())
    assert torch.equal(found[:, :4].sum(1), torch.ones(40))
    assert torch.equal(mask[:, :4].all(1), mask[:, :4].any(1))
    assert torch.equal(mask[:, 0].int() + mask[:, 4].int(), torch.ones(40, dtype=torch.int32))  # one of two features
    mixed = views.ColumnMix(0.5, groups=[(0, 1, 2, 3)])(items, generator=_generator())
    assert torch.equal(mixed[:, :4].sum(1), torch.ones(40))
    with pytest.raises(UsageError, match="disjoint"):
        views.Corrupt(groups=[(0, 1), (1, 2)])
    with pytest.raises(DataError, match="group"):
        views.Corrupt(groups=[(0, 9)])(items)


def test_whole_numbers_can_be_corrupted() -> None:
    items = torch.arange(30).reshape(10, 3)
    found = views.Corrupt()(items, generator=_generator())
    assert found.dtype == torch.int64
    assert all(set(found[:, column].tolist()) <= set(items[:, column].tolist()) for column in range(3))


def test_a_column_mix_has_one_other_parent() -> None:
    items = torch.arange(12.0)[:, None].repeat(1, 40)
    found = views.ColumnMix(0.5)(items, generator=_generator())
    for row, values in enumerate(found.tolist()):
        others = set(values) - {float(row)}
        assert len(others) == 1
        assert values.count(float(row)) not in (0, 40)
    assert torch.equal(views.ColumnMix(1.0)(items[:1]), items[:1])


def test_noise_by_column() -> None:
    reference = torch.randn(1000, 3, generator=_generator()) * torch.tensor([1.0, 10.0, 0.0])
    found = views.FeatureNoise(0.5, reference=reference)(torch.zeros(4000, 3), generator=_generator())
    torch.testing.assert_close(found.std(0), torch.tensor([0.5, 5.0, 0.0]), rtol=0.06, atol=1e-6)
    only = views.FeatureNoise(0.5, columns=[1])(torch.zeros(10, 3), generator=_generator())
    assert torch.equal((only != 0).any(0), torch.tensor([False, True, False]))
    with pytest.raises(DataError, match="columns"):
        views.FeatureNoise(columns=[3])(torch.zeros(2, 3))


def test_dropout_hides_behind_zero_or_the_mean() -> None:
    items = torch.full((2000, 3), 7.0)
    found = views.FeatureDropout(0.3)(items, generator=_generator())
    assert set(found.unique().tolist()) == {0.0, 7.0}
    assert float((found == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    reference = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    assert torch.equal(views.FeatureDropout(1.0, reference=reference)(items)[0], torch.tensor([2.0, 3.0, 4.0]))
    kept = views.FeatureDropout(1.0, columns=[0])(items)
    assert torch.equal(kept[0], torch.tensor([0.0, 7.0, 7.0]))


def test_interpolation_lies_between_two_rows() -> None:
    items = torch.tensor([[0.0, 0.0], [1.0, 100.0]])
    found = views.Interpolate((0.1, 0.4))(items, generator=_generator())
    shares = torch.stack([found[0] / items[1], (items[1] - found[1]) / items[1]])
    torch.testing.assert_close(shares[:, 0], shares[:, 1])
    assert 0.1 <= float(shares.min()) <= float(shares.max()) <= 0.4
    columns = views.Interpolate((0.1, 0.4), by="column")(items, generator=_generator())
    assert float(columns[0, 0]) != pytest.approx(float(columns[0, 1]) / 100)
    assert torch.equal(views.Interpolate(columns=[0])(items, generator=_generator())[:, 1], items[:, 1])
    assert torch.equal(views.Interpolate()(items[:1]), items[:1])


def test_a_reference_of_another_width_is_refused() -> None:
    with pytest.raises(DataError, match="reference 2"):
        views.Corrupt(torch.rand(4, 2))(torch.rand(4, 3))
    with pytest.raises(DataError, match="reference rows"):
        views.Corrupt(torch.rand(0, 2))


def test_whole_numbers_are_not_computed_with() -> None:
    """Noise of 0.1 on whole numbers would be cut off, and mixing them is none of torch's operations."""
    rows = torch.arange(6).reshape(2, 3)
    for view in (views.FeatureNoise(), views.Interpolate()):
        with pytest.raises(DataError, match=r"must be floating numbers, got torch\.int64"):
            view(rows)
