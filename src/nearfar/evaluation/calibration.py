"""The similarity from which on two texts are near, for a wanted precision or false-positive rate, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nearfar.encoders.calibration import Calibration
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.cuts import Cuts, Floats, checked_pairs
from nearfar.evaluation.measures import RESAMPLES, resampled_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples

RATES = ("precision", "recall", "false_positive_rate")


def calibrate(
    similarities: npt.ArrayLike,
    near: npt.ArrayLike,
    *,
    precision: float | None = None,
    false_positive_rate: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    fingerprint: str | None = None,
) -> Calibration:
    """The lowest threshold that keeps what is wanted on pairs of known ``similarities [n]`` and ``near [n]`` (bool).

    Pairs with a similarity of at least t are taken as near. With TP the near and FP the far ones among them,
    ``precision = TP / (TP + FP)`` must be at least the one wanted, or ``false_positive_rate = FP / far`` at most; of
    all thresholds that keep it the lowest has the highest recall, ``TP / near``. It is set halfway between the last
    pair that is taken and the next, so equal similarities are on one side.

    The interval of the threshold is the 95 % percentile bootstrap over pairs, the threshold chosen anew in each
    resample (one that cannot keep what is wanted takes nothing: its threshold is 1). On the pairs that a resample left
    out its threshold is tried: their mean rates and percentiles are ``expected``, what new pairs will show, which is
    less than what was wanted and found ``here`` on the pairs that the threshold was chosen by.

    Raises :class:`UsageError` unless one of the two is wanted, in (0, 1) (a false-positive rate may be 0), and
    :class:`DataError` for pairs that are all near or all far, values that are not finite, and a precision that no
    threshold reaches.
    """
    wanted, target = _wanted(precision, false_positive_rate)
    values, is_near = checked_pairs(similarities, near)
    cuts = Cuts(values, is_near)
    whole = np.ones((1, len(values)))
    here = cuts.rates(whole)
    (chosen,), (threshold,) = cuts.chosen(whole, wanted, target)
    if chosen < 0:
        best = float(np.nanmax(here["precision"]))
        if wanted == "precision":
            raise DataError(
                f"no threshold has a precision of {target:g} on these pairs; the highest is {best:.4g}",
                hint="want less, give more pairs, or train the model on pairs like these",
            )
        raise DataError(
            f"a false-positive rate of {target:g} leaves no near pair: far ones are more similar than all of them",
            hint="allow a higher rate, or train the model on pairs like these",
        )
    thresholds: list[Floats] = []
    outside: dict[str, list[Floats]] = {name: [] for name in RATES}
    for weights in resampled_weights(len(values), resamples=resamples, seed=seed):
        places, found_thresholds = cuts.chosen(weights, wanted, target)
        thresholds.append(found_thresholds)
        left_out = cuts.rates((weights == 0).astype(np.float64))
        for name in RATES:
            found = left_out[name][np.arange(len(places)), places]
            # taking nothing: no precision, nothing found, nothing wrong
            nothing = np.nan if name == "precision" else 0.0
            outside[name].append(np.where(places >= 0, found, nothing))
    low, high = np.quantile(np.concatenate(thresholds), [0.025, 0.975])
    return Calibration(
        threshold=float(threshold),
        low=float(low),
        high=float(high),
        wanted=wanted,
        target=target,
        pairs=len(values),
        near=int(is_near.sum()),
        here={name: float(here[name][0, chosen]) for name in RATES},
        expected={name: _range(np.concatenate(outside[name]), float(here[name][0, chosen])) for name in RATES},
        fingerprint=fingerprint,
    )


def calibrate_encoder(
    model: SentenceTransformer,
    examples: Examples,
    *,
    precision: float | None = None,
    false_positive_rate: float | None = None,
    at_least: float | None = None,
    batch_size: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Calibration:
    """:func:`calibrate` of the cosine similarities that ``model`` gives to labelled pairs, and kept with the model.

    ``examples`` are scored pairs, whose scores are 1 (near) and 0 (far) or near from ``at_least`` on; or pairs with
    negatives: an anchor is near its positive and far from its negatives.

    Raises as :func:`calibrate` does, and :class:`DataError` for scores of more than two values without ``at_least`` and
    data of another shape.
    """
    from nearfar.encoders import encode, fingerprint, set_calibration
    from nearfar.evaluation.similarity import cosine_of_rows

    first, second, near = labelled_pairs(examples, at_least=at_least)
    distinct = list(dict.fromkeys([*first, *second]))
    place = {text: row for row, text in enumerate(distinct)}
    points = encode(model, distinct, batch_size=batch_size)
    cosines = cosine_of_rows(points[[place[text] for text in first]], points[[place[text] for text in second]])
    found = calibrate(
        cosines,
        near,
        precision=precision,
        false_positive_rate=false_positive_rate,
        resamples=resamples,
        seed=seed,
        fingerprint=fingerprint(model),
    )
    set_calibration(model, found)
    return found


def labelled_pairs(
    examples: Examples, *, at_least: float | None = None
) -> tuple[list[str], list[str], npt.NDArray[np.bool_]]:
    """First texts, second texts, and which of the pairs are near, ``[n]``; see :func:`calibrate_encoder`."""
    if examples.shape == "scored pairs":
        scores = np.asarray(examples.column("score"), np.float64)
        if at_least is None:
            values = np.unique(scores)
            if len(values) > 2:
                raise DataError(
                    f"the scores have {len(values):,} values, from {values[0]:g} to {values[-1]:g}",
                    hint="give scores of 1 and 0, or say from which score on a pair is near "
                    f"(nearfar calibrate --at-least {values[len(values) // 2]:g})",
                )
            near = scores == values[-1] if len(values) == 2 else scores > 0
        else:
            near = scores >= at_least
        return examples.column("sentence1"), examples.column("sentence2"), near
    if examples.shape == "pairs":
        anchors, negatives = examples.column("anchor"), examples.negatives
        if not negatives:
            raise DataError(
                "all pairs are near, so no threshold can be wrong",
                hint="give pairs with a score of 1 or 0, or negatives (anchor, positive, negative)",
            )
        columns = ["positive", *negatives]
        second = [text for name in columns for text in examples.column(name)]
        return anchors * len(columns), second, np.arange(len(second)) < len(anchors)
    raise DataError(
        f"{examples.shape} are no labelled pairs", hint="give sentence1, sentence2 and a score of 1 (near) or 0 (far)"
    )


def _range(values: Floats, here: float) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):  # too few pairs for one to be left out that counts
        return {"value": here, "low": 0.0, "high": 1.0}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"value": float(known.mean()), "low": float(low), "high": float(high)}


def _wanted(precision: float | None, false_positive_rate: float | None) -> tuple[str, float]:
    if (precision is None) == (false_positive_rate is None):
        raise UsageError("want either a precision or a false-positive rate", hint="--precision 0.95")
    if precision is not None:
        if not 0 < precision <= 1:
            raise UsageError(f"a precision of {precision:g} is none; it lies in (0, 1]", where="--precision")
        return "precision", float(precision)
    assert false_positive_rate is not None
    if not 0 <= false_positive_rate < 1:
        raise UsageError(
            f"a false-positive rate of {false_positive_rate:g} is none; it lies in [0, 1)",
            where="--false-positive-rate",
        )
    return "false_positive_rate", float(false_positive_rate)
