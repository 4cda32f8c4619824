"""Preferences as rows: a prompt, the responses to it, and what is known of how good they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from nearfar.data.fingerprints import Hashes, table_sha256, text_hashes
from nearfar.data.grouping import held_out_groups
from nearfar.data.log import BadRow
from nearfar.data.store import in_memory
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

Message = Mapping[str, str]
"""One turn of a conversation: ``{"role": "user", "content": "..."}``."""

Text = str | tuple[Message, ...]
"""A plain text, or a conversation."""

PAIRS, UNPAIRED, LISTS = "pairs", "unpaired", "lists"
MULTI_REWARD_LISTS, DEMONSTRATIONS = "multi-reward lists", "demonstrations"
KINDS = (PAIRS, UNPAIRED, LISTS, MULTI_REWARD_LISTS, DEMONSTRATIONS)

_SCAN_ROWS = 4096


@dataclass(frozen=True)
class PreferenceRow:
    """One prompt with its ``K`` responses.

    ``prompt``, ``responses``: texts or conversations (see :data:`Text`). ``scores [K]``: one number a response, higher
    is better. ``rewards [K][R]``: several numbers a response, higher is better; their names are the set's.
    ``label``: whether the one response is a good one (unpaired). ``margin``: by how much the first of a pair is better,
    >= 0 where the data agrees with itself. ``where``: the place it came from, ``file:line``; empty for rows made in
    Python.

    ==========================  =================  ====================================
    kind of the set             ``responses``      also there
    ==========================  =================  ====================================
    ``"pairs"``                 chosen, rejected   ``margin`` and ``scores``, perhaps
    ``"unpaired"``              one                ``label``
    ``"lists"``                 K >= 1             ``scores``
    ``"multi-reward lists"``    K >= 1             ``rewards``; ``scores``, perhaps
    ``"demonstrations"``        one
    ==========================  =================  ====================================
    """

    prompt: Text
    responses: tuple[Text, ...]
    scores: tuple[float, ...] | None = None
    rewards: tuple[tuple[float, ...], ...] | None = None
    label: bool | None = None
    margin: float | None = None
    where: str = ""

    @property
    def conversational(self) -> bool:
        """Whether any part is a conversation, which a chat template turns into a text."""
        return not all(isinstance(text, str) for text in (self.prompt, *self.responses))


def as_messages(text: Text, role: str) -> tuple[Message, ...]:
    """``text`` as a conversation: a plain one becomes a message of ``role``, an empty one none."""
    if not isinstance(text, str):
        return text
    return ({"role": role, "content": text},) if text else ()


def plain(text: Text) -> str:
    """``text`` as one string to show and to compare: the turns of a conversation as ``role: content`` lines."""
    return text if isinstance(text, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in text)


class PreferenceSet(Sequence[PreferenceRow]):
    """Rows of one kind. They are kept as bytes, mapped from disk where they were read, and made when asked for.

    ``kind``: one of :data:`KINDS`. ``reward_names [R]``: what the ``rewards`` are called; empty without any.
    ``source``: the files read. ``columns``: role -> column of the files. ``ignored``: columns that were not used.
    ``notes``: what was done while reading, in words. ``bad_rows``: those that were skipped.
    """

    def __init__(
        self,
        table: pa.Table,
        kind: str,
        *,
        reward_names: Sequence[str] = (),
        source: Sequence[Path] = (),
        columns: Mapping[str, str] | None = None,
        ignored: Sequence[str] = (),
        notes: Sequence[str] = (),
        bad_rows: Sequence[BadRow] = (),
        blank_lines: int = 0,
    ) -> None:
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of preferences", hint=f"the kinds are {', '.join(KINDS)}")
        self.kind = kind
        self.reward_names = tuple(reward_names)
        self.source, self.columns, self.ignored = tuple(source), dict(columns or {}), tuple(ignored)
        self.notes, self.bad_rows, self.blank_lines = list(notes), list(bad_rows), blank_lines
        self._table = table
        self._content, self._where = table.column("row"), table.column("where")

    @classmethod
    def from_rows(cls, kind: str, rows: Iterable[PreferenceRow], *, reward_names: Sequence[str] = ()) -> PreferenceSet:
        """A set of rows made in Python.

        ``reward_names``: default ``reward 1``, ``reward 2``, ... where rows have rewards. Raises
        :class:`~nearfar.errors.DataError` for a row that is not of this ``kind``.
        """
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of preferences", hint=f"the kinds are {', '.join(KINDS)}")
        held: dict[str, list[Any]] = {"row": [], "where": []}
        names = tuple(reward_names)
        for number, row in enumerate(rows, 1):
            if not names and row.rewards:
                names = numbered_names(len(row.rewards[0]))
            if reason := fault(row, kind, len(names)):
                raise DataError(f"this row cannot be used: {reason}", where=row.where or f"row {number}")
            held["row"].append(encoded(row))
            held["where"].append(row.where)
        return cls(in_memory(held), kind, reward_names=names)

    def __len__(self) -> int:
        return len(self._content)

    @overload
    def __getitem__(self, index: int) -> PreferenceRow: ...

    @overload
    def __getitem__(self, index: slice) -> PreferenceSet: ...

    def __getitem__(self, index: int | slice) -> PreferenceRow | PreferenceSet:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return decoded(self._content[place].as_py(), self._where[place].as_py())

    def __iter__(self) -> Iterator[PreferenceRow]:
        for batch in self._table.to_batches(_SCAN_ROWS):
            for content, where in zip(batch.column("row").to_pylist(), batch.column("where").to_pylist(), strict=True):
                yield decoded(content, where)

    def take(self, rows: Sequence[int] | npt.NDArray[Any] | range) -> PreferenceSet:
        """The rows with these numbers (from 0), in this order."""
        return self._with(self._table.take(np.asarray(rows, np.int64)))

    def _with(self, table: pa.Table) -> PreferenceSet:
        return PreferenceSet(
            table, self.kind, reward_names=self.reward_names, source=self.source, columns=self.columns,
            ignored=self.ignored, notes=self.notes,
        )  # fmt: skip

    def sha256(self) -> str:
        """A digest of kind, names and content, in order; the same wherever the rows came from."""
        return table_sha256(self._table.select(["row"]), "\0".join((self.kind, *self.reward_names)))

    @cached_property
    def prompt_hashes(self) -> Hashes:
        """One number a prompt, ``[n]`` uint64: equal for prompts that are equal but for case, width and white space."""
        return text_hashes(plain(row.prompt) for row in self)

    def split(self, share: float, seed: int = 0) -> tuple[PreferenceSet, PreferenceSet]:
        """Two parts at random, both in the order of the rows: what is left, and about ``share`` to hold out.

        Rows with the same prompt (see :attr:`prompt_hashes`) stay together, so that no prompt is on both sides. Raises
        :class:`~nearfar.errors.UsageError` for a share outside of (0, 1), :class:`~nearfar.errors.DataError` where
        there is only one prompt.
        """
        out = held_out_groups(self.prompt_hashes, share, seed, by="prompt")
        return self.take(np.flatnonzero(~out)), self.take(np.flatnonzero(out))

    def describe(self, width: int = 100) -> str:
        """What was understood, in plain words, with the first row; texts cut at ``width``."""
        # The description knows this class.
        from nearfar.data.preferences import description

        return description.describe(self, width)

    def pairs_of_lists(self, which: str = "all", *, reward: str | None = None) -> PreferenceSet:
        """The pairs that lists hold: of two responses of one prompt the one with the higher score is chosen.

        ``which``: ``"all"`` pairs of different scores, best first, or ``"best-worst"``: the best with the worst alone.
        ``reward``: the name of the reward to go by, where there are several; default the ``scores``. Pairs get the two
        scores and their difference as margin; equal scores make no pair. Pairs stay as they are.

        Raises :class:`~nearfar.errors.UsageError` for sets of other kinds or a reward that is not there.
        """
        if self.kind == PAIRS:
            return self
        self._want(LISTS, MULTI_REWARD_LISTS)
        if which not in ("all", "best-worst"):
            raise UsageError(f"which must be 'all' or 'best-worst', not {which!r}")
        return self._derived(PAIRS, (pair for row in self for pair in _pairs(row, self._scores(row, reward), which)))

    def unpaired(self) -> PreferenceSet:
        """Each pair as two rows: its chosen response with the label true, its rejected one with false."""
        if self.kind == UNPAIRED:
            return self
        self._want(PAIRS)
        return self._derived(
            UNPAIRED,
            (
                PreferenceRow(row.prompt, (response,), label=label, where=row.where)
                for row in self
                for response, label in zip(row.responses, (True, False), strict=True)
            ),
        )

    def demonstrations(self, *, reward: str | None = None) -> PreferenceSet:
        """What is worth imitating: chosen responses, those with the label true, the best of each list (the first of
        equal ones; ``reward`` as in :meth:`pairs_of_lists`)."""
        if self.kind == DEMONSTRATIONS:
            return self
        return self._derived(DEMONSTRATIONS, self._good(reward))

    def _good(self, reward: str | None) -> Iterator[PreferenceRow]:
        for row in self:
            if self.kind == UNPAIRED and not row.label:
                continue
            place = 0
            if self.kind in (LISTS, MULTI_REWARD_LISTS):
                scores = self._scores(row, reward)
                place = scores.index(max(scores))
            yield PreferenceRow(row.prompt, (row.responses[place],), where=row.where)

    def _derived(self, kind: str, rows: Iterable[PreferenceRow]) -> PreferenceSet:
        made = PreferenceSet.from_rows(kind, rows)
        made.source, made.columns, made.notes = self.source, dict(self.columns), [*self.notes, f"made of {self.kind}"]
        return made

    def _scores(self, row: PreferenceRow, reward: str | None) -> tuple[float, ...]:
        if reward is not None:
            if reward not in self.reward_names or row.rewards is None:
                raise UsageError(
                    f"there is no reward {reward!r}", hint=f"the rewards are {', '.join(self.reward_names) or 'none'}"
                )
            place = self.reward_names.index(reward)
            return tuple(rewards[place] for rewards in row.rewards)
        if row.scores is None:
            raise UsageError(
                "these lists have several rewards and no score to order them by",
                hint=f"name the reward to go by: {', '.join(self.reward_names)}",
            )
        return row.scores

    def _want(self, *kinds: str) -> None:
        if self.kind not in kinds:
            raise UsageError(f"this is made of {' or '.join(kinds)}, and these are {self.kind}")


def _pairs(row: PreferenceRow, scores: tuple[float, ...], which: str) -> Iterator[PreferenceRow]:
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    if which == "best-worst":
        # The first of the best with the last of the worst, so that nothing hangs on the order of equal scores.
        order = [order[0], order[-1]] if len(order) > 1 else []
    for rank, better in enumerate(order):
        for worse in order[rank + 1 :]:
            if scores[better] > scores[worse]:
                yield PreferenceRow(
                    row.prompt,
                    (row.responses[better], row.responses[worse]),
                    scores=(scores[better], scores[worse]),
                    margin=scores[better] - scores[worse],
                    where=row.where,
                )


def numbered_names(count: int) -> tuple[str, ...]:
    """What rewards are called that have no names: ``reward 1``, ``reward 2``, ..."""
    return tuple(f"reward {number}" for number in range(1, count + 1))


def fault(row: PreferenceRow, kind: str, rewards: int = 0) -> str | None:
    """Why ``row`` is not of this ``kind`` (``rewards``: how many each response has), or None."""
    count = len(row.responses)
    wanted = {PAIRS: 2, UNPAIRED: 1, DEMONSTRATIONS: 1}.get(kind)
    if not count:
        return "there is no response"
    if wanted is not None and count != wanted:
        return f"{count} responses where {kind} have {wanted}"
    if kind == UNPAIRED and row.label is None:
        return "an unpaired response needs a label, true or false"
    if kind == LISTS and row.scores is None:
        return "a list needs a score for each response"
    if kind == MULTI_REWARD_LISTS and not row.rewards:
        return "a multi-reward list needs rewards for each response"
    if row.scores is not None and len(row.scores) != count:
        return f"{len(row.scores)} scores for {count} responses"
    if row.rewards is not None:
        if len(row.rewards) != count:
            return f"rewards of {len(row.rewards)} responses where there are {count}"
        odd = next((each for each in row.rewards if len(each) != rewards), None)
        if odd is not None:
            return f"{len(odd)} rewards of a response where there are {rewards}"
    numbers = [*(row.scores or ()), *(value for each in row.rewards or () for value in each)]
    numbers += [] if row.margin is None else [row.margin]
    wrong = next((value for value in numbers if not math.isfinite(value)), None)
    return None if wrong is None else f"the number {wrong} is not finite"


def encoded(row: PreferenceRow) -> str:
    """``row`` as one line of JSON, without its place."""
    values = {name: value for name, value in vars(row).items() if value is not None and name != "where"}
    return str(json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=dict))


def decoded(content: str, where: str) -> PreferenceRow:
    """The row that :func:`encoded` wrote."""
    values = json.loads(content)
    values["prompt"] = _text(values["prompt"])
    values["responses"] = tuple(map(_text, values["responses"]))
    if "scores" in values:
        values["scores"] = tuple(values["scores"])
    if "rewards" in values:
        values["rewards"] = tuple(map(tuple, values["rewards"]))
    return PreferenceRow(**values, where=where)


def _text(value: str | list[Message]) -> Text:
    return value if isinstance(value, str) else tuple(value)
