"""How far a handful of labelled texts goes with an encoder as it is: a linear classifier on frozen embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.draws import accuracy_over_draws, macro_f1_over_draws
from nearfar.evaluation.measures import RESAMPLES, Evaluation

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples

SHOTS, DRAWS = 8, 10


def few_shot(
    model: SentenceTransformer,
    examples: Examples,
    *,
    shots: int = SHOTS,
    draws: int = DRAWS,
    train: Examples | None = None,
    batch_size: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Accuracy (main) and macro-F1 of logistic regression on the embeddings of ``shots`` labelled texts of each label.

    The examples are drawn ``draws`` times from ``train``, or from half of ``examples``, whose other half is asked
    (stratified; equal texts stay together). The classifier is that of
    :class:`~nearfar.encoders.linear_classifier.LinearClassifier`, on embeddings of length 1, which are not tuned; see
    :mod:`nearfar.classify` for tuning. All lie in [0, 1]; intervals are over draws and asked texts.

    Raises :class:`~nearfar.errors.DataError` for data without labels, one label only, or labels that cannot be learnt,
    :class:`~nearfar.errors.UsageError` for fewer than one shot or draw.
    """
    from nearfar.data.few_shot import draw_per_label, hold_out_per_label
    from nearfar.encoders import encode
    from nearfar.encoders.linear_classifier import LinearClassifier

    if draws < 1:
        raise UsageError(f"{draws} draws; at least 1 is needed")
    for each in (examples, train):
        if each is not None and each.shape != "labelled texts":
            raise DataError(f"few-shot classification takes labelled texts, not {each.shape}")
    pool, asked = hold_out_per_label(examples, 0.5, seed=seed) if train is None else (train, examples)
    codes, labels = pool.labels()
    if len(labels) < 2:
        raise DataError("there is one label only, so there is nothing to tell apart")
    truth = asked.labels(labels)[0]
    drawn = [draw_per_label(codes, shots, seed=seed, draw=number) for number in range(draws)]
    needed = np.unique(np.concatenate(drawn))
    points = encode(model, pool.select(needed).column("text"), batch_size=batch_size)
    queries = encode(model, asked.column("text"), batch_size=batch_size)
    answers = []
    for rows in drawn:
        head = LinearClassifier.fit(points[np.searchsorted(needed, rows)], codes[rows], labels)
        answers.append(head.probabilities(queries).argmax(1))  # every label of the pool has an example in each draw
    predicted = np.array(answers)
    measures = {
        "few_shot_accuracy": accuracy_over_draws(truth, predicted, name="few_shot_accuracy"),
        "few_shot_macro_f1": macro_f1_over_draws(
            truth, predicted, name="few_shot_macro_f1", resamples=resamples, seed=seed
        ),
    }
    per_item = {"few_shot_accuracy": (predicted == truth).mean(0).astype(np.float64)}
    details = {"asked": len(truth), "labels": len(labels), "shots": shots, "draws": draws}
    return Evaluation(measures, "few_shot_accuracy", "few-shot", per_item, details)
