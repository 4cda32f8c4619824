"""The look at preferences before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator

from nearfar.data.checks import DataCheck, gravest_first
from nearfar.data.findings import Finding, unread
from nearfar.data.preferences.facts import PreferenceFacts
from nearfar.data.preferences.findings import lengths, order, texts
from nearfar.data.preferences.rows import PreferenceSet
from nearfar.data.preferences.token_findings import response_lengths, tokens
from nearfar.data.preferences.tokens import TokenisedPreferences
from nearfar.errors import UsageError


def check_preferences(data: PreferenceSet, tokenised: TokenisedPreferences | None = None) -> DataCheck:
    """Look for what spoils alignment on ``data``; with ``tokenised``, what was made of it, for more.

    Found in the texts: empty ones, prompts repeated in responses, prompt and response that run together, wrong roles,
    equal responses, rows that repeat, labels, pairs and scores that contradict each other, ties, scores against the
    order, one class only, lists of one, and whether the better response is the longer one. In the tokens: what was cut
    and dropped, responses equal once cut, begin- and end-of-sequence tokens doubled, missing or inside, templates that
    write a prompt in two ways.

    Texts count as equal when they are after Unicode NFKC, case folding and collapsing of white space. Raises nothing
    for what it finds: see :meth:`nearfar.data.DataCheck.raise_if_strict`. Raises
    :class:`~nearfar.errors.UsageError` where ``tokenised`` was made of other data.
    """
    if tokenised is not None and len(tokenised) and int(tokenised.index.max()) >= len(data):
        raise UsageError("these tokens were not made of this data: they know of more rows than it has")
    report = DataCheck(data.kind, len(data))
    report.findings = gravest_first(_look(data, tokenised))
    return report


def _look(data: PreferenceSet, tokenised: TokenisedPreferences | None) -> Iterator[Finding]:
    yield from unread(data.bad_rows, data.blank_lines, len(data))
    if not len(data):
        return
    facts = PreferenceFacts(data)
    yield from texts(facts)
    yield from order(facts)
    sizes = None if tokenised is None else response_lengths(facts, tokenised)
    if sizes is None:
        yield from lengths(facts, facts.characters, "characters")
    else:
        yield from lengths(facts, sizes, "tokens")
    if tokenised is not None:
        yield from tokens(facts, tokenised)
