"""What can be said once the batch size or the encoder is known: false negatives, lonely anchors, texts that are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nearfar.data.collisions import expected_class_batches, expected_false_negatives
from nearfar.data.columns import LABELLED_TEXTS, PAIRS, TEXTS
from nearfar.data.findings import Facts, Finding
from nearfar.errors import UsageError

MEASURED_ROWS = 10_000
# One anchor in a hundred that meets a false negative is noise; more begins to pull the wrong way.
_ALARMING_FALSE_NEGATIVES = 0.01
_ALARMING_LONELY = 0.1
_ALARMING_CUT = 0.01


def batch_findings(facts: Facts, batch_size: int) -> Iterator[Finding]:
    """What batches of ``batch_size`` rows, drawn at random, will hold."""
    rows = facts.rows
    if rows < batch_size:
        detail = f"fewer rows than the {batch_size:,} of a batch: each batch would be all of the data"
        yield Finding("warning", "fewer-rows-than-batch", rows, None, detail)
    if facts.examples.shape in (PAIRS, TEXTS):
        # Of texts alone two views are contrasted, so that a text is its own positive.
        first, second = ("anchor", "positive") if facts.examples.shape == PAIRS else ("text", "text")
        expected = expected_false_negatives(facts.hashes[first], facts.hashes[second], batch_size)
        if expected.per_batch:
            detail = (
                f"expected false negatives in a random batch of {expected.batch_size:,} "
                f"({expected.per_anchor:.2g} an anchor): in-batch negatives "
                "whose row has the same anchor or positive"
            )
            severity = "warning" if expected.per_anchor >= _ALARMING_FALSE_NEGATIVES else "info"
            yield Finding(
                severity, "false-negatives", expected.per_batch, expected.share, detail, _most_repeated(facts)
            )
    if facts.examples.shape == LABELLED_TEXTS:
        batches = expected_class_batches(np.bincount(facts.codes), batch_size)
        detail = (
            f"expected anchors without a positive in a random batch of {batches.batch_size:,}; an anchor has "
            f"{batches.positives_per_anchor:.3g} positives there on average"
        )
        severity = "warning" if batches.lonely_share >= _ALARMING_LONELY else "info"
        yield Finding(severity, "lonely-anchors", batches.lonely, batches.lonely_share, detail)


def _most_repeated(facts: Facts) -> tuple[str, ...]:
    lines = []
    for name in facts.names[:2]:
        _, first, counts = np.unique(facts.hashes[name], return_index=True, return_counts=True)
        most = int(np.lexsort((first, -counts))[0])
        if counts[most] > 1:
            lines.append(f"{counts[most]:,} times as {name}, {facts.show([int(first[most])], [name])[0]}")
    return tuple(lines)


def length_findings(
    facts: Facts, token_lengths: Callable[[list[str]], list[int]], token_limit: int | None
) -> Iterator[Finding]:
    """How many texts are longer than the encoder reads, by its own tokenizer, on rows evenly spread over the data."""
    count = min(facts.rows, MEASURED_ROWS)
    rows = np.unique(np.linspace(0, facts.rows - 1, count).round().astype(np.int64))
    taken = facts.examples.take(rows)
    of_rows = "" if count == facts.rows else f" (measured on {count:,} of {facts.rows:,} rows)"
    lengths = {}
    for name in facts.names:
        lengths[name] = np.asarray(token_lengths(taken[name]), np.int64)
        if lengths[name].shape != (len(rows),):
            raise UsageError(f"token_lengths gave {len(lengths[name])} lengths for {len(rows)} texts")
    every = np.concatenate(list(lengths.values()))
    summary = f"median {np.median(every):,.0f} tokens, longest {every.max():,}{of_rows}"
    cut = {name: np.flatnonzero(values > token_limit) for name, values in lengths.items()} if token_limit else {}
    total = sum(map(len, cut.values()))
    if not total:
        limit = f", the encoder reads {token_limit:,}" if token_limit else ""
        yield Finding("info", "text-lengths", len(every), None, f"texts: {summary}{limit}")
        return
    columns = ", ".join(
        f"{100 * len(where) / len(rows):.1f} % of {name!r}" for name, where in cut.items() if len(where)
    )
    worst = max(cut, key=lambda name: len(cut[name]))
    severity = "warning" if total / len(every) >= _ALARMING_CUT else "info"
    detail = f"texts are cut at the encoder's {token_limit:,} tokens: {columns}; {summary}"
    yield Finding(severity, "texts-cut", total, total / len(every), detail, facts.show(rows[cut[worst]], [worst]))
