"""A text classifier: an encoder, and a linear classifier on its embeddings. Saved without pickles, loaded safely."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nearfar.encoders.classifier_files import (
    FOLDER,
    SETTINGS,
    EmbeddingClassifier,
    read_classifier,
    write_classifier,
)
from nearfar.errors import ModelError
from nearfar.files import atomic_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass
class TextClassifier:
    """Texts to labels: ``encoder`` embeds them, with length 1 where ``normalize``, ``head`` tells the classes apart."""

    encoder: SentenceTransformer
    head: EmbeddingClassifier
    normalize: bool = True

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of :meth:`probabilities`."""
        return list(self.head.labels)

    def probabilities(self, texts: Sequence[str], *, batch_size: int | None = None) -> npt.NDArray[np.float64]:
        """``[n, classes]``. Any texts are allowed, the empty one too."""
        from nearfar.encoders import encode

        embedded = encode(self.encoder, list(texts), batch_size=batch_size, normalize=self.normalize)
        return self.head.probabilities(embedded)

    def predict(self, texts: Sequence[str], *, batch_size: int | None = None) -> list[str]:
        """The most probable label of each text."""
        found = self.probabilities(texts, batch_size=batch_size)
        return [self.head.labels[code] for code in found.argmax(1).tolist()] if len(found) else []

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write encoder and classifier to ``folder``, all or nothing: a sentence-transformers folder with a folder
        ``classifier`` in it (safetensors and JSON).

        Raises :class:`~nearfar.errors.OutputError` when it exists (without ``overwrite``) or cannot be written.
        """
        from nearfar.encoders.save import write_model

        with atomic_folder(folder, overwrite=overwrite) as place:
            write_model(self.encoder, place)
            write_classifier(self.head, place / FOLDER, normalize=self.normalize)

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
        head, dimension, normalize = read_classifier(place / FOLDER)
        encoder = encoders.load(place, device=device)
        if dimension != dimension_of(encoder):
            raise ModelError(
                f"the classifier is for {dimension} dimensions, the encoder has {dimension_of(encoder)}",
                where=str(place),
            )
        return cls(encoder, head, normalize)
