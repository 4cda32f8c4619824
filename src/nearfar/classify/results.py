"""From what each draw said to figures with intervals, comparisons, classes, confusions and explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.classify.model import TextClassifier
from nearfar.classify.settings import SETFIT, ClassifySettings
from nearfar.errors import MissingExtraError
from nearfar.evaluation.comparison import difference, holm
from nearfar.evaluation.draws import accuracy_over_draws, confusion, macro_f1_over_draws, per_class

if TYPE_CHECKING:
    from nearfar.data import Examples

MAIN = "accuracy"
_CONFUSIONS = 200
_DRAWN = 40


def summary(
    truth: npt.NDArray[np.int64], draws: Sequence[Mapping[str, Sequence[int]]], labels: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Figures of every method over ``draws`` (by method, the codes of ``labels`` it gave the asked texts), as JSON.

    ``measures`` by method; ``gains``: the accuracy of the tuned classifier less that of each baseline, corrected
    together (Holm); ``by_draw``; and of the tuned classifier ``classes``, the most frequent ``confusions``, and where
    there are few labels their whole ``table``.
    """
    methods = list(draws[0])
    predicted = {name: np.array([draw[name] for draw in draws], np.int64) for name in methods}
    measures = {
        name: {
            MAIN: accuracy_over_draws(truth, each).to_dict(),
            "macro_f1": macro_f1_over_draws(truth, each, seed=seed).to_dict(),
        }
        for name, each in predicted.items()
    }
    right = {name: (each == truth).astype(np.float64) for name, each in predicted.items()}
    others = [name for name in methods if name != SETFIT]
    gains = [
        difference(right[SETFIT], right[name], names=(SETFIT, name), family=len(others), seed=seed) for name in others
    ]
    return {
        "methods": methods,
        "main": MAIN,
        "measures": measures,
        "gains": [each.to_dict() for each in holm(gains)],
        "by_draw": [{name: float(right[name][number].mean()) for name in methods} for number in range(len(draws))],
        "classes": _classes(truth, predicted[SETFIT], labels),
        "confusions": _confusions(truth, predicted[SETFIT], labels),
        "table": confusion(truth, predicted[SETFIT], len(labels)).tolist() if len(labels) <= _DRAWN else None,
    }


def _classes(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: Sequence[str]) -> list[Any]:
    found = per_class(truth, predicted, len(labels))
    return [
        {
            "label": label,
            **{name: None if np.isnan(values[code]) else float(values[code]) for name, values in found.items()},
        }
        for code, label in enumerate(labels)
    ]


def _confusions(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: Sequence[str]) -> list[Any]:
    """The most frequent of what was taken for what, as shares of the texts of the true label."""
    table = confusion(truth, predicted, len(labels))
    asked = np.maximum(table.sum(1), 1)
    off = table - np.diag(table.diagonal())
    order = np.argsort(-off, axis=None, kind="stable")[:_CONFUSIONS]
    return [
        {
            "label": labels[row],
            "taken_for": labels[column],
            "count": int(off[row, column]),
            "share": float(off[row, column] / asked[row]),
        }
        for row, column in zip(*np.unravel_index(order, off.shape), strict=True)
        if off[row, column]
    ]


def explained(
    classifier: TextClassifier, asked: Examples, settings: ClassifySettings, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Explanations of some asked texts: half of them the surest mistakes, half of them right ones (the surest of
    labels that are not among these yet). Empty where none are wanted or lime is not installed."""
    from nearfar.diagnostics import explain

    if not settings.explanations:
        return []
    texts, truth = asked.column("text"), asked.column("label")
    sure = classifier.probabilities(texts)
    said = [classifier.labels[code] for code in sure.argmax(1).tolist()]
    order = np.argsort(-sure.max(1), kind="stable").tolist()
    wrong = [row for row in order if said[row] != truth[row]][: settings.explanations // 2]
    right: list[int] = []
    for row in order:
        if said[row] == truth[row] and said[row] not in {said[other] for other in right}:
            right.append(row)
        if len(wrong) + len(right) >= settings.explanations:
            break
    found = []
    for row in [*right, *wrong]:
        if not any(character.isalnum() for character in texts[row]):
            continue
        try:
            made = explain(
                classifier.probabilities,
                texts[row],
                labels=classifier.labels,
                label=said[row],
                samples=settings.samples,
                seed=settings.seed,
            )
        except MissingExtraError as error:
            say(f"note: predictions are not explained: {error.message} ({error.hint})")
            return []
        found.append({**made.to_dict(), "truth": truth[row]})
        say(f"explained: {made}")
    return found
