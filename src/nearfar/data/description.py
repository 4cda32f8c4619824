"""Examples in plain words: what was understood of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nearfar.data.columns import (
    CAPTIONS,
    DOCUMENTS,
    DOMAINS,
    LABELLED_TEXTS,
    PAIRS,
    SCORED_PAIRS,
    TEXTS,
)
from nearfar.data.values import shorten
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from nearfar.data.examples import Examples

_WORDS = {
    PAIRS: "pairs (anchor, positive)",
    SCORED_PAIRS: "scored pairs (sentence1, sentence2, score)",
    LABELLED_TEXTS: "labelled texts (text, label)",
    TEXTS: "texts",
    DOCUMENTS: "documents (text, document)",
    CAPTIONS: "captions (text, image)",
    DOMAINS: "domains (text, label, domain)",
}


def describe(examples: Examples, width: int = 100) -> str:
    """Shape, rows, columns, what was left out, and the first row, texts cut at ``width``."""
    rows = counted(len(examples), "row")
    names = ", ".join(path.name for path in examples.source[:3]) + (", ..." if len(examples.source) > 3 else "")
    lines = [f"{_WORDS[examples.shape]}: {rows}" + (f" from {names}" if names else "")]
    if examples.negatives:
        lines[0] += f", {counted(len(examples.negatives), 'negative')} each"
    layout = examples.layout
    renamed = [f"{name!r} as {role}" for role, name in layout.columns.items() if role != name]
    if layout.lists:
        lines.append(f"columns: {layout.columns['text']!r} as documents, a list of sentences each")
    elif renamed:
        lines.append(f"columns: {', '.join(renamed)}")
    if layout.ignored:
        lines.append(f"columns not used: {', '.join(shorten(name, 40) for name in layout.ignored)}")
    if len(examples):
        lines += _of_shape(examples)
    if examples.bad_rows:
        lines.append(f"bad rows skipped: {len(examples.bad_rows):,}, the first: {examples.bad_rows[0]}")
    if examples.blank_lines:
        lines.append(f"blank lines: {examples.blank_lines:,}")
    lines += [f"note: {note}" for note in examples.notes]
    if len(examples):
        lines.append("example:")
        lines += [f"  {name}: {shown(value, width)}" for name, value in examples[0].items()]
    return "\n".join(lines)


def shown(value: object, width: int) -> str:
    """One value of a row: a number, a text cut at ``width``, how many numbers an image has."""
    if isinstance(value, list):
        return counted(len(value), "number") if value else "none"
    return f"{value:g}" if isinstance(value, float) else shorten(str(value), width)


def counted(count: int, what: str) -> str:
    """``1 row``, ``1,204 rows``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _of_shape(examples: Examples) -> Iterator[str]:
    """What there is to say of this shape alone."""
    if examples.shape == SCORED_PAIRS:
        scores = examples.table.column("score").to_numpy()
        yield f"scores: from {scores.min():g} to {scores.max():g}"
    if examples.shape == DOCUMENTS:
        sizes = np.diff(examples.documents())
        each = f"{sizes[0]:,}" if sizes.min() == sizes.max() else f"{sizes.min():,} to {sizes.max():,}"
        yield f"documents: {len(sizes):,}, of {each} sentences (median {np.median(sizes):g})"
    if examples.shape == CAPTIONS:
        ids = examples.image_ids()
        without = int((ids < 0).sum())
        yield (
            f"images: {ids.max() + 1:,} different, of {counted(examples.image_length, 'number')} each"
            + (f"; {counted(without, 'text')} without" if without else "")
        )
    if examples.shape == DOMAINS:
        yield _domains(examples)
    if examples.shape in (LABELLED_TEXTS, DOMAINS):
        labels = examples.labels()[1]
        some = ", ".join(shorten(label, 30) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
        yield f"classes: {len(labels):,}" + (f" ({some})" if labels else "")


def _domains(examples: Examples) -> str:
    labelled = examples.labels()[0] >= 0
    try:
        codes, names = examples.domains()
    except UsageError as error:
        return f"domains: {error.message}"
    parts = []
    for code, (what, name) in enumerate(zip(("source", "target"), names, strict=True)):
        rows = codes == code
        parts.append(
            f"{what} {shorten(name, 40)!r} {counted(int(rows.sum()), 'text')}, {labelled[rows].sum():,} labelled"
        )
    return f"domains: {'; '.join(parts)}"
