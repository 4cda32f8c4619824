from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearfar import encoders
from nearfar.classify import Classified, LinearClassifier, TextClassifier
from nearfar.classify.model import logistic_regression
from nearfar.errors import DataError, ModelError, OutputError


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


def test_what_is_saved_gives_the_same_probabilities(classified: Classified, tmp_path: Path) -> None:
    model = classified.classifier
    texts = ["kab kad", "", "lon mis por", "unknown words"]
    model.save(tmp_path / "saved")
    again = TextClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(again.probabilities(texts), model.probabilities(texts), atol=1e-6)
    assert again.predict(texts) == [model.labels[code] for code in model.probabilities(texts).argmax(1)]
    assert again.predict([]) == []
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".pkl", ".joblib", ".bin", ".pt")]
    with pytest.raises(OutputError):
        model.save(tmp_path / "saved")
    model.save(tmp_path / "saved", overwrite=True)


def test_the_folder_is_one_of_sentence_transformers(classified: Classified) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(classified.folder / "model"), device="cpu")
    texts = ["kab kad", "lon mis por"]
    embedded = encoders.encode(plain, texts)
    np.testing.assert_allclose(
        classified.classifier.head.probabilities(embedded), classified.classifier.probabilities(texts), atol=1e-5
    )


def test_what_is_no_classifier_is_said(classified: Classified, bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no classifier"):
        TextClassifier.load(bert_folder)
    with pytest.raises(ModelError, match="no such folder"):
        TextClassifier.load(tmp_path / "nowhere")
    place = tmp_path / "copy"
    shutil.copytree(classified.folder / "model", place)
    settings = place / "classifier" / "classifier.json"
    known = json.loads(settings.read_text())
    for labels in ([*known["labels"], "one more"], known["labels"][:1], ["a", "a", "b", "c"], "abcd", None):
        settings.write_text(json.dumps({**known, "labels": labels}))
        with pytest.raises(ModelError):
            TextClassifier.load(place)
    settings.write_text("{")
    with pytest.raises(ModelError):
        TextClassifier.load(place)
    settings.write_text(json.dumps(known))
    weights = place / "classifier" / "classifier.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        TextClassifier.load(place)
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        TextClassifier.load(place)


def test_another_encoder_does_not_fit(classified: Classified, tmp_path: Path) -> None:
    from support.sentence_models import bert

    model = TextClassifier(encoders.load(bert(tmp_path / "wide", dimension=32)), classified.classifier.head)
    model.save(tmp_path / "wrong")
    with pytest.raises(ModelError, match="dimensions"):
        TextClassifier.load(tmp_path / "wrong")
