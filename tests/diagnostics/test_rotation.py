"""The best common rotation of an embedding under an augmentation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from nearfar.diagnostics import rotation_fit
from nearfar.errors import DataError


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("d", [2, 5])
def test_a_rotation_is_found_whatever_the_lengths(d: int) -> None:
    before = _unit(40, d, 0)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    fit = rotation_fit(3.0 * before, torch.from_numpy(before @ turn))
    np.testing.assert_allclose(fit.rotation, turn, atol=1e-12)
    assert fit.error == pytest.approx(0.0, abs=1e-20)
    assert fit.gap > 0.1
    assert fit.ratio == pytest.approx(0.0, abs=1e-18)


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_it_is_the_procrustes_solution(noise: float) -> None:
    before, moved = _unit(30, 4, 2), _unit(30, 4, 2) @ _unit(4, 4, 3) + noise * _unit(30, 4, 4)
    after = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    expected, _ = orthogonal_procrustes(before, after)
    fit = rotation_fit(before, after)
    np.testing.assert_allclose(fit.rotation, expected, atol=1e-10)
    assert fit.error == pytest.approx(float(((before @ expected - after) ** 2).sum(1).mean()))
    assert fit.error <= fit.gap
    assert fit.angle == pytest.approx(math.acos(float((before * after).sum(1).mean())))


def test_proper_rotations_are_wahbas() -> None:
    before = _unit(30, 3, 5)
    mirrored = before * np.array([1.0, 1.0, -1.0])
    assert rotation_fit(before, mirrored).error == pytest.approx(0.0, abs=1e-20)
    fit = rotation_fit(before, mirrored, proper=True)
    expected, residual = Rotation.align_vectors(mirrored, before)
    np.testing.assert_allclose(before @ fit.rotation, expected.apply(before), atol=1e-10)
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)
    assert fit.error == pytest.approx(residual**2 / 30)


def test_a_small_turn_of_the_plane_has_its_angle() -> None:
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    turned = np.stack([np.cos(angles + 0.3), np.sin(angles + 0.3)], 1)
    fit = rotation_fit(circle, turned)
    assert fit.angle == pytest.approx(0.3)
    assert fit.gap == pytest.approx(2 - 2 * math.cos(0.3))


def test_no_movement_is_no_equivariance() -> None:
    points = _unit(10, 3, 6)
    fit = rotation_fit(points, points.copy())
    assert (fit.gap, fit.ratio) == (0.0, 1.0)


def test_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="equal shapes"):
        rotation_fit(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(DataError, match="no items"):
        rotation_fit(np.ones((0, 2)), np.ones((0, 2)))
