"""From preferences to batches: what an objective takes them for, their columns, and the tokens of a step's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar.alignment import columns as names
from nearfar.alignment.columns import Columns
from nearfar.alignment.needs import Need, Option, check_data
from nearfar.data.preferences.rows import DEMONSTRATIONS, LISTS, MULTI_REWARD_LISTS, PAIRS, UNPAIRED, PreferenceSet
from nearfar.data.preferences.tokens import TokenisedPreferences, TokenisedRow
from nearfar.errors import DataError, UsageError
from nearfar.negatives import Batches
from nearfar.objectives import Objective
from nearfar.training.method import Batch

Numbers = npt.NDArray[np.float64]


def suited(
    data: PreferenceSet, objective: Objective, need: Need, *, pairs_of: str = "all", reward: str | None = None
) -> PreferenceSet:
    """``data`` as ``objective`` takes it: lists as pairs, pairs as single responses, the good ones alone, ...

    Raises :class:`UsageError` for data that it cannot take, :class:`DataError` where nothing is left of them or the
    scores that it needs are not there.
    """
    check_data(objective, data.kind)
    made = data
    if need.reading in ("pairs", "sides") and data.kind in (LISTS, MULTI_REWARD_LISTS):
        made = data.pairs_of_lists(pairs_of, reward=reward)
    elif need.reading == "points" and data.kind == PAIRS and not need.rewards:
        made = data.unpaired()
    elif need.reading == "tokens":
        made = data.demonstrations(reward=reward)
    if not len(made):
        raise DataError(
            f"there is nothing to train {objective.name} on: these {data.kind} give no {made.kind}",
            where=", ".join(map(str, data.source)) or None,
        )
    if need.rewards and made.kind == PAIRS and made[0].scores is None:
        raise DataError(
            f"{objective.name} needs a score for each response, and these pairs have none",
            where=", ".join(map(str, data.source)) or None,
            hint="give columns score_chosen and score_rejected, or lists (prompt, responses, scores); "
            "`nearfar reward score` makes them",
        )
    if need.reading == "sides" and made.kind == UNPAIRED and getattr(objective, "weighting", "") == "diagonal":
        raise UsageError("rpo with diagonal weights needs pairs", hint="use weighting=embedding or weighting=uniform")
    return made


@dataclass
class Table:
    """Tokenised rows with their columns (see :class:`~nearfar.alignment.columns.Columns`), of a whole set."""

    tokens: TokenisedPreferences
    of_rows: dict[str, Tensor] = field(default_factory=dict)
    of_responses: dict[str, Tensor] = field(default_factory=dict)
    of_tokens: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pieces = torch.from_numpy(self.tokens.lengths)
        responses = torch.from_numpy(~self.tokens.is_prompt)
        self.of_rows[names.COUNT] = torch.from_numpy(np.diff(self.tokens.first) - 1)
        self.of_responses[names.LENGTH] = pieces[responses]
        self.of_responses[names.CUT] = torch.from_numpy(self.tokens.cut)[responses]
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), self.of_rows[names.COUNT].cumsum(0)])
        self.first_token = torch.cat([torch.zeros(1, dtype=torch.long), pieces[responses].cumsum(0)])

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def responses(self) -> int:
        """How many responses there are."""
        return int(self.first[-1])

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Tokens of each row's prompt and all its responses ``[n]``."""
        return np.asarray(np.add.reduceat(self.tokens.lengths, self.tokens.first[:-1]), np.int64)

    def batches(self, tokens: int) -> Iterator[list[int]]:
        """The numbers of all rows in batches of about so many ``tokens``, padding included, the longest first."""
        batch: list[int] = []
        sizes = self.sizes
        for row in np.argsort(-sizes, kind="stable").tolist():
            if batch and (len(batch) + 1) * sizes[batch[0]] > tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def columns(self, rows: Tensor | None = None) -> Columns:
        """The columns of these rows, or of all."""
        if rows is None:
            return Columns(self.of_rows, self.of_responses, self.of_tokens)
        responses = _ranges(self.first, rows)
        tokens = _ranges(self.first_token, responses) if self.of_tokens else None
        return Columns(
            {name: value[rows] for name, value in self.of_rows.items()},
            {name: value[responses] for name, value in self.of_responses.items()},
            {name: value[tokens] for name, value in self.of_tokens.items()},
        )


def _ranges(first: Tensor, chosen: Tensor) -> Tensor:
    """The numbers of the parts of what was chosen, one after another."""
    count = (first[1:] - first[:-1])[chosen]
    start = first[chosen] - (count.cumsum(0) - count)
    return torch.arange(int(count.sum())) + start.repeat_interleave(count)


def table(
    data: PreferenceSet,
    tokens: TokenisedPreferences,
    need: Need | None = None,
    options: Mapping[str, Option] | None = None,
    *,
    reward: str | None = None,
) -> Table:
    """The rows of ``data`` that were tokenised, with what ``need`` and ``options`` make of their scores and labels.

    Without a need (evaluation data) only sides and scores.
    """
    made = Table(tokens)
    sides: list[Numbers] = []
    scores: list[Numbers] = []
    margins: list[float | None] = []
    for place in tokens.index.tolist():
        row = data[place]
        margins.append(row.margin)
        values = _scores(row, data, reward)
        scores.append(values)
        sides.append(_sides(values, data.kind))
    made.of_responses[names.SIDE] = torch.from_numpy(np.concatenate(sides)).to(torch.int8)
    flat = np.concatenate(scores)
    if need is not None and need.reading == "rows":
        made.of_responses[names.GRADE] = _float(np.concatenate(_grades(scores, flat, need, dict(options or {}))))
    if options is not None and options.get("rewards") == "standardised" and flat.std() > 0:
        flat = (flat - flat.mean()) / flat.std()
    made.of_responses[names.SCORE] = _float(flat)
    if all(margin is not None for margin in margins):
        made.of_rows[names.MARGIN] = _float(np.array(margins, np.float64))
    return made


