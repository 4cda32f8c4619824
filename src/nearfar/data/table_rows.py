"""Rows out of CSV, TSV and plain text.

CSV follows RFC 4180: commas, fields quoted where needed, ``""`` for a quote inside quotes, line ends allowed inside
quotes.

TSV follows text/tab-separated-values: *a line is a row*, a tab separates fields, and a quote is a character like any
other, because data sets with raw quotes in TSV are common (MRPC, QQP, MS MARCO) and one of them must not swallow the
lines after it. Files written by spreadsheets and pandas quote a field that holds a quote or a tab; so a field is
unquoted when it can only have been written that way: it starts and ends with a quote and every quote inside is
doubled (at least one is, or a tab is inside). If all names in the header are quoted, the writer quoted everything and
all whole-quoted fields are unquoted.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Any

from nearfar.data.columns import BLANK_LINE, FILE
from nearfar.data.lines import Line, is_blank, read_lines, report_fault
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.sources import Source
from nearfar.data.values import shorten
from nearfar.errors import DataError

Row = tuple[int, dict[str, Any]]
LONG_SPAN = 100


def read_text(source: Source, log: ReadLog, text_limit: int) -> Iterator[Row]:
    """One text a line, as rows with the single column ``text``; blank lines are counted, not read."""
    for line in read_lines(source, text_limit):
        if line.fault:
            report_fault(line, source, log)
        elif is_blank(line.text):
            log.blank_lines += 1
        else:
            yield line.number, {"text": line.text.removesuffix("\n").removesuffix("\r")}


def read_paragraphs(source: Source, log: ReadLog, text_limit: int, by: str, numbers: Iterator[int]) -> Iterator[Row]:
    """One text a line, as rows with the columns ``text`` and ``by``, which says what document a text is of.

    ``by`` :data:`~nearfar.data.columns.BLANK_LINE`: blank lines and files end documents, which are called by
    ``numbers``; :data:`~nearfar.data.columns.FILE`: each file is one.
    """
    number: int | None = None
    for line in read_lines(source, text_limit):
        if line.fault:
            report_fault(line, source, log)
        elif is_blank(line.text):
            number = None
        else:
            if number is None and by == BLANK_LINE:
                number = next(numbers)
            document = str(source.path) if by == FILE else str(number)
            yield line.number, {"text": line.text.removesuffix("\n").removesuffix("\r"), by: document}


def read_tsv(source: Source, log: ReadLog, text_limit: int) -> Iterator[Row]:
    """The rows of a tab-separated file with a header line."""
    names: list[str] = []
    all_quoted = False
    for line in read_lines(source, text_limit):
        text = line.text.removesuffix("\n").removesuffix("\r")
        if line.fault:
            if not names:
                raise _header_error(line.fault, source, line.number)
            report_fault(line, source, log)
        elif not text.strip(" "):
            log.blank_lines += 1
        elif not names:
            fields = text.split("\t")
            all_quoted = all(len(field) > 2 and field[0] == field[-1] == '"' for field in fields)
            names = _names([_unquoted(field, all_quoted) for field in fields], source, line.number)
        else:
            fields = split_tsv(text, len(names), all_quoted)
            if len(fields) == len(names):
                yield line.number, dict(zip(names, fields, strict=True))
            else:
                advice = "; a row of a .tsv file is one line" if len(fields) < len(names) else ""
                log.bad(BadRow(str(source.path), line.number, None, _count_reason(fields, names) + advice))
    if not names:
        raise DataError("the file holds nothing but blank lines", where=str(source.path))


def split_tsv(text: str, width: int, all_quoted: bool = False) -> list[str]:
    """The fields of a TSV line by the rule at the head of this module; ``width`` is how many there should be."""
    fields = text.split("\t")
    if '"' not in text:
        return fields
    if len(fields) > width:  # tabs inside quotes?
        try:
            quoted = next(csv.reader([text], delimiter="\t", strict=True))
        except csv.Error:
            quoted = fields
        if len(quoted) == width:
            return quoted
    return [_unquoted(field, all_quoted) for field in fields]


def _unquoted(field: str, always: bool) -> str:
    if len(field) < 2 or field[0] != '"' or field[-1] != '"':
        return field
    inner = field[1:-1]
    if '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"') if always or not inner or '"' in inner else field


class _Feed:
    """Hands lines to ``csv.reader`` and remembers those of the row being read, so that they can be read again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line.text

    def put_back(self) -> None:
        """All lines of the row but its first will be read again."""
        self._again.extendleft(reversed(self.taken[1:]))


