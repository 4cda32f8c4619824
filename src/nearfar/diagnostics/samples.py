"""From data of any shape to the few texts a diagnosis looks at: who is near whom, who is far, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from nearfar.data import Examples, RetrievalSet

Task: TypeAlias = Literal["query", "document"]


@dataclass
class Sample:
    """Distinct ``texts`` and what is known about them, all as rows of ``texts``.

    ``near`` and ``far`` are pairs of rows that belong together and that do not. Each of ``asked`` is a query with the
    set of its right answers; all ``answers`` compete. ``shown`` are the rows to be drawn and ``groups`` what to
    colour them by.
    """

    texts: list[str] = field(default_factory=list)
    tasks: list[Task | None] = field(default_factory=list)
    near: list[tuple[int, int]] = field(default_factory=list)
    far: list[tuple[int, int]] = field(default_factory=list)
    asked: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict, repr=False)

    def row(self, text: str, task: Task | None = None) -> int:
        """The row of ``text``, which is added with its ``task`` when it is new."""
        if text not in self.rows:
            self.rows[text] = len(self.texts)
            self.texts.append(text)
            self.tasks.append(task)
        return self.rows[text]

    def show(self, row: int, group: str) -> None:
        """Draw ``row`` once."""
        self.shown.append(row)
        self.groups.append(group)

    def draw_far(self, generator: np.random.Generator, allowed: dict[int, frozenset[int]]) -> None:
        """For the first text of every near pair another answer that is not right for it, at random."""
        if len(self.answers) < 2:
            return
        for first, _ in self.near:
            right = allowed.get(first, frozenset())
            for _ in range(20):
                other = self.answers[int(generator.integers(len(self.answers)))]
                if other != first and other not in right:
                    self.far.append((first, other))
                    break


def draw(data: Examples | RetrievalSet, limit: int, seed: int, groups: Sequence[str] | None = None) -> Sample:
    """At most ``limit`` rows of ``data`` drawn with ``seed``.

    pairs: each row's anchor and positive are near, and hard negatives compete with the positives. retrieval set: each
    query and its best document; other documents compete, up to ``limit``. scored pairs: the quarter with the highest
    scores is near, the quarter with the lowest far. labelled texts: equal labels are near, others far. texts: nothing
    is known.

    ``groups`` (a name a row of ``data``) colours the map; otherwise it is coloured by label, or by the side of the
    pair.
    """
    from nearfar.data import Examples

    if limit < 2:
        raise UsageError(f"the limit is {limit} texts; at least 2 are needed")
    generator = np.random.default_rng(seed)
    if not isinstance(data, Examples):
        if groups is not None:
            raise UsageError("a retrieval set has no rows to be grouped")
        return _of_retrieval(data, limit, generator)
    if not len(data):
        raise DataError("there are no rows to look at")
    if groups is not None and len(groups) != len(data):
        raise UsageError(f"{len(groups):,} groups do not belong to {len(data):,} rows")
    chosen = np.sort(generator.permutation(len(data))[:limit])
    columns = data.take(chosen)
    names = None if groups is None else [str(groups[index]) for index in chosen]
    if data.shape == "pairs":
        negatives = [columns[name] for name in data.negatives]
        return _of_pairs(columns["anchor"], columns["positive"], negatives, limit, names, generator)
    if data.shape == "scored pairs":
        scores = np.asarray(columns["score"], np.float64)
        return _of_scored(columns["sentence1"], columns["sentence2"], scores, limit, names, generator)
    if data.shape == "labelled texts":
        return _of_labels(columns["text"], columns["label"], names, generator)
    sample = Sample()
    for number, text in enumerate(columns["text"]):
        row = sample.row(text)
        if row == len(sample.shown):
            sample.show(row, names[number] if names else "text")
    return sample


def _of_pairs(
    anchors: list[str],
    positives: list[str],
    negatives: list[list[str]],
    limit: int,
    names: list[str] | None,
    generator: np.random.Generator,
) -> Sample:
    sample = Sample()
    right: dict[int, set[int]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        query, answer = sample.row(anchor, "query"), sample.row(positive, "document")
        if answer not in right.setdefault(query, set()):
            right[query].add(answer)
            sample.near.append((query, answer))
    answers = [sample.row(text) for text in positives] + [
        sample.row(text, "document") for column in negatives for text in column
    ]
    sample.answers = list(dict.fromkeys(answers))
    sample.asked = [(query, frozenset(found)) for query, found in right.items()]
    sample.draw_far(generator, dict(sample.asked))
    _show_pairs(sample, anchors, positives, limit, names, ("anchor", "positive"))
    return sample


def _of_retrieval(data: RetrievalSet, limit: int, generator: np.random.Generator) -> Sample:
    sample = Sample()
    place = {identity: row for row, identity in enumerate(data.document_ids)}
    shown: list[tuple[str, str]] = []
    for number in generator.permutation(len(data.queries)):
        grades = {
            place[key]: grade
            for key, grade in data.qrels.get(data.query_ids[number], {}).items()
            if grade > 0 and key in place
        }
        if not grades:
            continue
        best = max(grades, key=lambda row: (grades[row], -row))
        query = sample.row(data.queries[number], "query")
        answer = sample.row(data.documents[best], "document")
        sample.near.append((query, answer))
        sample.answers.append(answer)
        shown.append((data.queries[number], data.documents[best]))
        if len(sample.near) >= limit:
            break
    if not sample.near:
        raise DataError("no query has a relevant document")
    for number in generator.permutation(len(data.documents)):
        if len(sample.answers) >= limit:
            break
        sample.answers.append(sample.row(data.documents[number], "document"))
    sample.answers = list(dict.fromkeys(sample.answers))
    # Whatever was drawn for one query, or at random, may be right for another.
    asked = {query for query, _ in sample.near}
    right: dict[int, set[int]] = {}
    for identity, query_text in zip(data.query_ids, data.queries, strict=True):
        if sample.rows.get(query_text) in asked:
            found = right.setdefault(sample.rows[query_text], set())
            for key, grade in data.qrels.get(identity, {}).items():
                if grade > 0 and key in place and data.documents[place[key]] in sample.rows:
                    found.add(sample.rows[data.documents[place[key]]])
    sample.asked = [(query, frozenset(found)) for query, found in right.items()]
    sample.draw_far(generator, dict(sample.asked))
    _show_pairs(sample, [one for one, _ in shown], [two for _, two in shown], limit, None, ("query", "document"))
    return sample


def _of_scored(
    first: list[str],
    second: list[str],
    scores: np.ndarray,
    limit: int,
    names: list[str] | None,
    generator: np.random.Generator,
) -> Sample:
    sample = Sample()
    low, high = np.quantile(scores, [0.25, 0.75])
    right: dict[int, set[int]] = {}
    for one, two, score in zip(first, second, scores, strict=True):
        pair = sample.row(one), sample.row(two)
        if score >= high > low:
            sample.near.append(pair)
            right.setdefault(pair[0], set()).add(pair[1])
        elif score <= low < high:
            sample.far.append(pair)
    sample.answers = list(dict.fromkeys(sample.row(text) for text in second))
    sample.asked = [(query, frozenset(found)) for query, found in right.items()]
    _show_pairs(sample, first, second, limit, names, ("sentence1", "sentence2"))
    return sample


def _of_labels(texts: list[str], labels: list[str], names: list[str] | None, generator: np.random.Generator) -> Sample:
    sample = Sample()
    label_of: dict[int, str] = {}
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        row = sample.row(text)
        if row not in label_of:
            label_of[row] = label
            sample.show(row, names[number] if names else label)
    members: dict[str, list[int]] = {}
    for row, label in label_of.items():
        members.setdefault(label, []).append(row)
    sample.answers = list(label_of)
    for row, label in label_of.items():
        others = [other for other in members[label] if other != row]
        if others:
            sample.near.append((row, others[int(generator.integers(len(others)))]))
            sample.asked.append((row, frozenset(others)))
    if len(members) > 1:
        sample.draw_far(generator, {row: frozenset(members[label]) for row, label in label_of.items()})
    return sample


def _show_pairs(
    sample: Sample,
    first: list[str],
    second: list[str],
    limit: int,
    names: list[str] | None,
    sides: tuple[str, str],
) -> None:
    """Both sides of as many pairs as fit; a text that stands in several is drawn once."""
    drawn: set[int] = set()
    for number, pair in enumerate(zip(first, second, strict=True)):
        if len(sample.shown) + 2 > limit:
            break
        for text, side in zip(pair, sides, strict=True):
            row = sample.rows[text]
            if row not in drawn:
                drawn.add(row)
                sample.show(row, names[number] if names else side)
