"""What spoils alignment, found before anything is trained: each finding on data that has it, and none on data that is
sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearfar.data import DataCheck
from nearfar.data.log import BadRow
from nearfar.data.preferences import Budget, PreferenceRow, PreferenceSet, check_preferences, tokenise
from nearfar.errors import UsageError
from support.chats import CHAT, CHAT_EOS, CHAT_OPEN, CHAT_THINKS, answer, byte_pairs, turns

LONG = "Which of the colours does the sky have? "


def pair(chosen: Any, rejected: Any, prompt: Any = LONG, **beside: Any) -> PreferenceRow:
    return PreferenceRow(prompt, (chosen, rejected), **beside)


def checked(kind: str, *rows: PreferenceRow, tokenizer: Any = None, budget: Budget | None = None) -> DataCheck:
    data = PreferenceSet.from_rows(kind, rows)
    return check_preferences(data, tokenise(data, tokenizer, budget=budget) if tokenizer is not None else None)


def found(report: DataCheck, severity: str = "warning") -> dict[str, float]:
    return {finding.name: finding.count for finding in report.findings if finding.severity == severity}


SOUND = [pair("blue one", "green", "Sky? "), pair("red", "blue and", "Rose? "), pair("no", "maybe", "Sure? ")]


def test_nothing_is_found_in_sound_data() -> None:
    assert found(checked("pairs", *SOUND)) == {}
    assert found(checked("pairs", *SOUND), "info") == {"length": 3}
    talks = [
        pair(answer(str(row.responses[0])), answer(str(row.responses[1])), turns(str(row.prompt))) for row in SOUND
    ]
    report = checked("pairs", *talks, tokenizer=byte_pairs(template=CHAT_EOS))
    assert found(report) == found(report, "error") == {}
    assert found(report, "info") == {"length": 3}


SAID = pair("so", "no")
OF_TEXTS: list[tuple[str, list[PreferenceRow], dict[str, float]]] = [
    ("pairs", [*SOUND, pair("Sky? a", "b", "Sky? ")], {}),  # too short a prompt to be no chance
    ("pairs", [*SOUND, pair(LONG + "blue", "b"), pair(f" {LONG}", "b", "x" + LONG)], {"prompt-in-response": 1}),
    ("pairs", [*SOUND, pair("a", "b", "Sky?")], {"runs-together": 1}),
    ("pairs", [*SOUND, pair(" a", " bc", "Sky?"), pair("a", "bc", "Sky? <|assistant|>")], {}),
    ("pairs", [*SOUND, pair("a", "bc", " ")], {"empty-prompts": 1}),
    ("pairs", [*SOUND, pair("a", " \n")], {"empty-responses": 1}),
    ("pairs", [*SOUND, pair("A  b", "a b")], {"equal-responses": 1}),
    ("pairs", [*SOUND, SAID, SAID], {"duplicate-rows": 1}),
    ("pairs", [*SOUND, SAID, pair("no", "so", LONG.upper())], {"contradictory-pairs": 2}),
    ("pairs", [*SOUND, SAID, pair("no", "so", "Else? ")], {}),
    ("pairs", [*SOUND, pair("a", "bc", margin=0.0), pair("a", "cd", scores=(1, 2), margin=-1.0)],
     {"ties": 1, "scores-against-order": 1}),
    ("unpaired", [PreferenceRow("p ", ("a",), label=True), PreferenceRow("q ", ("a",), label=True)], {"one-class": 2}),
    ("unpaired", [PreferenceRow("p ", ("a",), label=True), PreferenceRow("q ", ("a",), label=False)], {}),
    ("unpaired", [PreferenceRow("p ", ("a",), label=True), PreferenceRow("P ", ("a",), label=False)],
     {"contradictory-labels": 2}),
    ("lists", [PreferenceRow("p ", ("a",), (1.0,)), PreferenceRow("q ", ("a",), (1.0,))], {"lists-of-one": 2}),
    ("lists", [PreferenceRow("p ", ("a", "b"), (1.0, 1.0)), PreferenceRow("q ", ("a", "b"), (1.0, 2.0))], {"ties": 1}),
    ("lists", [PreferenceRow("p ", ("a", "A", "b"), (3.0, 3.0, 2.0))], {"equal-responses": 1}),
    ("lists", [PreferenceRow("p ", ("a", "b"), (2.0, 1.0)), PreferenceRow("p ", ("a", "c"), (3.0, 1.0))],
     {"contradictory-scores": 2}),
    ("multi-reward lists", [PreferenceRow("p ", ("a", "b"), rewards=((1.0, 2.0), (1.0, 3.0)))], {"equal-rewards": 2}),
    ("demonstrations", [PreferenceRow("p ", ("a",)), PreferenceRow("p ", ("a",))], {"all-rows-equal": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "rows", "expected"), OF_TEXTS, ids=range(len(OF_TEXTS)))
def test_what_is_found_in_texts(kind: str, rows: list[PreferenceRow], expected: dict[str, float]) -> None:
    assert found(checked(kind, *rows)) == expected


def test_what_makes_training_impossible() -> None:
    assert found(checked("pairs", pair("a", "A")), "error") == {"equal-responses": 1}
    assert found(checked("lists", PreferenceRow("p", ("a", "b"), (1.0, 1.0))), "error") == {"ties": 1}
    assert found(checked("pairs"), "error") == {"no-rows": 0}


def test_lists_of_one_among_others_are_worth_knowing() -> None:
    rows = [PreferenceRow("p ", ("a",), (1.0,)), PreferenceRow("q ", ("a", "b", "c"), (1.0, 2.0, 2.0))]
    assert found(checked("lists", *rows), "info") == {"lists-of-one": 1, "equal-scores": 1, "length": 1}


ROLES: list[tuple[Any, Any, str]] = [
    (turns("a", "b"), answer("c"), "the prompt ends with the assistant"),
    (turns(system="s"), answer("c"), "nobody asked anything"),
    ((), answer("c"), "begin without a prompt"),
    (turns("a"), turns("b"), "ends with the role 'user', not with the assistant"),
    (turns("a"), turns("b", "c"), "begins with the role 'user', which belongs to the prompt"),
    ((*turns("a"), *turns("b")), answer("c"), "two messages of the user follow each other"),
    ((*turns("a"), {"role": "system", "content": "s"}, *turns("b")), answer("c"), "system's message is not the first"),
    (({"role": "narrator", "content": "a"}, *turns("b")), answer("c"), "the role 'narrator' is not known"),
]


@pytest.mark.parametrize(("prompt", "response", "reason"), ROLES)
def test_wrong_roles(prompt: Any, response: Any, reason: str) -> None:
    report = checked("demonstrations", PreferenceRow(prompt, (response,), where="x:3"))
    details = [finding.detail for finding in report.findings if finding.name == "roles"]
    assert any(reason in detail for detail in details)
    assert report.findings[0].examples[0].startswith("x:3: ")


def test_roles_that_are_right() -> None:
    prompt = (*turns("a", "b", system="s"), *turns("c"))
    said = (*answer("d"), {"role": "tool", "content": "5"}, *answer("e"))
    assert found(checked("demonstrations", PreferenceRow(prompt, (said,)))) == {}


def test_a_conversation_that_asks_again_holds_its_prompt() -> None:
    row = PreferenceRow(turns("Who?"), (turns("Who?", "I."),))
    assert found(checked("demonstrations", row)) == {"prompt-in-response": 1, "roles": 1}


@pytest.mark.parametrize(
    ("longer", "rows", "name"),
    [(10, 20, "length"), (12, 20, "length"), (8, 20, "length"), (13, 20, "length-imbalance"),
     (7, 20, "length-imbalance"), (10, 10, "length")],
)  # fmt: skip
def test_length_imbalance(longer: int, rows: int, name: str) -> None:
    made = [pair("much longer" if place < longer else "a", "short", f"{place} ") for place in range(rows)]
    report = checked("pairs", *made)
    finding = next(each for each in report.findings if each.name.startswith("length"))
    assert finding.name == name
    share = 100 * longer // rows
    assert f"longer than rejected in {share} % of the rows, shorter in {100 - share} %" in finding.detail
    mean = np.mean([len(str(row.responses[0])) for row in made])
    assert f"{mean:.0f} to 5 characters on average (ratio {mean / 5:.2f})" in finding.detail


def test_lengths_are_in_tokens_where_there_are_some_and_of_the_best_and_worst_in_lists() -> None:
    tokenizer = byte_pairs()
    rows = [PreferenceRow("the sky is ", ("blue sky", "green", "a"), (1.0, 2.0, 0.0))] * 2
    report = checked("lists", *rows, tokenizer=tokenizer)
    detail = next(each.detail for each in report.findings if each.name == "length")
    sizes = [len(tokenizer(f" {text}")["input_ids"]) + 1 for text in ("green", "a")]
    assert f"{sizes[0]} to {sizes[1]} tokens on average" in detail
    unpaired = [PreferenceRow("p ", ("abc",), label=True), PreferenceRow("q ", ("a",), label=False)]
    assert "good responses have 3 characters on average, bad ones 1" in checked("unpaired", *unpaired).text()


def test_what_is_cut_and_dropped() -> None:
    tokenizer = byte_pairs()
    rows = [
        pair(" it is blue today", " it is green", "the sky", where="x:1"),
        pair(" blue", " so it is", "the sky is blue ?"),
    ]
    report = checked("pairs", *rows, tokenizer=tokenizer, budget=Budget(3, 2))
    names = found(report)
    assert {name: names[name] for name in ("prompts-cut", "responses-cut", "equal-after-cut")} == {
        "prompts-cut": 1,
        "responses-cut": 3,
        "equal-after-cut": 1,
    }
    text = report.text()
    assert "longer than the budget of 3 tokens; they lose their beginning" in text
    assert "longer than the budget of 2 tokens; they lose their end" in text
    without = byte_pairs(eos=None)
    report = checked("pairs", rows[0], pair("", " so", where="x:9"), tokenizer=without)
    dropped = next(finding for finding in report.findings if finding.name == "dropped-rows")
    assert (dropped.count, dropped.examples) == (1, ("x:9",))
    assert found(report)["missing-eos"] == 2


ENDS: list[tuple[dict[str, Any], PreferenceRow, str, dict[str, float]]] = [
    ({"begins": True}, pair(" a", " bc", "<s><s>sky"), "warning", {"doubled-bos": 1}),
    ({}, pair("<s> a", " bc", "sky"), "warning", {"bos-in-response": 1}),
    ({}, pair(" a</s> b", " bc", "sky"), "warning", {"eos-inside": 1}),
    ({}, pair(" a</s></s>", " bc", "sky"), "warning", {"repeated-eos": 1}),
    ({"template": CHAT}, pair(answer("a"), answer("bc"), turns("who")), "info", {"closed-otherwise": 1}),
    ({"template": CHAT_OPEN}, pair(answer("a"), answer("bc"), turns("who")), "info", {"template-leaves-open": 2}),
    ({"template": CHAT_THINKS}, pair(answer("a"), answer("bc"), turns("who")), "warning", {"template-parts": 1}),
    ({"template": CHAT}, pair(" a", " bc", "sky"), "info", {"no-template": 1}),
    ({}, pair("bell", " bc", "a blue"), "info", {"shared-tokens": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("tokenizer", "row", "severity", "expected"), ENDS, ids=[next(iter(each[3])) for each in ENDS])
def test_how_sequences_begin_and_end(
    tokenizer: dict[str, Any], row: PreferenceRow, severity: str, expected: dict[str, float]
) -> None:
    names = found(checked("pairs", row, tokenizer=byte_pairs(**tokenizer)), severity)
    ignored = ("length", "length-imbalance", "runs-together")
    assert {name: count for name, count in names.items() if name not in ignored} == expected


def test_rows_that_were_skipped_are_told() -> None:
    data = PreferenceSet.from_rows("pairs", SOUND)
    data.bad_rows.append(BadRow("x.jsonl", 4, "chosen", "null"))
    data.blank_lines = 2
    assert found(check_preferences(data), "info") == {"bad-rows": 1, "blank-lines": 2, "length": 3}


def test_tokens_of_other_data_are_refused() -> None:
    data = PreferenceSet.from_rows("pairs", SOUND)
    tokenised = tokenise(data, byte_pairs())
    with pytest.raises(UsageError, match="not made of this data"):
        check_preferences(data[:2], tokenised)


@pytest.mark.parametrize("seed", range(4))
def test_contradictions_and_repetitions_by_plain_loops(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = [pair(*draw.choice(list("abc"), 2).tolist(), f"{draw.integers(4)} ") for _ in range(30)]
    seen = [(row.prompt, *row.responses) for row in rows]
    names = found(checked("pairs", *rows))
    assert names.get("duplicate-rows", 0) == len(seen) - len(set(seen))
    assert names.get("equal-responses", 0) == sum(one == other for _, one, other in seen)
    assert names.get("contradictory-pairs", 0) == sum(
        one != other and (prompt, other, one) in seen for prompt, one, other in seen
    )
