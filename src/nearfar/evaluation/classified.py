"""How good a classifier that was saved with an encoder is on labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nearfar.errors import DataError
from nearfar.evaluation.draws import accuracy_over_draws, macro_f1_over_draws
from nearfar.evaluation.measures import Measure

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples
    from nearfar.encoders.classifier_files import EmbeddingClassifier


def label_measures(truth: Sequence[str], said: Sequence[str], *, prefix: str = "", seed: int = 0) -> dict[str, Measure]:
    """Accuracy and macro-F1 of the labels ``said [n]`` where ``truth [n]`` is right, with intervals over the texts.

    A label that was never said, or that no text has, is one like any other. Names begin with ``prefix``. Raises
    :class:`~nearfar.errors.DataError` for lengths that do not fit and no labels.
    """
    if len(truth) != len(said) or not len(truth):
        raise DataError(
            f"{len(truth)} labels and {len(said)} predictions; as many of both, and one at least, are needed"
        )
    codes = {label: code for code, label in enumerate(sorted({*truth, *said}))}
    right = np.array([codes[label] for label in truth])
    answers = np.array([[codes[label] for label in said]])
    accuracy, macro_f1 = f"{prefix}accuracy", f"{prefix}macro_f1"
    return {
        accuracy: accuracy_over_draws(right, answers, name=accuracy),
        macro_f1: macro_f1_over_draws(right, answers, name=macro_f1, seed=seed),
    }


def classifier_measures(
    encoder: SentenceTransformer,
    head: EmbeddingClassifier,
    data: Examples,
    *,
    normalize: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Measure]:
    """``classifier_accuracy`` and ``classifier_macro_f1`` of ``head`` on labelled texts, or on those of domains.

    ``normalize``: whether it takes embeddings of length 1. Empty for fewer than two texts. Raises
    :class:`~nearfar.errors.UsageError` for data without labels.
    """
    from nearfar.encoders import encode

    labelled = data.labelled() if data.shape == "domains" else data
    labelled.labels()  # a UsageError where there are none
    if len(labelled) < 2:
        return {}
    embedded = encode(encoder, labelled.column("text"), batch_size=batch_size, normalize=normalize)
    said = [head.labels[code] for code in head.probabilities(embedded).argmax(1).tolist()]
    return label_measures(labelled.column("label"), said, prefix="classifier_", seed=seed)
