"""What can be found in preferences themselves: what contradicts, repeats, orders nothing, or gives the answer away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nearfar.data.findings import Finding, contradictory, repeated
from nearfar.data.fingerprints import combined, text_hashes
from nearfar.data.preferences.facts import PreferenceFacts
from nearfar.data.preferences.roles import wrong_roles
from nearfar.data.preferences.rows import LISTS, MULTI_REWARD_LISTS, PAIRS, UNPAIRED, PreferenceRow, plain

REPEATED_PROMPT = 20
"""A prompt of so many characters does not stand at the start of a response by chance."""
IMBALANCE = 0.65
"""Where the better response is longer (or shorter) in so large a part of the rows, length alone tells much."""
FEW = 20
"""Of fewer rows such a part says little."""
_ORDERED = (LISTS, MULTI_REWARD_LISTS)


def texts(facts: PreferenceFacts) -> Iterator[Finding]:
    """Empty texts, prompts within responses, texts that run together, roles."""
    yield from _blank(facts)
    inside: list[int] = []
    joined: list[int] = []
    roles: dict[str, list[int]] = {}
    for number, row in enumerate(facts.data):
        if _holds_prompt(row):
            inside.append(number)
        elif _runs_together(row):
            joined.append(number)
        for reason in dict.fromkeys(wrong_roles(row)):
            roles.setdefault(reason, []).append(number)
    if inside:
        detail = "the prompt is repeated in a response: the model would learn to repeat it"
        yield _found(facts, "warning", "prompt-in-response", inside, detail)
    if joined:
        detail = (
            "prompt and response run together without white space: texts are taken as they are (end the prompt as the "
            "model expects it, or write messages, for which the chat template is used)"
        )
        yield _found(facts, "warning", "runs-together", joined, detail)
    for reason, rows in roles.items():
        yield _found(facts, "warning", "roles", rows, reason)


def _found(
    facts: PreferenceFacts, severity: str, name: str, rows: list[int] | npt.NDArray[np.int64], detail: str
) -> Finding:
    return Finding(severity, name, len(rows), len(rows) / facts.rows, detail, facts.show(rows))


def _blank(facts: PreferenceFacts) -> Iterator[Finding]:
    nothing = text_hashes([""])[0]
    prompts = np.flatnonzero(facts.prompts == nothing)
    if len(prompts):
        yield _found(facts, "warning", "empty-prompts", prompts, "the prompt is empty or nothing but white space")
    empty = [
        number
        for number, row in enumerate(facts.data)
        if not all(_content(response).strip() for response in row.responses)
    ]
    if empty:
        yield _found(facts, "warning", "empty-responses", empty, "a response is empty or nothing but white space")


def _content(text: object) -> str:
    return text if isinstance(text, str) else "".join(turn["content"] for turn in text)  # type: ignore[attr-defined]


def _holds_prompt(row: PreferenceRow) -> bool:
    if isinstance(row.prompt, str):
        prompt = row.prompt.strip()
        return len(prompt) >= REPEATED_PROMPT and any(
            plain(response).lstrip().startswith(prompt) for response in row.responses
        )
    asked = [turn["content"].strip() for turn in row.prompt if turn["role"] == "user"]
    if not asked or isinstance(row.responses[0], str):
        return False
    return any(
        (turn["role"] == "user" and turn["content"].strip() in asked)
        or (len(asked[-1]) >= REPEATED_PROMPT and turn["content"].lstrip().startswith(asked[-1]))
        for response in row.responses
        if not isinstance(response, str)
        for turn in response
    )


def _runs_together(row: PreferenceRow) -> bool:
    """Whether a response follows its prompt without white space; a prompt may end with a token in brackets."""
    end = row.prompt[-1:]
    if not isinstance(end, str) or not end or end.isspace() or end in ">]}":
        return False
    starts = [response[:1] for response in row.responses if isinstance(response, str)]
    return any(start and not start.isspace() for start in starts)


def order(facts: PreferenceFacts) -> Iterator[Finding]:
    """What orders nothing: equal responses, ties, one class, lists of one; and what says the opposite of itself."""
    yield from repeated(facts.show, facts.whole_rows)
    yield from _equal_responses(facts)
    if facts.data.kind == PAIRS:
        yield from _margins(facts)
        one, other = facts.of_place(facts.responses, 0), facts.of_place(facts.responses, 1)
        pair = combined(facts.prompts, combined(one, other, ordered=False))
        detail = "pairs whose two responses to the same prompt stand the other way round elsewhere"
        different = np.flatnonzero(one != other)
        yield from contradictory(
            lambda rows: facts.show(different[np.asarray(rows, np.int64)]),
            pair[different], (one < other)[different].astype(np.uint64), "contradictory-pairs", detail,
        )  # fmt: skip
    elif facts.data.kind == UNPAIRED:
        yield from _labels(facts)
    elif facts.data.kind in _ORDERED:
        yield from _lists(facts)


def _equal_responses(facts: PreferenceFacts) -> Iterator[Finding]:
    by_row = combined(facts.row_of.astype(np.uint64), facts.responses)
    _, group, counts = np.unique(by_row, return_inverse=True, return_counts=True)
    rows = np.unique(facts.row_of[counts[group] > 1])
    if not len(rows):
        return
    if facts.data.kind == PAIRS:
        severity = "error" if len(rows) == facts.rows else "warning"
        detail = "chosen and rejected are the same text: nothing to learn from them"
        yield _found(facts, severity, "equal-responses", rows, detail)
    else:
        yield _found(facts, "warning", "equal-responses", rows, "lists that hold the same response more than once")


def _margins(facts: PreferenceFacts) -> Iterator[Finding]:
    margins = np.array([np.nan if row.margin is None else row.margin for row in facts.data], np.float64)
    ties, against = np.flatnonzero(margins == 0), np.flatnonzero(margins < 0)
    if len(ties):
        yield _found(
            facts, "warning", "ties", ties, "chosen and rejected have the same score: which is better is a guess"
        )
    if len(against):
        detail = "the rejected response has the higher score, or the margin is negative"
        yield _found(facts, "warning", "scores-against-order", against, detail)


def _labels(facts: PreferenceFacts) -> Iterator[Finding]:
    good = np.array([bool(row.label) for row in facts.data])
    if facts.rows > 1 and good.all() != (~good).all():
        what = "true" if good.all() else "false"
        detail = f"all labels are {what}: nothing says what is worse" if good.all() else f"all labels are {what}"
        yield Finding("warning", "one-class", facts.rows, 1.0, detail)
    detail = "the same response to the same prompt is called good here and bad elsewhere"
    yield from contradictory(
        facts.show, combined(facts.prompts, facts.responses), good.astype(np.uint64), "contradictory-labels", detail
    )


def _lists(facts: PreferenceFacts) -> Iterator[Finding]:
    single = np.flatnonzero(np.diff(facts.first) == 1)
    if len(single):
        detail = "lists of one response: nothing of the same prompt to compare it with"
        yield _found(facts, "warning" if len(single) == facts.rows else "info", "lists-of-one", single, detail)
    if facts.data.kind == LISTS:
        yield from _equal_scores(facts)
        detail = "responses that have another score elsewhere, under the same prompt"
        keys = combined(facts.prompts[facts.row_of], facts.responses)
        yield from contradictory(
            facts.show_responses, keys, (facts.scores + 0.0).view(np.uint64), "contradictory-scores", detail
        )
    for place, name in enumerate(facts.data.reward_names):
        values = {rewards[place] for row in facts.data for rewards in row.rewards or ()}
        if len(values) == 1 and len(facts.responses) > 1:
            detail = f"the reward {name!r} is {values.pop():g} for all responses: it orders nothing"
            yield Finding("warning", "equal-rewards", len(facts.responses), 1.0, detail)


def _equal_scores(facts: PreferenceFacts) -> Iterator[Finding]:
    several = np.flatnonzero(np.diff(facts.first) > 1)
    starts = facts.first[:-1]
    low, high = np.minimum.reduceat(facts.scores, starts), np.maximum.reduceat(facts.scores, starts)
    tied = several[low[several] == high[several]]
    if len(tied):
        severity = "error" if len(tied) == facts.rows else "warning"
        detail = "all responses of the list have the same score: they are not ordered"
        yield _found(facts, severity, "ties", tied, detail)
    by_row = combined(facts.row_of.astype(np.uint64), (facts.scores + 0.0).view(np.uint64))
    _, group, counts = np.unique(by_row, return_inverse=True, return_counts=True)
    some = np.setdiff1d(np.unique(facts.row_of[counts[group] > 1]), tied)
    if len(some):
        yield _found(facts, "info", "equal-scores", some, "lists in which some of the responses have equal scores")


def lengths(facts: PreferenceFacts, sizes: npt.NDArray[np.int64], unit: str) -> Iterator[Finding]:
    """Whether better responses are longer; ``sizes [m]``: how long each is, in ``unit``."""
    better, worse = _best_and_worst(facts)
    if facts.data.kind == UNPAIRED:
        good = np.array([bool(row.label) for row in facts.data])
        if good.any() and not good.all():
            mean_good, mean_bad = sizes[good].mean(), sizes[~good].mean()
            detail = f"good responses have {mean_good:.0f} {unit} on average, bad ones {mean_bad:.0f}"
            yield Finding("info", "length", facts.rows, None, detail)
        return
    if not len(better):
        return
    longer, shorter = (sizes[better] > sizes[worse]).mean(), (sizes[better] < sizes[worse]).mean()
    ratio = sizes[better].mean() / max(sizes[worse].mean(), 1e-9)
    names = ("chosen", "rejected") if facts.data.kind == PAIRS else ("the best", "the worst")
    detail = (
        f"{names[0]} is longer than {names[1]} in {100 * longer:.0f} % of the rows, shorter in {100 * shorter:.0f} %; "
        f"{sizes[better].mean():.0f} to {sizes[worse].mean():.0f} {unit} on average (ratio {ratio:.2f})"
    )
    if max(longer, shorter) >= IMBALANCE and len(better) >= FEW:
        yield Finding("warning", "length-imbalance", len(better), None, f"{detail}: length alone tells which is better")
    else:
        yield Finding("info", "length", len(better), None, detail)


def _best_and_worst(facts: PreferenceFacts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of the responses to compare, of each row that has a better and a worse one."""
    if facts.data.kind == PAIRS:
        return facts.first[:-1], facts.first[:-1] + 1
    if facts.data.kind != LISTS:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    by_score = np.lexsort((facts.scores, facts.row_of))
    worst, best = by_score[facts.first[:-1]], by_score[facts.first[1:] - 1]
    apart = facts.scores[best] > facts.scores[worst]
    return best[apart], worst[apart]
