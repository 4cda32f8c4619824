"""How a run is judged: one measure with a value an item, the same way on validation and test part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar import evaluation
from nearfar.data import Examples
from nearfar.errors import UsageError
from nearfar.evaluation import Evaluation

if TYPE_CHECKING:
    from nearfar.compare.splitting import Evaluated

MEMORY = 5_000
"""Labelled texts are classified by the classes of at most so many texts of the training part."""

_DEFAULT = {"labelled texts": "knn_accuracy", "pairs": "mrr", "scored pairs": "spearman"}


def default_measure(data: Evaluated) -> str:
    """What is compared on ``data`` unless something else is asked for."""
    return _DEFAULT[data.shape] if isinstance(data, Examples) else "ndcg@10"


@dataclass(frozen=True)
class Judge:
    """Evaluates encoders by ``measure``; ``memory``: the labelled texts that classifiers learn from.

    Labelled texts: a text has the class that most of its five nearest neighbours in ``memory`` have
    (``knn_accuracy``), or that a linear probe learnt there says (``probe_accuracy``). Pairs, retrieval sets and scored
    pairs: as :func:`nearfar.evaluation.evaluate`.
    """

    measure: str
    memory: Examples | None

    @classmethod
    def of(cls, measure: str | None, training: Examples, validation: Evaluated, test: Evaluated, seed: int) -> Judge:
        """The judge for these parts. Raises UsageError for parts that are judged differently."""
        kinds = {part.shape if isinstance(part, Examples) else "retrieval set" for part in (validation, test)}
        ranked = {"pairs", "retrieval set"}
        if len(kinds) > 1 and not kinds <= ranked:
            raise UsageError(f"validation and test data are of different kinds: {', '.join(sorted(kinds))}")
        chosen = measure or (default_measure(test) if len(kinds) == 1 else "ndcg@10")
        memory = None
        if "labelled texts" in kinds and training.shape == "labelled texts":
            rows = np.random.default_rng([seed, 78]).permutation(len(training))[:MEMORY]
            memory = training if len(training) <= MEMORY else training.select(np.sort(rows))
        return cls(chosen, memory)

    def __call__(self, encoder: Any, data: Evaluated) -> Evaluation:
        options: dict[str, Any] = {}
        if isinstance(data, Examples) and data.shape == "labelled texts":
            options = {"classifiers": ("probe",) if self.measure.startswith("probe") else ("knn",)}
            options["train"] = self.memory
        elif not isinstance(data, Examples) or data.shape == "pairs":
            options["measures"] = tuple(dict.fromkeys((self.measure, *evaluation.MEASURES)))
        found = evaluation.evaluate(encoder, data, resamples=1, **options)
        if self.measure not in found.per_item:
            raise UsageError(
                f"the measure {self.measure!r} cannot be compared on these data",
                where="--measure",
                hint=f"choose one of {', '.join(found.per_item)}"
                + (", probe_accuracy" if found.kind == "classification" else ""),
            )
        return found

    def describe(self) -> str:
        """The measure in words, for a reader."""
        words = {
            "knn_accuracy": "the share of texts whose five nearest texts of the training part have their class",
            "probe_accuracy": "the accuracy of a linear classifier on the frozen embeddings",
            "mrr": "the mean reciprocal rank of the first right document",
            "spearman": "Spearman's correlation of similarity and score",
        }
        return words.get(self.measure, "a measure of the ranking of all documents for each query")
