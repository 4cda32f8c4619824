"""Does an encoder still know everyday English? A check that needs no file: before and after training on anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.measures import RESAMPLES, Evaluation

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples

PAIRS = 400
"""Of the check: 800 short sentences, some seconds of a small transformer on a CPU."""

WORRYING_DROP = 0.02
"""A fall of the check's Spearman correlation beyond which training has cost general ability."""


def general_similarity(
    encoder: SentenceTransformer,
    *,
    batch_size: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Spearman's (main) and Pearson's correlation of cosine similarities with how much of their meaning pairs share.

    The 400 pairs are made by a grammar (:class:`~nearfar.data.synthetic.everyday.EverydaySentences`): their scores 0
    to 5 count what agrees of who did what to what, where and when, said in other words. They are the same in every
    call, so that two encoders, or one before and after training, are compared in pairs
    (``paired_difference(after.per_item["spearman"], before.per_item["spearman"])``); ``seed`` is that of the intervals.

    It tells whether general ability was lost, not how good a model is: all-MiniLM-L6-v2 has 0.83, TF-IDF 0.18, a
    static encoder of random vectors 0.10. English only.
    """
    return evaluate(encoder, general_pairs(), batch_size=batch_size, resamples=resamples, seed=seed)


def general_pairs() -> Examples:
    """The scored pairs of :func:`general_similarity`."""
    from nearfar.data import Examples
    from nearfar.data.synthetic.everyday import EverydaySentences

    first, second, scores = EverydaySentences(seed=0).pairs(PAIRS)
    return Examples.from_columns({"sentence1": first, "sentence2": second, "score": scores})
