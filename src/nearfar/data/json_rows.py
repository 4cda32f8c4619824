"""Rows out of JSON: one object a line, or one array of objects, read as a stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from nearfar.data.lines import line_limit, read_lines, report_fault
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.sources import Source, open_bytes
from nearfar.data.values import kind_of, shorten
from nearfar.errors import DataError

Row = tuple[int, dict[str, Any]]
_CHUNK = 1 << 20
_SPACE = " \t\n\r"


class _RepeatedName(dict[str, Any]):
    """An object in which a name stands twice; JSON leaves open which of the values is meant."""

    name = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    repeated = _RepeatedName(result)
    repeated.name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return repeated


_decoder = json.JSONDecoder(object_pairs_hook=_object)


def read_json(source: Source, log: ReadLog, text_limit: int) -> Iterator[Row]:
    """The rows of a JSON file: an array of objects if it starts with ``[``, one object a line otherwise.

    Yields ``(line, row)``. What is not an object is logged as a bad row. Raises :class:`DataError` where an array is
    broken, since nothing can be read after that.
    """
    if _starts_an_array(source):
        yield from _Array(source, log, text_limit).rows()
        return
    for line in read_lines(source, text_limit):
        if line.fault:
            report_fault(line, source, log)
            continue
        if line.text.isspace():
            log.blank_lines += 1
            continue
        try:
            row = _decoder.decode(line.text.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            if line.number == 1 and source.format == "json" and not line.text.rstrip().endswith("}"):
                raise DataError(
                    "the file holds neither an array of objects nor one object a line",
                    where=f"{source.path}, line 1",
                    hint='write one object a line, {"anchor": "...", "positive": "..."}, or all of them in one array',
                ) from error
            log.bad(BadRow(str(source.path), line.number, error.pos + 1, f"not valid JSON: {error.msg}"))
            continue
        except (ValueError, RecursionError) as error:  # an integer of thousands of digits; thousands of brackets
            log.bad(BadRow(str(source.path), line.number, None, f"JSON that cannot be read: {error}"))
            continue
        if _is_row(row, source, line.number, log):
            yield line.number, row


def _is_row(row: Any, source: Source, line: int, log: ReadLog) -> bool:
    if type(row) is dict:
        return True
    if isinstance(row, _RepeatedName):
        log.bad(BadRow(str(source.path), line, row.name, "the name stands twice in this object"))
    else:
        log.bad(BadRow(str(source.path), line, None, f"{kind_of(row)} where an object with named columns is needed"))
    return False


def _starts_an_array(source: Source) -> bool:
    with open_bytes(source) as stream:
        while chunk := stream.read(4096):
            start = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
            if start:
                return start.startswith(b"[")
    return False


class _Array:
    """Reads the items of one JSON array without holding more of the file than one item."""

    def __init__(self, source: Source, log: ReadLog, text_limit: int) -> None:
        self._source, self._log = source, log
        self._limit = line_limit(text_limit)
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._place = "", 0
        self._line, self._line_start = (
            1,
            0,
        )  # the latter relative to the text held, so negative for a line begun before it
        self._ended = False
        self._stream: IO[bytes]

    def rows(self) -> Iterator[Row]:
        with open_bytes(self._source) as self._stream:
            self._sign()  # the opening bracket, seen before
            self._advance(1)
            if self._sign() == "]":
                self._advance(1)
            else:
                yield from self._items()
            if self._sign():
                raise self._error("something follows the end of the array; several arrays cannot be read")

    def _items(self) -> Iterator[Row]:
        while True:
            self._sign()
            line = self._line
            item, end = self._item()
            self._advance(end - self._place)
            if _is_row(item, self._source, line, self._log):
                yield line, item
            sign = self._sign()
            if sign not in (",", "]"):
                raise self._error("the array is not closed" if not sign else "a comma or ] is missing after this row")
            self._advance(1)
            if sign == "]":
                return

    def _item(self) -> tuple[Any, int]:
        while True:
            try:
                item, end = _decoder.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:
                    return item, end
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 16
                if self._ended or not cut:
                    self._advance(error.pos - self._place)
                    raise self._error(f"not valid JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise self._error(f"JSON that cannot be read: {error}") from error
            if len(self._text) - self._place > self._limit:
                raise self._error(f"one row is longer than {self._limit:,} characters")
            self._more()

    def _sign(self) -> str:
        """The next character that is not white space, or nothing at the end of the file."""
        while True:
            text, place = self._text, self._place
            while place < len(text) and text[place] in _SPACE:
                place += 1
            self._advance(place - self._place)
            if place < len(text):
                return text[place]
            if self._ended:
                return ""
            self._more()

    def _advance(self, count: int) -> None:
        end = self._place + count
        lines = self._text.count("\n", self._place, end)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", self._place, end) + 1
        self._place = end

    def _more(self) -> None:
        """Read on, at least as much as is held already, so that a long item is not scanned again too often."""
        rest = self._text[self._place :]
        data = self._stream.read(max(_CHUNK, len(rest)))
        self._ended = not data
        self._line_start -= self._place
        self._place = 0
        try:
            self._text = rest + self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            self._text = rest + error.object[: error.start].decode("utf-8")
            self._advance(len(self._text))
            raise self._error(f"byte 0x{error.object[error.start]:02x} is not valid UTF-8") from error

    def _error(self, reason: str) -> DataError:
        place = f"{self._source.path}, line {self._line}, character {self._place - self._line_start + 1}"
        shown = shorten(self._text[self._place : self._place + 60], 40)
        return DataError(
            f"{reason}" + (f", at: {shown}" if shown else ""),
            where=place,
            hint="rows after a broken place in an array cannot be found; as one object a line (JSONL) they could be",
        )
