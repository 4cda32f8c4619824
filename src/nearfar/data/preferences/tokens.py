"""The one place where prompts and responses become token ids.

A response is what follows the prompt in the tokens of both together, and ends with the end-of-sequence token::

    from nearfar.data.preferences import Budget, read_preferences, tokenise

    tokenised = tokenise(read_preferences("prefs.jsonl"), tokenizer, budget=Budget(prompt=512, response=256))
    print(tokenised.describe())
    print(tokenised.marked(0))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.data.description import counted
from nearfar.data.preferences.prompts import common_length
from nearfar.data.preferences.rendering import PARTED, SEEN, SHARED, Ends, Rendered, rendered, rendered_prompt
from nearfar.data.preferences.rows import PreferenceRow, Text
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

Tokens = npt.NDArray[np.int32]
_BLOCK = 256

EMPTY_RESPONSE, NO_START = "a response without tokens", "a prompt without tokens, and no token to begin with"


@dataclass(frozen=True)
class Budget:
    """How many tokens prompts and responses may have; None for any number.

    ``prompt``: of the prompt, its begin-of-sequence token included; default 512. ``response``: of each response, its
    end-of-sequence token included; default 512. ``side``: where a prompt is cut that is longer, ``"left"`` (default:
    its beginning goes, but for the begin-of-sequence token where the tokenizer asks for one; its end is what is
    answered) or ``"right"``. Responses lose their end.
    """

    prompt: int | None = 512
    response: int | None = 512
    side: str = "left"

    def __post_init__(self) -> None:
        for name in ("prompt", "response"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"the budget of a {name} is at least one token", where=f"{name}={value}")
        if self.side not in ("left", "right"):
            raise UsageError("prompts are cut at the left or the right", where=f"side={self.side!r}")

    def cut_prompt(self, tokens: list[int], bos: int | None) -> list[int]:
        """``tokens`` within the budget; ``bos``, where they begin with it, stays at their beginning, once."""
        if self.prompt is None or len(tokens) <= self.prompt:
            return tokens
        if self.side == "right":
            return tokens[: self.prompt]
        if tokens[0] == bos and self.prompt > 1:
            kept = tokens[len(tokens) - self.prompt + 1 :]
            return kept if kept[0] == bos else [bos, *kept]
        return tokens[len(tokens) - self.prompt :]


@dataclass(frozen=True)
class TokenisedRow:
    """The tokens of one prompt and of its ``K`` responses.

    ``prompt [P]``, ``responses`` (each ``[L_k]``): int32 ids. The prompt holds at least one token, so that the first of
    a response has something before it; the response's end-of-sequence token counts. ``cut_prompt``, ``cut [K]``:
    whether tokens were left out to keep the budget.
    """

    prompt: Tokens
    responses: tuple[Tokens, ...]
    cut_prompt: bool = False
    cut: tuple[bool, ...] = ()

    def digest(self) -> bytes:
        """16 bytes that are equal for rows of equal tokens."""
        pieces = (self.prompt, *self.responses)
        whole = blake2b(np.array([len(piece) for piece in pieces], "<i8").tobytes(), digest_size=16)
        for piece in pieces:
            whole.update(np.ascontiguousarray(piece, "<i4").tobytes())
        return whole.digest()


class TokenisedPreferences(Sequence[TokenisedRow]):
    """Token ids of a whole set of preferences, in one flat array.

    ``index [n]`` int64: the row of the data of each row kept. ``dropped``: reason -> places of rows left out.
    ``seen``: name in :data:`~nearfar.data.preferences.rendering.SEEN` -> how many rows (or responses). ``budget``: what
    was allowed. ``tokens``: all ids, int32; ``offsets``: where pieces begin, int64 ``[pieces + 1]``; ``first [n + 1]``:
    the piece that is each row's prompt, its responses follow; ``cut``: whether a piece was cut.
    """

    index: npt.NDArray[np.int64]  # type: ignore[assignment]

    def __init__(
        self,
        tokens: Tokens,
        offsets: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        cut: npt.NDArray[np.bool_],
        index: npt.NDArray[np.int64],
        *,
        budget: Budget,
        tokenizer: Any,
        dropped: Mapping[str, Sequence[str]] | None = None,
        seen: Mapping[str, int] | None = None,
    ) -> None:
        self.tokens, self.offsets, self.first, self.cut, self.index = tokens, offsets, first, cut, index
        self.budget, self.tokenizer = budget, tokenizer
        self.dropped = {reason: list(places) for reason, places in (dropped or {}).items()}
        self.seen = dict(seen or {})

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, index: Any) -> Any:
        """A row, or of a slice a list of rows."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        begin, end = int(self.first[place]), int(self.first[place + 1])
        prompt, *responses = (self.tokens[self.offsets[piece] : self.offsets[piece + 1]] for piece in range(begin, end))
        cut_prompt, *cut = self.cut[begin:end].tolist()
        return TokenisedRow(prompt, tuple(responses), cut_prompt, tuple(cut))

    def take(self, rows: Sequence[int] | npt.NDArray[Any]) -> TokenisedPreferences:
        """The rows with these numbers (from 0, of those kept), in this order; what was dropped is not told again."""
        held = _Flat()
        for row in rows:
            held.add(self[int(row)], int(self.index[int(row)]))
        return held.sealed(budget=self.budget, tokenizer=self.tokenizer)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many tokens each piece has: a row's prompt, then its responses, row after row."""
        return np.diff(self.offsets)

    @cached_property
    def is_prompt(self) -> npt.NDArray[np.bool_]:
        """Which pieces are prompts."""
        found = np.zeros(len(self.offsets) - 1, bool)
        found[self.first[:-1]] = True
        return found

    @property
    def counts(self) -> dict[str, int]:
        """How many rows, responses, tokens; how many were cut and dropped."""
        prompts = self.is_prompt
        return {
            "rows": len(self),
            "responses": int((~prompts).sum()),
            "prompt tokens": int(self.lengths[prompts].sum()),
            "response tokens": int(self.lengths[~prompts].sum()),
            "prompts cut": int(self.cut[prompts].sum()),
            "responses cut": int(self.cut[~prompts].sum()),
            "rows dropped": sum(map(len, self.dropped.values())),
        }

    def describe(self) -> str:
        """What was counted, cut and dropped, in plain words."""
        counts, prompts = self.counts, self.is_prompt
        lines = [f"tokens: {counts['rows']:,} rows of {counted(counts['responses'], 'response')}"]
        for what, chosen, limit in (
            ("prompt", prompts, self.budget.prompt),
            ("response", ~prompts, self.budget.response),
        ):
            lengths = self.lengths[chosen]
            if len(lengths):
                cut = int(self.cut[chosen].sum())
                told = f", {cut:,} cut to the budget of {limit:,} ({100 * cut / len(lengths):.1f} %)" if cut else ""
                median = f"{np.median(lengths):g}"
                lines.append(f"  {what}s: {lengths.min():,} to {lengths.max():,} tokens, median {median}{told}")
        for reason, places in self.dropped.items():
            some = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
            lines.append(f"  {counted(len(places), 'row')} dropped: {reason} ({some})")
        lines += [f"  {SEEN[what]}: {times:,}" for what, times in self.seen.items()]
        return "\n".join(lines)

    def marked(self, row: int) -> str:
        """The text of a row as the model reads it, a response a line, ``[[`` and ``]]`` around what counts."""
        tokens = self[row]
        prompt = self.tokenizer.decode(tokens.prompt.tolist())
        head = ("..." if tokens.cut_prompt else "") + prompt
        lines = []
        for response, cut in zip(tokens.responses, tokens.cut or [False] * len(tokens.responses), strict=True):
            lines.append(f"{head}[[{self.tokenizer.decode(response.tolist())}]]" + ("..." if cut else ""))
        return "\n".join(lines)

    def sha256(self) -> str:
        """A digest of all rows' tokens, in order."""
        whole = sha256()
        for values, kind in ((self.tokens, "<i4"), (self.offsets, "<i8"), (self.first, "<i8")):
            whole.update(np.ascontiguousarray(values, kind).tobytes())
        return whole.hexdigest()


