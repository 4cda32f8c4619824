"""Reading a user's file, folder or saved dataset into :class:`~nearfar.data.examples.Examples`, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

from nearfar.data.arrow_rows import check_types, checked_batches, has_lists, open_arrow
from nearfar.data.columns import (
    BLANK_LINE,
    FILE,
    SCORED_PAIRS,
    Columns,
    Layout,
    parse_columns,
    recognise,
    text_columns,
)
from nearfar.data.examples import Examples
from nearfar.data.json_rows import read_json
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.retrieval import is_retrieval
from nearfar.data.shape_checks import ValueChecks, exploded
from nearfar.data.sources import Source, find_sources
from nearfar.data.store import BATCH_ROWS, ColumnStore
from nearfar.data.table_rows import read_csv, read_paragraphs, read_text, read_tsv
from nearfar.data.values import BadValueError, is_number, shorten
from nearfar.errors import DataError, UsageError

Row = tuple[int, dict[str, Any]]
READERS: dict[str, Callable[[Source, ReadLog, int], Iterator[Row]]] = {
    "json": read_json,
    "jsonl": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "text": read_text,
}
_PEEK_ROWS = 100
_PEEK_CHARACTERS = 4_000_000
_BATCH_CHARACTERS = 8_000_000


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    columns: Columns | None = None,
    shapes: Iterable[str] | None = None,
    max_bad_rows: int = 0,
    text_limit: int = 10_000_000,
    progress: Callable[[int], None] | None = None,
) -> Examples:
    """Read examples to train on or to evaluate with.

    ``path``: a file (JSONL, a JSON array, CSV, TSV, Parquet, Arrow, or plain text with one text a line; each may be
    gzipped), a folder of such files with the same columns, a folder written by Hugging Face's ``save_to_disk``, or a
    list of these. Anything with an unknown suffix is read as plain text.

    ``columns``: which column is what, where the names are not known ones: ``"anchor=summary,positive=code"``, a list of
    such parts, or a mapping. The known names and the shapes they make are in :data:`nearfar.data.columns.KNOWN_SHAPES`.
    Plain text is documents on request: ``"text,document=blank-line"`` (blank lines end them) or
    ``"text,document=file"`` (each file is one).

    ``shapes``: those that are wanted, where the names of the columns allow several: texts with an image are captions
    where captions are wanted, texts where they are not. Without it, see :func:`nearfar.data.columns.recognise`.

    ``max_bad_rows``: how many rows that cannot be used (broken syntax, a number where text is needed, a missing
    column, invalid UTF-8, a NUL, a text over ``text_limit`` bytes, ...) may be skipped; they are kept in
    ``bad_rows``. Blank lines are not rows; they are counted in ``blank_lines``.

    ``progress`` is called now and then with the number of rows read so far.

    The rows are streamed to a temporary place on disk and memory-mapped, so memory does not grow with their number. The
    place is emptied when the result is dropped or the process ends.

    Raises :class:`DataError` (with file, line, column and reason) for what cannot be read, columns that are not known
    and files without rows, :class:`UsageError` for ``columns`` that make no sense, :class:`OutputError` when the
    temporary place is full.
    """
    if max_bad_rows < 0:
        raise UsageError("the number of bad rows to skip cannot be negative", where=f"max_bad_rows={max_bad_rows}")
    if text_limit < 1:
        raise UsageError("a text must be allowed at least one byte", where=f"text_limit={text_limit}")
    mapping = parse_columns(columns)
    if isinstance(path, (str, os.PathLike)) and is_retrieval(path):
        raise DataError(
            "this folder is a retrieval set (corpus, queries, judgements), not a set of examples",
            where=str(path),
            hint="evaluate on it, or read it with nearfar.data.read_retrieval; to train, name a file of pairs",
        )
    sources, notes = find_sources(path)
    log = ReadLog(max_bad_rows, notes=list(notes))
    intake = _Intake(log, mapping, None if shapes is None else tuple(shapes), text_limit, progress)
    for source in sources:
        intake.take(source)
    return intake.finish(sources)


class _Intake:
    """Takes the rows of one file after the other into a store, once the first has shown what its columns mean."""

    def __init__(
        self,
        log: ReadLog,
        mapping: Mapping[str, str] | None,
        shapes: tuple[str, ...] | None,
        text_limit: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._log, self._mapping, self._text_limit, self._progress = log, mapping, text_limit, progress
        self._shapes = shapes
        self._layout: Layout | None = None
        self._values: ValueChecks | None = None
        self._paragraphs = count(1)
        self._first: Source | None = None
        self._store: ColumnStore | None = None
        self._number_columns: set[str] = set()

    def take(self, source: Source) -> None:
        """Read ``source`` to its end."""
        before = self._store.rows if self._store else 0
        if source.format in ("parquet", "arrow"):
            self._take_batches(source)
        else:
            self._take_rows(source)
        if (self._store.rows if self._store else 0) == before and not self._log.bad_rows:
            self._log.notes.append(f"{source.path.name} has no rows")

    def finish(self, sources: Sequence[Source]) -> Examples:
        """What was read, or :class:`DataError` when that is nothing."""
        where = ", ".join(str(source.path) for source in sources[:3]) + (", ..." if len(sources) > 3 else "")
        if self._store is None or self._layout is None or not self._store.rows:
            bad = self._log.bad_rows
            skipped = f"; {len(bad):,} bad rows were skipped, the first: {bad[0]}" if bad else ""
            raise DataError(f"there are no rows{skipped}", where=where)
        for role in text_columns(self._layout.columns):
            if role in self._number_columns:
                name = self._layout.columns[role]
                raise DataError(
                    f"column {name!r} holds nothing but numbers where texts are needed ({role})",
                    where=f"{where}, column {name!r}",
                    hint="name the column with the texts in --columns" if name != "text" else "is this the right file?",
                )
        lacking = self._values.lacking() if self._values is not None else None
        if lacking is not None:
            raise DataError(lacking, where=where)
        return Examples(
            self._store.seal(),
            self._layout.shape,
            source=[source.path for source in sources],
            layout=self._layout,
            bad_rows=self._log.bad_rows,
            blank_lines=self._log.blank_lines,
            notes=self._log.notes,
        )

    def _settle(self, names: Sequence[str], source: Source, *, lists: bool) -> Layout:
        """Recognise the columns of ``source``; all files must have the same ones."""
        layout = recognise(names, str(source.path), self._mapping, shapes=self._shapes, lists=lists)
        if self._layout is None or self._first is None:
            self._layout, self._first = layout, source
            self._values = ValueChecks(layout, self._text_limit)
            self._store = ColumnStore(list(layout.columns))
            self._number_columns = set(text_columns(layout.columns))
        elif layout.columns != self._layout.columns or layout.shape != self._layout.shape:
            raise DataError(
                f"the files do not have the same columns: {layout.shape} of {', '.join(layout.columns.values())} here, "
                f"{self._layout.shape} of {', '.join(self._layout.columns.values())} in {self._first.path.name}",
                where=str(source.path),
                hint="name one of the files, or files with the same columns",
            )
        else:
            self._ignore(layout.ignored)
        return self._layout

    def _ignore(self, names: Sequence[str]) -> None:
        if self._layout:
            more = [
                name for name in names if name not in self._layout.ignored and name not in self._layout.columns.values()
            ]
            if more:
                self._layout = Layout(self._layout.shape, self._layout.columns, (*self._layout.ignored, *more))

    def _take_batches(self, source: Source) -> None:
        with open_arrow(source) as (schema, _):
            names = list(schema.names)
            repeated = next((name for name in names if names.count(name) > 1), None)
            if repeated is not None:
                raise DataError(f"the column {shorten(repeated, 60)!r} stands twice", where=str(source.path))
            layout = self._settle(names, source, lists=has_lists(schema))
            check_types(schema, layout, str(source.path))
        store, values = self._store, self._values
        assert store is not None
        assert values is not None
        self._number_columns.clear()  # the file says what is text
        checks = values.of(typed=True, folder=source.path.parent)
        for batch in checked_batches(source, layout, self._log, checks, self._text_limit):
            store.append(exploded(batch) if layout.lists else batch)
            if self._progress:
                self._progress(store.rows)

    def _take_rows(self, source: Source) -> None:
        rows = self._rows(source)
        typed = source.format in ("json", "jsonl")
        head, names = peek(rows)
        if not head:
            return
        layout = self._settle(names, source, lists=typed)
        assert self._values is not None
        if typed:
            self._number_columns.clear()
        known = set(names)
        optional = self._values.optional
        checks = [
            (role in optional, layout.columns[role], check)
            for role, check in self._values.of(typed=typed, folder=source.path.parent).items()
        ]
        texts = 2 if layout.shape == SCORED_PAIRS else len(checks)
        batch: list[list[Any]] = []
        size = 0
        name = ""
        for line, row in chain(head, rows):
            if typed and not known.issuperset(row):
                self._new_columns(row, known, layout, source, line)
            values = []
            try:
                for may_lack, name, check in checks:
                    values.append(check(row.get(name) if may_lack else row[name]))
            except KeyError:
                there = ", ".join(shorten(each, 40) for each in list(row)[:8]) or "none"
                self._log.bad(BadRow(str(source.path), line, name, f"the column is missing (there are: {there})"))
                continue
            except BadValueError as error:
                self._log.bad(BadRow(str(source.path), line, name, str(error), hint=error.hint))
                continue
            if layout.lists:
                batch += [[sentence, values[1]] for sentence in values[0]]
                size += sum(map(len, values[0]))
            else:
                batch.append(values)
                size += sum(map(len, values[:texts]))
            if len(batch) >= BATCH_ROWS or size >= _BATCH_CHARACTERS:
                self._append(batch)
                size = 0
        self._append(batch)

    def _rows(self, source: Source) -> Iterator[Row]:
        """The rows of ``source``; of plain text with a second column where that is asked for."""
        by = (self._mapping or {}).get("document")
        if source.format == "text" and by in (BLANK_LINE, FILE):
            return read_paragraphs(source, self._log, self._text_limit, by, self._paragraphs)
        return READERS[source.format](source, self._log, self._text_limit)

    def _append(self, batch: list[list[Any]]) -> None:
        """Store rows, each a list of the values in canonical order, and empty the batch."""
        if not batch or self._store is None:
            return
        columns = dict(zip(self._store.names, map(list, zip(*batch, strict=True)), strict=True))
        batch.clear()
        for role in list(self._number_columns):
            if not all(map(is_number, columns[role])):
                self._number_columns.discard(role)
        self._store.append(columns)
        if self._progress:
            self._progress(self._store.rows)

    def _new_columns(self, row: dict[str, Any], known: set[str], layout: Layout, source: Source, line: int) -> None:
        """A later row has columns that earlier ones lack: fine if they are ignored, not if they change the meaning."""
        new = [name for name in row if name not in known]
        known.update(new)
        where = f"{source.path}, line {line}"
        try:
            same = (
                recognise(
                    [*layout.columns.values(), *layout.ignored, *new],
                    where,
                    self._mapping,
                    shapes=self._shapes,
                    lists=True,
                ).columns
                == layout.columns
            )
        except DataError:
            same = False
        if not same:
            raise DataError(
                f"from this row on there is {', '.join(map(repr, new))}, which the rows before do not have",
                where=where,
                hint=f"give all rows the same columns, or say which to use with --columns "
                f"{','.join(f'{role}={name}' for role, name in layout.columns.items())}",
            )
        self._ignore(new)


def read_rows(source: Source, log: ReadLog, text_limit: int) -> Iterator[Row]:
    """The rows of any file as ``(line or row, values)``; what cannot be read is logged, see :class:`ReadLog`."""
    if source.format in READERS:
        yield from READERS[source.format](source, log, text_limit)
        return
    with open_arrow(source) as (schema, batches):
        number = 0
        for batch in batches(list(schema.names)):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def peek(rows: Iterator[Row]) -> tuple[list[Row], list[str]]:
    """The first rows and the columns any of them has, so that one incomplete row does not decide what the file is."""
    head: list[Row] = []
    names: dict[str, None] = {}
    size = 0
    for line, row in rows:
        head.append((line, row))
        names.update(dict.fromkeys(row))
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(head) >= _PEEK_ROWS or size >= _PEEK_CHARACTERS:
            break
    return head, list(names)
