"""What can be found once preferences are tokens: what was cut and dropped, and how sequences begin and end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nearfar.data.findings import Finding
from nearfar.data.preferences.facts import PreferenceFacts
from nearfar.data.preferences.rendering import PARTED, REPEATED, SEEN, Ends
from nearfar.data.preferences.tokens import TokenisedPreferences

CUT = 0.05
"""Where more than this part of prompts or responses is cut, the budget is worth a look."""


def tokens(facts: PreferenceFacts, tokenised: TokenisedPreferences) -> Iterator[Finding]:
    """What was cut, dropped and met; begin- and end-of-sequence tokens that are doubled or missing."""
    for reason, places in tokenised.dropped.items():
        count = len(places)
        yield Finding("warning", "dropped-rows", count, count / facts.rows, f"dropped: {reason}", tuple(places[:3]))
    yield from _cut(facts, tokenised)
    yield from _equal_after(facts, tokenised)
    yield from _ends(facts, tokenised)
    for name, count in tokenised.seen.items():
        yield Finding("warning" if name in (PARTED, REPEATED) else "info", name, count, None, SEEN[name])
    if getattr(tokenised.tokenizer, "chat_template", None) and not any(row.conversational for row in facts.data):
        detail = "the tokenizer has a chat template; these are plain texts, which are taken as they are without it"
        yield Finding("info", "no-template", facts.rows, None, detail)


def response_lengths(facts: PreferenceFacts, tokenised: TokenisedPreferences) -> npt.NDArray[np.int64] | None:
    """How many tokens each response has ``[m]``; None where rows were dropped."""
    return tokenised.lengths[~tokenised.is_prompt] if len(tokenised) == facts.rows else None


def _cut(facts: PreferenceFacts, tokenised: TokenisedPreferences) -> Iterator[Finding]:
    prompts = tokenised.is_prompt
    row_of = np.repeat(tokenised.index, np.diff(tokenised.first))
    side = "beginning" if tokenised.budget.side == "left" else "end"
    for name, chosen, limit, lost in (
        ("prompts-cut", prompts, tokenised.budget.prompt, side),
        ("responses-cut", ~prompts, tokenised.budget.response, "end, and with it the end-of-sequence token"),
    ):
        cut = np.flatnonzero(tokenised.cut & chosen)
        if len(cut):
            share = len(cut) / int(chosen.sum())
            detail = f"longer than the budget of {limit:,} tokens; they lose their {lost}"
            severity = "warning" if share > CUT else "info"
            yield Finding(severity, name, len(cut), share, detail, facts.show(np.unique(row_of[cut])))


def _equal_after(facts: PreferenceFacts, tokenised: TokenisedPreferences) -> Iterator[Finding]:
    """Rows whose responses differ as texts and not as tokens."""
    rows = []
    for place, number in enumerate(tokenised.index):
        begin, end = facts.first[number], facts.first[number + 1]
        kept = {response.tobytes() for response in tokenised[place].responses}
        if len(kept) < len(set(facts.responses[begin:end].tolist())):
            rows.append(int(number))
    if rows:
        detail = "responses that differ as texts are the same tokens once they are cut"
        yield Finding("warning", "equal-after-cut", len(rows), len(rows) / facts.rows, detail, facts.show(rows))


def _ends(facts: PreferenceFacts, tokenised: TokenisedPreferences) -> Iterator[Finding]:
    ends = Ends(tokenised.tokenizer)
    found: dict[str, list[int]] = {"doubled-bos": [], "missing-bos": [], "bos-in-response": []}
    found |= {"eos-inside": [], "missing-eos": [], "closed-otherwise": []}
    for place, number in enumerate(tokenised.index.tolist()):
        row = tokenised[place]
        begins = row.prompt[:2] == ends.bos if ends.bos is not None else np.zeros(0, bool)
        if len(begins) > 1 and begins.all():
            found["doubled-bos"].append(number)
        if ends.first is not None and not begins[:1].any():
            found["missing-bos"].append(number)
        for response, cut in zip(row.responses, row.cut, strict=True):
            if ends.bos not in (None, ends.eos) and response[0] == ends.bos:
                found["bos-in-response"].append(number)
            if ends.eos is None:
                continue
            if (response[:-1] == ends.eos).any():
                found["eos-inside"].append(number)
            if not cut and response[-1] != ends.eos:
                found["closed-otherwise" if int(response[-1]) in ends.closing else "missing-eos"].append(number)
    bos, eos = getattr(tokenised.tokenizer, "bos_token", None), getattr(tokenised.tokenizer, "eos_token", None)
    if ends.eos is None:
        detail = "the tokenizer has no end-of-sequence token: where a response ends is not learned"
        yield Finding("warning", "missing-eos", facts.rows, 1.0, detail)
    for name, detail in (
        ("doubled-bos", f"the begin-of-sequence token {bos!r} stands twice at the start: the text holds it already"),
        ("missing-bos", f"the begin-of-sequence token {bos!r} is missing"),
        ("bos-in-response", f"a response begins with the begin-of-sequence token {bos!r}"),
        ("eos-inside", f"the end-of-sequence token {eos!r} stands inside of a response, where generation would stop"),
        ("missing-eos", f"a whole response does not end with the end-of-sequence token {eos!r}"),
        ("closed-otherwise", f"the chat template closes responses with another token than {eos!r}"),
    ):
        if rows := list(dict.fromkeys(found[name])):
            severity = "info" if name == "closed-otherwise" else "warning"
            yield Finding(severity, name, len(rows), len(rows) / facts.rows, detail, facts.show(rows))
