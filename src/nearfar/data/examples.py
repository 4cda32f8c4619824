"""Examples to train on or to evaluate with: a table with known columns, wherever it came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.data.columns import (
    CAPTIONS,
    DOCUMENTS,
    DOMAINS,
    LABELLED_TEXTS,
    PAIRS,
    SCORED_PAIRS,
    TEXTS,
    Layout,
    recognise,
    text_columns,
)
from nearfar.data.fingerprints import Hashes, table_sha256, text_hashes
from nearfar.data.grouping import (
    document_offsets,
    domain_codes,
    held_out_groups,
    vector_hashes,
    vector_ids,
    vector_length,
    vector_zeros,
    vectors,
)
from nearfar.data.log import BadRow
from nearfar.data.shape_checks import ValueChecks, exploded
from nearfar.data.store import ColumnStore, arrow, column_types, in_memory
from nearfar.data.values import BadValueError, is_number
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
    ``"documents"``           text, document (as text); the rows of a document follow each other
    ``"captions"``            text, image (float32 numbers, all of one length; none where a text has no image)
    ``"domains"``             text, label (as text; empty where it is not known), domain (two of them)
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
    def from_columns(cls, columns: Mapping[str, Iterable[Any]], *, shape: str | None = None) -> Examples:
        """Examples from lists of equal length under the names that files use (see :func:`nearfar.data.read`).

        ``shape``: the one that is wanted, where the names allow several: ``"domains"``.

        Raises :class:`DataError` for names that make no shape, unequal lengths, and values that are not texts (or,
        for a score, finite numbers; for a label, texts or whole numbers), with row and column.
        """
        given = {str(name): list(values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {count:,}" for name, count in lengths.items())
            raise DataError(f"the columns have different numbers of rows: {listed}")
        layout = recognise(list(given), "the columns given", shapes=None if shape is None else (shape,), lists=True)
        if shape is not None and layout.shape != shape:
            raise DataError(f"the columns {', '.join(given)} make {layout.shape}, not {shape}")
        values = ValueChecks(layout, 2**31)
        checks = values.of(typed=True)
        checked: dict[str, list[Any]] = {role: [] for role in layout.columns}
        for row in range(max(lengths.values(), default=0)):
            for role, name in layout.columns.items():
                try:
                    checked[role].append(checks[role](given[name][row]))
                except BadValueError as error:
                    raise DataError(str(error), where=f"row {row + 1}, column {name!r}", hint=error.hint) from error
        if layout.lists:
            checked = exploded(checked)
        lacking = values.lacking() if max(lengths.values(), default=0) else None
        if lacking is not None:
            raise DataError(lacking)
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

    def _picked(
        self, indices: Sequence[int] | npt.NDArray[np.integer[Any]], columns: Sequence[str] | None = None
    ) -> pa.Table:
        table = self.table if columns is None else self.table.select(columns)
        chosen = np.asarray(indices)
        if chosen.size == 0:
            return table.slice(0, 0)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise TypeError(f"indices must be a list of whole numbers, not {chosen.dtype} of shape {chosen.shape}")
        chosen = chosen.astype(np.int64)
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise IndexError(f"an index is outside of the {len(self):,} rows")
        return table.take(arrow().array(chosen))

    def batches(self, size: int = _SCAN_ROWS, columns: Sequence[str] | None = None) -> Iterator[dict[str, list[Any]]]:
        """All rows in order, ``size`` at a time (the last may be smaller), as column -> list; of some ``columns`` or
        all."""
        names = self.table.column_names if columns is None else columns
        for start in range(0, len(self), size):
            piece = self.table.slice(start, size)
            yield {name: piece.column(name).to_pylist() for name in names}

    def texts(self) -> Iterator[str]:
        """Every text of every text column, row by row, without holding them all: to train a tokenizer on."""
        names = self.text_columns
        for batch in self.batches(columns=names):
            for row in zip(*(batch[name] for name in names), strict=True):
                yield from row

    def hashes(self, name: str) -> Hashes:
        """One number a row for column ``name``, ``[n]`` uint64: equal for texts that are equal after normalisation, for
        images of equal numbers."""
        if name == "image":
            return vector_hashes(self.table.column(name))
        column = self.table.column(name)
        parts = [text_hashes(column.slice(at, _SCAN_ROWS).to_pylist()) for at in range(0, len(self), _SCAN_ROWS)]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def labels(self, names: Sequence[str] | None = None) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The labels as codes ``[n]`` int64 and the names they index.

        Without ``names`` these are the labels that occur: in numeric order if all are numbers, alphabetically
        otherwise, so they do not depend on the order of the rows. With ``names`` (those of the training data) codes
        index these. Of domains a row without a label has the code -1.

        Raises :class:`UsageError` when the examples have no labels, :class:`DataError` for a label that is not in
        ``names``.
        """
        if self.shape not in (LABELLED_TEXTS, DOMAINS):
            raise UsageError(
                f"these are {self.shape}, which have no labels", hint="labelled texts have the columns text, label"
            )
        if self._labels is None:
            encoded = self.table.column("label").combine_chunks().dictionary_encode()
            found = encoded.dictionary.to_pylist()
            there = [label for label in found if label]
            ordered = (
                sorted(there, key=lambda label: (float(label), label)) if all(map(is_number, there)) else sorted(there)
            )
            rank = {label: code for code, label in enumerate(ordered)} | {"": -1}
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
        # the code -1, of a row without a label, picks the last of these
        return np.array([*(place[label] for label in own), -1], np.int64)[codes], list(names)

    def documents(self) -> npt.NDArray[np.int64]:
        """Where documents begin and end, ``[k + 1]``: the rows of document i are ``offsets[i]`` to ``offsets[i + 1]``,
        the latter excluded. Rows that follow each other and name the same document are one.

        Raises :class:`UsageError` when the examples are no documents.
        """
        self._require(DOCUMENTS)
        return document_offsets(self.table.column("document"))

    @property
    def image_length(self) -> int:
        """How many numbers an image of captions has; 0 where no row has one."""
        self._require(CAPTIONS)
        return vector_length(self.table.column("image"))

    def images(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        """The images of ``rows`` (default: all) in that order, ``[n, w]``; NaN where a row has none.

        Raises :class:`UsageError` when the examples are no captions, IndexError as :meth:`take` does.
        """
        width = self.image_length
        column = self.table.column("image") if rows is None else self._picked(rows, ["image"]).column("image")
        return vectors(column, width)

    def image_ids(self) -> npt.NDArray[np.int64]:
        """A number for each row's image, ``[n]``, equal for equal images; -1 where a row has none."""
        self._require(CAPTIONS)
        return vector_ids(self.table.column("image"))

    def zero_images(self) -> npt.NDArray[np.bool_]:
        """Which rows ``[n]`` have an image of nothing but zeros, which has no direction."""
        self._require(CAPTIONS)
        return vector_zeros(self.table.column("image"))

    def domains(self, target: str | None = None) -> tuple[npt.NDArray[np.int64], tuple[str, str]]:
        """The domain of each row, ``[n]``, 0 the source's and 1 the target's, and the names of the two.

        The target is the domain called ``target``; without a name the one that has no labels, or else the one whose
        name is "target".

        Raises :class:`UsageError` when the examples are no domains, ``target`` is none of them, or nothing says which
        of them it is.
        """
        self._require(DOMAINS)
        return domain_codes(self.table.column("domain"), self.labels()[0] >= 0, target)

    def labelled(self) -> Examples:
        """The rows of domains that have a label, as labelled texts; those of the target alone where it has some.

        Raises :class:`UsageError` when the examples are no domains.
        """
        self._require(DOMAINS)
        rows = self.labels()[0] >= 0
        try:
            of_target = rows & (self.domains()[0] == 1)
        except UsageError:  # nothing says which of them is the target
            of_target = rows
        return self.select(np.flatnonzero(of_target if of_target.any() else rows)).only(LABELLED_TEXTS)

    def _require(self, shape: str) -> None:
        if self.shape != shape:
            raise UsageError(
                f"these are {self.shape}, not {shape}",
                hint=f"{shape} have the columns {', '.join(_FIRST_COLUMNS[shape])}",
            )

    def only(self, shape: str) -> Examples:
        """The same rows with the columns of ``shape`` alone: the texts of documents, captions or domains, say.

        Raises :class:`UsageError` where the columns are not there.
        """
        names = [name for name in self.table.column_names if name in _FIRST_COLUMNS.get(shape, ())]
        layout = Layout(shape, {role: self.layout.columns[role] for role in names}, self.layout.ignored)
        return Examples(self.table.select(names), shape, source=self.source, layout=layout, notes=self.notes)

    def split(self, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
        """Two parts at random, both in the order of the rows: what is left, and about ``fraction`` to hold out.

        Rows whose first text (anchor, sentence1, text) is the same after normalisation stay together, so that nothing
        held out was trained on under another positive; of documents the rows of each, of captions those of an image.
        Whole groups are drawn until their rows come as near to ``fraction`` as the drawn order allows; neither part is
        empty. Memory does not grow with the texts.

        Raises :class:`UsageError` for a ``fraction`` outside of (0, 1), :class:`DataError` when there is one group.
        """
        by, groups = self._groups()
        mask = held_out_groups(groups, fraction, seed, by=by)
        return self._where(~mask), self._where(mask)

    def _groups(self) -> tuple[str, npt.NDArray[Any]]:
        """What the rows are kept together by in a split, and a number for each."""
        if self.shape == DOCUMENTS:
            sizes = np.diff(self.documents())
            return "document", np.repeat(np.arange(len(sizes)), sizes)
        name = self.text_columns[0]
        if self.shape == CAPTIONS and self.image_length:
            return "image", np.where(self.image_ids() < 0, self.hashes(name), self.hashes("image"))
        return name, self.hashes(name)

    def _where(self, mask: npt.NDArray[np.bool_]) -> Examples:
        store = ColumnStore(self.table.column_names)
        pa = arrow()
        for start in range(0, len(self), _SCAN_ROWS):
            piece = self.table.slice(start, _SCAN_ROWS).filter(pa.array(mask[start : start + _SCAN_ROWS]))
            if piece.num_rows:
                store.append({name: piece.column(name).combine_chunks() for name in self.table.column_names})
        return Examples(store.seal(), self.shape, source=self.source, layout=self.layout, notes=self.notes)

    def sha256(self) -> str:
        """A fingerprint of shape, columns and every value in order, whatever files and formats they came from (hex)."""
        return table_sha256(self.table, f"nearfar examples 1\0{self.shape}\0{len(self)}")

    def describe(self, width: int = 100) -> str:
        """What was understood, in plain words: shape, rows, columns, what was left out, and the first row."""
        from nearfar.data.description import describe

        return describe(self, width)


_FIRST_COLUMNS = {
    PAIRS: ("anchor", "positive"),
    SCORED_PAIRS: ("sentence1", "sentence2", "score"),
    LABELLED_TEXTS: ("text", "label"),
    TEXTS: ("text",),
    DOCUMENTS: ("text", "document"),
    CAPTIONS: ("text", "image"),
    DOMAINS: ("text", "label", "domain"),
}
