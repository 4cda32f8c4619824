"""Preferences with the rewards of a model, or with their strength, as files that everything here reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.reward.strength import GROUPS, Votes, strength_groups
from nearfar.data.preferences.rows import DEMONSTRATIONS, PAIRS, UNPAIRED, PreferenceRow, Text
from nearfar.errors import OutputError, UsageError
from nearfar.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from nearfar.data.preferences import PreferenceSet, TokenisedPreferences


def scored(data: PreferenceSet, tokens: TokenisedPreferences, rewards: Tensor) -> Iterator[dict[str, Any]]:
    """The rows that were tokenised, with the rewards ``[N]`` of their responses, in the columns of their kind.

    Pairs get ``score_chosen``, ``score_rejected`` and ``margin``, their difference; lists ``scores`` in the place of
    their own (and of several rewards); single responses ``score``.
    """
    place = 0
    for row in (data[index] for index in tokens.index.tolist()):
        given = [float(value) for value in rewards[place : place + len(row.responses)]]
        place += len(row.responses)
        if data.kind == PAIRS:
            yield {
                **_pair(row),
                "score_chosen": given[0],
                "score_rejected": given[1],
                "margin": given[0] - given[1],
            }
        elif data.kind in (UNPAIRED, DEMONSTRATIONS):
            label = {} if row.label is None else {"label": row.label}
            yield {"prompt": _plain(row.prompt), "completion": _plain(row.responses[0]), **label, "score": given[0]}
        else:
            yield {
                "prompt": _plain(row.prompt),
                "responses": [_plain(response) for response in row.responses],
                "scores": given,
            }


def with_strength(data: PreferenceSet, tokens: TokenisedPreferences, votes: Votes) -> Iterator[dict[str, Any]]:
    """The pairs that were tokenised with ``margin``, the strength that an ensemble gives them; how far its members
    differ (``deviation``); and the ``group`` of the strength."""
    groups = strength_groups(votes.strength).tolist()
    numbers = zip(votes.strength.tolist(), votes.deviation.tolist(), groups, strict=True)
    for index, (strength, deviation, group) in zip(tokens.index.tolist(), numbers, strict=True):
        yield {**_pair(data[index]), "margin": strength, "deviation": deviation, "group": GROUPS[group]}


def summary(votes: Votes) -> list[dict[str, Any]]:
    """The groups of strength: how many pairs, and the mean, least and largest strength, ready for JSON."""
    strength, group = votes.strength, strength_groups(votes.strength)
    found = []
    for number, name in enumerate(GROUPS):
        inside = strength[group == number]
        if inside.numel():
            low, mean, high = (float(value) for value in (inside.min(), inside.mean(), inside.max()))
            found.append({"group": name, "pairs": inside.numel(), "mean": mean, "low": low, "high": high})
    return found


def write_rows(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]], *, overwrite: bool = False) -> int:
    """Write rows as lines of JSON, all or nothing; how many. Raises :class:`OutputError` where the file exists (and
    ``overwrite`` is false), :class:`UsageError` for another kind of file."""
    place = Path(path)
    if place.suffix != ".jsonl":
        raise UsageError("scored preferences are written as lines of JSON", where=str(place), hint="name a .jsonl file")
    if place.exists() and not overwrite:
        raise OutputError("the output exists already", where=str(place), hint="choose another file, or --overwrite")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_text(place, "".join(f"{line}\n" for line in lines))
    return len(lines)


def states_of_pairs(states: Tensor) -> Tensor:
    """States ``[2 n, d]``, chosen and rejected in turn, as ``[n, 2, d]``."""
    return torch.as_tensor(states).reshape(-1, 2, states.shape[-1])


def _pair(row: PreferenceRow) -> dict[str, Any]:
    chosen, rejected = row.responses
    return {"prompt": _plain(row.prompt), "chosen": _plain(chosen), "rejected": _plain(rejected)}


def _plain(text: Text) -> str | Sequence[dict[str, str]]:
    return text if isinstance(text, str) else [dict(turn) for turn in text]
