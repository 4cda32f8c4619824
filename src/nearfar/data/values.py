"""Whether one value can be a text, a label or a score, and what is wrong with it if it cannot."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*\Z", re.ASCII)
Check = Callable[[Any], Any]


class BadValueError(ValueError):
    """A value that cannot be used; the message is the reason, ``hint`` says how to mend it where that is not plain.
    Caught where the row is known."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def kind_of(value: Any) -> str:
    """What ``value`` is, in the words of JSON: ``the number 5``, ``null``, ``a list``."""
    if value is None:
        return "null"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, numbers.Number):
        shown = str(value)
        return f"the number {shown if len(shown) <= 40 else shown[:40] + '...'}"
    if isinstance(value, str):
        return f"the text {shorten(value, 40)!r}"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"


def shorten(text: str, width: int) -> str:
    """``text`` on one line of at most ``width``, control characters escaped: a text must not steer the terminal."""
    cut = " ".join(text[: 4 * width].split())
    shown = "".join(sign if sign.isprintable() else _escaped(sign) for sign in cut)
    return shown if len(shown) <= width and len(text) <= 4 * width else shown[: max(width - 3, 0)] + "..."


def is_number(text: str) -> bool:
    """Whether ``text`` is a decimal number and nothing else."""
    return _NUMBER.match(text) is not None


def text_check(limit: int) -> Check:
    """A check that returns a text unchanged, or raises: no text, more than ``limit`` bytes, NUL, half a character."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            advice = "; give it as text, in quotes" if isinstance(value, numbers.Number) else ""
            advice = (
                "; write one text a column, such as negative_1, negative_2; a list of sentences is a document: "
                "--columns document=..."
                if isinstance(value, (list, tuple))
                else advice
            )
            raise BadValueError(f"{kind_of(value)} where text is needed{advice}")
        if value.isascii():
            size = len(value)
        else:
            try:
                size = len(value.encode("utf-8"))
            except UnicodeEncodeError as error:
                half = value[error.start]
                raise BadValueError(f"half a character (the lone surrogate U+{ord(half):04X})") from error
        if size > limit:
            raise BadValueError(f"{size:,} bytes, more than the {limit:,} a text may have")
        if "\0" in value:
            raise BadValueError("a NUL character")
        return value if type(value) is str else str(value)

    return check


def label_check(limit: int, what: str = "label") -> Check:
    """A check that returns a label as text: texts stripped, whole numbers and truth values written out.

    ``what`` it is called: other names of groups (a domain, a document) are read alike.
    """
    as_text = text_check(limit)

    def check(value: Any) -> str:
        if isinstance(value, str):
            label = str(as_text(value)).strip()
            if not label:
                raise BadValueError(f"the {what} is empty")
            return label
        if isinstance(value, (bool, np.bool_)):
            return "true" if value else "false"
        if isinstance(value, numbers.Integral):
            return str(int(value))
        if isinstance(value, numbers.Real) and float(value).is_integer():
            return str(int(float(value)))
        raise BadValueError(f"{kind_of(value)} where a {what} is needed: a text or a whole number")

    return check


def score_check(*, typed: bool) -> Check:
    """A check that returns a finite float. ``typed``: numbers come as numbers (JSON), not as texts (CSV)."""

    def check(value: Any) -> float:
        if isinstance(value, (bool, np.bool_)):
            return float(value)
        if isinstance(value, str):
            if typed:
                raise BadValueError(f"{kind_of(value)} where a number is needed; write it without quotes")
            if is_number(value):
                score = float(value)
            elif value.strip().casefold().lstrip("+-") in ("nan", "inf", "infinity"):
                score = math.nan
            else:
                raise BadValueError(f"{kind_of(value)} where a number is needed")
        elif isinstance(value, numbers.Real):
            try:
                score = float(value)
            except OverflowError:
                score = math.inf
        else:
            raise BadValueError(f"{kind_of(value)} where a number is needed")
        if not math.isfinite(score):
            raise BadValueError(f"the score {shorten(str(value), 40)} is not finite")
        return score

    return check


def _escaped(sign: str) -> str:
    code = ord(sign)
    # Joiners inside emoji and scripts are not printable by Python's rule, but are part of the writing.
    if code in (0x200C, 0x200D):
        return sign
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
