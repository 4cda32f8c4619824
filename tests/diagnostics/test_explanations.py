from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from nearfar.diagnostics import explain
from nearfar.errors import DataError, MissingExtraError, ModelError, UsageError

pytest.importorskip("lime")

WEIGHTS = {"good": 0.3, "great": 0.2, "bad": -0.35, "slow": -0.1}
TEXT = "The food was good, great even, but the slow waiter was bad and the view was good"


def linear(texts: Sequence[str]) -> np.ndarray:
    """A known classifier: the probability is a sum over the words that are there."""
    found = np.array([0.4 + sum(weight * (word in text.split()) for word, weight in WEIGHTS.items()) for text in texts])
    return np.stack([1 - found, found], axis=1)


def spaced(texts: Sequence[str]) -> np.ndarray:
    return linear([re.sub(r"\W+", " ", text) for text in texts])


def test_the_true_words_of_a_linear_classifier_come_first_with_their_weights() -> None:
    found = explain(spaced, TEXT, labels=["no", "yes"], label="yes", samples=2_000)
    assert {word for word, _ in found.words[:4]} == set(WEIGHTS)
    for word, weight in found.words[:4]:
        assert weight == pytest.approx(WEIGHTS[word], abs=0.02)
    assert found.fidelity > 0.99
    assert found.probability == pytest.approx(0.4 + sum(WEIGHTS.values()))
    assert found.share_on(WEIGHTS) > 0.95
    assert found.share_on(["GOOD"]) == pytest.approx(0.3 / 0.95, abs=0.03)
    assert found.share_on(["absent"]) == 0.0


def weighted_ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Coefficients and R² by the normal equations."""
    total = weight.sum()
    mean_x, mean_y = weight @ x / total, weight @ y / total
    dx, dy = x - mean_x, y - mean_y
    coefficients = np.linalg.solve(dx.T @ (weight[:, None] * dx) + alpha * np.eye(x.shape[1]), dx.T @ (weight * dy))
    rest = dy - dx @ coefficients
    return coefficients, 1 - (weight @ rest**2) / (weight @ dy**2)


def squashed(texts: Sequence[str]) -> np.ndarray:
    score = 8 * (spaced(texts)[:, 1] - 0.4)
    found = 1 / (1 + np.exp(-score))
    return np.stack([1 - found, found], axis=1)


@pytest.mark.parametrize("features", [3, 8])
def test_weights_are_those_of_the_procedure_by_plain_loops(features: int) -> None:
    samples, seed = 300, 5
    words = list(dict.fromkeys(re.findall(r"\w+", TEXT)))
    random = np.random.RandomState(seed)
    sizes = random.randint(1, len(words) + 1, samples - 1)
    there = np.ones((samples, len(words)))
    for row, size in enumerate(sizes, 1):
        there[row, random.choice(range(len(words)), size, replace=False)] = 0
    texts = []
    for row in there:
        gone = {word for word, kept in zip(words, row, strict=True) if not kept}
        texts.append("".join(part for part in re.split(r"(\W+)", TEXT) if part not in gone))
    y = squashed(texts)[:, 1]
    cosine = there.sum(1) / np.sqrt(np.maximum(there.sum(1), 1)) / len(words) ** 0.5
    weight = np.exp(-((100 * (1 - cosine)) ** 2) / 25**2) ** 0.5
    if features <= 6:
        kept: list[int] = []
        for _ in range(features):
            rest = [each for each in range(len(words)) if each not in kept]
            kept.append(max(rest, key=lambda each: weighted_ridge(there[:, [*kept, each]], y, weight, 0.0)[1]))
    else:
        kept = np.argsort(-np.abs(weighted_ridge(there, y, weight, 0.01)[0]))[:features].tolist()
    coefficients, fidelity = weighted_ridge(there[:, kept], y, weight, 1.0)
    expected = {words[each]: value for each, value in zip(kept, coefficients, strict=True)}
    found = explain(squashed, TEXT, labels=["no", "yes"], label="yes", features=features, samples=samples, seed=seed)
    assert dict(found.words) == pytest.approx(expected, abs=1e-6)
    assert found.fidelity == pytest.approx(fidelity, abs=1e-6)
    sizes_in_order = [abs(value) for _, value in found.words]
    assert sizes_in_order == sorted(sizes_in_order, reverse=True)


def test_the_seed_decides_and_the_most_probable_label_is_explained() -> None:
    one, again, other = (explain(squashed, TEXT, labels=["no", "yes"], samples=80, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.words != other.words
    assert one.label == ("no" if squashed([TEXT])[0, 0] > 0.5 else "yes")
    assert str(one).startswith(f"{one.label} {one.probability:.2f}: ")
    assert one.to_dict()["words"][0] == list(one.words[0])


def test_every_text_is_asked_once_and_the_empty_one_among_them() -> None:
    asked: list[str] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return squashed(texts)

    explain(counted, "good bad good", labels=["no", "yes"], samples=400)
    assert len(asked) == 1 + 4  # the text to begin with, and its two words there or not
    assert any(not text.strip() for text in asked)


def test_one_word_and_a_constant_classifier() -> None:
    found = explain(squashed, "good", labels=["no", "yes"], samples=50)
    assert [word for word, _ in found.words] == ["good"]
    flat = explain(lambda texts: np.full((len(texts), 2), 0.5), TEXT, labels=["no", "yes"], samples=50)
    assert all(abs(weight) < 1e-9 for _, weight in flat.words)
    assert np.isfinite(flat.fidelity)


def test_what_cannot_be_explained_is_said() -> None:
    for text in ("", " ?! ", "\n"):
        with pytest.raises(DataError, match="no word"):
            explain(squashed, text, labels=["no", "yes"])
    with pytest.raises(UsageError, match="no label"):
        explain(squashed, TEXT, labels=["no", "yes"], label="maybe")
    with pytest.raises(UsageError):
        explain(squashed, TEXT, labels=["no", "yes"], samples=1)
    with pytest.raises(UsageError):
        explain(squashed, TEXT, labels=["no", "yes"], features=0)
    with pytest.raises(ModelError):
        explain(squashed, TEXT, labels=["no", "yes", "maybe"])
    with pytest.raises(ModelError):
        explain(lambda texts: np.full((len(texts), 2), np.nan), TEXT, labels=["no", "yes"])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lime.lime_text", None)
    with pytest.raises(MissingExtraError, match="lime"):
        explain(squashed, TEXT, labels=["no", "yes"])
