"""Scored pairs without people: texts changed a little or a lot, and a judge that says how alike they remain.

The data procedure of CLAIF (Cheng et al., 2023, arXiv:2305.01918) with any judge and anything that fills gaps::

    from nearfar.data.judged_pairs import gapped_pairs, judged_pairs
    from nearfar.encoders import load
    from nearfar.encoders.judge import EncoderJudge

    pairs = gapped_pairs(my_texts, fill=my_language_model)
    examples = judged_pairs(pairs, EncoderJudge(load("minilm")))
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from nearfar.data.examples import Examples
from nearfar.errors import DataError, UsageError

GAP = "<mask>"
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

Pair = tuple[str, str]
Fill = Callable[[str], str]
"""From a text with gaps (:data:`GAP`) to one without; from a text without gaps to a paraphrase of it."""
Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float] | torch.Tensor]
"""How alike the two texts of each pair are, in [0, 1]; NaN where it has no answer."""

Score = TypeVar("Score", float, torch.Tensor)

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")


def without_gaps(text: str) -> str:
    """The text with its gaps left out, single blanks between its words: the :data:`Fill` that needs no model."""
    return " ".join(text.replace(GAP, " ").split())


def gapped(text: str, rate: float, *, merge: float = 0.5, generator: torch.Generator | None = None) -> str:
    """``text`` with ``ceil(rate n)`` of its n words, drawn at random, replaced by :data:`GAP`.

    With the probability ``merge`` gaps that stand side by side become one. Raises
    :class:`~nearfar.errors.UsageError` for a rate or a probability outside [0, 1].
    """
    if not 0 <= rate <= 1 or not 0 <= merge <= 1:
        raise UsageError(f"rate and merge must lie in [0, 1], got {rate} and {merge}")
    words = text.split()
    # 0.7 * 10 is a little above 7
    count = math.ceil(round(rate * len(words), 9))
    for place in torch.randperm(len(words), generator=generator)[:count].tolist():
        words[place] = GAP
    if float(torch.rand((), generator=generator)) < merge:
        words = [word for place, word in enumerate(words) if word != GAP or place == 0 or words[place - 1] != GAP]
    return " ".join(words)


def gapped_pairs(
    texts: Sequence[str], fill: Fill = without_gaps, *, rates: Sequence[float] = RATES, seed: int = 0
) -> Iterator[Pair]:
    """Each text with what ``fill`` makes of it at each of the ``rates`` of gaps; rate 0 asks for a paraphrase."""
    generator = torch.Generator().manual_seed(seed)
    for text in texts:
        for rate in rates:
            yield text, fill(gapped(text, rate, generator=generator))


def smoothed(score: Score) -> Score:
    """``0.8 y + 0.1`` of a number or a tensor: a judge is never certain."""
    return 0.8 * score + 0.1


def number_in(answer: str, *, last: bool = False) -> float:
    """The first (or ``last``) number of a judge's answer in words, where it lies in [0, 1]; otherwise NaN.

    The last one where the judge was asked to explain before it says its score.
    """
    found = _NUMBER.findall(answer)
    value = float(found[-1 if last else 0]) if found else math.nan
    return value if 0 <= value <= 1 else math.nan


def judged_pairs(
    pairs: Sequence[Pair] | Iterator[Pair],
    judge: Judge,
    *,
    smooth: bool = True,
    most: int = 2,
    zeros: int = 2,
    batch_size: int = 1024,
    seed: int = 0,
) -> Examples:
    """The scored pairs that CLAIF trains on.

    Left out are pairs of equal texts, pairs that came before, texts in which a gap is left, and pairs that the judge
    does not score. Scores are :func:`smoothed`; of one text at most ``most`` partners of the same score are kept, the
    first ones; and each text gets ``zeros`` other texts, drawn at random, with the score 0, which is not smoothed.

    Arguments:
        pairs: texts and partners. judge: see :data:`Judge`.
        smooth: whether scores are smoothed. most, zeros: default 2 (the paper's).
        batch_size: pairs judged at once.
        seed: of the random partners.

    Returns scored pairs (sentence1, sentence2, score). Raises :class:`~nearfar.errors.DataError` where nothing is left
    and for scores outside [0, 1] or of another number than the pairs, :class:`~nearfar.errors.UsageError` for numbers
    below their least.
    """
    if most < 1 or zeros < 0 or batch_size < 1:
        raise UsageError(f"most and batch_size must be at least 1, zeros at least 0, got {most}, {batch_size}, {zeros}")
    kept = list(
        dict.fromkeys((one, other) for one, other in pairs if _flat(one) != _flat(other) and GAP not in one + other)
    )
    kept = [(one, other) for one, other in kept if other.strip()]
    rows: list[tuple[str, str, float]] = []
    seen: Counter[tuple[str, float]] = Counter()
    for start in range(0, len(kept), batch_size):
        block = kept[start : start + batch_size]
        for (one, other), score in zip(block, _scores(judge, block), strict=True):
            if math.isnan(score):
                continue
            score = smoothed(score) if smooth else score
            seen[one, round(score, 6)] += 1
            if seen[one, round(score, 6)] <= most:
                rows.append((one, other, score))
    rows += _random_zeros(list(dict.fromkeys(one for one, _ in kept)), zeros, seed)
    if not rows:
        raise DataError("no pair is left to learn from", hint="texts and partners were equal, or the judge scored none")
    first, second, scores = (list(column) for column in zip(*rows, strict=True))
    return Examples.from_columns({"sentence1": first, "sentence2": second, "score": scores})


def _flat(text: str) -> str:
    return " ".join(text.split()).lower()


def _scores(judge: Judge, block: Sequence[Pair]) -> list[float]:
    found = judge([one for one, _ in block], [other for _, other in block])
    scores = [float(score) for score in found]
    if len(scores) != len(block):
        raise DataError(f"the judge gave {len(scores)} scores for {len(block)} pairs")
    wrong = [score for score in scores if not (math.isnan(score) or 0 <= score <= 1)]
    if wrong:
        raise DataError(f"a judge's score lies in [0, 1], and this one gave {wrong[0]:g}", hint="divide its scale out")
    return scores


def _random_zeros(texts: Sequence[str], zeros: int, seed: int) -> list[tuple[str, str, float]]:
    """Each text with ``zeros`` different other texts."""
    generator = torch.Generator().manual_seed(seed)
    zeros = min(zeros, len(texts) - 1)
    found = []
    for place, text in enumerate(texts):
        steps: dict[int, None] = {}
        while len(steps) < zeros:
            steps[int(torch.randint(1, len(texts), (), generator=generator))] = None
        found += [(text, texts[(place + step) % len(texts)], 0.0) for step in steps]
    return found
