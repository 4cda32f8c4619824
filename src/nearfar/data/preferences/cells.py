"""From the values of a file's row to a :class:`~nearfar.data.preferences.rows.PreferenceRow`."""

from __future__ import annotations

import json
import numbers
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nearfar.data.preferences.layouts import PreferenceLayout
from nearfar.data.preferences.prompts import common_start, own_turns
from nearfar.data.preferences.rows import (
    MULTI_REWARD_LISTS,
    PAIRS,
    UNPAIRED,
    Message,
    PreferenceRow,
    Text,
    as_messages,
    fault,
    numbered_names,
)
from nearfar.data.values import BadValueError, kind_of, score_check, text_check

_SPEAKERS = {"human": "user", "gpt": "assistant"}
"""The names that ShareGPT's ``from`` has for two of the roles."""

_FIRST, _SECOND = ("1", "a", "model_a", "output_1", "response_1"), ("2", "b", "model_b", "output_2", "response_2")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class BadCellError(BadValueError):
    """A value of ``column`` that cannot be used."""

    def __init__(self, column: str, error: BadValueError) -> None:
        super().__init__(str(error), hint=error.hint)
        self.column = column


class Cells:
    """Makes rows of one layout. ``typed``: numbers come as numbers (JSON, Parquet), not as texts (CSV).

    ``reward_names``: settled by the first row, unless columns have them. ``done``: how often something was done to
    rows that is worth telling, in words.
    """

    def __init__(self, layout: PreferenceLayout, *, typed: bool, text_limit: int) -> None:
        self.layout, self._typed = layout, typed
        self.reward_names: tuple[str, ...] = tuple(layout.rewards)
        self.done: Counter[str] = Counter()
        self._plain = text_check(text_limit)
        self._score = score_check(typed=typed)

    def row(self, values: dict[str, Any], where: str) -> PreferenceRow:
        """The row of ``values``. Raises :class:`BadCellError`, or BadValueError where all of the row is meant."""
        columns, kind = self.layout.columns, self.layout.kind
        if kind == PAIRS:
            made = self._pair(values, where)
        elif "messages" in columns:
            turns = self._cell(values, "messages", self._conversation)
            made = PreferenceRow(turns[:-1], (turns[-1:],), label=self._label_of(values), where=where)
        elif "responses" in columns:
            texts = self._cell(values, "responses", self._texts)
            prompt, responses = self._told(self._prompt(values), texts)
            made = PreferenceRow(
                prompt, responses, self._scores_of(values), self._rewards_of(values, len(texts)), where=where
            )
        else:
            prompt, responses = self._told(self._prompt(values), [self._cell(values, "completion", self._text)])
            score = self._maybe(values, "score", self._score)
            made = PreferenceRow(
                prompt,
                responses,
                None if score is None else (score,),
                self._rewards_of(values, 1),
                self._label_of(values),
                where=where,
            )
        if reason := fault(made, kind, len(self.reward_names)):
            raise BadValueError(reason)
        return made

    def _pair(self, values: dict[str, Any], where: str) -> PreferenceRow:
        columns = self.layout.columns
        if "preferred" in columns:
            texts = [self._cell(values, role, self._text) for role in ("response_1", "response_2")]
            if self._cell(values, "preferred", _second):
                texts.reverse()
        else:
            texts = [self._cell(values, role, self._text) for role in ("chosen", "rejected")]
        if "prompt" in columns:
            prompt, responses = self._told(self._prompt(values), texts)
        else:
            prompt, responses = self._untold(texts)
        of_both = [self._maybe(values, role, self._score) for role in ("score_chosen", "score_rejected")]
        margin = self._maybe(values, "margin", self._score)
        scores = None
        if of_both[0] is not None and of_both[1] is not None:
            scores = (of_both[0], of_both[1])
            margin = scores[0] - scores[1] if margin is None else margin
        return PreferenceRow(prompt, responses, scores, margin=margin, where=where)

    def _prompt(self, values: dict[str, Any]) -> Text:
        prompt: Text = self._cell(values, "prompt", self._text)
        more = self._maybe(values, "input", self._plain)
        system = self._maybe(values, "system", self._plain)
        if more and more.strip():
            if not isinstance(prompt, str):
                raise BadCellError(
                    self.layout.columns["input"], BadValueError("more of a prompt that is a conversation")
                )
            prompt = f"{prompt}\n\n{more}"
        if system and system.strip():
            prompt = ({"role": "system", "content": system}, *as_messages(prompt, "user"))
        return prompt

    def _told(self, prompt: Text, texts: Sequence[Text]) -> tuple[Text, tuple[Text, ...]]:
        """Prompt and responses, all plain or all conversations, the prompt's turns in the prompt alone."""
        if isinstance(prompt, str) and all(isinstance(text, str) for text in texts):
            return prompt, tuple(texts)
        responses = tuple(as_messages(text, "assistant") for text in texts)
        if isinstance(prompt, str):
            shared = own_turns(responses)
            if shared:
                self.done["the prompt was taken from the conversations, not from its column"] += 1
                return responses[0][:shared], tuple(turns[shared:] for turns in responses)
            return as_messages(prompt, "user"), responses
        if prompt and all(len(turns) > len(prompt) and turns[: len(prompt)] == prompt for turns in responses):
            self.done["the prompt's messages stood before the responses too and were taken off"] += 1
            responses = tuple(turns[len(prompt) :] for turns in responses)
        return prompt, responses

    def _untold(self, texts: Sequence[Text]) -> tuple[Text, tuple[Text, ...]]:
        """The prompt that both of a pair begin with, and what follows it."""
        one, other = texts
        if isinstance(one, str) != isinstance(other, str):
            raise BadValueError("one response is a text and the other a conversation, and there is no prompt")
        self.done["the prompt is what chosen and rejected begin with"] += 1
        end = common_start(one, other)
        return one[:end], (one[end:], other[end:])

    def _scores_of(self, values: dict[str, Any]) -> tuple[float, ...] | None:
        if "scores" in self.layout.columns:
            return tuple(self._cell(values, "scores", self._numbers))
        if "ranks" in self.layout.columns:
            return tuple(-rank for rank in self._cell(values, "ranks", self._numbers))
        return None

    def _label_of(self, values: dict[str, Any]) -> bool | None:
        return self._cell(values, "label", self._label) if self.layout.kind == UNPAIRED else None

    def _rewards_of(self, values: dict[str, Any], count: int) -> tuple[tuple[float, ...], ...] | None:
        if self.layout.kind != MULTI_REWARD_LISTS:
            return None
        if self.layout.rewards:
            by_name = {name: self._column(values, column, self._many) for name, column in self.layout.rewards.items()}
        else:
            by_name = self._cell(values, "rewards", lambda value: self._by_name(value, count))
        for name, of_responses in by_name.items():
            if len(of_responses) != count:
                column = self.layout.rewards.get(name, self.layout.columns.get("rewards", name))
                raise BadCellError(column, BadValueError(f"{len(of_responses)} values for {count} responses"))
        if not self.reward_names:
            self.reward_names = tuple(by_name)
        if set(by_name) != set(self.reward_names):
            raise BadCellError(
                self.layout.columns.get("rewards", "rewards"),
                BadValueError(
                    f"the rewards {', '.join(by_name)} where the rows before have {', '.join(self.reward_names)}"
                ),
            )
        return tuple(tuple(by_name[name][place] for name in self.reward_names) for place in range(count))

    def _by_name(self, value: Any, count: int) -> dict[str, list[float]]:
        """Rewards by their names, each with a value a response, from any of the ways in which they are written."""
        if isinstance(value, dict):
            return {str(name): self._many(each) for name, each in value.items()}
        each_response = self._list(value)
        if each_response and all(isinstance(each, dict) for each in each_response):
            first = list(each_response[0])
            if any(set(each) != set(first) for each in each_response):
                raise BadValueError("the responses do not have the same rewards")
            return {str(name): [self._score(each[name]) for each in each_response] for name in first}
        if count == 1 and not any(isinstance(each, (list, tuple)) for each in each_response):
            each_response = [each_response]
        rows = [self._many(each) for each in each_response]
        if len({len(row) for row in rows}) > 1:
            raise BadValueError("the responses do not have the same number of rewards")
        names = numbered_names(len(rows[0]) if rows else 0)
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}

    def _cell(self, values: dict[str, Any], role: str, check: Callable[[Any], Any]) -> Any:
        return self._column(values, self.layout.columns[role], check)

    def _column(self, values: dict[str, Any], column: str, check: Callable[[Any], Any]) -> Any:
        try:
            return check(reached(values, column))
        except BadValueError as error:
            raise BadCellError(column, error) from error

    def _maybe(self, values: dict[str, Any], role: str, check: Callable[[Any], Any]) -> Any:
        """What a column says that need not be there, or may be empty."""
        column = self.layout.columns.get(role)
        if column is None or (column.split(".")[0] not in values and column not in values):
            return None
        if reached(values, column) in (None, ""):
            return None
        return self._column(values, column, check)

    def _text(self, value: Any) -> Text:
        if isinstance(value, (list, tuple)):
            return self._conversation(value)
        if isinstance(value, dict):
            if {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys():
                return (self._message(value),)
            raise BadValueError(
                "an object where a text or messages with role and content are needed",
                hint="name the part that is meant, as in --columns responses=responses.text",
            )
        if not isinstance(value, str):
            raise BadValueError(f"{kind_of(value)} where a text or a list of messages is needed")
        return str(self._plain(value))

    def _texts(self, value: Any) -> list[Text]:
        return [self._text(each) for each in self._list(value)]

    def _conversation(self, value: Any) -> tuple[Message, ...]:
        turns = self._list(value)
        if not turns:
            raise BadValueError("an empty list where messages are needed")
        return tuple(map(self._message, turns))

    def _message(self, value: Any) -> Message:
        if not isinstance(value, dict):
            raise BadValueError(f"{kind_of(value)} where a message with role and content is needed")
        if "role" not in value and "from" in value:
            role, content = value["from"], value.get("value")
            role = _SPEAKERS.get(role, role) if isinstance(role, str) else None
        else:
            role, content = value.get("role"), value.get("content")
        if not isinstance(role, str) or not role:
            raise BadValueError("a message has no role")
        if value.get("tool_calls"):
            raise BadValueError("a message calls tools, which are not read")
        if isinstance(content, (list, tuple)):
            if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
                raise BadValueError("a message holds more than text (images, sounds), which is not read")
            content = "".join(part["text"] for part in content)
        return {"role": self._plain(role), "content": self._plain(content)}

    def _list(self, value: Any) -> list[Any]:
        if isinstance(value, str) and not self._typed:
            try:
                value = json.loads(value)
            except ValueError as error:
                raise BadValueError(f"{kind_of(value)} where a list, written as JSON, is needed") from error
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise BadValueError(f"{kind_of(value)} where a list is needed")
        return list(value)

    def _numbers(self, value: Any) -> list[float]:
        return [self._score(each) for each in self._list(value)]

    def _many(self, value: Any) -> list[float]:
        """A list of numbers, or one number, of one response."""
        single = isinstance(value, numbers.Number) or (isinstance(value, str) and not value.lstrip().startswith("["))
        return [self._score(value)] if single else self._numbers(value)

    def _label(self, value: Any) -> bool:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        word = str(value).strip().casefold()
        if isinstance(value, (str, numbers.Integral)) and word in (*_TRUE, *_FALSE):
            return word in _TRUE
        raise BadValueError(f"{kind_of(value)} where true (a good answer) or false is needed")


def reached(values: Any, path: str) -> Any:
    """What lies at ``path`` in a row: a column, or ``column.name.name``, through lists to each of their items.

    Raises :class:`~nearfar.data.values.BadValueError` where there is nothing.
    """
    if isinstance(values, dict) and path in values:
        return values[path]
    first, _, rest = path.partition(".")
    if isinstance(values, (list, tuple)):
        return [reached(value, path) for value in values]
    if not isinstance(values, dict) or first not in values or not rest:
        there = f" (there are: {', '.join(map(str, list(values)[:8])) or 'none'})" if isinstance(values, dict) else ""
        raise BadValueError(f"{first!r} is missing{there}")
    return reached(values[first], rest)


def _second(value: Any) -> bool:
    word = str(value).strip().casefold()
    if isinstance(value, (bool, np.bool_)) or word not in (*_FIRST, *_SECOND):
        raise BadValueError(
            f"{kind_of(value)} where 1 or 2 is needed: which of the two is better",
            hint="where 0 and 1 are meant, write 1 and 2; a tie prefers none and makes no pair",
        )
    return word in _SECOND