def tokenise(
    data: Sequence[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    budget: Budget | None = None,
    chat_template: str | None = None,
) -> TokenisedPreferences:
    """The tokens of all rows of ``data``.

    - Plain texts are taken as they are. A conversation is written by the chat template (``chat_template``, or the
      tokenizer's): the prompt with what opens an answer, and prompt and response together.
    - Prompt and response are tokenised together, and the response begins where the tokens of the prompt alone end.
      Where tokens merge over that place, or the template writes the prompt otherwise when an answer follows, it begins
      where the first of the row's responses parts from the prompt alone (TRL's rule); such rows are counted in
      ``seen``.
    - The begin-of-sequence token stands first exactly once where the tokenizer asks for one; a prompt without any
      token gets it (or the end-of-sequence token) too.
    - A response ends with the end-of-sequence token exactly once, unless it was cut. White space behind one that is
      there is left out. A conversation that its template closes with another special token ends with that.
    - Prompts and responses are cut to ``budget``, default :class:`Budget`; what one response has does not depend on how
      long another is. Rows with a response without tokens are dropped.

    Raises :class:`~nearfar.errors.DataError` where no row is left and for a conversation that the template refuses,
    :class:`~nearfar.errors.UsageError` where there are conversations and no chat template.
    """
    budget = Budget() if budget is None else budget
    ends = Ends(tokenizer)
    held = _Flat()
    dropped: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    place = 0
    for block in _blocks(data):
        written = [rendered(row, tokenizer, chat_template) for row in block]
        for row, parts in zip(block, _pieces(written, tokenizer, ends), strict=True):
            for what in parts.seen:
                seen[what] = seen.get(what, 0) + 1
            if not parts.prompt or not all(parts.responses):
                reason = EMPTY_RESPONSE if parts.prompt else NO_START
                dropped.setdefault(reason, []).append(row.where or f"row {place + 1}")
            else:
                held.add(_within(parts, budget, ends.first), place)
            place += 1
    if not len(held):
        reasons = ", ".join(f"{reason} ({len(places):,})" for reason, places in dropped.items()) or "there are none"
        raise DataError(f"no row is left to train on: {reasons}")
    return held.sealed(budget=budget, tokenizer=tokenizer, dropped=dropped, seen=seen)


def tokenise_prompts(
    prompts: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    *,
    budget: Budget | None = None,
    chat_template: str | None = None,
) -> list[Tokens]:
    """The tokens of prompts to be answered, each int32 ``[P]``, by the rules of :func:`tokenise`."""
    budget = Budget() if budget is None else budget
    ends = Ends(tokenizer)
    texts = [rendered_prompt(prompt, tokenizer, chat_template) for prompt in prompts]
    found = [ends.begun(tokens) for tokens in _encoded(tokenizer, texts)]
    for place, tokens in enumerate(found):
        if not tokens:
            raise DataError(NO_START, where=f"prompt {place + 1}")
    return [np.array(budget.cut_prompt(tokens, ends.first), np.int32) for tokens in found]


@dataclass
class _Parts:
    """The tokens of a row before they are cut, and what was met."""

    prompt: list[int]
    responses: list[list[int]]
    seen: list[str] = field(default_factory=list)


def _blocks(data: Sequence[PreferenceRow]) -> Iterator[list[PreferenceRow]]:
    block: list[PreferenceRow] = []
    for row in data:
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """The ids of each text, without tokens that stand for its ends."""
    if not texts:
        return []
    # Too long for the model is what budgets are for.
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _pieces(written: Sequence[Rendered], tokenizer: Any, ends: Ends) -> Iterator[_Parts]:
    """Tokenise a block of rows with one call."""
    ids = iter(_encoded(tokenizer, [text for row in written for text in (row.prompt, *row.whole)]))
    for row in written:
        prompt = next(ids)
        whole = [next(ids) for _ in row.whole]
        end = min(common_length(prompt, each) for each in whole)
        seen = list(row.seen)
        if end < len(prompt) and PARTED not in seen:
            seen.append(SHARED)
        begun = ends.begun(prompt[:end])
        responses = []
        for each in whole:
            response, how = ends.ended(each[end:], closes=row.conversational)
            responses.append(response)
            seen += [how] if how else []
        yield _Parts(begun, responses, seen)


def _within(parts: _Parts, budget: Budget, bos: int | None) -> TokenisedRow:
    prompt = budget.cut_prompt(parts.prompt, bos)
    responses = [response[: budget.response] for response in parts.responses]
    return TokenisedRow(
        np.array(prompt, np.int32),
        tuple(np.array(response, np.int32) for response in responses),
        len(prompt) < len(parts.prompt),
        tuple(len(kept) < len(all_of_it) for kept, all_of_it in zip(responses, parts.responses, strict=True)),
    )


class _Flat:
    """Rows on their way into one flat array."""

    def __init__(self) -> None:
        self._tokens: list[Tokens] = []
        self._lengths: list[int] = []
        self._first: list[int] = [0]
        self._cut: list[bool] = []
        self._index: list[int] = []

    def __len__(self) -> int:
        return len(self._index)

    def add(self, row: TokenisedRow, index: int) -> None:
        pieces = (row.prompt, *row.responses)
        self._tokens += pieces
        self._lengths += map(len, pieces)
        self._cut += [row.cut_prompt, *(row.cut or [False] * len(row.responses))]
        self._first.append(len(self._lengths))
        self._index.append(index)

    def sealed(self, **beside: Any) -> TokenisedPreferences:
        return TokenisedPreferences(
            np.concatenate([np.zeros(0, np.int32), *self._tokens]).astype(np.int32, copy=False),
            np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]).astype(np.int64),
            np.array(self._first, np.int64),
            np.array(self._cut, bool),
            np.array(self._index, np.int64),
            **beside,
        )
