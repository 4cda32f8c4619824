"""What all parts of the check need to know of preferences, gathered in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.data.findings import SHOWN
from nearfar.data.fingerprints import Hashes, combined, text_hashes
from nearfar.data.preferences.rows import PreferenceRow, PreferenceSet, plain
from nearfar.data.values import shorten

_WIDTH = 50
_SHOWN_RESPONSES = 3
_BLOCK = 1024


class PreferenceFacts:
    """Numbers for every prompt and response, each computed once.

    ``prompts [n]``, ``responses [m]``: one number a text (normalised, see :func:`nearfar.data.normalise`), ``m`` the
    responses of all rows one after the other. ``first [n + 1]``: where each row's begin. ``row_of [m]``: whose each is.
    ``characters [m]``: how long. ``scores [m]``: NaN where there are none.
    """

    def __init__(self, data: PreferenceSet) -> None:
        self.data, self.rows = data, len(data)
        parts: list[Hashes] = []
        counts: list[int] = []
        characters: list[int] = []
        scores: list[float] = []
        for rows in _blocks(data):
            texts = [plain(response) for row in rows for response in row.responses]
            parts.append(text_hashes(texts))
            characters += map(len, texts)
            counts += [len(row.responses) for row in rows]
            for row in rows:
                scores += [np.nan] * len(row.responses) if row.scores is None else row.scores
        self.prompts = data.prompt_hashes
        self.responses = np.concatenate([np.zeros(0, np.uint64), *parts])
        self.first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.row_of = np.repeat(np.arange(self.rows), counts)
        self.characters = np.array(characters, np.int64)
        self.scores = np.array(scores, np.float64)

    @cached_property
    def whole_rows(self) -> Hashes:
        """One number a row over prompt, responses, and what is said of them."""
        result = combined(self.prompts, np.diff(self.first).astype(np.uint64))
        said = [hash((row.scores, row.rewards, row.label, row.margin)) for row in self.data]
        result = combined(result, np.array(said, np.int64).view(np.uint64))
        for place in range(int(np.diff(self.first).max(initial=0))):
            there = np.flatnonzero(np.diff(self.first) > place)
            result[there] = combined(result[there], self.responses[self.first[there] + place])
        return result

    def of_place(self, values: npt.NDArray[Any], place: int) -> npt.NDArray[Any]:
        """Of ``values [m]`` those of the response ``place`` of each row, ``[n]``; all rows must have one."""
        return values[self.first[:-1] + place]

    def show(self, rows: Sequence[int] | npt.NDArray[Any]) -> tuple[str, ...]:
        """The first few of ``rows`` (from 0) as lines to print."""
        lines = []
        for number in rows[:SHOWN]:
            row = self.data[int(number)]
            texts = [plain(text) for text in (row.prompt, *row.responses[:_SHOWN_RESPONSES])]
            shown = " | ".join(f'"{shorten(text, _WIDTH)}"' for text in texts)
            more = " | ..." if len(row.responses) > _SHOWN_RESPONSES else ""
            lines.append(f"{row.where or f'row {int(number) + 1:,}'}: {shown}{more}")
        return tuple(lines)

    def show_responses(self, responses: Sequence[int] | npt.NDArray[Any]) -> tuple[str, ...]:
        """The rows of the first few of ``responses`` (from 0, of all)."""
        return self.show(list(dict.fromkeys(self.row_of[np.asarray(responses, np.int64)].tolist())))


def _blocks(data: PreferenceSet) -> Iterator[list[PreferenceRow]]:
    block: list[PreferenceRow] = []
    for row in data:
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
