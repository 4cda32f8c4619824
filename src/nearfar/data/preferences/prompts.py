"""Where the prompt ends, in data that does not say it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from nearfar.data.preferences.rows import Message, Text


def common_start(one: Text, other: Text) -> int:
    """How many characters (or messages) of a pair are its prompt: those that both begin with.

    TRL's rule (``extract_prompt``): of plain texts a blank before the first difference belongs to the responses, so
    that they begin at a word; a text that is the start of the other, or equal to it, keeps its last character (or
    message) as the response.
    """
    place, shortest = common_length(one, other), min(len(one), len(other))
    if place == shortest:
        return max(shortest - 1, 0)
    return place - 1 if place and one[place - 1] == " " else place


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items (characters, messages, tokens) both begin with."""
    if one[:] == other[: len(one)]:
        return len(one)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def own_turns(responses: Sequence[tuple[Message, ...]]) -> int:
    """How many messages at the start of all ``responses`` are their prompt, where they are whole conversations.

    0 where they begin with the assistant. The last message of each is always a response; of a single conversation
    it is the response.
    """
    shortest = min(map(len, responses), default=0)
    if shortest < 2 or any(turns[0]["role"] == "assistant" for turns in responses):
        return 0
    return min(shortest - 1, *(common_length(responses[0], turns) for turns in responses))
