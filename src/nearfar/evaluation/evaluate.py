"""One call that evaluates a model on any data it can be evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError
from nearfar.evaluation.classification import CLASSIFIERS, classification
from nearfar.evaluation.measures import RESAMPLES, Evaluation
from nearfar.evaluation.retrieval import MEASURES, PAIR_MAIN, candidates, relevant_entries, retrieval
from nearfar.evaluation.similarity import similarity

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples, RetrievalSet


def evaluate(
    model: SentenceTransformer,
    data: Examples | RetrievalSet,
    *,
    batch_size: int | None = None,
    train: Examples | None = None,
    measures: Sequence[str] = MEASURES,
    classifiers: Sequence[str] = CLASSIFIERS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Evaluate ``model`` by cosine similarity of its embeddings, by what the shape of ``data`` allows.

    - scored pairs: correlation with the scores, :func:`~nearfar.evaluation.similarity`; main measure ``spearman``;
    - retrieval set: ranking of its documents, :func:`~nearfar.evaluation.retrieval`; main ``ndcg@10``;
    - pairs: ranking of all positives (and negatives) of the set for each anchor; main ``mrr``;
    - labelled texts: nearest neighbours and linear probe, :func:`~nearfar.evaluation.classification`; main
      ``probe_accuracy``; of domains the texts with labels, those of the target where it has some.

    ``train`` are labelled texts to learn the classifiers from (cross-validation without them); ``measures`` those of
    a ranking, ``classifiers`` those that labelled texts are asked; ``batch_size`` the texts embedded at once (default:
    the encoder's). Anchors and queries are embedded as queries, what is ranked as documents, with the prompts the model
    was saved with for them. The same seed gives the same intervals and folds.

    Raises :class:`~nearfar.errors.DataError` for texts alone, no rows, and data in which there is nothing to tell
    apart; :class:`~nearfar.errors.UsageError` for ``train`` with another evaluation.
    """
    from nearfar.data import Examples

    if isinstance(data, Examples):
        if data.shape == "texts":
            raise DataError(
                "texts alone cannot be evaluated: nothing says which of them are near",
                hint="evaluate on pairs (anchor, positive), scored pairs (sentence1, sentence2, score), "
                "labelled texts (text, label) or a retrieval set (corpus, queries, qrels)",
            )
        if data.shape == "domains":
            data = data.labelled()
        if not len(data):
            raise DataError("there are no rows to evaluate on")
    labelled = isinstance(data, Examples) and data.shape == "labelled texts"
    if train is not None and not (labelled and train.shape == "labelled texts"):
        raise UsageError("training data are of use only where labelled texts are evaluated by labelled texts")

    if not isinstance(data, Examples) or data.shape == "pairs":
        collection = candidates(data)
        relevant_entries(collection)  # what cannot be ranked is said before anything is embedded
        return retrieval(
            _embed(model, collection.queries, batch_size, "query"),
            _embed(model, collection.documents, batch_size, "document"),
            collection,
            measures=measures,
            main=PAIR_MAIN if isinstance(data, Examples) else None,
            resamples=resamples,
            seed=seed,
        )
    if data.shape == "scored pairs":
        return similarity(
            _embed(model, data.column("sentence1"), batch_size),
            _embed(model, data.column("sentence2"), batch_size),
            np.asarray(data.column("score"), np.float64),
            resamples=resamples,
            seed=seed,
        )
    if not labelled:
        raise DataError(f"{data.shape} cannot be evaluated")
    learnt = None
    if train is not None:
        learnt = (_embed(model, train.column("text"), batch_size), np.asarray(train.column("label")))
    return classification(
        _embed(model, data.column("text"), batch_size),
        np.asarray(data.column("label")),
        train=learnt,
        classifiers=classifiers,
        resamples=resamples,
        seed=seed,
    )


def _embed(
    model: SentenceTransformer,
    texts: list[str],
    batch_size: int | None,
    task: Literal["query", "document"] | None = None,
) -> npt.NDArray[np.floating[Any]]:
    """The L2-normalised float32 embeddings ``[n, d]`` of ``texts``."""
    from nearfar.encoders import encode

    return np.asarray(encode(model, texts, batch_size=batch_size, normalize=True, task=task))
