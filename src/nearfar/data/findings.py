"""What can be found in the rows themselves: empty, repeated, contradictory texts, useless labels and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.data.columns import CAPTIONS, DOCUMENTS, DOMAINS, LABELLED_TEXTS, PAIRS, SCORED_PAIRS
from nearfar.data.description import shown as shown_value
from nearfar.data.examples import Examples
from nearfar.data.fingerprints import Hashes, combined, text_hashes
from nearfar.data.log import BadRow
from nearfar.data.values import is_number, shorten

SHOWN = 3
_SHOWN_WIDTH = 60

Show = Callable[[Sequence[int] | npt.NDArray[Any]], tuple[str, ...]]
"""From the numbers of rows (from 0) to lines that show the first few of them."""


@dataclass(frozen=True)
class Finding:
    """One thing the check found.

    ``severity``: "info", "warning" or "error". ``name``: a fixed name such as ``duplicate-rows``. ``count``: how many
    rows or texts (expected numbers are fractional). ``share``: of all of them, in [0, 1], or None where that means
    nothing. ``detail``: a sentence. ``examples``: up to three places, shortened.
    """

    severity: str
    name: str
    count: float
    share: float | None
    detail: str
    examples: tuple[str, ...] = field(default=())

    def amount(self) -> str:
        """Count and share in a few characters: ``1,204 (3.1 %)``."""
        count = f"{self.count:,.0f}" if float(self.count).is_integer() else f"{self.count:,.3g}"
        if self.share is None:
            return count
        percent = 100 * self.share
        return f"{count} ({percent:.1f} %)" if percent >= 0.05 or percent == 0 else f"{count} (< 0.1 %)"


class Facts:
    """What all parts of the check need to know of the examples: a number for every text, computed once."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.rows = len(examples)
        self.names = examples.text_columns
        self.broken = dict.fromkeys(self.names, 0)
        numbers = set(self.names)
        parts: dict[str, list[Hashes]] = {name: [] for name in self.names}
        for batch in examples.batches(columns=self.names):
            for name in self.names:
                texts = batch[name]
                parts[name].append(text_hashes(texts))
                self.broken[name] += sum("\ufffd" in text for text in texts)
                if name in numbers and not all(map(is_number, texts)):
                    numbers.discard(name)
        self.hashes = {name: np.concatenate(parts[name]) for name in self.names}
        self.number_columns = [name for name in self.names if name in numbers]

    @cached_property
    def whole_rows(self) -> Hashes:
        """One number a row over all its columns, label, score, document, image and domain too."""
        result = np.zeros(self.rows, np.uint64)
        for values in self.hashes.values():
            result = combined(result, values)
        beside = {DOCUMENTS: "document", CAPTIONS: "image", DOMAINS: "domain"}.get(self.examples.shape)
        if beside is not None:
            result = combined(result, self.examples.hashes(beside))
        if self.examples.shape in (LABELLED_TEXTS, DOMAINS):
            result = combined(result, self.codes.astype(np.uint64))
        if self.examples.shape == SCORED_PAIRS:
            result = combined(result, (self.score + 0.0).view(np.uint64))
        return result

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """The labels as numbers; -1 for none."""
        return self.examples.labels()[0]

    @cached_property
    def score(self) -> npt.NDArray[np.float64]:
        """The scores."""
        return np.asarray(self.examples.table.column("score").to_numpy(), np.float64)

    def show(self, rows: Sequence[int] | npt.NDArray[Any], names: Sequence[str] | None = None) -> tuple[str, ...]:
        """The first few of ``rows`` (from 0) as lines to print, rows counted from 1."""
        chosen = [int(row) for row in rows[:SHOWN]]
        taken = self.examples.take(chosen)
        lines = []
        for place, row in enumerate(chosen):
            values = (taken[name][place] for name in names or self.examples.column_names)
            shown = (
                f'"{shorten(value, _SHOWN_WIDTH)}"' if isinstance(value, str) else shown_value(value, _SHOWN_WIDTH)
                for value in values
            )
            lines.append(f"row {row + 1:,}: {' | '.join(shown)}")
        return tuple(lines)


def contents(facts: Facts) -> Iterator[Finding]:
    """Empty texts, numbers for texts, broken characters, rows that repeat."""
    rows = facts.rows
    empty_text = text_hashes([""])[0]
    for name in facts.names:
        empty = np.flatnonzero(facts.hashes[name] == empty_text)
        if len(empty) == rows:
            yield Finding("error", "empty-texts", rows, 1.0, f"{name!r} is empty in every row")
        elif len(empty):
            detail = f"{name!r} is empty or nothing but white space"
            yield Finding("warning", "empty-texts", len(empty), len(empty) / rows, detail, facts.show(empty))
        if name in facts.number_columns:
            yield Finding(
                "warning",
                "only-numbers",
                rows,
                1.0,
                f"{name!r} holds nothing but numbers",
                facts.show(range(rows), [name]),
            )
        broken = facts.broken[name]
        if broken:
            detail = f"{name!r} holds U+FFFD, the sign for a character that was lost in an earlier conversion"
            yield Finding("warning", "lost-characters", broken, broken / rows, detail)
    yield from repeated(facts.show, facts.whole_rows)
    if facts.examples.shape == PAIRS:
        same = np.flatnonzero(
            (facts.hashes["anchor"] == facts.hashes["positive"]) & (facts.hashes["anchor"] != empty_text)
        )
        if len(same):
            detail = "anchor and positive are the same text: nothing to learn from them"
            yield Finding(
                "warning", "anchor-is-positive", len(same), len(same) / rows, detail, facts.show(same, ["anchor"])
            )


