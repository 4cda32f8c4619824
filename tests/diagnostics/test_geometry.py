from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import special

from nearfar import objectives
from nearfar.diagnostics import (
    alignment,
    collapse_verdict,
    effective_rank,
    geometry_of,
    isotropy,
    random_similarity,
    uniformity,
    uniformity_floor,
)
from nearfar.diagnostics import geometry as module
from nearfar.errors import DataError, ModelError, UsageError


def random_points(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension))


def on_sphere(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    points = random_points(n, dimension, seed)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("t", [0.5, 2.0, 60.0])
@pytest.mark.parametrize("block", [3, 50, 1 << 22])
def test_uniformity_is_the_plain_loop(t: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", block)
    points = on_sphere(23, 4)
    pairs = [math.exp(-t * float(((points[i] - points[j]) ** 2).sum())) for i in range(23) for j in range(i + 1, 23)]
    assert uniformity(3.0 * points, t=t) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-10)


def test_large_t_does_not_underflow() -> None:
    points = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert uniformity(points, t=1_000.0) == pytest.approx(-4_000.0)


@pytest.mark.parametrize(
    ("dimension", "floor"), [(2, -1.57503), (3, -2.07978), (8, -3.08253), (64, -3.87524), (128, -3.93753)]
)
def test_the_floor_of_uniformity(dimension: int, floor: float) -> None:
    assert uniformity_floor(dimension) == pytest.approx(floor, abs=1e-5)


@pytest.mark.parametrize("dimension", [2, 3, 8, 64])
def test_an_even_sphere_is_at_the_floor(dimension: int) -> None:
    assert uniformity(on_sphere(4_000, dimension)) == pytest.approx(uniformity_floor(dimension), abs=0.01)


def test_the_floor_falls_to_its_limit() -> None:
    floors = [uniformity_floor(dimension) for dimension in (2, 8, 100, 300, 5_000)]
    assert floors == sorted(floors, reverse=True)
    assert -4.0 < floors[-1] < -3.99


@pytest.mark.parametrize("t", [0.01, 2.0, 50.0, 300.0])
def test_the_floor_by_the_bessel_function(t: float) -> None:
    for dimension in (2, 3, 16):
        order = dimension / 2 - 1
        expected = math.lgamma(dimension / 2) - order * math.log(t) + math.log(special.ive(order, 2 * t))
        assert uniformity_floor(dimension, t=t) == pytest.approx(expected, abs=1e-9)


def test_figures_agree_with_the_objectives_of_that_name() -> None:
    one, two = torch.tensor(random_points(40, 6)), torch.tensor(random_points(40, 6, seed=1))
    assert alignment(one, two) == pytest.approx(float(objectives.get("alignment")(one, two)), abs=1e-9)
    both = float(objectives.get("uniformity")(one, two))
    assert (uniformity(one) + uniformity(two)) / 2 == pytest.approx(both, abs=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_is_the_plain_loop(alpha: float) -> None:
    one, two = on_sphere(30, 5), on_sphere(30, 5, seed=1)
    expected = sum(math.dist(a, b) ** alpha for a, b in zip(one, two, strict=True)) / 30
    assert alignment(2 * one, 0.5 * two, alpha=alpha) == pytest.approx(expected)
    assert alignment(one, one, alpha=alpha) == pytest.approx(0.0, abs=1e-12)
    assert alignment(one, -one, alpha=alpha) == pytest.approx(2**alpha)
    if alpha == 2:
        assert alignment(one, two) == pytest.approx(2 - 2 * np.mean((one * two).sum(1)))


def test_random_similarity_is_the_plain_loop() -> None:
    points = random_points(25, 4)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = np.mean([unit[i] @ unit[j] for i in range(25) for j in range(25) if i != j])
    assert random_similarity(points) == pytest.approx(expected)
    assert random_similarity(np.ones((9, 3))) == pytest.approx(1.0)
    assert random_similarity(on_sphere(3_000, 32)) == pytest.approx(0.0, abs=0.005)
    assert random_similarity(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])) == pytest.approx(1 / 3)


def test_effective_rank_counts_dimensions() -> None:
    epsilon_share = 1e-4
    assert effective_rank(np.eye(7)) == pytest.approx(7.0, rel=epsilon_share)
    assert effective_rank(np.outer(np.arange(1, 10), [1.0, 2.0, 3.0])) == pytest.approx(1.0, rel=epsilon_share)
    assert effective_rank(random_points(5_000, 20)) == pytest.approx(20.0, rel=0.01)
    flat = np.zeros((100, 16))
    flat[:, :3] = random_points(100, 3)
    assert effective_rank(flat) == pytest.approx(3.0, rel=0.02)
    assert effective_rank(np.zeros((5, 4))) == 0.0


