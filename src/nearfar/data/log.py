"""What was met while a file was read: rows that cannot be used, blank lines, and things worth telling."""

from __future__ import annotations

from dataclasses import dataclass, field

from nearfar.errors import DataError


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why.

    ``line`` counts from 1: the line of a text file, the row of a Parquet or Arrow file (``unit`` says which).
    ``column`` is the name of the column, or the position of the character in the line (from 1) where the line itself
    cannot be read, or None where the whole row is meant. ``hint`` says how to mend it where that is not plain.
    """

    file: str
    line: int
    column: str | int | None
    reason: str
    unit: str = "line"
    hint: str | None = None

    @property
    def where(self) -> str:
        """The place in words: ``pairs.jsonl, line 7, column 'positive'``."""
        place = f"{self.file}, {self.unit} {self.line}"
        if isinstance(self.column, str):
            return f"{place}, column {self.column!r}"
        return place if self.column is None else f"{place}, character {self.column}"

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class ReadLog:
    """Collects what is met while reading; raises :class:`DataError` at the first bad row beyond ``max_bad_rows``."""

    max_bad_rows: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    blank_lines: int = 0
    notes: list[str] = field(default_factory=list)

    def bad(self, row: BadRow) -> None:
        """Keep ``row`` as skipped, or raise when that would be one too many."""
        if len(self.bad_rows) < self.max_bad_rows:
            self.bad_rows.append(row)
            return
        if self.max_bad_rows == 0:
            raise DataError(
                f"this row cannot be used: {row.reason}",
                where=row.where,
                hint=row.hint
                or "mend the row, or skip up to N such rows with --max-bad-rows N (in Python: max_bad_rows=N)",
            )
        skipped = "".join(f"\n  {earlier}" for earlier in self.bad_rows[:5])
        more = f"\n  and {len(self.bad_rows) - 5:,} more" if len(self.bad_rows) > 5 else ""
        raise DataError(
            f"more rows cannot be used than may be skipped ({self.max_bad_rows:,}); the next one: {row.reason}",
            where=row.where,
            hint=f"mend the rows or raise --max-bad-rows; skipped before this one:{skipped}{more}",
        )
