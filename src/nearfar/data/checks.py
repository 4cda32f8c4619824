"""The look at the data before anything is trained on it: what will spoil training or make an evaluation too good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfar.data.columns import CAPTIONS, DOCUMENTS, DOMAINS, LABELLED_TEXTS, PAIRS, SCORED_PAIRS
from nearfar.data.examples import Examples
from nearfar.data.findings import Facts, Finding, contents, contradictions, labels, scores, unread
from nearfar.data.findings_batch import batch_findings, length_findings
from nearfar.data.findings_beside import captions, documents, domains
from nearfar.data.overlap import overlap_findings
from nearfar.data.retrieval import RetrievalSet
from nearfar.data.values import shorten
from nearfar.errors import DataError, UsageError

_ORDER = {"error": 0, "warning": 1, "info": 2}
_OF_SHAPE = {DOCUMENTS: documents, CAPTIONS: captions, DOMAINS: domains}


@dataclass
class DataCheck:
    """What :func:`check` found, gravest first.

    ``findings`` with severity "error" make training impossible, those with "warning" spoil it or its evaluation,
    those with "info" are worth knowing.
    """

    shape: str
    rows: int
    batch_size: int | None = None
    evaluation_rows: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that make training impossible."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that spoil training or evaluation."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)

    def text(self, width: int = 120) -> str:
        """All of it as a table in plain text, lines cut at ``width`` (at least 40)."""
        counted = self.shape if self.shape not in _OF_SHAPE else f"rows of {self.shape}"
        head = f"data check: {self.rows:,} {counted}"
        head += f", batches of {self.batch_size:,}" if self.batch_size else ""
        head += f", {self.evaluation_rows:,} to evaluate on" if self.evaluation_rows is not None else ""
        if not self.findings:
            return f"{head}\n  nothing found"
        lines = [head]
        names = max(len(finding.name) for finding in self.findings)
        amounts = [finding.amount() for finding in self.findings]
        column = max(map(len, amounts))
        for finding, amount in zip(self.findings, amounts, strict=True):
            lines.append(f"  {finding.severity:<7}  {finding.name:<{names}}  {amount:>{column}}  {finding.detail}")
            lines += [f"             {shorten(example, max(width, 40) - 13)}" for example in finding.examples]
        return "\n".join(lines)

    def raise_on_errors(self) -> None:
        """Raise :class:`DataError` if there is a finding that makes training impossible."""
        self._raise(self.errors, "this data cannot be trained on", None)

    def raise_if_strict(self) -> None:
        """Raise :class:`DataError` if there is a warning or an error: what ``--strict`` asks for."""
        self._raise(
            [*self.errors, *self.warnings],
            "the data check has warnings, and they are errors with --strict",
            "mend the data, or run without --strict",
        )

    def _raise(self, findings: Sequence[Finding], message: str, hint: str | None) -> None:
        if findings:
            listed = "".join(f"\n  {finding.name}: {finding.detail}" for finding in findings)
            raise DataError(message + listed, hint=hint)


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then what is worth knowing; otherwise in the order given."""
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def check(
    examples: Examples,
    *,
    batch_size: int | None = None,
    evaluation: Examples | RetrievalSet | None = None,
    token_lengths: Callable[[list[str]], list[int]] | None = None,
    token_limit: int | None = None,
) -> DataCheck:
    """Look for what spoils contrastive training, and for what of the evaluation data was seen in training.

    Texts count as equal when they are after Unicode NFKC, case folding and collapsing of white space. With
    ``batch_size`` (rows a batch) the expected false negatives per batch are given
    (:func:`nearfar.data.collisions.expected_false_negatives`; for labels
    :func:`~nearfar.data.collisions.expected_class_batches`); with ``evaluation`` the overlap with it; with
    ``token_lengths`` (texts -> tokens of each, uncut) and ``token_limit`` (the encoder's) the share of texts that is
    cut, measured on at most 10,000 rows evenly spread.

    Takes memory in proportion to the rows (some tens of bytes for each text), whatever the length of the texts.
    Raises nothing for what it finds: see :meth:`DataCheck.raise_if_strict`. Raises :class:`UsageError` for a
    ``batch_size`` or ``token_limit`` below 1.
    """
    for name, value in (("batch_size", batch_size), ("token_limit", token_limit)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1", where=f"{name}={value}")
    if not isinstance(examples, Examples):
        raise UsageError(f"only examples can be checked, not {type(examples).__name__}")
    evaluation_rows = None
    if evaluation is not None:
        evaluation_rows = len(evaluation) if isinstance(evaluation, Examples) else len(evaluation.queries)
    report = DataCheck(examples.shape, len(examples), batch_size, evaluation_rows)
    report.findings = gravest_first(_look(examples, batch_size, evaluation, token_lengths, token_limit))
    return report


def _look(
    examples: Examples,
    batch_size: int | None,
    evaluation: Examples | RetrievalSet | None,
    token_lengths: Callable[[list[str]], list[int]] | None,
    token_limit: int | None,
) -> Iterator[Finding]:
    yield from unread(examples.bad_rows, examples.blank_lines, len(examples))
    if not len(examples):
        return
    facts = Facts(examples)
    yield from contents(facts)
    if examples.shape == LABELLED_TEXTS:
        yield from labels(facts)
    if examples.shape == SCORED_PAIRS:
        yield from scores(facts)
    if examples.shape in _OF_SHAPE:
        yield from _OF_SHAPE[examples.shape](facts)
    if examples.shape in (PAIRS, SCORED_PAIRS, LABELLED_TEXTS, DOMAINS):
        yield from contradictions(facts)
    if batch_size is not None:
        yield from batch_findings(facts, batch_size)
    if token_lengths is not None:
        yield from length_findings(facts, token_lengths, token_limit)
    if evaluation is not None:
        yield from overlap_findings(facts, evaluation)