def read_csv(source: Source, log: ReadLog, text_limit: int) -> Iterator[Row]:
    """The rows of a comma-separated file with a header.

    Of a row that is broken only the first line is given up; reading goes on with the line after it, so that a quote
    left open does not take the rest of the file with it.
    """
    feed = _Feed(read_lines(source, text_limit))
    reader = csv.reader(feed, strict=True)
    names: list[str] = []
    longest = (0, 0)
    while True:
        feed.taken = []
        try:
            fields = _next_row(reader, text_limit)
        except csv.Error as error:
            first = feed.taken[0]
            reason = _csv_reason(str(error), feed.taken, text_limit)
            if not names:
                raise _header_error(reason, source, first.number) from error
            log.bad(BadRow(str(source.path), first.number, None, reason))
            feed.put_back()
            continue
        if fields is None:
            break
        taken = feed.taken
        fault = next((line for line in taken if line.fault), None)
        if fault:
            if not names:
                raise _header_error(fault.fault or "", source, fault.number)
            log.bad(_fault_row(fault, fields, names, source))
        elif not fields or (len(fields) == 1 and is_blank(fields[0])):
            log.blank_lines += len(taken)
        elif not names:
            names = _names(fields, source, taken[0].number)
            if len(fields) > 1 and all(field.startswith(" ") for field in fields[1:]):
                # "anchor, positive": without this, a quote after the blank would be read as part of the text.
                reader = csv.reader(feed, strict=True, skipinitialspace=True)
                log.notes.append(f"{source.path.name}: blanks after commas were left out, as in its header")
        elif len(fields) != len(names):
            log.bad(BadRow(str(source.path), taken[0].number, None, _count_reason(fields, names)))
        else:
            if len(taken) > longest[0]:
                longest = (len(taken), taken[0].number)
            yield taken[0].number, dict(zip(names, fields, strict=True))
    if not names:
        raise DataError("the file holds nothing but blank lines", where=str(source.path))
    if longest[0] > LONG_SPAN:
        log.notes.append(
            f"{source.path.name}: the row at line {longest[1]} spans {longest[0]:,} lines; is a quote left open?"
        )


def _next_row(reader: Any, text_limit: int) -> list[str] | None:
    """The next row, or None. The limit of a field's size belongs to the process, so it is put back after each row."""
    before = csv.field_size_limit(max(text_limit, 1))
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _csv_reason(message: str, taken: list[Line], text_limit: int) -> str:
    span = f" (read up to line {taken[-1].number})" if len(taken) > 1 else ""
    if "unexpected end of data" in message:
        return "a quote is opened in this row and never closed"
    if "field limit" in message:
        open_quote = "; a quote may be left open" if len(taken) > 1 else ""
        return f"a field is longer than {text_limit:,} characters{open_quote}"
    if "expected after" in message:
        return f"a quoted field is not followed by a comma{span}; quotes inside a field are written twice"
    return f"not valid CSV: {message}{span}"


def _fault_row(fault: Line, fields: list[str], names: list[str], source: Source) -> BadRow:
    """The bad row for a line that could not be decoded, with the name of its column where that can be told."""
    if len(fields) == len(names) and fault.character is not None:
        for name, field in zip(names, fields, strict=True):
            if "\ufffd" in field:
                return BadRow(str(source.path), fault.number, name, f"{fault.fault} (character {fault.character})")
    return BadRow(str(source.path), fault.number, fault.character, fault.fault or "")


def _count_reason(fields: list[str], names: list[str]) -> str:
    count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
    return f"{count} where the header has {len(names)}"


def _names(fields: list[str], source: Source, line: int) -> list[str]:
    names = [field.strip() or f"(unnamed {number})" for number, field in enumerate(fields, 1)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise _header_error(f"the column {shorten(repeated, 60)!r} stands twice", source, line)
    return names


def _header_error(reason: str, source: Source, line: int) -> DataError:
    return DataError(
        f"the header cannot be used: {reason}",
        where=f"{source.path}, line {line}",
        hint="the first line must hold the names of the columns, each once",
    )
