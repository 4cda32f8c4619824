"""Accuracy of a saved classifier, distance of domains."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.evaluation.classified import label_measures
from nearfar.evaluation.domains import domain_distance


def test_labels_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    truth, said = ([str(each) for each in rng.integers(0, 4, 200)] for _ in range(2))
    found = label_measures(truth, said, prefix="classifier_")
    assert list(found) == ["classifier_accuracy", "classifier_macro_f1"]
    right = sum(one == other for one, other in zip(truth, said, strict=True))
    assert found["classifier_accuracy"].value == pytest.approx(right / 200)
    assert found["classifier_accuracy"].name == "classifier_accuracy"
    f1 = []
    for label in sorted(set(truth)):
        hits = sum(one == other == label for one, other in zip(truth, said, strict=True))
        f1.append(2 * hits / (truth.count(label) + said.count(label)))
    assert found["classifier_macro_f1"].value == pytest.approx(np.mean(f1))
    assert found["classifier_accuracy"].low < right / 200 < found["classifier_accuracy"].high


def test_labels_that_only_one_side_knows() -> None:
    found = label_measures(["a", "b", "b"], ["a", "c", "b"])
    assert found["accuracy"].value == pytest.approx(2 / 3)
    for truth, said in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(DataError, match="as many of both"):
            label_measures(truth, said)


def test_the_distance_of_domains_by_loops() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(50, 3)), 2 * rng.normal(size=(70, 3)) + [3, 0, 4]
    spread = np.mean([np.std([row[d] for row in rows], ddof=1) for rows in (one, other) for d in range(3)])
    apart = sum((one[:, d].mean() - other[:, d].mean()) ** 2 for d in range(3)) ** 0.5
    assert domain_distance(one, other) == pytest.approx(apart / spread)
    assert domain_distance(10 * one, 10 * other) == pytest.approx(apart / spread)
    assert domain_distance(one, one) == 0
    for wrong in ((one, other[:, :2]), (one[:1], other)):
        with pytest.raises(DataError, match="is needed"):
            domain_distance(*wrong)
    with pytest.raises(DataError, match="are the same"):
        domain_distance(np.ones((3, 2)), np.zeros((3, 2)))


def test_domains_are_evaluated_by_their_labelled_texts() -> None:
    from nearfar import encoders
    from nearfar.data import Examples
    from nearfar.evaluation import evaluate

    words = [f"{a}{b}" for a in "klmnp" for b in "aeiou"]
    model = encoders.load("static", texts=words * 2, dimension=8, seed=0)
    columns = {
        "text": [f"{words[row % 25]} {words[(row * 7) % 25]}" for row in range(40)],
        "label": ["a" if row % 2 else "b" for row in range(30)] + [""] * 10,
        "domain": ["x"] * 30 + ["y"] * 10,
    }
    domains = Examples.from_columns(columns, shape="domains")
    plain = Examples.from_columns({name: columns[name][:30] for name in ("text", "label")})
    assert evaluate(model, domains).to_dict() == evaluate(model, plain).to_dict()
