"""Reading files of preferences into a :class:`~nearfar.data.preferences.rows.PreferenceSet`, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from nearfar.data.arrow_rows import class_names, open_arrow
from nearfar.data.columns import Columns, recognise
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.preferences.cells import BadCellError, Cells
from nearfar.data.preferences.layouts import (
    PreferenceLayout,
    names_preferences,
    parse_preference_columns,
    recognise_preferences,
)
from nearfar.data.preferences.rows import PreferenceRow, PreferenceSet, encoded
from nearfar.data.reading import peek, read_rows
from nearfar.data.retrieval import is_retrieval
from nearfar.data.sources import Source, find_sources
from nearfar.data.store import BATCH_ROWS, ColumnStore
from nearfar.data.values import BadValueError
from nearfar.errors import DataError, NearfarError, UsageError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
TEXT_LIMIT = 10_000_000
_CERTAIN = ({"chosen", "rejected"}, {"responses"})


def read_preferences(
    path: Paths,
    *,
    columns: Columns | None = None,
    max_bad_rows: int = 0,
    text_limit: int = TEXT_LIMIT,
    progress: Callable[[int], None] | None = None,
) -> PreferenceSet:
    """Read preferences to align a language model on.

    ``path``: a file (JSONL, a JSON array, CSV, TSV, Parquet, Arrow; each may be gzipped), a folder of such files with
    the same columns, a folder written by Hugging Face's ``save_to_disk``, or a list of these.

    ``columns``: which column is what, where the names are not known ones:
    ``"prompt=instruction,responses=outputs.text,scores=outputs.rating"``; see
    :data:`nearfar.data.preferences.layouts.KNOWN_LAYOUTS`. A name with dots leads into objects and lists.

    ``max_bad_rows``: how many rows that cannot be used (broken syntax, a number where text is needed, a missing
    column, scores of another number than responses, a number that is not finite, ...) may be skipped; they are kept in
    ``bad_rows``. ``progress`` is called now and then with the number of rows read so far.

    Raises :class:`DataError` (with file, line, column and reason) for what cannot be read, columns that are not known
    and files without rows, :class:`UsageError` for ``columns`` that make no sense.
    """
    if max_bad_rows < 0:
        raise UsageError("the number of bad rows to skip cannot be negative", where=f"max_bad_rows={max_bad_rows}")
    mapping = parse_preference_columns(columns)
    sources, notes = find_sources(path)
    log = ReadLog(max_bad_rows, notes=list(notes))
    intake = _Intake(log, mapping, text_limit, progress)
    for source in sources:
        intake.take(source)
    return intake.finish(sources)


def is_preferences(path: Paths, *, columns: Columns | None = None) -> bool:
    """Whether ``path`` holds preferences, by the names of its columns (or by what ``columns`` call them).

    Chosen with rejected, and responses, are always preferences; other columns that are known as examples to embed too
    are taken for those. What cannot be read holds none.
    """
    if columns is not None:
        return names_preferences(columns)
    if isinstance(path, (str, os.PathLike)) and is_retrieval(path):
        return False
    try:
        source = find_sources(path)[0][0]
        names = column_names(source)
        known = {name.strip().casefold() for name in names}
        if any(certain <= known for certain in _CERTAIN):
            return True
        recognise_preferences(names, str(source.path))
    except (NearfarError, OSError):
        return False
    try:
        recognise(names, str(source.path), lists=source.format not in ("csv", "tsv"))
    except DataError:
        return True
    return False


def column_names(source: Source) -> list[str]:
    """The names of the columns of ``source``: of its first rows, where it has no head that says them."""
    if source.format in ("parquet", "arrow"):
        with open_arrow(source) as (schema, _):
            return list(schema.names)
    return peek(read_rows(source, ReadLog(1_000_000), TEXT_LIMIT))[1]


class _Intake:
    """Takes the rows of one file after the other into a store, once the first has shown what its columns mean."""

    def __init__(
        self,
        log: ReadLog,
        mapping: Mapping[str, str] | None,
        text_limit: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._log, self._mapping, self._text_limit, self._progress = log, mapping, text_limit, progress
        self._store = ColumnStore(["row", "where"])
        self._layout: PreferenceLayout | None = None
        self._first: Source | None = None
        self._reward_names: tuple[str, ...] = ()
        self._done: dict[str, int] = {}

    def take(self, source: Source) -> None:
        """Read ``source`` to its end."""
        rows = read_rows(source, self._log, self._text_limit)
        head, names = peek(rows)
        if not head:
            if not self._log.bad_rows:
                self._log.notes.append(f"{source.path.name} has no rows")
            return
        layout = self._settle(recognise_preferences(names, str(source.path), self._mapping), source)
        self._refuse_classes(source, layout)
        cells = Cells(layout, typed=source.format not in ("csv", "tsv"), text_limit=self._text_limit)
        cells.reward_names = self._reward_names or cells.reward_names
        held: dict[str, list[str]] = {"row": [], "where": []}
        for row in self._rows(chain(head, rows), source, cells, set(names)):
            held["row"].append(encoded(row))
            held["where"].append(row.where)
            if len(held["row"]) >= BATCH_ROWS // 16:
                self._append(held)
        self._append(held)
        self._reward_names = cells.reward_names
        for what, times in cells.done.items():
            self._done[what] = self._done.get(what, 0) + times

    def finish(self, sources: Sequence[Source]) -> PreferenceSet:
        """What was read, or :class:`DataError` when that is nothing."""
        if self._layout is None or not self._store.rows:
            where = ", ".join(str(source.path) for source in sources[:3]) + (", ..." if len(sources) > 3 else "")
            bad = self._log.bad_rows
            skipped = f"; {len(bad):,} bad rows were skipped, the first: {bad[0]}" if bad else ""
            raise DataError(f"there are no rows{skipped}", where=where)
        rows = self._store.rows
        done = [f"{what} ({times:,} of {rows:,} rows)" for what, times in self._done.items()]
        return PreferenceSet(
            self._store.seal(),
            self._layout.kind,
            reward_names=self._reward_names,
            source=[source.path for source in sources],
            columns={**self._layout.columns, **{f"reward {name}": at for name, at in self._layout.rewards.items()}},
            ignored=self._layout.ignored,
            notes=[*self._log.notes, *done],
            bad_rows=self._log.bad_rows,
            blank_lines=self._log.blank_lines,
        )

    def _settle(self, layout: PreferenceLayout, source: Source) -> PreferenceLayout:
        """All files must have the same columns."""
        if self._layout is None or self._first is None:
            self._layout, self._first = layout, source
        elif (layout.kind, layout.columns, layout.rewards) != (
            self._layout.kind, self._layout.columns, self._layout.rewards,
        ):  # fmt: skip
            raise DataError(
                f"the files do not have the same columns: {layout.kind} of {', '.join(layout.columns.values())} here, "
                f"{self._layout.kind} of {', '.join(self._layout.columns.values())} in {self._first.path.name}",
                where=str(source.path),
                hint="name one of the files, or files with the same columns",
            )
        return layout

    def _refuse_classes(self, source: Source, layout: PreferenceLayout) -> None:
        """Class numbers of a Hugging Face file say nothing of good and bad but by their names."""
        column = layout.columns.get("label", layout.columns.get("preferred"))
        if column is None or source.format not in ("parquet", "arrow"):
            return
        with open_arrow(source) as (schema, _):
            names = class_names(schema, column) if column in schema.names else None
        if names:
            raise DataError(
                f"column {column!r} holds the numbers of classes ({', '.join(names[:5])})",
                where=f"{source.path}, column {column!r}",
                hint="write true for a good answer and false for a bad one",
            )

    def _rows(
        self, rows: Iterator[tuple[int, dict[str, Any]]], source: Source, cells: Cells, known: set[str]
    ) -> Iterator[PreferenceRow]:
        name = source.path.name
        for line, values in rows:
            if not known.issuperset(values):
                self._new_columns(values, known, cells.layout, source, line)
            try:
                yield cells.row(values, f"{name}:{line}")
            except BadValueError as error:
                column = error.column if isinstance(error, BadCellError) else None
                self._log.bad(BadRow(str(source.path), line, column, str(error), source.unit, error.hint))

    def _new_columns(
        self, row: dict[str, Any], known: set[str], layout: PreferenceLayout, source: Source, line: int
    ) -> None:
        """A later row has columns that earlier ones lack: fine if they are ignored, not if they change the meaning."""
        new = [name for name in row if name not in known]
        known.update(new)
        where = f"{source.path}, line {line}"
        try:
            later = recognise_preferences(sorted(known), where, self._mapping)
            same = (later.kind, later.columns, later.rewards) == (layout.kind, layout.columns, layout.rewards)
        except DataError:
            same = False
        if not same:
            raise DataError(
                f"from this row on there is {', '.join(map(repr, new))}, which the rows before do not have",
                where=where,
                hint=f"give all rows the same columns, or say which to use with --columns "
                f"{','.join(f'{role}={name}' for role, name in layout.columns.items())}",
            )

    def _append(self, held: dict[str, list[str]]) -> None:
        if held["row"]:
            self._store.append(held)
            held["row"].clear()
            held["where"].clear()
            if self._progress:
                self._progress(self._store.rows)
