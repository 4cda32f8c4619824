from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearfar import encoders
from nearfar.classify import Classified, TextClassifier
from nearfar.errors import ModelError, OutputError


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
