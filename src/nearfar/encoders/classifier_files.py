"""Classifiers of embeddings as files beside their encoder: safetensors and JSON, no pickles."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.encoders.linear_classifier import LinearClassifier
from nearfar.errors import ModelError
from nearfar.files import atomic_folder, write_json

FOLDER, SETTINGS, WEIGHTS = "classifier", "classifier.json", "classifier.safetensors"
"""Where a classifier is in the folder of its encoder, and the names of its files."""

Floats = npt.NDArray[np.floating[Any]]


class EmbeddingClassifier(Protocol):
    """What tells classes apart by embeddings."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of :meth:`probabilities`."""

    def probabilities(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """``[n, classes]`` of ``embeddings [n, d]``, each row summing to 1."""


@dataclass(frozen=True)
class PerceptronClassifier:
    """``softmax(W relu(V z + a) + b)`` of an embedding z: ``hidden [h, d]`` (V), ``hidden_bias [h]`` (a), ``weight
    [classes, h]`` (W), ``bias [classes]`` (b), ``labels`` of the rows of W."""

    labels: tuple[str, ...]
    hidden: npt.NDArray[np.float32]
    hidden_bias: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def probabilities(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """``[n, classes]``, each row summing to 1."""
        first = np.asarray(embeddings, np.float64) @ self.hidden.T.astype(np.float64) + self.hidden_bias
        return LinearClassifier(self.labels, self.weight, self.bias).probabilities(np.maximum(first, 0))


_KINDS: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    "linear": (LinearClassifier, ("weight", "bias")),
    "perceptron": (PerceptronClassifier, ("hidden", "hidden_bias", "weight", "bias")),
}


def write_classifier(head: EmbeddingClassifier, folder: str | os.PathLike[str], *, normalize: bool = True) -> None:
    """Write ``head`` to ``folder``, all of it or nothing. ``normalize``: whether it takes embeddings of length 1.

    Raises :class:`~nearfar.errors.OutputError` when it exists or cannot be written.
    """
    from safetensors.numpy import save_file

    kind = next(name for name, (made, _) in _KINDS.items() if isinstance(head, made))
    tensors = {name: np.ascontiguousarray(getattr(head, name), np.float32) for name in _KINDS[kind][1]}
    with atomic_folder(folder) as place:
        save_file(tensors, place / WEIGHTS)
        write_json(place / SETTINGS, {"kind": kind, "normalize": normalize, "labels": list(head.labels)})


def read_classifier(folder: Path) -> tuple[EmbeddingClassifier, int, bool]:
    """The classifier in ``folder``, the dimensions of the embeddings it takes, and whether these have length 1.

    Raises :class:`~nearfar.errors.ModelError` for anything else than what :func:`write_classifier` wrote.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from nearfar.encoders.safety import read_json

    settings = read_json(folder / SETTINGS)
    settings = settings if isinstance(settings, dict) else {}
    named = settings.get("labels")
    labels = [label for label in named if isinstance(label, str)] if isinstance(named, list) else []
    if len(labels) < 2 or len(set(labels)) != len(labels) or len(labels) != len(named or ()):
        raise ModelError(f"{SETTINGS} names no labels", where=str(folder))
    if settings.get("kind") not in _KINDS:
        raise ModelError(f"{SETTINGS} names no kind of classifier that is known", where=str(folder))
    made, names = _KINDS[settings["kind"]]
    try:
        stored = load_file(folder / WEIGHTS)
        tensors = {name: stored.pop(name) for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"the classifier's weights cannot be read: {error}", where=str(folder / WEIGHTS)) from None
    sizes = [tensor.shape for tensor in tensors.values()]
    layers = [tensors[name] for name in names if name in ("hidden", "weight")]
    fits = (
        not stored
        and all(len(shape) == 2 - place % 2 for place, shape in enumerate(sizes))
        and all(sizes[place][0] == sizes[place + 1][0] for place in range(0, len(sizes), 2))
        and all(above.shape[1] == below.shape[0] for below, above in itertools.pairwise(layers))
        and len(tensors["bias"]) == len(labels)
    )
    if not fits:
        shapes = ", ".join(str(list(shape)) for shape in sizes)
        raise ModelError(f"weights {shapes} do not fit {len(labels)} labels", where=str(folder))
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError("a weight of the classifier is not finite", where=str(folder))
    head = made(tuple(labels), *(tensor.astype(np.float32) for tensor in tensors.values()))
    return head, layers[0].shape[1], bool(settings.get("normalize", True))
