"""Preferences in plain words: what was understood of a file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nearfar.data.description import counted
from nearfar.data.preferences.rows import (
    DEMONSTRATIONS,
    LISTS,
    MULTI_REWARD_LISTS,
    PAIRS,
    UNPAIRED,
    PreferenceRow,
    plain,
)
from nearfar.data.values import shorten

if TYPE_CHECKING:
    from nearfar.data.preferences.rows import PreferenceSet

_WORDS = {
    PAIRS: "pairs (prompt, chosen, rejected)",
    UNPAIRED: "unpaired responses (prompt, completion, label)",
    LISTS: "lists (prompt, responses, scores)",
    MULTI_REWARD_LISTS: "multi-reward lists (prompt, responses, rewards)",
    DEMONSTRATIONS: "demonstrations (prompt, completion)",
}
_SHOWN_RESPONSES = 4


def describe(data: PreferenceSet, width: int = 100) -> str:
    """Kind, rows, columns, what was left out, and the first row, texts cut at ``width``."""
    names = ", ".join(path.name for path in data.source[:3]) + (", ..." if len(data.source) > 3 else "")
    lines = [f"{_WORDS[data.kind]}: {counted(len(data), 'row')}" + (f" from {names}" if names else "")]
    renamed = [f"{column!r} as {role}" for role, column in data.columns.items() if role != column]
    if renamed:
        lines.append(f"columns: {', '.join(renamed)}")
    if data.ignored:
        lines.append(f"columns not used: {', '.join(shorten(name, 40) for name in data.ignored)}")
    if len(data):
        lines += _counts(data)
    if data.bad_rows:
        lines.append(f"bad rows skipped: {len(data.bad_rows):,}, the first: {data.bad_rows[0]}")
    if data.blank_lines:
        lines.append(f"blank lines: {data.blank_lines:,}")
    lines += [f"note: {note}" for note in data.notes]
    if len(data):
        lines += ["example:", *_example(data, data[0], width)]
    return "\n".join(lines)


def _counts(data: PreferenceSet) -> list[str]:
    sizes: Counter[int] = Counter()
    conversations = good = margins = scored = 0
    for row in data:
        sizes[len(row.responses)] += 1
        conversations += row.conversational
        good += bool(row.label)
        margins += row.margin is not None
        scored += row.scores is not None
    lines = [f"prompts: {len(set(data.prompt_hashes.tolist())):,} different"]
    if conversations:
        lines.append(f"conversations: {conversations:,} of {counted(len(data), 'row')}")
    if data.kind == UNPAIRED:
        lines.append(f"labels: {good:,} true, {len(data) - good:,} false")
    if data.kind in (LISTS, MULTI_REWARD_LISTS):
        least, most = min(sizes), max(sizes)
        lines.append(f"responses: {least:,}" + (f" to {most:,}" if most > least else "") + " a prompt")
    if data.reward_names:
        lines.append(f"rewards: {', '.join(shorten(name, 40) for name in data.reward_names)}")
    if data.kind == PAIRS and (margins or scored):
        lines.append(f"margins: {margins:,} rows; scores of both responses: {scored:,}")
    return lines


def _example(data: PreferenceSet, row: PreferenceRow, width: int) -> list[str]:
    lines = [f"  prompt: {shorten(plain(row.prompt), width)}"]
    names = ["chosen", "rejected"] if data.kind == PAIRS else ["completion"]
    if data.kind in (LISTS, MULTI_REWARD_LISTS):
        names = [f"response {number}" for number in range(1, len(row.responses) + 1)]
    for place, (name, response) in enumerate(zip(names, row.responses, strict=True)):
        if place == _SHOWN_RESPONSES:
            lines.append(f"  and {len(row.responses) - place:,} more")
            break
        beside = [] if row.scores is None else [f"{row.scores[place]:g}"]
        if row.rewards is not None:
            pairs = zip(data.reward_names, row.rewards[place], strict=True)
            beside += [f"{shorten(reward, 20)} {value:g}" for reward, value in pairs]
        told = f" ({', '.join(beside)})" if beside else ""
        lines.append(f"  {name}{told}: {shorten(plain(response), width)}")
    if row.label is not None:
        lines.append(f"  label: {'true' if row.label else 'false'}")
    if row.margin is not None:
        lines.append(f"  margin: {row.margin:g}")
    return lines
