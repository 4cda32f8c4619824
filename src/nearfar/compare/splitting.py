"""Three parts of the data: to train on, to choose by, and to be asked once at the end.

No first text is in two of them, and no second one either unless nearly all rows hang together; see :func:`split`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.data import Examples, RetrievalSet
from nearfar.data.fingerprints import text_hashes
from nearfar.errors import DataError, MissingExtraError
from nearfar.report.format import plural

TEST_SHARE, TEST_ROWS = 0.2, 5_000
VALIDATION_SHARE, VALIDATION_ROWS = 0.15, 2_000
LEAST = {"training": 20, "validation": 10, "test": 20}
"""Rows below which a part is too small to say anything."""

_LARGEST_GROUP = 0.1

Bools = npt.NDArray[np.bool_]

if TYPE_CHECKING:
    Evaluated = Examples | RetrievalSet


@dataclass
class Parts:
    """The three parts, and what a reader should know of how they came about."""

    training: Examples
    validation: Evaluated
    test: Evaluated
    notes: list[str] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """Rows of each part (of a retrieval set: queries)."""
        return {name: _rows(getattr(self, name)) for name in LEAST}

    def to_dict(self) -> dict[str, Any]:
        """Sizes, shapes and fingerprints, as JSON."""
        described = {
            name: {
                "rows": _rows(part),
                "shape": part.shape if isinstance(part, Examples) else "retrieval set",
                "sha256": part.sha256(),
            }
            for name in LEAST
            for part in [getattr(self, name)]
        }
        return {**described, "notes": self.notes}


def split(
    examples: Examples, *, validation: Evaluated | None = None, test: Evaluated | None = None, seed: int = 0
) -> Parts:
    """Cut ``examples`` in three, or leave out of them what a given ``validation`` or ``test`` holds.

    Rows that share a text (after normalisation) stay in one part, directly or by way of others. Where nearly all rows
    hang together so (many anchors with the same few positives), only rows with the same first text do, and a note
    says so. Of given parts, rows of the training data (and of the validation part, against the test part) with one of
    their texts are left out.

    Raises :class:`DataError` when a part has too few rows, and for texts alone without parts to evaluate on.
    """
    if examples.shape == "texts" and (validation is None or test is None):
        raise DataError(
            "texts alone cannot be compared on: nothing says which of them are near",
            hint="name pairs, scored pairs, labelled texts or a retrieval set with --dev and --test",
        )
    notes: list[str] = []
    if test is None:
        examples, test = _cut(examples, min(TEST_SHARE, TEST_ROWS / max(1, len(examples))), seed, notes)
    else:
        examples = _without(examples, test, "the test data", notes)
    if validation is None:
        share = min(VALIDATION_SHARE, VALIDATION_ROWS / max(1, len(examples)))
        examples, validation = _cut(examples, share, seed + 1, notes)
    else:
        if isinstance(validation, Examples):
            validation = _without(validation, test, "the test data", notes, of="the validation data")
        examples = _without(examples, validation, "the validation data", notes)
    parts = Parts(examples, validation, test, list(dict.fromkeys(notes)))
    for name, count in parts.sizes().items():
        if count < LEAST[name]:
            raise DataError(
                f"the data are too small to be split in three: {count} rows for {name}, {LEAST[name]} are needed",
                hint="give more data (100 rows at least, if no two share a text), or data for --dev and --test",
            )
    return parts


def _rows(part: Evaluated) -> int:
    return len(part) if isinstance(part, Examples) else len(part.queries)


def _cut(examples: Examples, share: float, seed: int, notes: list[str]) -> tuple[Examples, Examples]:
    if len(examples) < 2:
        raise DataError(f"{plural(len(examples), 'row')} cannot be split in three", hint="give more data")
    groups = _groups(examples, notes)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(
            "the rows cannot be split: they all hold the same text",
            hint="give the data to evaluate on as files of their own: --dev, --test",
        )
    # groups in the order of the data, so that the draw does not depend on what the hashes happen to be
    first = np.full(len(sizes), len(group), np.int64)
    np.minimum.at(first, group, np.arange(len(group)))
    order = np.argsort(first)[np.random.default_rng([seed, 77]).permutation(len(sizes))]
    held = np.cumsum(sizes[order])
    count = int(np.argmin(np.abs(held[:-1] - share * len(group)))) + 1
    out = np.zeros(len(sizes), bool)
    out[order[:count]] = True
    return examples.select(np.flatnonzero(~out[group])), examples.select(np.flatnonzero(out[group]))


def _groups(examples: Examples, notes: list[str]) -> npt.NDArray[np.int64]:
    """``[n]``: equal for rows that must stay together."""
    first = np.unique(examples.hashes(examples.text_columns[0]), return_inverse=True)[1]
    columns = examples.text_columns[:2]
    if len(columns) < 2:
        return first.astype(np.int64)
    joined = _joined([examples.hashes(name) for name in columns])
    if np.bincount(joined).max() > max(2, _LARGEST_GROUP * len(examples)):
        notes.append(
            f"many rows share texts, so the parts have no {columns[0]} in common, but may share texts as {columns[1]}"
        )
        return first.astype(np.int64)
    return joined


def _joined(columns: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.int64]:
    try:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
    except ImportError as error:
        raise MissingExtraError("scipy", "text") from error
    texts, places = np.unique(np.concatenate(columns), return_inverse=True)
    ends = np.split(places, len(columns))
    edges = coo_matrix((np.ones(len(ends[0]), bool), (ends[0], ends[1])), shape=(len(texts), len(texts)))
    return np.asarray(connected_components(edges, directed=False)[1][ends[0]], np.int64)


def _without(
    examples: Examples, other: Evaluated, name: str, notes: list[str], *, of: str = "the training data"
) -> Examples:
    """``examples`` without the rows whose first text (of scored pairs: either) is asked or held in ``other``."""
    if isinstance(other, Examples):
        columns = other.text_columns[: 2 if other.shape == "scored pairs" else 1]
        known = np.concatenate([other.hashes(column) for column in columns])
    else:
        known = text_hashes(other.queries)
    names = examples.text_columns[: 2 if examples.shape == "scored pairs" else 1]
    shared: Bools = np.zeros(len(examples), bool)
    for column in names:
        shared |= np.isin(examples.hashes(column), known)
    if not shared.any():
        return examples
    notes.append(f"{int(shared.sum()):,} rows of {of} were left out, as {name} hold their text")
    return examples.select(np.flatnonzero(~shared))
