"""A text classifier: an encoder, and a linear classifier on its embeddings. Saved without pickles, loaded safely."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, ModelError
from nearfar.files import atomic_folder, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PENALTY = 10.0
"""Inverse strength of the L2 penalty: embeddings of length 1 differ by little, and with scikit-learn's 1.0 a handful of
examples hardly moves the classifier."""

FOLDER, SETTINGS, WEIGHTS = "classifier", "classifier.json", "classifier.safetensors"

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LinearClassifier:
    """``softmax(W z + b)`` of an embedding z: ``weight [classes, d]``, ``bias [classes]``, ``labels`` of the rows."""

    labels: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    @classmethod
    def fit(
        cls, embeddings: Floats, codes: npt.NDArray[np.int64], labels: Sequence[str], *, penalty: float = PENALTY
    ) -> LinearClassifier:
        """Logistic regression (scikit-learn, multinomial, L2 with C = ``penalty``) of ``codes [n]``, which index
        ``labels``, on ``embeddings [n, d]``. Labels without an example are left out of the classifier.

        Raises :class:`~nearfar.errors.DataError` for fewer than two labels with examples,
        :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
        """
        model = logistic_regression(embeddings, codes, penalty=penalty)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps the second class's alone
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        known = tuple(str(labels[int(code)]) for code in model.classes_)
        return cls(known, weight.astype(np.float32), bias.astype(np.float32))

    def probabilities(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """``[n, classes]``, each row summing to 1."""
        logits = np.asarray(embeddings, np.float64) @ self.weight.T.astype(np.float64) + self.bias
        logits -= logits.max(1, keepdims=True)
        raised = np.exp(logits)
        found: npt.NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
        return found


@dataclass
class TextClassifier:
    """Texts to labels: ``encoder`` embeds them with length 1, ``head`` tells the classes apart."""

    encoder: SentenceTransformer
    head: LinearClassifier

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of :meth:`probabilities`."""
        return list(self.head.labels)

    def probabilities(self, texts: Sequence[str], *, batch_size: int | None = None) -> npt.NDArray[np.float64]:
        """``[n, classes]``. Any texts are allowed, the empty one too."""
        from nearfar.encoders import encode

        return self.head.probabilities(encode(self.encoder, list(texts), batch_size=batch_size, normalize=True))

    def predict(self, texts: Sequence[str], *, batch_size: int | None = None) -> list[str]:
        """The most probable label of each text."""
        found = self.probabilities(texts, batch_size=batch_size)
        return [self.head.labels[code] for code in found.argmax(1).tolist()] if len(found) else []

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write encoder and classifier to ``folder``, all or nothing: a sentence-transformers folder with a folder
        ``classifier`` in it (safetensors and JSON).

        Raises :class:`~nearfar.errors.OutputError` when it exists (without ``overwrite``) or cannot be written.
        """
        from safetensors.numpy import save_file

        from nearfar.encoders.save import write_model

        with atomic_folder(folder, overwrite=overwrite) as place:
            write_model(self.encoder, place)
            inside = place / FOLDER
            inside.mkdir()
            save_file(
                {"weight": np.ascontiguousarray(self.head.weight), "bias": np.ascontiguousarray(self.head.bias)},
                inside / WEIGHTS,
            )
            write_json(inside / SETTINGS, {"kind": "linear", "normalize": True, "labels": self.labels})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str | None = None) -> TextClassifier:
        """The classifier in ``folder``: what :meth:`save` wrote, or the folder of a ``nearfar classify`` run.

        Raises :class:`~nearfar.errors.ModelError` for a folder without a classifier or one that does not fit its
        encoder.
        """
        from nearfar import encoders
        from nearfar.encoders.sentence_modules import dimension_of

        place = Path(folder)
        if not (place / FOLDER).is_dir() and (place / "model" / FOLDER).is_dir():
            place = place / "model"
        if not (place / FOLDER / SETTINGS).is_file():
            raise ModelError(
                "there is no classifier here" if place.is_dir() else "there is no such folder",
                where=str(folder),
                hint="make one: nearfar classify train.csv --shots 8 --output RUN",
            )
        head = _read_head(place / FOLDER)
        encoder = encoders.load(place, device=device)
        if head.weight.shape[1] != dimension_of(encoder):
            raise ModelError(
                f"the classifier is for {head.weight.shape[1]} dimensions, the encoder has {dimension_of(encoder)}",
                where=str(place),
            )
        return cls(encoder, head)


def _read_head(folder: Path) -> LinearClassifier:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from nearfar.encoders.safety import read_json

    settings = read_json(folder / SETTINGS)
    named = settings.get("labels") if isinstance(settings, dict) else None
    labels = [label for label in named if isinstance(label, str)] if isinstance(named, list) else []
    if len(labels) < 2 or len(set(labels)) != len(labels) or len(labels) != len(named or ()):
        raise ModelError(f"{SETTINGS} names no labels", where=str(folder))
    try:
        tensors = load_file(folder / WEIGHTS)
        weight, bias = tensors["weight"], tensors["bias"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"the classifier's weights cannot be read: {error}", where=str(folder / WEIGHTS)) from None
    if weight.ndim != 2 or weight.shape[0] != len(labels) or bias.shape != (len(labels),):
        raise ModelError(
            f"weights {list(weight.shape)} and {list(bias.shape)} do not fit {len(labels)} labels", where=str(folder)
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError("a weight of the classifier is not finite", where=str(folder))
    return LinearClassifier(tuple(labels), weight.astype(np.float32), bias.astype(np.float32))


def logistic_regression(features: Any, codes: npt.NDArray[np.int64], *, penalty: float = PENALTY) -> Any:
    """scikit-learn's, fitted to ``features [n, d]`` (dense or sparse) and ``codes [n]``.

    Raises :class:`~nearfar.errors.DataError` for one class only, :class:`~nearfar.errors.ModelError` for features that
    are not finite.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
    if len(np.unique(codes)) < 2:
        raise DataError("there are examples of one label only, so there is nothing to tell apart")
    if not np.isfinite(features.data if hasattr(features, "indptr") else features).all():
        raise ModelError("an embedding is not finite", hint="has the model diverged?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=1_000).fit(features, codes)
