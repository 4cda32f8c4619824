"""Classifiers of embeddings beside their encoder: what is written is read, what is broken is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from nearfar.encoders.classifier_files import (
    SETTINGS,
    WEIGHTS,
    PerceptronClassifier,
    read_classifier,
    write_classifier,
)
from nearfar.encoders.linear_classifier import LinearClassifier
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import ModelError, OutputError


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def perceptron() -> PerceptronClassifier:
    return PerceptronClassifier(("bad", "good", "so"), floats(5, 4), floats(5), floats(3, 5), floats(3))


def test_a_perceptron_by_torch() -> None:
    head, made = perceptron(), Perceptron((4, 5, 3))
    with torch.no_grad():
        for parameter, value in zip(
            made.parameters(), (head.hidden, head.hidden_bias, head.weight, head.bias), strict=True
        ):
            parameter.copy_(torch.from_numpy(value))
        expected = made(torch.from_numpy(floats(6, 4))).softmax(1).numpy()
    np.testing.assert_allclose(head.probabilities(floats(6, 4)), expected, rtol=1e-5)
    np.testing.assert_allclose(head.probabilities(floats(6, 4)).sum(1), 1)


@pytest.mark.parametrize("head", [perceptron(), LinearClassifier(("a", "b"), floats(2, 4), floats(2))])
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_written_is_read(tmp_path: Path, head: PerceptronClassifier, normalize: bool) -> None:
    write_classifier(head, tmp_path / "classifier", normalize=normalize)
    read, dimension, unit = read_classifier(tmp_path / "classifier")
    assert type(read) is type(head)
    assert (read.labels, dimension, unit) == (head.labels, 4, normalize)
    np.testing.assert_array_equal(read.probabilities(floats(6, 4)), head.probabilities(floats(6, 4)))
    with pytest.raises(OutputError, match="exists"):
        write_classifier(head, tmp_path / "classifier")


@pytest.mark.parametrize(("name", "shape"), [
    ("hidden", (5, 4, 1)), ("hidden_bias", (4,)), ("weight", (3, 4)), ("weight", (2, 5)), ("bias", (2,)),
    ("bias", (3, 1)), ("more", (3,)),
])  # fmt: skip
def test_weights_that_do_not_fit(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    write_classifier(perceptron(), tmp_path / "c")
    weights = load_file(tmp_path / "c" / WEIGHTS)
    save_file({**weights, name: floats(*shape)}, tmp_path / "c" / WEIGHTS)
    with pytest.raises(ModelError, match="do not fit 3 labels"):
        read_classifier(tmp_path / "c")


def test_what_is_broken_is_said(tmp_path: Path) -> None:
    write_classifier(perceptron(), tmp_path / "c")
    settings = json.loads((tmp_path / "c" / SETTINGS).read_text())
    for wrong, said in (
        ({"kind": "forest"}, "no kind"),
        ({"kind": "linear"}, "do not fit"),
        ({"labels": ["a"]}, "no labels"),
        ({"labels": ["a", "a", "b"]}, "no labels"),
        ({"labels": [1, 2, 3]}, "no labels"),
    ):
        (tmp_path / "c" / SETTINGS).write_text(json.dumps({**settings, **wrong}))
        with pytest.raises(ModelError, match=said):
            read_classifier(tmp_path / "c")
    (tmp_path / "c" / SETTINGS).write_text("[]")
    with pytest.raises(ModelError, match="no labels"):
        read_classifier(tmp_path / "c")
    (tmp_path / "c" / SETTINGS).write_text(json.dumps(settings))
    weights = load_file(tmp_path / "c" / WEIGHTS)
    save_file({**weights, "bias": np.full(3, np.nan, np.float32)}, tmp_path / "c" / WEIGHTS)
    with pytest.raises(ModelError, match="not finite"):
        read_classifier(tmp_path / "c")
    (tmp_path / "c" / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot be read"):
        read_classifier(tmp_path / "c")
