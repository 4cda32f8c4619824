"""What a classifier says of a file: label and probability of each text, and how good that is where labels are known."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.classify.model import TextClassifier
from nearfar.errors import DataError, OutputError, UsageError
from nearfar.evaluation.measures import Measure
from nearfar.files import atomic_path

if TYPE_CHECKING:
    from nearfar.data import Examples

FORMATS = (".csv", ".tsv", ".jsonl")


@dataclass
class Predictions:
    """Of each text of ``texts`` the ``labels`` predicted and their ``probabilities``; ``truth``, where it is known."""

    texts: list[str]
    labels: list[str]
    probabilities: list[float]
    truth: list[str] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """``{"text", "label", "probability"}`` of each text, and ``"truth"`` where it is known."""
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for place, text in enumerate(self.texts):
            row = {"text": text, "label": self.labels[place], "probability": self.probabilities[place]}
            yield row if self.truth is None else {**row, "truth": self.truth[place]}

    def judged(self, *, seed: int = 0) -> dict[str, Measure]:
        """Accuracy and macro-F1 with intervals over the texts; empty where no truth is known. A label that the
        classifier does not know counts as one it got wrong."""
        from nearfar.evaluation.classified import label_measures

        if self.truth is None or len(self.texts) < 2:
            return {}
        return label_measures(self.truth, self.labels, seed=seed)


def predict_examples(classifier: TextClassifier, examples: Examples, *, batch_size: int | None = None) -> Predictions:
    """What ``classifier`` says of texts, with labels or without.

    Raises :class:`~nearfar.errors.DataError` for another shape and for no rows.
    """
    if getattr(examples, "shape", "") not in ("texts", "labelled texts"):
        raise DataError(
            f"labels are predicted of texts, and these are {getattr(examples, 'shape', 'a retrieval set')}",
            hint="say which column is the text: --columns text=...",
        )
    if not len(examples):
        raise DataError("there are no texts")
    texts = examples.column("text")
    found = classifier.probabilities(texts, batch_size=batch_size)
    codes = found.argmax(1)
    return Predictions(
        texts,
        [classifier.labels[code] for code in codes.tolist()],
        found[np.arange(len(codes)), codes].tolist(),
        examples.column("label") if examples.shape == "labelled texts" else None,
    )


def write(path: str | os.PathLike[str], found: Predictions, *, overwrite: bool = False) -> None:
    """Write ``found`` to ``path``, all of it or nothing: CSV, TSV or JSON lines, by its ending.

    Raises :class:`~nearfar.errors.UsageError` for another ending, :class:`~nearfar.errors.OutputError` when the file
    exists (without ``overwrite``) or cannot be written.
    """
    place = Path(path)
    if place.suffix not in FORMATS:
        raise UsageError(
            f"predictions cannot be written as {place.suffix or 'a file without an ending'}",
            where=str(place),
            hint=f"name a file that ends in {', '.join(FORMATS)}",
        )
    if place.exists() and not overwrite:
        raise OutputError("the file exists already", where=str(place), hint="choose another, or pass --overwrite")
    with atomic_path(place) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        if place.suffix == ".jsonl":
            for row in found.rows():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        names = ["text", "label", "probability", *(["truth"] if found.truth is not None else [])]
        writer = csv.DictWriter(file, names, delimiter="," if place.suffix == ".csv" else "\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.rows())
