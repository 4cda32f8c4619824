"""Preferences with the rewards of a model, or with their strength, as files that everything here reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.reward.strength import GROUPS, Votes, strength_groups
from nearfar.data.preferences.rows import DEMONSTRATIONS, LISTS, PAIRS, UNPAIRED
from nearfar.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from nearfar.data.preferences import PreferenceSet, TokenisedPreferences


Beside = Mapping[str, Sequence[Any]]
"""More columns by name, a value a row: see :func:`nearfar.data.preferences.writing.write_preferences`."""


def scored(data: PreferenceSet, tokens: TokenisedPreferences, rewards: Tensor) -> tuple[PreferenceSet, Beside]:
    """The rows that were tokenised, with the rewards ``[N]`` of their responses in the place of their own, and the
    columns that stand beside them.

    Pairs get scores and their difference as the margin; lists get scores, also in the place of several rewards; single
    responses a column ``score``.
    """
    rows, single, place = [], [], 0
    given = rewards.tolist()
    for row in (data[index] for index in tokens.index.tolist()):
        own = given[place : place + len(row.responses)]
        place += len(own)
        single.append(own[0])
        if data.kind in (UNPAIRED, DEMONSTRATIONS):
            rows.append(row)
        else:
            margin = own[0] - own[1] if data.kind == PAIRS else None
            rows.append(replace(row, scores=tuple(own), rewards=None, margin=margin))
    if data.kind in (UNPAIRED, DEMONSTRATIONS):
        return data.from_rows(data.kind, rows), {"score": single}
    return data.from_rows(PAIRS if data.kind == PAIRS else LISTS, rows), {}


def with_strength(data: PreferenceSet, tokens: TokenisedPreferences, votes: Votes) -> tuple[PreferenceSet, Beside]:
    """The pairs that were tokenised, the strength that an ensemble gives them as their margin; and beside them how far
    its members differ (``deviation``) and the ``group`` of the strength."""
    rows = [
        replace(data[index], margin=strength)
        for index, strength in zip(tokens.index.tolist(), votes.strength.tolist(), strict=True)
    ]
    groups = [GROUPS[group] for group in strength_groups(votes.strength).tolist()]
    return data.from_rows(PAIRS, rows), {"deviation": votes.deviation.tolist(), "group": groups}


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


def check_place(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raise :class:`OutputError` where the file exists (and ``overwrite`` is false), :class:`UsageError` where its name
    does not end as lines of JSON do."""
    place = Path(path)
    if place.suffix != ".jsonl":
        raise UsageError("scored preferences are written as lines of JSON", where=str(place), hint="name a .jsonl file")
    if place.exists() and not overwrite:
        raise OutputError("the output exists already", where=str(place), hint="choose another file, or --overwrite")


def states_of_pairs(states: Tensor) -> Tensor:
    """States ``[2 n, d]``, chosen and rejected in turn, as ``[n, 2, d]``."""
    return torch.as_tensor(states).reshape(-1, 2, states.shape[-1])