def repeated(show: Show, whole_rows: Hashes) -> Iterator[Finding]:
    """Rows that repeat an earlier one; ``whole_rows [n]``: one number a row."""
    rows = len(whole_rows)
    _, first, counts = np.unique(whole_rows, return_index=True, return_counts=True)
    if rows > 1 and len(counts) == 1:
        detail = "all rows are the same: there is nothing to contrast"
        yield Finding("warning", "all-rows-equal", rows, 1.0, detail, show([0]))
    elif len(counts) < rows:
        most = np.lexsort((first, -counts))[:SHOWN]
        most = most[counts[most] > 1]
        lines = show(first[most])
        shown = tuple(f"{count:,} times, {line}" for count, line in zip(counts[most], lines, strict=True))
        extra = rows - len(counts)
        yield Finding("warning", "duplicate-rows", extra, extra / rows, "rows repeat an earlier row", shown)


def unread(bad_rows: Sequence[BadRow], blank_lines: int, rows: int) -> Iterator[Finding]:
    """What of the files is not among the ``rows``; that there are none is an error."""
    if bad_rows:
        count = len(bad_rows)
        shown = tuple(str(row) for row in bad_rows[:SHOWN])
        detail = "rows that cannot be used were skipped"
        yield Finding("info", "bad-rows", count, count / (count + rows), detail, shown)
    if blank_lines:
        yield Finding("info", "blank-lines", blank_lines, None, "blank lines in the files are not rows")
    if not rows:
        yield Finding("error", "no-rows", 0, None, "there are no rows")


def labels(facts: Facts) -> Iterator[Finding]:
    """Too few classes, classes of a single row."""
    sizes = np.bincount(facts.codes)
    names = facts.examples.labels()[1]
    if len(names) == 1:
        detail = f"there is one class only, {shorten(names[0], 40)!r}: no text is far from another"
        yield Finding("warning", "one-class", facts.rows, 1.0, detail)
        return
    single = [name for name, size in zip(names, sizes, strict=True) if size == 1]
    if single:
        detail = f"of {len(names):,} classes have a single row: it never has a positive"
        shown = (", ".join(shorten(name, 30) for name in single[:5]) + (", ..." if len(single) > 5 else ""),)
        severity = "warning" if len(single) == len(names) else "info"
        yield Finding(severity, "single-row-classes", len(single), len(single) / len(names), detail, shown)


def scores(facts: Facts) -> Iterator[Finding]:
    """Scores that are all equal, or outside of [-1, 1]."""
    low, high = float(facts.score.min()), float(facts.score.max())
    if facts.rows > 1 and low == high:
        yield Finding("warning", "equal-scores", facts.rows, 1.0, f"all scores are {low:g}: they order nothing")
    outside = np.flatnonzero((facts.score < -1.0) | (facts.score > 1.0))
    if len(outside):
        detail = f"scores go from {low:g} to {high:g}; as targets of a similarity they must lie in [-1, 1]"
        yield Finding("warning", "score-range", len(outside), len(outside) / facts.rows, detail, facts.show(outside))


def contradictions(facts: Facts) -> Iterator[Finding]:
    """The same text or pair said to be two different things."""
    if facts.examples.shape in (LABELLED_TEXTS, DOMAINS):
        detail = "rows whose text has another label elsewhere"
        keys = facts.hashes["text"]
        if facts.examples.shape == DOMAINS:  # a text without a label contradicts none
            keys = np.where(facts.codes < 0, combined(keys, np.arange(facts.rows, dtype=np.uint64)), keys)
        yield from contradictory(facts.show, keys, facts.codes.astype(np.uint64), "contradictory-labels", detail)
    elif facts.examples.shape == SCORED_PAIRS:
        pairs = combined(facts.hashes["sentence1"], facts.hashes["sentence2"], ordered=False)
        detail = "rows whose pair has another score elsewhere (in either order)"
        yield from contradictory(facts.show, pairs, (facts.score + 0.0).view(np.uint64), "contradictory-scores", detail)
    elif facts.examples.negatives:
        anchor = facts.hashes["anchor"]
        near = np.unique(combined(anchor, facts.hashes["positive"], ordered=False))
        bad = np.zeros(facts.rows, bool)
        for name in facts.examples.negatives:
            bad |= np.isin(combined(anchor, facts.hashes[name], ordered=False), near)
        rows = np.flatnonzero(bad)
        if len(rows):
            detail = "rows with a negative that is the anchor's positive, here or in another row"
            yield Finding("warning", "contradictory-pairs", len(rows), len(rows) / facts.rows, detail, facts.show(rows))


def contradictory(show: Show, keys: Hashes, values: Hashes, name: str, detail: str) -> Iterator[Finding]:
    """Rows whose key occurs with more than one value; ``keys`` and ``values`` ``[n]``, one a row."""
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    changes = np.r_[False, (keys[1:] == keys[:-1]) & (values[1:] != values[:-1])]
    several = np.logical_or.reduceat(changes, starts)
    sizes = np.diff(np.r_[starts, len(keys)])
    rows = order[np.repeat(several, sizes)]
    if len(rows):
        yield Finding("warning", name, len(rows), len(rows) / len(keys), detail, show(rows))