def _scores(row: Any, data: PreferenceSet, reward: str | None) -> Numbers:
    if data.kind == DEMONSTRATIONS:
        return np.ones(1)
    if data.kind == UNPAIRED:
        return np.array([float(row.label)])
    if reward is not None and row.rewards is not None:
        return np.array([each[data.reward_names.index(reward)] for each in row.rewards])
    if row.scores is not None:
        return np.array(row.scores)
    if data.kind == PAIRS:
        return np.array([1.0, 0.0])
    raise UsageError(
        "these lists have several rewards and no score to order them by",
        hint=f"name the reward to go by: --reward, one of {', '.join(data.reward_names)}",
    )


def _sides(scores: Numbers, kind: str) -> Numbers:
    if kind == PAIRS:
        return np.array([1.0, -1.0])
    if kind == UNPAIRED:
        return 2 * scores - 1
    if kind == DEMONSTRATIONS:
        return np.ones(1)
    best, worst = (scores == scores.max()), (scores == scores.min())
    sides: Numbers = best.astype(np.float64) - worst
    return sides


def _grades(scores: Sequence[Numbers], flat: Numbers, need: Need, options: Mapping[str, Option]) -> list[Numbers]:
    """What grade each response has: as ``options["grades"]`` says, or as the objective's kind has it."""
    if "right" in options:
        return [(each >= float(options["right"])).astype(np.float64) for each in scores]
    how = options.get("grades", "ranks" if not need.options or "weight" in need.options else "best")
    if how == "auto" and options.get("tokens") == "mean":  # IRPO: relevance, which need not stay below 1
        how = "scores" if flat.min() >= 0 else "ranks"
    elif how == "auto":  # LiPO's psi
        how = "scores" if flat.min() >= 0 and flat.max() <= 1 else "wins"
    if how == "scores":
        if flat.min() < 0:
            raise DataError(f"scores as grades are 0 or more, and one is {flat.min():g}", hint="use --set grades=wins")
        return list(scores)
    if how == "best":
        return [(each == each.max()).astype(float) * (each.max() > each.min()) for each in scores]
    if how == "ranks":
        return [np.unique(each, return_inverse=True)[1].astype(float) for each in scores]
    return [((each[:, None] > each).sum(1) + 0.5 * (each[:, None] == each).sum(1)) / len(each) for each in scores]


def _float(values: Numbers) -> Tensor:
    return torch.from_numpy(values).float()


class Mismatched(Sequence[TokenisedRow]):
    """Each row's prompt with a response to another prompt, which ``seed`` decides once: KTO's (its official code shifts
    the batch by one; a fixed partner lets the reference be a column)."""

    def __init__(self, tokens: TokenisedPreferences, seed: int) -> None:
        self.tokens = tokens
        order = np.random.default_rng([seed, 1]).permutation(len(tokens))
        self.partner = np.empty(len(tokens), np.int64)
        for place, row in enumerate(order):
            prompt = tokens[row].prompt
            following = (int(order[(place + step) % len(order)]) for step in range(1, len(order)))
            other = (each for each in following if not np.array_equal(tokens[each].prompt, prompt))
            self.partner[row] = next(other, row)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return TokenisedRow(self.tokens[index].prompt, (self.tokens[int(self.partner[index])].responses[0],))


class RowBatches(Batches):
    """Batches of rows, of which one is enough: its responses are contrasted with each other."""

    smallest_batch = 1


class ResponseBatches:
    """Batches of a :class:`Table`, as :class:`~nearfar.alignment.method.AlignmentMethod` reads them.

    ``batch(rows)``: ``"rows"`` int64 ``[b]``, the longest first; ``"chunks"``: their tokenised rows, in chunks of
    ``chunk_size`` rows of like length (None: all at once); ``"columns"``: the arguments of
    :class:`~nearfar.alignment.columns.Columns`; ``"mismatched"``: chunks of prompts with others' responses, where the
    objective asks for them.
    """

    def __init__(self, made: Table, *, chunk_size: int | None = None, mismatched: Mismatched | None = None) -> None:
        self.table = made
        self.chunk_size = chunk_size
        self.mismatched = mismatched
        self._sizes = made.sizes

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, rows: Any) -> Any:
        return rows

    def batch(self, rows: Any) -> Batch:
        """The batch of these rows."""
        index = np.asarray(rows, np.int64)
        index = index[np.argsort(-self._sizes[index], kind="stable")]
        columns = self.table.columns(torch.from_numpy(index))
        made: Batch = {
            "rows": torch.from_numpy(index),
            "chunks": self._chunks(self.table.tokens, index),
            "columns": {name: dict(getattr(columns, name)) for name in ("of_rows", "of_responses", "of_tokens")},
        }
        if self.mismatched is not None:
            made[names.MISMATCHED] = self._chunks(self.mismatched, index)
        return made

    def _chunks(self, tokens: Sequence[TokenisedRow], index: npt.NDArray[np.int64]) -> list[list[TokenisedRow]]:
        size = self.chunk_size or len(index)
        return [[tokens[row] for row in index[start : start + size].tolist()] for start in range(0, len(index), size)]
