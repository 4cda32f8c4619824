"""From prompts and responses to the texts a tokenizer reads, and which tokens begin and end them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.data.preferences.prompts import common_length
from nearfar.data.preferences.rows import Message, PreferenceRow, Text, as_messages
from nearfar.errors import DataError, UsageError

SHARED, PARTED, OPEN, REPEATED = "shared-tokens", "template-parts", "template-leaves-open", "repeated-eos"
SEEN = {
    SHARED: "rows whose prompt and response share a token, which counts as the response's",
    PARTED: "rows whose chat template writes the prompt otherwise when an answer follows; the response begins there",
    OPEN: "responses of conversations that the template does not close; the end-of-sequence token was added",
    REPEATED: "responses with the end-of-sequence token several times at their end; one was kept",
}
"""What is met while tokenising, by name."""


@dataclass(frozen=True)
class Rendered:
    """The texts of a row: ``prompt``, and prompt and response together for each response (``whole [K]``).

    ``conversational``: whether a chat template wrote them. ``seen``: names of :data:`SEEN`.
    """

    prompt: str
    whole: tuple[str, ...]
    conversational: bool = False
    seen: tuple[str, ...] = ()


def rendered(row: PreferenceRow, tokenizer: Any, chat_template: str | None = None) -> Rendered:
    """The texts of ``row``: of plain ones the texts themselves, of conversations what the chat template writes.

    Raises :class:`~nearfar.errors.UsageError` where there is no template, :class:`~nearfar.errors.DataError` where it
    refuses the conversation.
    """
    if not row.conversational:
        assert isinstance(row.prompt, str)
        return Rendered(row.prompt, tuple(row.prompt + str(response) for response in row.responses))
    turns = as_messages(row.prompt, "user")
    prompt = _written(turns, tokenizer, chat_template, row.where, opens=True) if turns else ""
    whole = tuple(
        _written((*turns, *as_messages(response, "assistant")), tokenizer, chat_template, row.where)
        for response in row.responses
    )
    shared = prompt[: min(common_length(prompt, each) for each in whole)]
    return Rendered(shared, whole, True, (PARTED,) if len(shared) < len(prompt) else ())


def rendered_prompt(prompt: Text, tokenizer: Any, chat_template: str | None = None) -> str:
    """The text of a prompt that is to be answered."""
    if isinstance(prompt, str):
        return prompt
    return _written(prompt, tokenizer, chat_template, "", opens=True)


def _written(
    turns: Sequence[Message], tokenizer: Any, chat_template: str | None, where: str, *, opens: bool = False
) -> str:
    """The text of a conversation; ``opens``: with what opens the answer, or, where the assistant spoke last, open."""
    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        raise UsageError(
            "these are conversations, and the tokenizer has no chat template to write them with",
            where=where or None,
            hint="take the tokenizer of an instructed model, name a template, or give prompt and response as texts",
        )
    spoke = opens and turns[-1]["role"] == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=chat_template,
                tokenize=False,
                add_generation_prompt=opens and not spoke,
                continue_final_message=spoke,
            )
        )
    except Exception as error:  # a template is a program of its own and raises what it likes
        raise DataError(
            f"the chat template refuses this conversation: {error}",
            where=where or None,
            hint="mend the roles (nearfar data check shows them), or name another template",
        ) from error


class Ends:
    """The tokens that begin and end what a tokenizer reads.

    ``bos``, ``eos``: None where there is none. ``first``: the ``bos`` of a tokenizer that puts it before a plain text.
    ``closing``: special tokens with which a chat template may close a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        read = tokenizer("a", verbose=False)["input_ids"]
        self.first = self.bos if read and read[0] == self.bos else None
        names = ("bos_token_id", "unk_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
        never = {getattr(tokenizer, name, None) for name in names}
        self.closing = frozenset(tokenizer.all_special_ids) - never | ({self.eos} - {None})
        self._tokenizer = tokenizer
        self._blank: dict[int, bool] = {}

    def begun(self, prompt: list[int]) -> list[int]:
        """``prompt`` with the begin-of-sequence token where it is asked for, or where there would be no token."""
        if self.first is not None and prompt[:1] != [self.first]:
            return [self.first, *prompt]
        if not prompt:
            start = self.eos if self.bos is None else self.bos
            return [] if start is None else [start]
        return prompt

    def ended(self, response: list[int], *, closes: bool) -> tuple[list[int], str | None]:
        """``response`` with one end-of-sequence token, and the name in :data:`SEEN` of what was done to it.

        ``closes``: whether a chat template wrote it, which may close it with another special token.
        """
        last = len(response)
        while last and self._is_blank(response[last - 1]):
            last -= 1
        if last and (response[last - 1] == self.eos or (closes and response[last - 1] in self.closing)):
            kept = last
            while kept > 1 and response[kept - 2] == response[last - 1]:
                kept -= 1
            return response[:kept], REPEATED if kept < last else None
        if self.eos is None:
            return response, None
        return [*response, self.eos], OPEN if closes else None

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = token not in self.closing and not self._tokenizer.decode([token]).strip()
        return self._blank[token]
