"""Every threshold on the similarities of labelled pairs, and what is right above it: for many samples at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.evaluation.measures import checked_items

Floats = npt.NDArray[np.float64]


class Cuts:
    """Every threshold that tells these pairs apart differently, from the highest (the most similar are taken) down."""

    def __init__(self, similarities: Floats, near: npt.NDArray[np.bool_]) -> None:
        self.order = np.argsort(-similarities, kind="stable")
        ranked = similarities[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of equal ones
        self.values = ranked[self.ends]
        # halfway to the next pair; the lowest takes all pairs as they are
        self.thresholds = (self.values + np.append(self.values[1:], self.values[-1])) / 2
        self.near = near[self.order]

    def rates(self, weights: Floats) -> dict[str, Floats]:
        """Of samples in which pair i stands ``weights[r, i]`` times: each rate at each cut ``[r, cuts]``; NaN where
        there is nothing to divide by."""
        true, taken, near = self.counts(weights)
        far = weights.sum(1, keepdims=True) - near
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"precision": true / taken, "recall": true / near, "false_positive_rate": (taken - true) / far}

    def chosen(self, weights: Floats, wanted: str, target: float) -> tuple[npt.NDArray[np.int64], Floats]:
        """Of each sample the lowest cut that keeps what is wanted and takes a near pair: its number (-1 for none), and
        its threshold ``[r]``, halfway between pairs that are in the sample."""
        rates = self.rates(weights)
        kept = rates[wanted] >= target if wanted == "precision" else rates[wanted] <= target
        kept &= rates["recall"] > 0
        lowest = kept.shape[1] - 1 - np.argmax(kept[:, ::-1], axis=1)
        taken = self.counts(weights)[1]
        # pairs that are not in the sample make no difference: cuts from the last pair that is taken on are equal
        highest = np.argmax(taken >= taken[np.arange(len(taken)), lowest][:, None], axis=1)
        following = np.minimum(lowest + 1, len(self.values) - 1)
        thresholds = (self.values[highest] + self.values[following]) / 2
        places = np.searchsorted(-self.values, -thresholds, side="right") - 1
        any_kept = kept.any(1)
        return np.where(any_kept, places, -1), np.where(any_kept, thresholds, 1.0)

    def counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Of the same samples: near pairs that are taken ``[r, cuts]``, pairs that are taken ``[r, cuts]``, and all
        near pairs ``[r, 1]``."""
        ranked = weights[:, self.order]
        taken = np.cumsum(ranked, axis=1)[:, self.ends]
        true = np.cumsum(ranked * self.near, axis=1)
        return true[:, self.ends], taken, true[:, -1:]


def checked_pairs(similarities: npt.ArrayLike, near: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Similarities and labels ``[n]``; DataError where they do not fit, are not finite, or all of one kind."""
    values = checked_items(similarities)
    is_near = np.asarray(near).astype(bool)
    if is_near.shape != values.shape:
        raise DataError(f"{len(values):,} similarities and {is_near.shape} labels do not fit")
    if is_near.all() or not is_near.any():
        raise DataError(
            f"all pairs are {'near' if is_near.all() else 'far'}, so no threshold can be wrong",
            hint="give pairs of both kinds",
        )
    return values, is_near
