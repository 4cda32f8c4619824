"""Rows out of files: every layout, every format, and what cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nearfar.data.preferences import PreferenceRow, PreferenceSet, read_preferences
from nearfar.errors import DataError, UsageError
from support.chats import answer, turns, written

USER, BLUE, GREEN = list(turns("What colour?")), list(answer("Blue.")), list(answer("Green."))
ASKED, ANSWERS = turns("What colour?"), (answer("Blue."), answer("Green."))


def read(tmp_path: Path, *rows: dict[str, Any], columns: Any = None, max_bad_rows: int = 0) -> PreferenceSet:
    return read_preferences(written(tmp_path / "x.jsonl", list(rows)), columns=columns, max_bad_rows=max_bad_rows)


PAIR_LAYOUTS: list[tuple[dict[str, Any], Any, tuple[Any, ...]]] = [
    ({"prompt": "Sky?", "chosen": " blue", "rejected": " red"}, "Sky?", (" blue", " red")),
    ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", (" blue.", " green.")),
    ({"chosen": "ab", "rejected": "abc"}, "a", ("b", "bc")),
    ({"chosen": "", "rejected": "abc"}, "", ("", "abc")),
    ({"chosen": "x ", "rejected": "y"}, "", ("x ", "y")),
    ({"chosen": USER + BLUE, "rejected": USER + GREEN}, ASKED, ANSWERS),
    ({"prompt": USER, "chosen": BLUE, "rejected": GREEN}, ASKED, ANSWERS),
    # the prompt's column holds the last question only; the conversations hold all of it
    (
        {"prompt": "What colour?", "chosen": USER + BLUE, "rejected": USER + GREEN},
        ASKED,
        ANSWERS,
    ),
    ({"prompt": USER, "chosen": "Blue.", "rejected": "Green."}, ASKED, ANSWERS),
    ({"prompt": USER, "chosen": BLUE[0], "rejected": GREEN[0]}, ASKED, ANSWERS),
    ({"prompt": "What colour?", "chosen": BLUE, "rejected": GREEN}, ASKED, ANSWERS),
    (
        {"prompt": USER, "chosen": USER + BLUE, "rejected": USER + GREEN},
        ASKED,
        ANSWERS,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "prompt", "responses"), PAIR_LAYOUTS, ids=range(len(PAIR_LAYOUTS)))
def test_pairs(tmp_path: Path, values: dict[str, Any], prompt: Any, responses: tuple[Any, ...]) -> None:
    found = read(tmp_path, values)
    assert found.kind == "pairs"
    assert found[0] == PreferenceRow(prompt, responses, where="x.jsonl:1")


def test_what_was_done_to_prompts_is_noted(tmp_path: Path) -> None:
    notes = read(tmp_path, {"prompt": USER, "chosen": USER + BLUE, "rejected": USER + GREEN}).notes
    assert notes == ["the prompt's messages stood before the responses too and were taken off (1 of 1 rows)"]
    notes = read(tmp_path, {"chosen": "a b", "rejected": "a c"}, {"chosen": "a b", "rejected": "a c"}).notes
    assert notes == ["the prompt is what chosen and rejected begin with (2 of 2 rows)"]


def test_margins_and_scores_of_pairs(tmp_path: Path) -> None:
    both = {"prompt": "p", "chosen": "a", "rejected": "b"}
    found = read(
        tmp_path,
        {**both, "score_chosen": 4, "score_rejected": 1.5},
        {**both, "score_chosen": None, "score_rejected": 1},
    )
    assert (found[0].scores, found[0].margin) == ((4.0, 1.5), 2.5)
    assert (found[1].scores, found[1].margin) == (None, None)
    found = read(tmp_path, {**both, "margin": 0.5, "score_chosen": 4, "score_rejected": 1})
    assert (found[0].scores, found[0].margin) == ((4.0, 1.0), 0.5)


@pytest.mark.parametrize(
    ("preferred", "chosen"),
    [(1, "a"), (2, "b"), ("2", "b"), ("model_a", "a"), ("B", "b"), (2.0, None),
    (0, None), (True, None), ("tie", None)]
)  # fmt: skip
def test_which_of_two_is_preferred(tmp_path: Path, preferred: Any, chosen: str | None) -> None:
    columns = "prompt=q,response_1=one,response_2=two,preferred=better"
    row = {"q": "p", "one": "a", "two": "b", "better": preferred}
    if chosen is None:
        with pytest.raises(DataError, match="1 or 2 is needed") as caught:
            read(tmp_path, row, columns=columns)
        assert "column 'better'" in (caught.value.where or "")
    else:
        assert read(tmp_path, row, columns=columns)[0].responses == ((chosen, "ba"["ab".index(chosen)]))


def test_more_of_the_prompt_and_the_system(tmp_path: Path) -> None:
    columns = "prompt=instruction,input,system,chosen,rejected"
    row = {"instruction": "Sum up.", "input": "A text.", "system": "", "chosen": "a", "rejected": "b"}
    found = read(tmp_path, row, {**row, "input": ""}, {**row, "input": None, "system": "Be brief."}, columns=columns)
    assert found[0].prompt == "Sum up.\n\nA text."
    assert found[1].prompt == "Sum up."
    assert found[2].prompt == turns("Sum up.", system="Be brief.")
    assert found[2].responses == (answer("a"), answer("b"))


@pytest.mark.parametrize(
    ("label", "expected"), [(True, True), (False, False), (1, True), (0, False), ("true", True), ("FALSE", False)]
)
def test_labels(tmp_path: Path, label: Any, expected: bool) -> None:
    found = read(tmp_path, {"prompt": "p", "completion": "a", "label": label})
    assert found.kind == "unpaired"
    assert found[0].label is expected


def test_conversations_end_with_the_response(tmp_path: Path) -> None:
    found = read(tmp_path, {"messages": USER + BLUE, "label": True})
    assert found[0] == PreferenceRow(turns("What colour?"), (answer("Blue."),), label=True, where="x.jsonl:1")
    shared = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    found = read(tmp_path, {"conversations": shared})
    assert found.kind == "demonstrations"
    assert found[0].prompt == turns("q", system="s")
    assert found[0].responses == (answer("a"),)
    found = read(tmp_path, {"prompt": "q", "completion": list(turns("q", "a", system="s"))})
    assert (found[0].prompt, found[0].responses) == (turns("q", system="s"), (answer("a"),))


def test_lists(tmp_path: Path) -> None:
    found = read(tmp_path, {"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 3, 2]})
    assert (found.kind, found[0].scores) == ("lists", (1.0, 3.0, 2.0))
    found = read(tmp_path, {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [3, 1, 2]})
    assert found[0].scores == (-3.0, -1.0, -2.0)
    found = read(tmp_path, {"prompt": "p", "completion": "a", "reward": 0.5})
    assert (found.kind, found[0].scores) == ("lists", (0.5,))
    found = read(tmp_path, {"prompt": USER, "responses": [BLUE, GREEN[0]], "scores": [1, 0]})
    assert found[0].responses == (answer("Blue."), answer("Green."))


def test_a_way_into_objects_and_lists(tmp_path: Path) -> None:
    row = {"q": "p", "outs": [{"text": "a", "r": {"kind": 1, "true": 4}}, {"text": "b", "r": {"kind": 2, "true": 3}}]}
    found = read(tmp_path, row, columns="prompt=q,responses=outs.text,scores=outs.r.kind")
    assert (found[0].responses, found[0].scores) == (("a", "b"), (1.0, 2.0))
    columns = {"prompt": "q", "responses": "outs.text", "reward.true": "outs.r.true", "reward.kind": "outs.r.kind"}
    found = read(tmp_path, row, columns=columns)
    assert found.reward_names == ("true", "kind")
    assert found[0].rewards == ((4.0, 1.0), (3.0, 2.0))
    with pytest.raises(DataError, match=r"'nothing' is missing \(there are: text, r\)"):
        read(tmp_path, row, columns="prompt=q,responses=outs.nothing,scores=outs.r.kind")
    with pytest.raises(DataError, match="an object where a text or messages") as caught:
        read(tmp_path, row, columns="prompt=q,responses=outs,scores=outs.r.kind")
    assert "responses.text" in (caught.value.hint or "")


REWARDS: list[Any] = [
    [{"kind": 1, "true": 4}, {"true": 3, "kind": 2}],
    {"kind": [1, 2], "true": [4, 3]},
    [[1, 4], [2, 3]],
]


@pytest.mark.parametrize("rewards", REWARDS)
def test_rewards_however_they_are_written(tmp_path: Path, rewards: Any) -> None:
    found = read(tmp_path, {"prompt": "p", "responses": ["a", "b"], "rewards": rewards})
    assert found.kind == "multi-reward lists"
    assert found[0].rewards == ((1.0, 4.0), (2.0, 3.0))
    assert found.reward_names == (("reward 1", "reward 2") if rewards == REWARDS[2] else ("kind", "true"))


def test_rewards_in_columns_and_of_one_response(tmp_path: Path) -> None:
    found = read(tmp_path, {"prompt": "p", "responses": ["a", "b"], "reward_kind": [1, 2], "reward_true": [4, 3]})
    assert (found.reward_names, found[0].rewards) == (("kind", "true"), ((1.0, 4.0), (2.0, 3.0)))
    found = read(tmp_path, {"prompt": "p", "completion": "a", "reward_kind": 1, "reward_true": 4})
    assert (found.reward_names, found[0].rewards) == (("kind", "true"), ((1.0, 4.0),))


def test_text_in_parts(tmp_path: Path) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "colour?"}]}]
    assert read(tmp_path, {"prompt": parts, "completion": BLUE})[0].prompt == turns("What colour?")


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
LIST = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}
BAD: list[tuple[dict[str, Any], dict[str, Any], str | None, str]] = [
    (PAIR, {"prompt": "p", "chosen": "a"}, "rejected", "'rejected' is missing (there are: prompt, chosen)"),
    (PAIR, {**PAIR, "chosen": None}, "chosen", "null where a text or a list of messages is needed"),
    (PAIR, {**PAIR, "chosen": 5}, "chosen", "the number 5 where a text"),
    (PAIR, {**PAIR, "chosen": "a\0"}, "chosen", "a NUL character"),
    (PAIR, {**PAIR, "prompt": []}, "prompt", "an empty list"),
    (PAIR, {**PAIR, "prompt": [{"content": "a"}]}, "prompt", "a message has no role"),
    (PAIR, {**PAIR, "prompt": [{"role": "user"}]}, "prompt", "null where text is needed"),
    (PAIR, {**PAIR, "prompt": ["a"]}, "prompt", "where a message with role and content is needed"),
    (PAIR, {**PAIR, "prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "prompt", "more than text"),
    (PAIR, {**PAIR, "prompt": [{"role": "user", "content": "a", "tool_calls": [{}]}]}, "prompt", "calls tools"),
    ({**PAIR, "margin": 1}, {**PAIR, "margin": float("nan")}, "margin", "is not finite"),
    ({**PAIR, "margin": 1}, {**PAIR, "margin": "1"}, "margin", "write it without quotes"),
    (LIST, {**LIST, "scores": [1]}, None, "1 scores for 2 responses"),
    (LIST, {**LIST, "scores": [1, float("inf")]}, "scores", "is not finite"),
    (LIST, {**LIST, "scores": 3}, "scores", "where a list is needed"),
    (LIST, {**LIST, "responses": "a"}, "responses", "where a list is needed"),
    (LIST, {**LIST, "responses": [], "scores": []}, None, "there is no response"),
    ({"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "a", "label": -1}, "label",
     "true (a good answer)"),
    ({"messages": USER + BLUE}, {"messages": []}, "messages", "an empty list"),
    (
        {"prompt": "p", "responses": ["a"], "rewards": [{"x": 1}]},
        {"prompt": "p", "responses": ["a"], "rewards": [{"y": 1}]},
        "rewards",
        "the rewards y where the rows before have x",
    ),
    (
        {"prompt": "p", "responses": ["a", "b"], "rewards": [[1], [2]]},
        {"prompt": "p", "responses": ["a", "b"], "rewards": [[1]]},
        "rewards",
        "1 values for 2 responses",
    ),
    (
        {"prompt": "p", "responses": ["a", "b"], "rewards": [[1], [2]]},
        {"prompt": "p", "responses": ["a", "b"], "rewards": [[1], [2, 3]]},
        "rewards",
        "same number of rewards",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "column", "reason"), BAD, ids=range(len(BAD)))
def test_a_row_that_cannot_be_used(
    tmp_path: Path, good: dict[str, Any], bad: dict[str, Any], column: str | None, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, good, bad, good)
    assert reason in caught.value.message
    where = caught.value.where or ""
    assert "x.jsonl, line 2" in where
    assert (f"column {column!r}" in where) == (column is not None)
    found = read(tmp_path, good, bad, good, max_bad_rows=1)
    assert [row.where for row in found] == ["x.jsonl:1", "x.jsonl:3"]
    assert reason in found.bad_rows[0].reason
    assert "bad rows skipped: 1" in found.describe()
    with pytest.raises(DataError, match="more rows cannot be used"):
        read(tmp_path, good, bad, bad, max_bad_rows=1)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no rows; 1 bad rows were skipped"):
        read(tmp_path, {**PAIR, "chosen": 5}, max_bad_rows=1)
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DataError, match="there are no rows"):
        read_preferences(tmp_path / "empty.json")
    with pytest.raises(UsageError, match="cannot be negative"):
        read(tmp_path, PAIR, max_bad_rows=-1)


def test_later_rows_may_have_more_columns_that_mean_nothing(tmp_path: Path) -> None:
    rows = [{"chosen": "a b", "rejected": "a c"}] * 150
    assert len(read(tmp_path, *rows, {**rows[0], "id": 4})) == 151
    with pytest.raises(DataError, match="from this row on there is 'prompt'") as caught:
        read(tmp_path, *rows, PAIR)
    assert "line 151" in (caught.value.where or "")


def test_several_files_need_the_same_columns(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a.jsonl", [PAIR]), written(tmp_path / "b.jsonl", [PAIR, PAIR])
    found = read_preferences([one, other])
    assert [row.where for row in found] == ["a.jsonl:1", "b.jsonl:1", "b.jsonl:2"]
    with pytest.raises(DataError, match="do not have the same columns"):
        read_preferences([one, written(tmp_path / "c.jsonl", [LIST])])


@pytest.mark.parametrize("kind", ["pairs", "lists", "messages"])
def test_every_format_holds_the_same(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    row = {"pairs": PAIR, "lists": LIST, "messages": {"messages": USER + BLUE, "label": True}}[kind]
    rows = [row] * 3
    jsonl = written(tmp_path / "x.jsonl", rows)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(jsonl.read_bytes()))
    (tmp_path / "x.json").write_text(json.dumps(rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pa.ipc.new_file(tmp_path / "x.arrow", pa.Table.from_pylist(rows).schema) as out:
        out.write_table(pa.Table.from_pylist(rows))
    flat = [{name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}] * 3
    names = list(flat[0])
    quoted = ['"' + each[name].replace('"', '""') + '"' for each in flat for name in names]
    lines = [",".join(quoted[at : at + len(names)]) for at in range(0, len(quoted), len(names))]
    (tmp_path / "x.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    (tmp_path / "x.tsv").write_text("\n".join(["\t".join(names), *("\t".join(each.values()) for each in flat)]) + "\n")
    expected = read_preferences(jsonl).sha256()
    for suffix in ("jsonl.gz", "json", "parquet", "arrow", "csv", "tsv"):
        assert read_preferences(tmp_path / f"x.{suffix}").sha256() == expected, suffix


def test_class_numbers_say_nothing_of_good_and_bad(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    text = datasets.Value("string")
    features = datasets.Features(
        {"prompt": text, "completion": text, "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    rows = datasets.Dataset.from_list([{"prompt": "p", "completion": "a", "label": 0}] * 2, features=features)
    rows.to_parquet(str(tmp_path / "x.parquet"))
    with pytest.raises(DataError, match=r"the numbers of classes \(good, bad\)"):
        read_preferences(tmp_path / "x.parquet")


def test_description(tmp_path: Path) -> None:
    text = read(tmp_path, {**PAIR, "margin": 2, "id": 1}).describe()
    assert text.splitlines() == [
        "pairs (prompt, chosen, rejected): 1 row from x.jsonl",
        "columns not used: id",
        "prompts: 1 different",
        "margins: 1 rows; scores of both responses: 0",
        "example:",
        "  prompt: p",
        "  chosen: a",
        "  rejected: b",
        "  margin: 2",
    ]
    row = {"q": "p", "responses": list("abcde"), "rewards": [[1, 2]] * 5}
    text = read(tmp_path, row, columns="prompt=q,responses,rewards").describe()
    for part in ("columns: 'q' as prompt", "responses: 5 a prompt", "rewards: reward 1, reward 2", "and 1 more"):
        assert part in text
    text = read(tmp_path, {"messages": USER + BLUE, "label": False}).describe()
    for part in (
        "labels: 0 true, 1 false",
        "conversations: 1 of 1 row",
        "completion: assistant: Blue.",
        "label: false",
    ):
        assert part in text


STRANGE: list[Any] = [
    None, True, 0, -1.5, float("nan"), float("inf"), 10**400, "", " ", "\ud800", "a\0", "</s>", [], [[]], {}, [None],
    [{}], [{"role": 1, "content": "a"}], [{"role": "user", "content": None}], {"role": "user"},
    [{"from": [], "value": "a"}], [{"role": "\ud800", "content": "a"}],
    [{"role": "assistant", "content": [{"type": "text"}]}], {"a": {"b": 1}}, [[1, 2], [3]], {"": 1}, "1e999", "[1",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["pairs", "unpaired", "lists", "multi", "messages", "chats"])
def test_strange_values_are_read_or_reported(tmp_path: Path, kind: str) -> None:
    """Every value of every column in turn: a row of the kind, or a bad row with line and reason."""
    row = {
        "pairs": {**PAIR, "margin": 1, "score_chosen": 2, "score_rejected": 1},
        "unpaired": {"prompt": "p", "completion": "a", "label": True},
        "lists": LIST,
        "multi": {"prompt": "p", "responses": ["a", "b"], "rewards": [{"x": 1}, {"x": 2}], "scores": [1, 2]},
        "messages": {"messages": USER + BLUE, "label": True},
        "chats": {"prompt": USER, "chosen": BLUE, "rejected": USER + GREEN},
    }[kind]
    expected = read(tmp_path, row).kind
    for name in row:
        for value in STRANGE:
            found = read(tmp_path, row, {**row, name: value}, max_bad_rows=1)
            found.describe()
            assert found.kind == expected
            assert [each.where for each in found] == ["x.jsonl:1", "x.jsonl:2"][: 2 - len(found.bad_rows)]
            assert all(bad.line == 2 and bad.reason for bad in found.bad_rows)
