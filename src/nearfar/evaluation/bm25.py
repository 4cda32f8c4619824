"""BM25, the baseline that an embedding model has to beat before it is worth its cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.measures import RESAMPLES, Evaluation
from nearfar.evaluation.ranking import ranks_by_scores, tie_order
from nearfar.evaluation.retrieval import MEASURES, PAIR_MAIN, candidates, measured, relevant_entries

if TYPE_CHECKING:
    from nearfar.data import Examples, RetrievalSet

# Languages written without blanks have no words for a pattern to find: each of their characters counts as one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_PART = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")

STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not"),
        *("of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was"),
        *("will", "with"),
    ]
)
"""The English stop words of Lucene's analyser, which most published BM25 baselines use."""


def tokenize(text: str, *, code: bool = False, stop_words: bool = True) -> list[str]:
    """The lower-case words of ``text``, without :data:`STOP_WORDS` unless these are kept.

    ``code`` splits identifiers into their parts and keeps the whole beside them: ``readJSON_file`` gives ``read``,
    ``json``, ``file``, ``readjson_file``. Chinese and Japanese characters are words of their own.
    """
    words: list[str] = []
    for word in _WORD.findall(text):
        parts = [part for part in _PART.split(word) if part] if code else []
        words += [part.lower() for part in parts]
        if len(parts) != 1:
            words.append(word.lower())
    return [word for word in words if word not in STOP_WORDS] if stop_words else words


def bm25(
    data: Examples | RetrievalSet,
    *,
    code: bool = False,
    stop_words: bool = True,
    k1: float = 1.5,
    b: float = 0.75,
    measures: Sequence[str] = MEASURES,
    main: str | None = None,
    gain: str = "linear",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Rank all documents of ``data`` (pairs or a retrieval set) for each query by BM25, and measure as for embeddings.

    Lucene's form of the score (Robertson and Zaragoza, 2009; Kamphuis et al., 2020), computed by the library bm25s:
    ``sum_w log(1 + (N - df + .5) / (df + .5)) * tf / (tf + k1 (1 - b + b |d| / mean |d|))``. ``k1`` and ``b`` are the
    library's defaults and were not tuned. For words see :func:`tokenize`; for code, removing stop words from both
    sides is the stronger baseline, since few functions hold a "the" and BM25 takes what is rare for telling.
    Documents that share no word with the query have the score 0 and stand at the end in the order of their ids. The
    remaining arguments and the errors are those of :func:`~nearfar.evaluation.retrieval`;
    :class:`~nearfar.errors.DataError` also when no document has a word.
    """
    if not k1 >= 0 or not 0 <= b <= 1:
        raise UsageError(f"k1 = {k1} and b = {b} are no parameters of BM25", hint="k1 at least 0, b between 0 and 1")
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("bm25s", "text") from error
    from nearfar.data import Examples

    collection = candidates(data)
    entries = relevant_entries(collection)
    tokenized = [tokenize(text, code=code, stop_words=stop_words) for text in collection.documents]
    if not any(tokenized):
        raise DataError("no document has a word, so there is nothing for BM25 to match")
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(tokenized, show_progress=False)

    def blocks() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        for number, row in enumerate(entries.queries):
            words = tokenize(collection.queries[row], code=code, stop_words=stop_words)
            scores = index.get_scores(words) if words else np.zeros(len(tokenized), np.float32)
            yield number, scores[None, :]

    ranks = ranks_by_scores(blocks(), entries, tie_order(collection.document_ids))
    if main is None and isinstance(data, Examples):
        main = PAIR_MAIN
    evaluation = measured(
        entries, ranks, len(tokenized), measures=measures, main=main, gain=gain, resamples=resamples, seed=seed
    )
    evaluation.details.update(k1=k1, b=b, code=code, stop_words=stop_words)
    return evaluation
