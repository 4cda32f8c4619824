"""A text classifier: an encoder, and a linear classifier on its embeddings. Saved without pickles, loaded safely."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nearfar.encoders.linear_classifier import LinearClassifier
from nearfar.errors import ModelError
from nearfar.files import atomic_folder, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FOLDER, SETTINGS, WEIGHTS = "classifier", "classifier.json", "classifier.safetensors"


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
