"""Pairs that were built and not labelled: where each came from, what was dropped, and how right they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from nearfar.alignment.builders.writing import Judge, response_to
from nearfar.data.preferences.rows import PAIRS, PreferenceRow, PreferenceSet, Text
from nearfar.errors import DataError
from nearfar.evaluation.measures import Measure

IDENTICAL, EMPTY, UNPARSED, UNDECIDED = "identical", "empty", "not in the form asked for", "undecided"
"""Why a pair is dropped."""


@dataclass(frozen=True)
class BuiltPair:
    """A better and a worse response to a prompt.

    ``prompt``: as it was given, without anything that was said to bring the contrast about. ``strategy``: what did.
    ``index``: the number of the prompt.
    """

    prompt: Text
    chosen: str
    rejected: str
    strategy: str
    index: int


@dataclass(frozen=True)
class BuiltPairs(Sequence[BuiltPair]):
    """Pairs, and how many were ``dropped`` by strategy and reason."""

    pairs: tuple[BuiltPair, ...]
    dropped: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> BuiltPair: ...

    @overload
    def __getitem__(self, index: slice) -> BuiltPairs: ...

    def __getitem__(self, index: int | slice) -> BuiltPair | BuiltPairs:
        return BuiltPairs(self.pairs[index]) if isinstance(index, slice) else self.pairs[index]

    def __iter__(self) -> Iterator[BuiltPair]:
        return iter(self.pairs)

    def __add__(self, other: BuiltPairs) -> BuiltPairs:
        return BuiltPairs(self.pairs + other.pairs, Counter(self.dropped) + Counter(other.dropped))

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies there are pairs of, in order of appearance."""
        return tuple(dict.fromkeys(pair.strategy for pair in self.pairs))

    def of(self, strategy: str) -> BuiltPairs:
        """The pairs of one strategy, and what it dropped."""
        dropped = {key: count for key, count in self.dropped.items() if key[0] == strategy}
        return BuiltPairs(tuple(pair for pair in self.pairs if pair.strategy == strategy), dropped)

    def preferences(self) -> PreferenceSet:
        """The pairs as preferences to train on; ``where`` of a row names its strategy and prompt."""
        return PreferenceSet.from_rows(
            PAIRS,
            (
                PreferenceRow(
                    pair.prompt,
                    (response_to(pair.prompt, pair.chosen), response_to(pair.prompt, pair.rejected)),
                    where=f"{pair.strategy}, prompt {pair.index}",
                )
                for pair in self.pairs
            ),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON Lines file with ``prompt, chosen, rejected, strategy``, which ``nearfar align`` and TRL read."""
        from nearfar.data.preferences.writing import write_preferences

        write_preferences(self.preferences(), path, beside={"strategy": [pair.strategy for pair in self.pairs]})

    def accuracy(self, judge: Judge) -> dict[str, Measure]:
        """How often a judge agrees that the chosen response is the better one, by strategy; ties count as half.

        The intervals are Wilson's of a binomial share at 95 % (with ties, of the rounded count). Raises
        :class:`~nearfar.errors.DataError` where there are no pairs.
        """
        if not self.pairs:
            raise DataError("there are no pairs to judge")
        right: dict[str, list[float]] = {}
        for pair in self.pairs:
            verdict = judge(pair.prompt, pair.chosen, pair.rejected)
            right.setdefault(pair.strategy, []).append((verdict > 0) + 0.5 * (verdict == 0))
        return {strategy: binomial_share(strategy, sum(each), len(each)) for strategy, each in right.items()}

    def describe(self) -> str:
        """Pairs and drops by strategy, a line each."""
        kept = Counter(pair.strategy for pair in self.pairs)
        lines = []
        for strategy in dict.fromkeys([*kept, *(name for name, _ in self.dropped)]):
            reasons = [f"{count} {why}" for (name, why), count in self.dropped.items() if name == strategy]
            lines.append(f"{strategy}: {kept[strategy]} pairs" + (f"; dropped {', '.join(reasons)}" if reasons else ""))
        return "\n".join(lines)


def binomial_share(name: str, hits: float, n: int) -> Measure:
    """``hits / n`` with Wilson's interval at 95 %: ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``."""
    z = 1.959963984540054
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    return Measure(name, share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale), n)


def collected(
    prompts: Sequence[Text],
    answers: Iterable[tuple[str | None, str | None]],
    strategy: str,
    numbers: Sequence[int] | None = None,
) -> BuiltPairs:
    """Pairs of what a strategy wrote, a (chosen, rejected) a prompt, without those that show no contrast.

    None: what was written has not the form that was asked for. Empty and identical responses are dropped too; all are
    counted. ``numbers``: of the prompts, default from 0.
    """
    kept: list[BuiltPair] = []
    dropped: Counter[tuple[str, str]] = Counter()
    places = range(len(prompts)) if numbers is None else numbers
    for index, prompt, (chosen, rejected) in zip(places, prompts, answers, strict=True):
        if chosen is None or rejected is None:
            dropped[strategy, UNPARSED] += 1
        elif not chosen or not rejected:
            dropped[strategy, EMPTY] += 1
        elif chosen == rejected:
            dropped[strategy, IDENTICAL] += 1
        else:
            kept.append(BuiltPair(prompt, chosen, rejected, strategy, index))
    return BuiltPairs(tuple(kept), dict(dropped))
