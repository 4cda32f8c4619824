"""What columns are recognised as preferences, what is asked back, and what ``--columns`` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.data.preferences import is_preferences
from nearfar.data.preferences.layouts import names_preferences, parse_preference_columns, recognise_preferences
from nearfar.errors import DataError, UsageError
from support.chats import written

KNOWN = [
    ("prompt chosen rejected", "pairs", "prompt chosen rejected"),
    ("chosen rejected", "pairs", "chosen rejected"),
    ("Prompt Chosen Rejected id", "pairs", "prompt chosen rejected"),
    ("question chosen rejected", "pairs", "prompt chosen rejected"),
    ("messages chosen rejected", "pairs", "prompt chosen rejected"),
    ("prompt messages chosen rejected", "pairs", "prompt chosen rejected"),
    ("prompt chosen rejected margin", "pairs", "prompt chosen rejected margin"),
    ("prompt chosen rejected score_chosen", "pairs", "prompt chosen rejected score_chosen"),
    ("prompt completion label", "unpaired", "prompt completion label"),
    ("prompt response label", "unpaired", "prompt completion label"),
    ("messages label", "unpaired", "messages label"),
    ("prompt responses scores", "lists", "prompt responses scores"),
    ("instruction responses ranks", "lists", "prompt responses ranks"),
    ("prompt completion score", "lists", "prompt completion score"),
    ("prompt completion reward", "lists", "prompt completion score"),
    ("prompt responses rewards", "multi-reward lists", "prompt responses rewards"),
    ("prompt responses rewards scores", "multi-reward lists", "prompt responses rewards scores"),
    ("prompt responses reward_safe reward_helpful", "multi-reward lists", "prompt responses"),
    ("prompt completion", "demonstrations", "prompt completion"),
    ("messages", "demonstrations", "messages"),
    ("conversations", "demonstrations", "messages"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "kind", "roles"), KNOWN)
def test_known_names(names: str, kind: str, roles: str) -> None:
    layout = recognise_preferences(names.split(), "x.jsonl")
    assert layout.kind == kind
    assert set(layout.columns) == set(roles.split())
    used = {*layout.columns.values(), *layout.rewards.values()}
    assert used | set(layout.ignored) == set(names.split())
    assert not used & set(layout.ignored)


def test_rewards_of_their_own_columns_keep_their_names() -> None:
    layout = recognise_preferences(["prompt", "responses", "reward_safe", "rewards.kind"], "x")
    assert layout.rewards == {"safe": "reward_safe", "kind": "rewards.kind"}


def test_an_unclear_prompt_is_asked_for() -> None:
    with pytest.raises(DataError) as caught:
        recognise_preferences(["instruction", "input", "chosen", "rejected"], "x.jsonl")
    assert "'instruction', 'input'" in caught.value.message
    hint = caught.value.hint or ""
    assert "--columns prompt=instruction,input,chosen,rejected" in hint
    option = hint.splitlines()[-1].split("--columns ")[1]
    layout = recognise_preferences(
        ["instruction", "input", "chosen", "rejected"], "x.jsonl", parse_preference_columns(option)
    )
    assert layout.columns["prompt"] == "instruction"
    assert layout.columns["input"] == "input"


@pytest.mark.parametrize("names", ["text label", "anchor positive", "prompt", "prompt label", "chosen", ""])
def test_other_names_are_no_preferences(names: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise_preferences(names.split(), "x.jsonl")
    assert "pairs: chosen, rejected" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("prompt=a,choosen=b", "did you mean chosen"),
        ("prompt=a,prompt=b", "given twice"),
        ("prompt=a", "makes no kind"),
        ("prompt=a,chosen=", "not something"),
        ("response_1=a,response_2=b,preferred=c", "makes no kind"),
    ],
)
def test_columns_that_make_no_sense(columns: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_preference_columns(columns)
    assert "known layouts" in (caught.value.hint or "")


def test_a_column_that_is_not_there() -> None:
    mapping = parse_preference_columns("prompt=question,chosen=good,rejected=bad")
    with pytest.raises(DataError, match=r"no column 'good'") as caught:
        recognise_preferences(["question", "goods", "bad"], "x.jsonl", mapping)
    assert caught.value.hint == "did you mean chosen=goods?"


def test_a_way_into_the_values_needs_its_column_alone() -> None:
    mapping = parse_preference_columns({"prompt": "q", "responses": "outs.text", "reward.kind": "outs.r.kind"})
    layout = recognise_preferences(["q", "outs", "id"], "x.jsonl", mapping)
    assert layout.kind == "multi-reward lists"
    assert layout.ignored == ("id",)


def test_which_files_hold_preferences(tmp_path: Path) -> None:
    def holds(name: str, *names: str) -> bool:
        return is_preferences(written(tmp_path / f"{name}.jsonl", [dict.fromkeys(names, "a")]))

    assert holds("pairs", "prompt", "chosen", "rejected")
    assert holds("unclear", "instruction", "input", "chosen", "rejected")
    assert holds("demonstrations", "prompt", "completion")
    assert not holds("examples", "anchor", "positive")
    assert not holds("labelled", "text", "label", "messages")  # known as labelled texts before
    assert not holds("unknown", "prompt", "colour")
    assert not is_preferences(tmp_path / "missing.jsonl")
    (tmp_path / "broken.json").write_text('[{"prompt": "a", ')
    assert not is_preferences(tmp_path / "broken.json")
    (tmp_path / "plain.txt").write_text("a\nb\n")
    assert not is_preferences(tmp_path / "plain.txt")


def test_columns_say_what_is_meant() -> None:
    assert names_preferences("prompt=q,chosen=good,rejected=bad")
    assert not names_preferences("anchor=q,positive=good")
    assert not names_preferences(None)
