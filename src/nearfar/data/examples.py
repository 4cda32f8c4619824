"""Examples to train on or to evaluate with: a table with known columns, wherever it came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.data.columns import LABELLED_TEXTS, PAIRS, SCORED_PAIRS, TEXTS, Layout, recognise, text_columns
from nearfar.data.fingerprints import Hashes, text_hashes
from nearfar.data.log import BadRow
from nearfar.data.store import ColumnStore, arrow, column_types, in_memory
from nearfar.data.values import BadValueError, is_number, label_check, score_check, shorten, text_check
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_SCAN_ROWS = 16_384


class Examples:
    """Rows of one shape, in a :class:`pyarrow.Table` with canonical columns.

    ========================  ========================================================
    ``shape``                 columns of ``table``
    ========================  ========================================================
    ``"pairs"``               anchor, positive, [negative_1, ..., negative_k]
    ``"scored pairs"``        sentence1, sentence2, score (float64)
    ``"labelled texts"``      text, label (as text)
    ``"texts"``               text
    ========================  ========================================================

    Made by :func:`nearfar.data.read` (the table is memory-mapped) or :meth:`from_columns` (in memory). ``source`` are
    the paths it came from, ``bad_rows`` the rows that were skipped, ``blank_lines`` how many blank lines there were,
    ``notes`` what else was met while reading, ``layout`` what the file's columns were taken for. An instance is not
    changed after it is made.
    """

    def __init__(
        self,
        table: pa.Table,
        shape: str,
        *,
        source: Sequence[str | os.PathLike[str]] = (),
        layout: Layout | None = None,
        bad_rows: Sequence[BadRow] = (),
        blank_lines: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        names = table.column_names
        if shape not in _FIRST_COLUMNS or tuple(names[: len(_FIRST_COLUMNS[shape])]) != _FIRST_COLUMNS[shape]:
            raise UsageError(f"a table with the columns {', '.join(names)} does not hold {shape!r}")
        types = column_types(names)
        if any(table.schema.field(name).type != kind for name, kind in types.items()):
            table = table.cast(arrow().schema(list(types.items())))
        self.table = table
        self.shape = shape
        self.source = [Path(path) for path in source]
        self.layout = layout or Layout(shape, {name: name for name in table.column_names})
        self.bad_rows = list(bad_rows)
        self.blank_lines = blank_lines
        self.notes = list(notes)
        self._labels: tuple[npt.NDArray[np.int64], list[str]] | None = None

    @classmethod
    def from_columns(cls, columns: Mapping[str, Iterable[Any]]) -> Examples:
        """Examples from lists of equal length under the names that files use (see :func:`nearfar.data.read`).

        Raises :class:`DataError` for names that make no shape, unequal lengths, and values that are not texts (or,
        for a score, finite numbers; for a label, texts or whole numbers), with row and column.
        """
        given = {str(name): list(values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {count:,}" for name, count in lengths.items())
            raise DataError(f"the columns have different numbers of rows: {listed}")
        layout = recognise(list(given), "the columns given")
        limit = 2**31
        kinds = {"score": score_check(typed=True), "label": label_check(limit)}
        checked: dict[str, list[Any]] = {}
        for role, name in layout.columns.items():
            check = kinds.get(role, text_check(limit))
            checked[role] = []
            for row, value in enumerate(given[name], 1):
                try:
                    checked[role].append(check(value))
                except BadValueError as error:
                    raise DataError(str(error), where=f"row {row}, column {name!r}") from error
        return cls(in_memory(checked), layout.shape, layout=layout)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Examples({self.shape}, {len(self):,} rows, columns {', '.join(self.table.column_names)})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row ``index`` (negative: from the end) as column -> value."""
        return {name: values[0] for name, values in self.take([index]).items()}

    @property
    def column_names(self) -> list[str]:
        """The canonical columns, in order."""
        return list(self.table.column_names)

    @property
    def text_columns(self) -> list[str]:
        """The columns that hold texts to be embedded."""
        return list(text_columns(self.table.column_names))

    @property
    def negatives(self) -> list[str]:
        """The columns with hard negatives: ``negative_1``, ... (empty if there are none)."""
        return [name for name in self.table.column_names if name.startswith("negative_")]

    def column(self, name: str) -> list[Any]:
        """All of one column as a list (of texts, or floats for ``score``). Large data: prefer :meth:`batches`."""
        if name not in self.table.column_names:
            raise UsageError(
                f"there is no column {name!r}",
                hint=f"{self.shape} have the columns {', '.join(self.table.column_names)}",
            )
        return list(self.table.column(name).to_pylist())

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> dict[str, list[Any]]:
        """The rows ``indices`` in that order, as column -> list. Raises IndexError for an index outside the data."""
        picked = self._picked(indices)
        return {name: picked.column(name).to_pylist() for name in self.table.column_names}

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Examples:
        """The rows ``indices`` in that order, as examples of their own (in memory). Raises as :meth:`take` does."""
        return Examples(self._picked(indices), self.shape, source=self.source, layout=self.layout, notes=self.notes)

    def _picked(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> pa.Table:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            return self.table.slice(0, 0)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise TypeError(f"indices must be a list of whole numbers, not {chosen.dtype} of shape {chosen.shape}")
        chosen = chosen.astype(np.int64)
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise IndexError(f"an index is outside of the {len(self):,} rows")
        return self.table.take(arrow().array(chosen))

    def batches(self, size: int = _SCAN_ROWS) -> Iterator[dict[str, list[Any]]]:
        """All rows in order, ``size`` at a time (the last may be smaller), as column -> list."""
        for start in range(0, len(self), size):
            piece = self.table.slice(start, size)
            yield {name: piece.column(name).to_pylist() for name in self.table.column_names}

    def texts(self) -> Iterator[str]:
        """Every text of every text column, row by row, without holding them all: to train a tokenizer on."""
        names = self.text_columns
        for batch in self.batches():
            for row in zip(*(batch[name] for name in names), strict=True):
                yield from row

    def hashes(self, name: str) -> Hashes:
        """One number a row for column ``name``, equal for texts that are equal after normalisation, ``[n]`` uint64."""
        column = self.table.column(name)
        parts = [text_hashes(column.slice(at, _SCAN_ROWS).to_pylist()) for at in range(0, len(self), _SCAN_ROWS)]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def labels(self, names: Sequence[str] | None = None) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The labels as codes ``[n]`` int64 and the names they index.

        Without ``names`` these are the labels that occur: in numeric order if all are numbers, alphabetically
        otherwise, so they do not depend on the order of the rows. With ``names`` (those of the training data) codes
        index these.

        Raises :class:`UsageError` when the examples have no labels, :class:`DataError` for a label that is not in
        ``names``.
        """
        if self.shape != LABELLED_TEXTS:
            raise UsageError(
                f"these are {self.shape}, which have no labels", hint="labelled texts have the columns text, label"
            )
        if self._labels is None:
            encoded = self.table.column("label").combine_chunks().dictionary_encode()
            found = encoded.dictionary.to_pylist()
            ordered = (
                sorted(found, key=lambda label: (float(label), label)) if all(map(is_number, found)) else sorted(found)
            )
            rank = {label: code for code, label in enumerate(ordered)}
            recode = np.array([rank[label] for label in found], np.int64)
            self._labels = (
                recode[encoded.indices.to_numpy(zero_copy_only=False)] if len(self) else np.empty(0, np.int64),
                ordered,
            )
        codes, own = self._labels
        if names is None:
            return codes.copy(), list(own)
        place = {name: code for code, name in enumerate(names)}
        unknown = [label for label in own if label not in place]
        if unknown:
            shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise DataError(f"{len(unknown):,} labels are not among the {len(names):,} known ones: {shown}")
        return np.array([place[label] for label in own], np.int64)[codes] if len(self) else codes.copy(), list(names)

    def split(self, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
        """Two parts at random, both in the order of the rows: what is left, and about ``fraction`` to hold out.

        Rows whose first text (anchor, sentence1, text) is the same after normalisation stay together, so that nothing
        held out was trained on under another positive. Whole groups are drawn until their rows come as near to
        ``fraction`` as the drawn order allows; neither part is empty. Memory does not grow with the texts.

        Raises :class:`UsageError` for a ``fraction`` outside of (0, 1), :class:`DataError` when all first texts are
        equal.
        """
        if not 0.0 < fraction < 1.0:
            raise UsageError(
                "the part to hold out must be between 0 and 1, both excluded", where=f"fraction={fraction}"
            )
        _, group, sizes = np.unique(self.hashes(self.text_columns[0]), return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            raise DataError(
                f"{len(self):,} rows cannot be split: they all have the same {self.text_columns[0]}",
                hint="a split keeps rows with the same first text together; give the evaluation data as its own file",
            )
        # Groups in the order of the data: the draw must not depend on what the hashes happen to be.
        first_seen = np.full(len(sizes), len(self), np.int64)
        np.minimum.at(first_seen, group, np.arange(len(self)))
        order = np.argsort(first_seen)[np.random.default_rng(seed).permutation(len(sizes))]
        held = np.cumsum(sizes[order])
        count = int(np.argmin(np.abs(held[:-1] - fraction * len(self)))) + 1
        out = np.zeros(len(sizes), bool)
        out[order[:count]] = True
        mask = out[group]
        return self._where(~mask), self._where(mask)

    def _where(self, mask: npt.NDArray[np.bool_]) -> Examples:
        store = ColumnStore(self.table.column_names)
        pa = arrow()
        for start in range(0, len(self), _SCAN_ROWS):
            piece = self.table.slice(start, _SCAN_ROWS).filter(pa.array(mask[start : start + _SCAN_ROWS]))
            if piece.num_rows:
                store.append({name: piece.column(name).combine_chunks() for name in self.table.column_names})
        return Examples(store.seal(), self.shape, source=self.source, layout=self.layout, notes=self.notes)

    def sha256(self) -> str:
        """A fingerprint of shape, columns and every value in order, whatever files and formats they came from (hex).

        Each column is hashed by itself, lengths and bytes apart, so one pass over the mapped table is enough.
        """
        whole = hashlib.sha256(f"nearfar examples 1\0{self.shape}\0{len(self)}".encode())
        for name in self.table.column_names:
            lengths, content = hashlib.sha256(), hashlib.sha256()
            for chunk in self.table.column(name).chunks:
                if name == "score":
                    content.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False), "<f8").tobytes())
                elif len(chunk):
                    _, offsets_buffer, data = chunk.buffers()
                    offsets = np.frombuffer(offsets_buffer, np.int64, len(chunk) + 1, chunk.offset * 8)
                    for at in range(0, len(chunk), 1 << 20):
                        lengths.update(np.diff(offsets[at : at + (1 << 20) + 1]).astype("<i8").tobytes())
                    if offsets[-1] > offsets[0]:
                        content.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
            whole.update(f"\0{name}\0".encode() + lengths.digest() + content.digest())
        return whole.hexdigest()

    def describe(self, width: int = 100) -> str:
        """What was understood, in plain words: shape, rows, columns, what was left out, and the first row."""
        rows = "1 row" if len(self) == 1 else f"{len(self):,} rows"
        names = ", ".join(path.name for path in self.source[:3]) + (", ..." if len(self.source) > 3 else "")
        lines = [f"{_SHAPE_WORDS[self.shape]}: {rows}" + (f" from {names}" if names else "")]
        if self.negatives:
            count = "1 negative" if len(self.negatives) == 1 else f"{len(self.negatives)} negatives"
            lines[0] += f", {count} each"
        renamed = [f"{name!r} as {role}" for role, name in self.layout.columns.items() if role != name]
        if renamed:
            lines.append(f"columns: {', '.join(renamed)}")
        if self.layout.ignored:
            lines.append(f"columns not used: {', '.join(shorten(name, 40) for name in self.layout.ignored)}")
        if self.shape == LABELLED_TEXTS:
            labels = self.labels()[1]
            shown = ", ".join(shorten(label, 30) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
            lines.append(f"classes: {len(labels):,} ({shown})")
        if self.shape == SCORED_PAIRS and len(self):
            scores = self.table.column("score").to_numpy()
            lines.append(f"scores: from {scores.min():g} to {scores.max():g}")
        if self.bad_rows:
            lines.append(f"bad rows skipped: {len(self.bad_rows):,}, the first: {self.bad_rows[0]}")
        if self.blank_lines:
            lines.append(f"blank lines: {self.blank_lines:,}")
        lines += [f"note: {note}" for note in self.notes]
        if len(self):
            lines.append("example:")
            lines += [
                f"  {name}: {value:g}" if isinstance(value, float) else f"  {name}: {shorten(value, width)}"
                for name, value in self[0].items()
            ]
        return "\n".join(lines)


_FIRST_COLUMNS = {
    PAIRS: ("anchor", "positive"),
    SCORED_PAIRS: ("sentence1", "sentence2", "score"),
    LABELLED_TEXTS: ("text", "label"),
    TEXTS: ("text",),
}
_SHAPE_WORDS = {
    PAIRS: "pairs (anchor, positive)",
    SCORED_PAIRS: "scored pairs (sentence1, sentence2, score)",
    LABELLED_TEXTS: "labelled texts (text, label)",
    TEXTS: "texts",
}
