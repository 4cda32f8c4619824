"""A text file as numbered lines, in constant memory whatever the file holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from nearfar.data.log import BadRow, ReadLog
from nearfar.data.sources import Source, open_bytes, read_error
from nearfar.errors import DataError

_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Line(NamedTuple):
    """A line with its number (from 1), its text with its ending, and what is wrong with it, if anything.

    A faulty line still has a text (undecodable bytes and NUL replaced by U+FFFD), so that a row that spans several
    lines can be followed to its end.
    """

    number: int
    text: str
    fault: str | None = None
    character: int | None = None


def line_limit(text_limit: int) -> int:
    """The longest line that is read, in bytes: four fields of ``text_limit``, and room for the rest."""
    return 4 * text_limit + 1_000_000


def read_lines(source: Source, text_limit: int) -> Iterator[Line]:
    """The lines of ``source``, decoded as UTF-8; a byte order mark is accepted, both ``\\n`` and ``\\r\\n`` end a line.

    A line that is not UTF-8, holds a NUL byte or is longer than :func:`line_limit` comes with its ``fault``. Raises
    :class:`DataError` for a file in UTF-16 or UTF-32, with line ends of old Macintosh files, or whose gzip data is
    damaged.
    """
    limit = line_limit(text_limit)
    name = str(source.path)
    with open_bytes(source) as stream:
        number = 0
        while True:
            try:
                raw = stream.readline(limit + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise read_error(f"{name}, after line {number}", error) from error
            if not raw:
                return
            number += 1
            if number == 1:
                raw = _without_mark(raw, name)
                if not raw:  # the mark was all there is
                    return
            if len(raw) > limit and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(limit)
                yield Line(number, "\n", f"the line is longer than {limit:,} bytes")
                continue
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                place = len(raw[: error.start].decode("utf-8")) + 1
                text = raw.decode("utf-8", "replace").replace("\0", "\ufffd")
                yield Line(number, text, f"byte 0x{raw[error.start]:02x} is not valid UTF-8", place)
                continue
            if "\0" in text:
                yield Line(number, text.replace("\0", "\ufffd"), "the line holds a NUL byte", text.index("\0") + 1)
                continue
            if number == 1 and "\r" in text and not text.endswith("\n"):
                raise DataError(
                    "the lines of this file end with a carriage return alone",
                    where=name,
                    hint="convert it first: tr '\\r' '\\n' < old > new",
                )
            yield Line(number, text)


def is_blank(text: str) -> bool:
    """Whether a line has nothing but white space in it."""
    return not text or text.isspace()


def report_fault(line: Line, source: Source, log: ReadLog) -> None:
    """Log the fault of ``line`` as a bad row."""
    log.bad(BadRow(str(source.path), line.number, line.character, line.fault or "the line cannot be read"))


def _without_mark(raw: bytes, name: str) -> bytes:
    for mark, encoding in _WIDE_MARKS.items():
        if raw.startswith(mark):
            raise DataError(
                f"the file is {encoding}, not UTF-8",
                where=name,
                hint=f"convert it first: iconv -f {encoding} -t UTF-8 old > new",
            )
    return raw[len(_UTF8_MARK) :] if raw.startswith(_UTF8_MARK) else raw
