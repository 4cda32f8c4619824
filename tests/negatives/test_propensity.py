"""Inverse-propensity sampling: similarities by loops, the estimator's promise, and what is never drawn."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.negatives.propensity import (
    PropensityRules,
    PropensitySampler,
    Words,
    inverse_weights,
    propensity,
    semantic,
)
from support.scenarios import embeddings

TEXTS = ["a b c", "A b", "c c c c", "", "d e f g h", "a b c", "x", ""]


def test_surface_by_loops() -> None:
    words = Words(TEXTS)
    rows = torch.arange(len(TEXTS))
    found = words.surface(rows, rows.repeat(len(TEXTS), 1))
    for i, one in enumerate(TEXTS):
        for j, other in enumerate(TEXTS):
            a, b = one.lower().split(), other.lower().split()
            together = set(a) | set(b)
            jaccard = len(set(a) & set(b)) / len(together) if together else 1.0
            ratio = min(len(a), len(b)) / max(len(a), len(b)) if a or b else 1.0
            assert found[i, j].item() == pytest.approx((jaccard + ratio) / 2), (one, other)
    ids = torch.tensor([[4, 5, 6, 0], [4, 5, 0, 0], [6, 6, 6, 6], [0, 0, 0, 0]])
    of_ids = Words.of_ids(ids)
    some = torch.arange(4)
    torch.testing.assert_close(of_ids.surface(some, some.repeat(4, 1)), found[:4, :4])


def test_semantic_and_propensity_by_loops() -> None:
    points = embeddings(0, 6, 3)
    rows, candidates = torch.tensor([0, 5]), torch.tensor([[1, 2, 5], [5, 0, 3]])
    found = semantic(points, rows, candidates)
    for place, row in enumerate(rows.tolist()):
        for column, other in enumerate(candidates[place].tolist()):
            cosine = torch.cosine_similarity(points[row], points[other], dim=0).item()
            assert found[place, column].item() == pytest.approx((1 + cosine) / 2)
    surface = torch.tensor([[0.1, 0.4, 0.7, 0.2]])
    values = surface[0].tolist()
    mean = sum(values) / 4
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 4)
    expected = [1 / (1 + math.exp(-(value - mean) / spread)) for value in values]
    assert propensity(surface)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert propensity(torch.full((1, 3), 0.3))[0].tolist() == pytest.approx([0.5] * 3, abs=1e-4)


def test_weighted_means_of_naive_draws_are_those_of_the_target() -> None:
    """Draws by the true selection probabilities, weighted by target / propensity: the mean under the target."""
    generator = torch.Generator().manual_seed(0)
    value, statistic = torch.rand(12, generator=generator).double(), torch.randn(12, generator=generator).double()
    chosen = torch.rand(12, generator=generator).double() + 0.1
    chosen = chosen / chosen.sum()
    drawn = torch.multinomial(chosen, 200_000, replacement=True, generator=generator)
    weights = inverse_weights(value, chosen, clip=1e-6)[drawn]
    found = (weights * statistic[drawn]).sum() / weights.sum()
    target = (value * statistic).sum() / value.sum()
    naive = statistic[drawn].mean()
    assert abs(float(found - target)) < 0.02
    assert abs(float(naive - target)) > 0.05  # without weights it is another mean
    assert inverse_weights(torch.ones(1), torch.tensor([1e-9]), 0.1).item() == pytest.approx(10)  # clipped


def sampler(n: int = 60, **given: object) -> PropensitySampler:
    generator = torch.Generator().manual_seed(1)
    texts = [
        " ".join(f"w{int(word)}" for word in torch.randint(20, (1 + row % 9,), generator=generator)) for row in range(n)
    ]
    return PropensitySampler(embeddings(2, n, 4), Words(texts), PropensityRules(near=5, far=20, **given))  # type: ignore[arg-type]


def test_weights_by_loops_and_candidates() -> None:
    made = sampler()
    unit = torch.nn.functional.normalize(embeddings(2, 60, 4).float())
    for row in (0, 17, 59):
        scores = unit @ unit[row]
        scores[row] = -2
        ranked = scores.argsort(descending=True).tolist()
        assert made.positives[row].tolist() == ranked[:5]
        assert made.negatives[row, :15].tolist() == ranked[5:20]
        assert made.negatives.shape == (60, 30)
        for pool, weights, positive in (
            (made.positives, made.positive_weights, True),
            (made.negatives, made.negative_weights, False),
        ):
            candidates = pool[row : row + 1]
            alike = semantic(made.reference, torch.tensor([row]), candidates)[0]
            chosen = propensity(made.words.surface(torch.tensor([row]), candidates))[0]
            for place in range(len(alike)):
                sem, e = alike[place].item(), chosen[place].item()
                if positive:
                    expected = sem**2 / max(e, 0.1)
                else:
                    expected = 0.0 if sem > 0.9 else (1 - sem) ** 2 / max(1 - e, 0.1)
                assert weights[row, place].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_draws() -> None:
    made = sampler()
    own = torch.arange(60)
    assert not (made.positives == own[:, None]).any()
    assert not (made.negatives == own[:, None]).any()
    counts = torch.zeros(60)
    generator = torch.Generator().manual_seed(5)
    for _ in range(2000):
        positive, negative = made.draw(generator=generator)
        counts[positive[0]] += 1
        assert (made.positives == positive[:, None]).any(1).all()
        assert (made.negatives == negative[:, None]).any(1).all()
    share = made.positive_weights[0] / made.positive_weights[0].sum()
    torch.testing.assert_close(counts[made.positives[0]] / 2000, share, atol=0.04, rtol=0)
    one, two = (made.draw(generator=torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_propensities_make_positives_look_less_alike_and_negatives_more() -> None:
    def looks(made: PropensitySampler, kind: str) -> float:
        pool, weights = getattr(made, f"{kind}s"), getattr(made, f"{kind}_weights")
        surface = made.words.surface(torch.arange(len(pool)), pool)
        return float(((weights * surface).sum(1) / weights.sum(1).clamp_min(1e-9)).mean())

    with_, without = sampler(), sampler(inverse=False)
    assert looks(with_, "positive") < looks(without, "positive")
    assert looks(with_, "negative") > looks(without, "negative")


def test_what_means_the_same_is_no_negative_and_an_empty_pool_draws_nobody() -> None:
    points = torch.ones(12, 3)
    made = PropensitySampler(points, Words([f"w{row}" for row in range(12)]), PropensityRules(near=2, far=5))
    positive, negative = made.draw()
    assert (negative == -1).all()
    assert (positive >= 0).all()


def test_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="words of 8 items"):
        PropensitySampler(embeddings(0, 7, 3), Words(TEXTS))
    with pytest.raises(DataError, match="too few"):
        PropensitySampler(embeddings(0, 8, 3), Words(TEXTS))
    with pytest.raises(DataError, match="not finite"):
        PropensitySampler(torch.full((8, 3), float("nan")), Words(TEXTS), PropensityRules(near=2, far=4))
    for wrong in ({"near": 0}, {"near": 9, "far": 9}):
        with pytest.raises(UsageError, match="1 <= near < far"):
            PropensityRules(**wrong)
    for wrong in ({"power": -1.0}, {"clip": 0.0}, {"same": 1.5}):
        with pytest.raises(UsageError, match="power must be"):
            PropensityRules(**wrong)  # type: ignore[arg-type]
