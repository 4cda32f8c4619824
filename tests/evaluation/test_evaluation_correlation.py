"""Canonical correlations against scikit-learn, against the objective, and by their invariances."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.correlation import cca, kernel_cca, pwcca, svcca
from nearfar.objectives import DCCA


def _views(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 5)) @ generator.normal(size=(5, 5))
    shared = x[:, :3] + np.array([0.3, 1.0, 3.0]) * generator.normal(size=(n, 3))
    return x, np.column_stack([shared, generator.normal(size=n)]) + 7


def test_it_is_scikit_learns_cca() -> None:
    x, y = _views()
    a, b = CCA(4, scale=False, max_iter=10_000, tol=1e-12).fit(x, y).transform(x, y)
    expected = [abs(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(4)]
    found = cca(x, y)
    np.testing.assert_allclose(found.correlations, expected, rtol=1e-5)
    for i in range(4):
        assert abs(np.corrcoef(found.project_x(x)[:, i], a[:, i])[0, 1]) == pytest.approx(1, abs=1e-5)
    assert found.total == pytest.approx(sum(expected), rel=1e-5)


def test_projections_are_white_and_correlate_as_said() -> None:
    x, y = _views()
    found = cca(torch.from_numpy(x), torch.from_numpy(y))
    a, b = found.project_x(x), found.project_y(y)
    np.testing.assert_allclose(np.cov(a.T), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(np.cov(b.T), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(np.cov(a.T, b.T)[:4, 4:], np.diag(found.correlations), atol=1e-10)
    np.testing.assert_allclose(found.measured(x, y), found.correlations, rtol=1e-10)
    first = cca(x, y, dimensions=2)
    np.testing.assert_allclose(first.project_x(x), a[:, :2])
    fresh = found.measured(*_views(seed=0))
    assert fresh.shape == (4,)


@pytest.mark.parametrize("ridge", [1e-4, 0.5, (0.3, 2.0)])
def test_the_total_is_minus_the_objective(ridge: float | tuple[float, float]) -> None:
    x, y = _views()
    loss = DCCA(ridge=ridge)(torch.from_numpy(x), torch.from_numpy(y))
    assert cca(x, y, ridge=ridge).total == pytest.approx(-float(loss))


def test_invertible_maps_change_nothing() -> None:
    x, y = _views()
    generator = np.random.default_rng(3)
    mapped = x @ generator.normal(size=(5, 5)) + 3, 10 * y[:, ::-1]
    np.testing.assert_allclose(cca(*mapped).correlations, cca(x, y).correlations, rtol=1e-8)
    assert cca(*mapped, ridge=1.0).total != pytest.approx(cca(x, y, ridge=1.0).total, rel=1e-3)


def test_repeated_and_constant_columns_and_more_columns_than_rows() -> None:
    x, y = _views()
    wide = np.column_stack([x, x[:, :2] - x[:, 2:4], np.ones(200)])
    np.testing.assert_allclose(cca(wide, y).correlations, cca(x, y).correlations, rtol=1e-8)
    np.testing.assert_allclose(cca(wide, y).project_y(y).std(0, ddof=1), 1)
    short, tall = np.random.default_rng(0).normal(size=(10, 30)), np.random.default_rng(1).normal(size=(10, 20))
    with pytest.warns(UserWarning, match="for any data"):
        np.testing.assert_allclose(cca(short, tall).correlations, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cca(short, tall, ridge=5.0).correlations.max() < 1


def test_constant_columns_stay_without_variance_whatever_their_mean_rounds_to() -> None:
    constant, (x, y) = np.full((10, 2), 0.1), _views(10)
    for call in (cca, svcca, pwcca):
        with pytest.raises(DataError, match="no variance"):
            call(constant, y[:, :2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cca(np.column_stack([x[:, :2], constant]), y[:, :2])
    assert found.weights_x.shape == (4, 2)
    assert np.allclose(found.weights_x[2:], 0)
    assert found.measured(np.full((10, 4), 0.1), y[:, :2]).tolist() == [0.0, 0.0]


def test_a_ridge_shrinks() -> None:
    x, y = _views()
    totals = [cca(x, y, ridge=ridge).total for ridge in (0, 0.1, 1, 10, 100)]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("approximation", ["fourier", "nystroem"])
def test_kernels_find_what_lines_do_not(approximation: str) -> None:
    generator = np.random.default_rng(0)
    hidden = generator.uniform(-2, 2, size=(600, 1))
    x = np.column_stack([hidden, generator.normal(size=600)])
    y = np.column_stack([hidden**2, generator.normal(size=600)])
    assert cca(x[:400], y[:400]).measured(x[400:], y[400:])[0] < 0.3
    found = kernel_cca(x[:400], y[:400], features=100, approximation=approximation, dimensions=2)
    assert found.measured(x[400:], y[400:])[0] > 0.95
    again = kernel_cca(x[:400], y[:400], features=100, approximation=approximation, dimensions=2)
    np.testing.assert_array_equal(found.correlations, again.correlations)
    assert found.project_x(x).shape == (600, 2)
    other = kernel_cca(x[:400], y[:400], features=100, approximation=approximation, dimensions=2, seed=1)
    assert not np.array_equal(found.correlations, other.correlations)


def test_a_wide_kernel_is_nearly_linear() -> None:
    x, y = _views()
    wide = kernel_cca(x, y, approximation="nystroem", features=60, bandwidth=100.0, ridge=1e-6, dimensions=3)
    np.testing.assert_allclose(wide.correlations, cca(x, y).correlations[:3], atol=0.1)


def test_similarity_of_representations() -> None:
    x, y = _views()
    generator = np.random.default_rng(5)
    mapped = x @ generator.normal(size=(5, 5))
    assert svcca(x, mapped, share=1.0) == pytest.approx(1)
    assert pwcca(x, mapped) == pytest.approx(1)
    assert svcca(x, y, share=1.0) == pytest.approx(cca(x, y).correlations.mean())
    # a direction of little variance counts little in pwcca and not at all in svcca
    signal, noise = generator.normal(size=(300, 2)), generator.normal(size=(300, 2, 2))
    a, b = (np.column_stack([signal, 0.01 * noise[:, :, i]]) for i in range(2))
    assert svcca(a, b) == pytest.approx(1)
    assert pwcca(a, b) > 0.95
    assert svcca(a, b, share=1.0) < 0.7


def test_pwcca_by_a_plain_loop() -> None:
    x, y = _views(60)
    found = cca(x, y)
    total = weight = 0.0
    for i, correlation in enumerate(found.correlations):
        alpha = sum(abs(float(found.project_x(x)[:, i] @ (x[:, j] - x[:, j].mean()))) for j in range(x.shape[1]))
        total, weight = total + alpha * correlation, weight + alpha
    assert pwcca(x, y) == pytest.approx(total / weight)


def test_what_cannot_be_is_refused() -> None:
    x, y = _views(20)
    for wrong in (
        lambda: cca(x, y, ridge=-1),
        lambda: cca(x, y, dimensions=0),
        lambda: cca(x, y, ridge=(1.0, 2.0, 3.0)),
        lambda: svcca(x, y, share=0),
        lambda: kernel_cca(x, y, approximation="exact"),
        lambda: kernel_cca(x, y, bandwidth=-1.0),
    ):
        with pytest.raises(UsageError):
            wrong()
    for bad in (
        lambda: cca(x, y[:5]),
        lambda: cca(x[:1], y[:1]),
        lambda: cca(x, np.ones((20, 2))),
        lambda: svcca(x, np.ones((20, 2))),
        lambda: cca(x, y).project_x(y),
        lambda: cca(x, y).measured(x, y[:3]),
        lambda: cca(np.full((20, 2), np.nan), y),
    ):
        with pytest.raises(DataError):
            bad()
