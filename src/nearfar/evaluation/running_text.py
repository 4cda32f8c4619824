"""Whether neighbours in running text find each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.errors import DataError
from nearfar.evaluation.probes import checked_rows

Array = Any  # [n, d]: a numpy array or a tensor; gradients are not followed


def neighbour_accuracy(first: Array, second: Array, *, among: int = 128) -> float:
    """Share of sentences for which the highest score of all others is that of a neighbour.

    ``first [n, d]`` and ``second [n, d]`` are the embeddings of the same running text, of one encoder each; scores are
    their dot products, within pieces of ``among`` sentences that follow each other (a shorter rest is left out). Chance
    is about ``2 / (among - 1)``. In [0, 1].

    Raises :class:`~nearfar.errors.DataError` for shapes that do not fit, values that are not finite, and fewer
    sentences than one piece, which has two at least.
    """
    one, other = checked_rows(first), checked_rows(second)
    if one.shape != other.shape or not 2 <= among <= len(one):
        wanted = f"twice [n, d] of {max(among, 2)} or more is needed"
        raise DataError(f"embeddings are {list(one.shape)} and {list(other.shape)}; {wanted}")
    places = np.arange(among)
    found = []
    for start in range(0, len(one) - among + 1, among):
        scores = one[start : start + among] @ other[start : start + among].T
        np.fill_diagonal(scores, -np.inf)
        found.append(np.abs(scores.argmax(1) - places) == 1)
    return float(np.mean(found))
