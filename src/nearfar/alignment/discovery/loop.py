"""The search for a preference objective: propose, check, train, score, tell the proposer, propose again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nearfar.alignment.discovery.limits import Outcome
from nearfar.alignment.discovery.proposals import Proposal
from nearfar.errors import DataError, UsageError
from nearfar.files import output_error

SEEDS = tuple(Proposal(name, objective=name, parameters={"beta": 0.05}) for name in ("dpo", "hinge", "ipo", "kto-pair"))
"""The archive begins with these four, as that of Lu et al. (2024) does."""


@dataclass(frozen=True)
class Entry:
    """A proposal that was tried, and what came of it. ``proposal`` is None where the proposer gave none."""

    proposal: Proposal | None
    outcome: Outcome

    @property
    def fitness(self) -> float:
        """The fitness; minus infinity where there is none."""
        return -math.inf if self.outcome.fitness is None else self.outcome.fitness

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {"proposal": self.proposal and self.proposal.to_json(), "outcome": asdict(self.outcome)}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Entry:
        """What :meth:`to_json` wrote."""
        proposal = given["proposal"]
        return cls(None if proposal is None else Proposal.of(proposal), Outcome(**given["outcome"]))


@dataclass
class Archive:
    """All that was tried, in order; what a proposer sees."""

    entries: list[Entry] = field(default_factory=list)

    def scored(self) -> list[Entry]:
        """The entries with a fitness, best first; of equals the earlier first."""
        return sorted((e for e in self.entries if e.outcome.fitness is not None), key=lambda e: -e.fitness)

    def best(self) -> Entry:
        """The entry of the highest fitness. Raises :class:`~nearfar.errors.DataError` where none has one."""
        scored = self.scored()
        if not scored:
            last = self.entries[-1].outcome.error if self.entries else "nothing was tried"
            raise DataError("no proposal has a fitness", hint=f"the last one: {last}")
        return scored[0]

    def has(self, proposal: Proposal) -> bool:
        """Whether the same objective was tried."""
        return any(entry.proposal is not None and entry.proposal.written == proposal.written for entry in self.entries)


Proposer: TypeAlias = "Callable[[Archive], Proposal | Mapping[str, Any] | str]"
"""Given all that was tried, with fitness and errors: the next proposal, its fields, or an expression."""


def discover(
    proposer: Proposer,
    evaluate: Callable[[Proposal], Outcome],
    *,
    evaluations: int,
    seeds: Sequence[Proposal] = SEEDS,
    file: Path | None = None,
    after: Callable[[Entry], None] | None = None,
) -> Archive:
    """Try ``seeds``, then ``evaluations`` proposals, one after the other; returns the archive (Lu et al., 2024).

    Arguments:
        proposer: see :data:`Proposer`. What it raises, and what is no proposal, is an entry with the error, which it
            sees the next time; so is an objective that was tried already.
        evaluate: a :class:`~nearfar.alignment.discovery.limits.LimitedProcess`.
        evaluations: proposals after the seeds, failed ones too.
        seeds: default :data:`SEEDS`.
        file: JSON lines that each entry is written to when it is done. A file that is there is gone on with; a line
            that was cut is tried again.
        after: called with each new entry.

    Raises UsageError for fewer than 0 evaluations, :class:`~nearfar.errors.DataError` for a file of another search.
    """
    if evaluations < 0:
        raise UsageError(f"evaluations are {evaluations}")
    archive = Archive([] if file is None else _read(file, seeds))
    total = len(seeds) + evaluations
    while len(archive.entries) < total:
        place = len(archive.entries)
        entry = (
            Entry(seeds[place], evaluate(seeds[place])) if place < len(seeds) else _next(proposer, evaluate, archive)
        )
        archive.entries.append(entry)
        if file is not None:
            _append(file, entry)
        if after is not None:
            after(entry)
    return archive


def _next(proposer: Proposer, evaluate: Callable[[Proposal], Outcome], archive: Archive) -> Entry:
    try:
        proposal = Proposal.of(proposer(archive))
    except Exception as error:  # a proposer is anybody's: what it does wrong it is told
        return Entry(None, Outcome(reason="refused", error=f"no proposal: {type(error).__name__}: {error}"))
    if archive.has(proposal):
        return Entry(proposal, Outcome(reason="refused", error="this objective was tried already"))
    return Entry(proposal, evaluate(proposal))


def _read(file: Path, seeds: Sequence[Proposal]) -> list[Entry]:
    if not file.exists():
        return []
    found: list[Entry] = []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(Entry.of(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"this is no entry of a search: {error}", where=f"{file}:{number}") from None
    for entry, seed in zip(found, seeds, strict=False):
        if entry.proposal is None or entry.proposal.written != seed.written:
            raise DataError("the file is of a search with other seeds", where=str(file), hint="give another file")
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return found


def _append(file: Path, entry: Entry) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry.to_json()) + "\n")
    except OSError as error:
        raise output_error(file, error) from error


def table(entries: Iterable[Entry]) -> str:
    """The entries as lines of text: fitness or error, name, and what was proposed."""
    lines = []
    for entry in entries:
        value = f"{entry.fitness:.4f}" if entry.outcome.fitness is not None else entry.outcome.reason
        what = entry.proposal.written if entry.proposal else entry.outcome.error.splitlines()[0]
        name = entry.proposal.name if entry.proposal else "-"
        lines.append(f"{value:>10}  {name:<16}  {what}")
    return "\n".join(lines)
