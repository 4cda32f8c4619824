"""Gram matrices against scikit-learn, HSIC and CKA against plain loops and their invariances."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import pairwise_kernels

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.kernels import cka, gram, hsic, hsic_of, kernel_ridge_r2, median_distance


def _rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize(
    ("kernel", "theirs"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("polynomial", {"degree": 3, "gamma": 1 / 4, "coef0": 1}),
        ("rbf", {"gamma": 1 / (2 * 1.7**2)}),
        ("laplacian", {"gamma": 1 / 1.7}),
    ],
)
def test_gram_matrices_are_scikit_learns(kernel: str, theirs: dict[str, float]) -> None:
    x, y = _rows(9, 4), _rows(6, 4, 1)
    for other in (None, y):
        expected = pairwise_kernels(x, other, metric=kernel, **theirs)
        np.testing.assert_allclose(gram(x, other, kernel, bandwidth=1.7), expected, rtol=1e-10, atol=1e-12)
    tensor = gram(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y), kernel, bandwidth=1.7)
    np.testing.assert_allclose(tensor, pairwise_kernels(x, y, metric=kernel, **theirs), rtol=1e-10, atol=1e-12)


def test_the_median_bandwidth() -> None:
    x = np.array([[0.0], [1.0], [3.0], [3.0]])  # distances 1, 3, 3, 2, 2, 0
    assert median_distance(x) == 2
    np.testing.assert_allclose(gram(x), gram(x, bandwidth=2.0))
    assert median_distance(np.ones((5, 2))) == 1
    assert median_distance(_rows(3000, 2), items=500) == pytest.approx(math.sqrt(4 * math.log(2)), rel=0.05)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_biased_hsic_by_a_plain_loop(kernel: str) -> None:
    x, y = _rows(6, 3), _rows(6, 2, 1)
    k, m = gram(x, kernel=kernel), gram(y, kernel=kernel)
    n = 6
    centring = np.eye(n) - np.ones((n, n)) / n
    assert hsic(x, y, kernel) == pytest.approx(float(np.trace(k @ centring @ m @ centring)) / (n - 1) ** 2)


def test_unbiased_hsic_is_the_mean_over_tuples_of_different_items() -> None:
    # Song et al.: E[k_ij l_ij] + E[k_ij l_qr] - 2 E[k_ij l_iq] over distinct indices
    k, m = gram(_rows(6, 3)), gram(_rows(6, 2, 1))
    pairs = [k[i, j] * m[i, j] for i, j in permutations(range(6), 2)]
    fours = [k[i, j] * m[q, r] for i, j, q, r in permutations(range(6), 4)]
    threes = [k[i, j] * m[i, q] for i, j, q in permutations(range(6), 3)]
    expected = np.mean(pairs) + np.mean(fours) - 2 * np.mean(threes)
    assert hsic_of(k, m, estimator="unbiased") == pytest.approx(expected)


def test_hsic_of_independent_rows_is_zero_on_average_only_where_unbiased() -> None:
    draws = [(_rows(20, 2, seed), _rows(20, 2, 1000 + seed)) for seed in range(200)]
    unbiased = [hsic(x, y, bandwidth=1.0, estimator="unbiased") for x, y in draws]
    biased = [hsic(x, y, bandwidth=1.0) for x, y in draws]
    error = float(np.std(unbiased)) / math.sqrt(len(draws))
    assert abs(np.mean(unbiased)) < 4 * error
    assert np.mean(biased) > 10 * error


def test_hsic_sees_dependence_without_correlation() -> None:
    x = _rows(200, 1)
    dependent, apart = hsic(x, x**2, estimator="unbiased"), hsic(x, _rows(200, 1, 3) ** 2, estimator="unbiased")
    assert dependent > 20 * abs(apart)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_cka_is_one_for_the_same_up_to_rotation_shift_and_scale(kernel: str, estimator: str) -> None:
    x = _rows(30, 4)
    rotation = np.linalg.qr(_rows(4, 4, 5))[0]
    assert cka(x, 3 * x @ rotation + 2, kernel, estimator=estimator) == pytest.approx(1)
    y = _rows(30, 3, 1) + x[:, :3]
    found = cka(x, y, kernel, estimator=estimator)
    assert 0 < found < 0.95
    assert cka(y, x, kernel, estimator=estimator) == pytest.approx(found)
    order = np.random.default_rng(0).permutation(30)
    assert cka(x[order], y[order], kernel, estimator=estimator) == pytest.approx(found)


def test_linear_cka_by_features_is_that_of_gram_matrices() -> None:
    x, y = _rows(25, 4), _rows(25, 7, 1)
    k, m = gram(x, kernel="linear"), gram(y, kernel="linear")
    expected = hsic_of(k, m) / math.sqrt(hsic_of(k, k) * hsic_of(m, m))
    assert cka(x, y) == pytest.approx(expected)


def test_biased_cka_of_noise_grows_with_dimension_and_unbiased_does_not() -> None:
    x, y = _rows(40, 200), _rows(40, 200, 1)
    assert cka(x, y) > 0.7
    assert abs(cka(x, y, estimator="unbiased")) < 0.1
    assert cka(x, np.ones((40, 3))) == 0
    assert cka(x, np.ones((40, 3)), "rbf") == 0


@pytest.mark.parametrize("columns", [None, 2])
def test_kernel_ridge_is_scikit_learns(columns: int | None) -> None:
    x, points = 3 * _rows(40, 3) + 1, 3 * _rows(25, 3, 1) + 1
    shape = (40,) if columns is None else (40, columns)
    targets = np.random.default_rng(2).normal(size=shape) + x[:, :1].reshape(40, *([1] if columns else []))
    truth = targets[:25]
    mean, scale = x.mean(0), x.std(0)
    model = KernelRidge(alpha=0.5, kernel="rbf", gamma=1 / (2 * 1.3**2))
    model.fit((x - mean) / scale, targets - targets.mean(0))
    guess = model.predict((points - mean) / scale) + targets.mean(0)
    found = kernel_ridge_r2(x, targets, points, truth, bandwidth=1.3, alpha=0.5)
    assert found == pytest.approx(r2_score(truth, guess))


def test_the_bandwidth_of_a_kernel_ridge_is_that_of_the_training_rows() -> None:
    x = _rows(60, 3)
    y = np.sin(x[:, 0])
    for kernel in ("rbf", "laplacian"):
        near = kernel_ridge_r2(x[:40], y[:40], x[40:], y[40:], kernel)
        scaled = _scaled(x[:40])
        distances = np.linalg.norm(scaled[:, None] - scaled, ord=1 if kernel == "laplacian" else 2, axis=2)
        width = float(np.median(distances[distances > 0]))
        assert near == pytest.approx(kernel_ridge_r2(x[:40], y[:40], x[40:], y[40:], kernel, bandwidth=width))


def _scaled(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


def test_a_constant_representation_is_like_none() -> None:
    constant, other = np.full((10, 2), 0.1), np.full((10, 3), 0.7)
    for estimator in ("biased", "unbiased"):
        assert cka(constant, other, estimator=estimator) == 0
        assert cka(constant, _rows(10, 3), estimator=estimator) == pytest.approx(0, abs=1e-12)


def test_a_kernel_reads_what_a_line_cannot() -> None:
    x, points = _rows(300, 2), _rows(200, 2, 1)
    assert kernel_ridge_r2(x, x[:, 0] ** 2, points, points[:, 0] ** 2, alpha=0.1) > 0.9
    assert kernel_ridge_r2(x, x[:, 0] ** 2, points, points[:, 0] ** 2, "linear") < 0.1


def test_what_cannot_be_is_refused() -> None:
    x = _rows(5, 2)
    for wrong in (lambda: gram(x, kernel="tanh"), lambda: gram(x, bandwidth=0), lambda: hsic(x, x, estimator="best")):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(UsageError, match="alpha"):
        kernel_ridge_r2(x, x, x, x, alpha=0)
    for bad in (lambda: gram(x, _rows(5, 3)), lambda: cka(x, _rows(4, 2)), lambda: hsic(x[:1], x[:1])):
        with pytest.raises(DataError):
            bad()
    with pytest.raises(DataError, match="at least 4"):
        hsic(x[:3], x[:3], estimator="unbiased")
    x[0, 0] = np.nan
    with pytest.raises(DataError):
        gram(x)
