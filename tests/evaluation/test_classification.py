from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from nearfar.errors import DataError, ModelError, UsageError
from nearfar.evaluation import classification
from nearfar.evaluation.classification import macro_f1


def clusters(n: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    centres = np.random.default_rng(99).standard_normal((3, 8))
    return (centres[labels] + spread * generator.standard_normal((n, 8))).astype(np.float32), np.array(
        ["red", "green", "blue"]
    )[labels]


def test_clear_classes_are_told_apart_and_noise_is_not() -> None:
    clear = classification(*clusters(90, 0.1))
    assert clear.measures["probe_accuracy"].value == clear.measures["knn_accuracy"].value == 1.0
    assert clear.measures["probe_macro_f1"].value == clear.measures["knn_macro_f1"].value == 1.0
    assert clear.main == "probe_accuracy"
    points, labels = clusters(300, 0.1)
    noise = classification(np.random.default_rng(1).standard_normal(points.shape), labels)
    assert noise.measures["probe_accuracy"].value < 0.45
    assert noise.measures["knn_accuracy"].value < 0.45


def test_with_training_data_the_figures_are_those_of_scikit_learn() -> None:
    train, known = clusters(150, 1.0, seed=1)
    points, labels = clusters(80, 1.0, seed=2)
    found = classification(points, labels, train=(train, known), neighbours=7)
    voters = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(train, known)
    predicted = voters.predict(points)
    assert found.measures["knn_accuracy"].value == pytest.approx(accuracy_score(labels, predicted))
    assert found.measures["knn_macro_f1"].value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.per_item["knn_accuracy"].tolist() == (labels == predicted).astype(float).tolist()
    assert found.details == {"items": 80, "neighbours": 7, "training_items": 150, "classes": 3}


def test_a_label_that_was_never_trained_is_a_mistake() -> None:
    train, known = clusters(60, 0.1, seed=1)
    points, labels = clusters(40, 0.1, seed=2)
    found = classification(points, np.where(labels == "red", "yellow", labels), train=(train, known))
    assert found.measures["probe_accuracy"].value == pytest.approx((labels != "red").mean())


def test_macro_f1_and_its_interval() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 5, 150), generator.integers(0, 6, 150)
    found = macro_f1("f1", truth, predicted, resamples=2_000)
    assert found.value == pytest.approx(f1_score(truth, predicted, average="macro"))
    plain = []
    for _ in range(400):
        rows = generator.integers(0, 150, 150)
        plain.append(f1_score(truth[rows], predicted[rows], average="macro"))
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]).tolist(), abs=0.02)


def test_the_seed_decides_the_folds() -> None:
    points, labels = clusters(60, 2.0)
    assert classification(points, labels, seed=1).to_dict() == classification(points, labels, seed=1).to_dict()
    one, two = classification(points, labels, seed=1), classification(points, labels, seed=2)
    assert one.per_item["probe_accuracy"].tolist() != two.per_item["probe_accuracy"].tolist()


def test_rare_classes_are_counted(recwarn: pytest.WarningsRecorder) -> None:
    points, labels = clusters(40, 0.1)
    found = classification(points, np.array([*labels[:39], "alone"]))
    assert found.details["rare_classes"] == 1
    assert found.details["classes"] == 4
    assert found.measures["probe_accuracy"].n == 40
    assert found.per_item["probe_accuracy"][39] == 0.0
    assert not recwarn.list


def test_two_items_a_class_are_enough() -> None:
    points = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    found = classification(points, [0, 0, 1, 1])
    assert found.measures["probe_accuracy"].value == 1.0
    assert found.details["folds"] == 2


def test_a_collapsed_encoder_does_not_beat_the_largest_class() -> None:
    labels = np.array(["a"] * 60 + ["b"] * 40)
    found = classification(np.ones((100, 4)), labels)
    assert found.measures["probe_accuracy"].value <= 0.6
    assert found.measures["probe_macro_f1"].value < 0.5


def test_what_cannot_be_learnt_is_an_error() -> None:
    points, labels = clusters(20, 0.1)
    with pytest.raises(DataError, match="one class only"):
        classification(points, ["same"] * 20)
    with pytest.raises(DataError, match="one class only"):
        classification(points, labels, train=(points, ["same"] * 20))
    with pytest.raises(DataError, match="occurs once"):
        classification(points, [str(number) for number in range(20)])
    with pytest.raises(DataError, match="do not fit"):
        classification(points, labels[:10])
    with pytest.raises(DataError, match="no items"):
        classification(points[:0], labels[:0])
    with pytest.raises(DataError, match="dimensions"):
        classification(points, labels, train=(points[:, :3], labels))
    with pytest.raises(UsageError):
        classification(points, labels, neighbours=0)
    points[4, 0] = np.nan
    with pytest.raises(ModelError, match="row 4"):
        classification(points, labels)
