"""Documents to search in: a text each, an id, and whatever else the file says of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from nearfar.data.log import BadRow, ReadLog
from nearfar.data.reading import read_rows
from nearfar.data.sources import Source, find_sources
from nearfar.data.values import BadValueError, shorten, text_check
from nearfar.errors import DataError


def read_documents(
    path: str | os.PathLike[str],
    *,
    text: str | None = None,
    max_bad_rows: int = 0,
    text_limit: int = 10_000_000,
    log: ReadLog | None = None,
) -> Iterator[dict[str, Any]]:
    """Stream the rows of any file that :func:`nearfar.data.read` takes as documents for a search index.

    ``text`` names the column that is searched in (default: ``text``, or the only column). A ``title`` is put before
    it, as in a retrieval set, and kept as a field; ``id`` or ``_id`` becomes the id; all other columns are kept as
    fields. A row without a text counts as bad: :class:`~nearfar.errors.DataError` with file, line, column and reason
    once more than ``max_bad_rows`` are. ``log`` receives what was skipped.
    """
    sources, _ = find_sources(path)
    log = ReadLog(max_bad_rows) if log is None else log
    check = text_check(text_limit)
    for source in sources:
        column = text
        for line, row in read_rows(source, log, text_limit):
            if column is None:
                column = _text_column(row, source)
            try:
                yield _document(row, column, check)
            except BadValueError as error:
                log.bad(BadRow(str(source.path), line, column, str(error)))


def _text_column(row: dict[str, Any], source: Source) -> str:
    for name in ("text", "document", "passage"):
        if name in row:
            return name
    if len(row) == 1:
        return next(iter(row))
    raise DataError(
        f"none of the columns {', '.join(shorten(str(name), 40) for name in row)} is called text",
        where=str(source.path),
        hint="say which one is searched in: --text COLUMN",
    )


def _document(row: dict[str, Any], column: str, check: Any) -> dict[str, Any]:
    if column not in row:
        raise BadValueError(f"the column is missing (there are: {', '.join(list(row)[:8])})")
    document: dict[str, Any] = {"text": check(row[column])}
    if not document["text"].strip():
        raise BadValueError("the text is empty")
    if isinstance(title := row.get("title"), str) and column != "title":
        document["text"] = f"{check(title)} {document['text']}".strip()
    for name, value in row.items():
        if name == column:
            continue
        if name in ("id", "_id") and isinstance(value, (str, int)) and not isinstance(value, bool):
            document["id"] = value
        else:
            document["field_text" if name == "text" else name] = _plain(value)
    return document


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: dates and the like as text, what is not a number as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return (
        json.loads(json.dumps(value, default=str, allow_nan=False))
        if isinstance(value, (list, dict))
        else (value if value is None or isinstance(value, (str, int, float, bool)) else str(value))
    )