def test_effective_rank_by_its_formula() -> None:
    points = random_points(50, 8) * np.arange(1, 9)
    values = np.linalg.svd(points, compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert effective_rank(points) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_effective_rank_of_many_items_is_that_of_one_decomposition() -> None:
    points = random_points(10_000, 6) * 10.0 ** -np.arange(6)
    values = np.linalg.svd(points, compute_uv=False)
    assert module._singular_values(points) == pytest.approx(values, rel=1e-9)


def test_isotropy() -> None:
    assert isotropy(on_sphere(20_000, 8)) > 0.95
    cone = on_sphere(500, 8) * 0.2
    cone[:, 0] += 1.0
    assert isotropy(cone) < 0.3
    points = on_sphere(60, 4)
    _, vectors = np.linalg.eigh(points.T @ points)
    sums = [sum(math.exp(float(z @ c)) for z in points) for v in vectors.T for c in (v, -v)]
    assert isotropy(5.0 * points) == pytest.approx(min(sums) / max(sums))


def test_memory_is_linear() -> None:
    points = random_points(6_000, 8)
    tracemalloc.start()
    uniformity(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 140e6  # a matrix of all distances would be 288 MB


def test_tensors_and_single_precision() -> None:
    points = random_points(50, 8).astype(np.float32)
    tensor = torch.tensor(points, dtype=torch.bfloat16, requires_grad=True)
    for figure in (uniformity, effective_rank, random_similarity, isotropy):
        assert figure(tensor) == pytest.approx(figure(points), rel=0.02, abs=0.01)


def test_what_has_no_figure_is_an_error() -> None:
    one = np.ones((1, 3))
    with pytest.raises(DataError):
        uniformity(one)
    with pytest.raises(DataError):
        random_similarity(one)
    with pytest.raises(DataError):
        effective_rank(one[:0])
    with pytest.raises(DataError):
        isotropy(one[:0])
    with pytest.raises(DataError):
        alignment(one[:0], one[:0])
    with pytest.raises(DataError):
        alignment(one, np.ones((2, 3)))
    with pytest.raises(DataError):
        uniformity(np.ones(5))
    with pytest.raises(UsageError):
        uniformity(np.ones((2, 2)), t=0)
    with pytest.raises(UsageError):
        alignment(one, one, alpha=-1)
    with pytest.raises(UsageError):
        uniformity_floor(1)
    with pytest.raises(ModelError, match="row 1"):
        uniformity(np.array([[1.0, 2.0], [np.nan, 1.0]]))


def test_a_space_that_uses_its_dimensions_has_no_verdict() -> None:
    found = geometry_of(on_sphere(400, 32), on_sphere(100, 32), on_sphere(100, 32, seed=1))
    assert set(found) == {"alignment", "uniformity", "effective_rank", "random_similarity", "isotropy"}
    assert "alignment" not in geometry_of(on_sphere(40, 8))


def test_a_point_is_called_collapsed() -> None:
    points = np.ones((200, 32)) + 0.01 * random_points(200, 32)
    verdict = geometry_of(points)["verdict"]
    assert isinstance(verdict, str)
    assert "almost the same point" in verdict


def test_two_points_far_apart_are_few_dimensions_but_not_one_point() -> None:
    points = on_sphere(2, 64)[np.random.default_rng(0).integers(0, 2, 200)]
    verdict = geometry_of(points)["verdict"]
    assert isinstance(verdict, str)
    assert "few of its dimensions" in verdict


def test_a_cone_is_called_narrow() -> None:
    points = on_sphere(400, 64)
    points[:, 0] += 2.0
    verdict = geometry_of(points)["verdict"]
    assert isinstance(verdict, str)
    assert "narrow cone" in verdict


def test_verdicts_at_their_thresholds() -> None:
    def verdict(similarity: float, rank: float, spread: float | None = None) -> str:
        shape = (1_000, 100)
        return collapse_verdict(random_similarity=similarity, effective_rank=rank, shape=shape, uniformity=spread) or ""

    assert verdict(0.1, 50.0, -3.0) == ""
    assert "same point" in verdict(0.95, 50.0)
    assert "same point" in verdict(0.1, 50.0, -0.2)
    assert "narrow cone" in verdict(0.949, 50.0, -0.21)
    assert "narrow cone" in verdict(0.7, 50.0)
    assert verdict(0.699, 50.0) == ""
    assert "few" in verdict(0.1, 5.0)
    assert verdict(0.1, 5.1) == ""
    assert "diverged" in verdict(float("nan"), 5.1)
    assert "diverged" in verdict(0.1, float("inf"))
    # Three items cannot use more than three dimensions.
    assert collapse_verdict(random_similarity=0.1, effective_rank=1.2, shape=(3, 100)) is None
