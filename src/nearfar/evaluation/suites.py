"""Several evaluations of a model in one call: similarity, pairs, retrieval, classification, clustering, few-shot.

::

    from nearfar.evaluation import run_suites

    found = run_suites(model, ["similarity=stsb-dev.tsv", "pairs=duplicates.jsonl", "few-shot=intents.csv"])
    for suite in found:
        print(suite.kind, suite.name, suite.evaluation.measures[suite.evaluation.main])
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.errors import DataError, ModelError, UsageError
from nearfar.evaluation.calibration import labelled_pairs
from nearfar.evaluation.clustering import clustering
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.few_shot import SHOTS, few_shot
from nearfar.evaluation.general import general_similarity
from nearfar.evaluation.measures import RESAMPLES, Evaluation
from nearfar.evaluation.pair_classification import pair_classification
from nearfar.evaluation.similarity import cosine_of_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples, RetrievalSet

KINDS = {
    "similarity": "scored pairs: Spearman's correlation of cosine and score",
    "pairs": "labelled pairs (score 1 or 0, or negatives): average precision, best F1 and accuracy",
    "retrieval": "pairs or a retrieval set: how high what is right is ranked",
    "classification": "labelled texts: a linear probe and nearest neighbours, by cross-validation",
    "clustering": "labelled texts: V-measure of k-means clusters",
    "few-shot": "labelled texts: a linear classifier from a few examples of each label",
    "general": "the built-in pairs of everyday English, without a file",
}
"""What can be evaluated, on which data, by what."""

SHOWN = {
    "similarity": ("spearman",),
    "pairs": ("average_precision", "best_f1", "best_accuracy"),
    "retrieval": ("mrr", "ndcg@10", "recall@10"),
    "classification": ("probe_accuracy", "probe_macro_f1"),
    "clustering": ("v_measure",),
    "few-shot": ("few_shot_accuracy", "few_shot_macro_f1"),
    "general": ("spearman",),
}
"""The measures of each that stand in a table; the main one of an evaluation stands there always, and first."""


@dataclass(frozen=True)
class Suite:
    """One evaluation of several: its ``kind``, the ``name`` of its data, and what was found."""

    kind: str
    name: str
    evaluation: Evaluation

    @property
    def shown(self) -> list[str]:
        """The measures for a table, the main one first."""
        main = self.evaluation.main
        return [main, *(name for name in SHOWN[self.kind] if name != main and name in self.evaluation.measures)]


@dataclass(frozen=True)
class SuiteData:
    """What a suite is run on: its ``kind``, a ``name``, and its data (None for the general check)."""

    kind: str
    name: str
    data: Examples | RetrievalSet | None


def parse_suite(text: str) -> tuple[str, str, str | None]:
    """``kind=path`` or ``kind=path,role=column,...`` as kind, path and columns; ``general`` alone has no path.

    Raises :class:`~nearfar.errors.UsageError` for a kind that is not one of :data:`KINDS` and for a missing path.
    """
    kind, _, rest = text.partition("=")
    kind = kind.strip().lower().replace("_", "-")
    if kind not in KINDS:
        raise UsageError(
            f"there is no suite {kind!r}", where=f"--suite {text}", hint=f"choose one of {', '.join(KINDS)}"
        )
    path, comma, columns = rest.partition(",")
    if kind == "general":
        if rest:
            raise UsageError("the general check has its own pairs", where=f"--suite {text}", hint="--suite general")
        return kind, "", None
    if not path:
        raise UsageError("a suite needs data", where=f"--suite {text}", hint=f"--suite {kind}=FILE")
    return kind, path, columns if comma else None


def read_suites(suites: Iterable[str], *, columns: str | None = None, max_bad_rows: int = 0) -> list[SuiteData]:
    """The data of ``suites`` (see :func:`parse_suite`), checked for their kinds before anything is embedded."""
    from nearfar import data

    found = []
    for kind, path, own in [parse_suite(text) for text in suites]:
        if kind == "general":
            found.append(SuiteData(kind, "built in", None))
            continue
        read: Any
        if data.is_retrieval(path):
            read = data.read_retrieval(path, max_bad_rows=max_bad_rows)
        else:
            read = data.read(path, columns=own or columns, shapes=data.PLAIN_SHAPES, max_bad_rows=max_bad_rows)
        _check(kind, path, read)
        found.append(SuiteData(kind, Path(path).name, read))
    return found


def run_suites(
    model: SentenceTransformer,
    suites: Iterable[str | SuiteData],
    *,
    shots: int = SHOTS,
    batch_size: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Suite]:
    """Run ``suites`` on ``model``: texts as of :func:`parse_suite`, or what :func:`read_suites` has read.

    ``shots``: examples of each label of few-shot suites. Raises what reading and the evaluations raise, naming the
    suite, and :class:`~nearfar.errors.UsageError` for no suites.
    """
    given = list(suites)
    if not given:
        raise UsageError("there is no suite to run", hint=f"choose from {', '.join(KINDS)}")
    every = [each for one in given for each in (read_suites([one]) if isinstance(one, str) else [one])]
    found = []
    for each in every:
        try:
            evaluation = _run(model, each, shots, batch_size, resamples, seed)
        except (DataError, ModelError) as error:
            where = f"{each.kind} suite, {each.name}" + (f": {error.where}" if error.where else "")
            raise type(error)(error.message, where=where, hint=error.hint) from error
        found.append(Suite(each.kind, each.name, evaluation))
    return found


def _run(
    model: SentenceTransformer, suite: SuiteData, shots: int, batch_size: int | None, resamples: int, seed: int
) -> Evaluation:
    from nearfar.encoders import encode

    shared: dict[str, Any] = {"batch_size": batch_size, "resamples": resamples, "seed": seed}
    if suite.kind == "general":
        return general_similarity(model, **shared)
    examples: Any = suite.data
    if suite.kind in ("similarity", "retrieval", "classification"):
        return evaluate(model, examples, **shared)
    if suite.kind == "few-shot":
        return few_shot(model, examples, shots=shots, **shared)
    if suite.kind == "clustering":
        points = encode(model, examples.column("text"), batch_size=batch_size)
        return clustering(points, examples.labels()[0], resamples=resamples, seed=seed)
    first, second, near = labelled_pairs(examples)
    one, other = (encode(model, texts, batch_size=batch_size) for texts in (first, second))
    return pair_classification(cosine_of_rows(one, other), np.asarray(near), resamples=resamples, seed=seed)


_TAKES = {
    "similarity": ("scored pairs",),
    "pairs": ("scored pairs", "pairs"),
    "retrieval": ("pairs", "retrieval set"),
    "classification": ("labelled texts",),
    "clustering": ("labelled texts",),
    "few-shot": ("labelled texts",),
}


def _check(kind: str, path: str, data: Any) -> None:
    shape = getattr(data, "shape", "retrieval set")
    if shape not in _TAKES[kind]:
        fitting = [name for name, shapes in _TAKES.items() if shape in shapes]
        raise DataError(
            f"the suite {kind!r} takes {' or '.join(_TAKES[kind])}, and these data are {shape}",
            where=path,
            hint=f"suites for {shape}: {', '.join(fitting)}" if fitting else "say what the columns are",
        )
