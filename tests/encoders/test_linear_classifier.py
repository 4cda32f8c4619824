from __future__ import annotations

import math

import numpy as np
import pytest

from nearfar.encoders.linear_classifier import LinearClassifier, logistic_regression
from nearfar.errors import DataError, ModelError


def points(n: int = 60, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    return (random.standard_normal((classes, 5))[codes] + 0.8 * random.standard_normal((n, 5))).astype("f4"), codes


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(classes: int) -> None:
    embeddings, codes = points(classes=classes)
    head = LinearClassifier.fit(embeddings, codes, ["a", "b", "c"], penalty=1.0)
    expected = logistic_regression(embeddings, codes, penalty=1.0).predict_proba(embeddings)
    assert head.labels == ("a", "b", "c")[:classes]
    np.testing.assert_allclose(head.probabilities(embeddings), expected, atol=1e-5)
    for row, embedding in zip(head.probabilities(embeddings[:3]), embeddings[:3], strict=True):
        logits = [float(w @ embedding + b) for w, b in zip(head.weight, head.bias, strict=True)]
        total = sum(math.exp(each) for each in logits)
        assert row == pytest.approx([math.exp(each) / total for each in logits], abs=1e-5)


def test_labels_without_examples_are_left_out_and_one_label_is_no_task() -> None:
    embeddings, codes = points()
    head = LinearClassifier.fit(embeddings, 2 * codes, ["a", "b", "c", "d", "e"])
    assert head.labels == ("a", "c", "e")
    with pytest.raises(DataError, match="one label"):
        LinearClassifier.fit(embeddings, 0 * codes, ["a"])
    embeddings[3, 2] = np.nan
    with pytest.raises(ModelError, match="finite"):
        LinearClassifier.fit(embeddings, codes, ["a", "b", "c"])


def test_huge_logits_stay_finite() -> None:
    head = LinearClassifier(("a", "b"), np.array([[1e4], [-1e4]], "f4"), np.zeros(2, "f4"))
    assert head.probabilities(np.array([[1.0], [-1.0], [0.0]])).tolist() == [[1, 0], [0, 1], [0.5, 0.5]]
