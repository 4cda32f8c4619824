"""Preferences as lines of JSON that nearfar and TRL read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearfar.data.preferences.rows import LISTS, MULTI_REWARD_LISTS, PAIRS, PreferenceRow, Text
from nearfar.errors import UsageError
from nearfar.files import atomic_path

if TYPE_CHECKING:
    from nearfar.data.preferences.rows import PreferenceSet


def write_preferences(
    data: PreferenceSet, path: str | os.PathLike[str], *, beside: Mapping[str, Sequence[Any]] | None = None
) -> None:
    """Write ``data`` to ``path`` as JSON Lines, whole or not at all; :func:`read_preferences` gives the same rows.

    ``beside``: more columns, name -> one value a row, ready for JSON. Raises :class:`~nearfar.errors.UsageError` for
    columns of another length or with a name that is taken, :class:`~nearfar.errors.OutputError` where it cannot be
    written.
    """
    more: dict[str, Sequence[Any]] = dict(beside or {})
    for name, column in more.items():
        if len(column) != len(data):
            raise UsageError(f"the column {name!r} has {len(column):,} values for {len(data):,} rows")
    # A column stands in all rows or in none, so that what the file is shows in its first rows.
    margins = any(row.margin is not None for row in data)
    scores = any(row.scores is not None for row in data)
    with atomic_path(path) as place, open(place, "w", encoding="utf-8") as out:
        for number, row in enumerate(data):
            values: dict[str, Any] = dict(_values(row, data.kind, data.reward_names, margins=margins, scores=scores))
            if taken := values.keys() & more.keys():
                raise UsageError(f"the column {min(taken)!r} is one that preferences have")
            values.update({name: column[number] for name, column in more.items()})
            out.write(json.dumps(values, ensure_ascii=False) + "\n")


def _values(
    row: PreferenceRow, kind: str, reward_names: Sequence[str], *, margins: bool, scores: bool
) -> Iterator[tuple[str, Any]]:
    yield "prompt", _json(row.prompt)
    if kind == PAIRS:
        yield "chosen", _json(row.responses[0])
        yield "rejected", _json(row.responses[1])
        if scores:
            yield "score_chosen", None if row.scores is None else row.scores[0]
            yield "score_rejected", None if row.scores is None else row.scores[1]
        if margins:
            yield "margin", row.margin
    elif kind in (LISTS, MULTI_REWARD_LISTS):
        yield "responses", [_json(response) for response in row.responses]
        if scores:
            yield "scores", row.scores
        if kind == MULTI_REWARD_LISTS:
            yield "rewards", [dict(zip(reward_names, each, strict=True)) for each in row.rewards or ()]
    else:
        yield "completion", _json(row.responses[0])
        if row.label is not None:
            yield "label", row.label


def _json(text: Text) -> str | list[dict[str, str]]:
    return text if isinstance(text, str) else [dict(turn) for turn in text]
