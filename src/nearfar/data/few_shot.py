"""A few labelled examples a class, drawn from many; and what is kept aside to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from nearfar.data import Examples

Integers = npt.NDArray[np.int64]


def draw_per_label(labels: npt.NDArray[np.integer[Any]], shots: int, *, seed: int = 0, draw: int = 0) -> Integers:
    """``shots`` rows of each label at random (all where there are fewer), label by label, int64.

    ``labels [n]`` are integers. Draw ``draw`` of ``seed`` does not depend on the others.
    Raises :class:`~nearfar.errors.UsageError` for fewer than one shot.
    """
    if shots < 1:
        raise UsageError(f"{shots} examples of a class; at least 1 is needed")
    codes = np.asarray(labels)
    generator = np.random.default_rng([seed, draw])
    drawn = [generator.permutation(np.flatnonzero(codes == code))[:shots] for code in np.unique(codes)]
    return np.concatenate(drawn).astype(np.int64) if drawn else np.empty(0, np.int64)


def hold_out_per_label(examples: Examples, share: float, *, seed: int = 0) -> tuple[Examples, Examples]:
    """Labelled texts in two parts, in the order of the rows: what is left, and about ``share`` of each label held out.

    Rows of equal text (after normalisation) stay together, with the label of the first of them. Of a label with two
    different texts or more, each part has one; one with a single text stays in the first part.

    Raises :class:`~nearfar.errors.UsageError` for a share outside of (0, 1) and data without labels,
    :class:`~nearfar.errors.DataError` where nothing can be held out.
    """
    if not 0.0 < share < 1.0:
        raise UsageError("the part to hold out must be between 0 and 1, both excluded", where=f"share={share}")
    labels = examples.labels()[0]
    _, first, group, sizes = np.unique(
        examples.hashes("text"), return_index=True, return_inverse=True, return_counts=True
    )
    held = np.zeros(len(sizes), bool)
    generator = np.random.default_rng(seed)
    # groups in the order of the data: the draw must not depend on what the hashes happen to be
    in_order = np.argsort(first)
    for label in np.unique(labels):
        mine = in_order[labels[first[in_order]] == label]
        if len(mine) < 2:
            continue
        shuffled = generator.permutation(mine)
        rows = np.cumsum(sizes[shuffled])
        held[shuffled[: int(np.argmin(np.abs(rows[:-1] - share * rows[-1]))) + 1]] = True
    if not held.any():
        raise DataError(
            "no label has two different texts, so none can be held out",
            hint="give the examples to be asked as a file of their own",
        )
    mask = held[group]
    return examples.select(np.flatnonzero(~mask)), examples.select(np.flatnonzero(mask))


def without_texts_of(examples: Examples, other: Examples) -> Examples:
    """The rows of ``examples`` whose text (after normalisation) is not among the texts of ``other``."""
    return examples.select(np.flatnonzero(~np.isin(examples.hashes("text"), other.hashes("text"))))
