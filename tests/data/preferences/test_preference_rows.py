"""Sets of preferences: what they hold, how they are split, and what is made of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from nearfar.data.preferences import KINDS, PreferenceRow, PreferenceSet, read_preferences, write_preferences
from nearfar.errors import DataError, UsageError
from support.chats import answer, turns

LISTS = [
    PreferenceRow("p", ("a", "b", "c"), scores=(1.0, 3.0, 2.0), where="x:1"),
    PreferenceRow("q", ("a", "b", "c"), scores=(1.0, 1.0, 1.0), where="x:2"),
    PreferenceRow("r", ("a", "b", "c"), scores=(2.0, 2.0, 0.5), where="x:3"),
    PreferenceRow("s", ("a",), scores=(1.0,), where="x:4"),
]


def test_rows_come_back_as_they_were() -> None:
    rows = [
        PreferenceRow("p\u2028\n", ("é", "\t"), scores=(0.1 + 0.2, -1e300), margin=1e-300, where="x:1"),
        PreferenceRow(turns("q", system="s"), (answer("a"), answer("")), where="x:2"),
    ]
    held = PreferenceSet.from_rows("pairs", rows)
    assert list(held) == rows
    assert [held[0], held[-1]] == rows
    assert list(held[::-1]) == rows[::-1]
    assert list(held.take([1, 1])) == [rows[1]] * 2
    with pytest.raises(IndexError):
        held[2]
    listed = PreferenceRow("p", ("a", "b"), rewards=((1.0, 2.0), (3.0, 4.0)))
    many = PreferenceSet.from_rows("multi-reward lists", [listed])
    assert (many[0], many.reward_names) == (listed, ("reward 1", "reward 2"))


WRONG = [
    ("pairs", PreferenceRow("p", ("a",)), "1 responses where pairs have 2"),
    ("pairs", PreferenceRow("p", ("a", "b"), scores=(1.0,)), "1 scores for 2"),
    ("pairs", PreferenceRow("p", ("a", "b"), margin=math.inf), "not finite"),
    ("unpaired", PreferenceRow("p", ("a",)), "needs a label"),
    ("lists", PreferenceRow("p", ("a",)), "needs a score"),
    ("lists", PreferenceRow("p", (), scores=()), "no response"),
    ("lists", PreferenceRow("p", ("a",), scores=(math.nan,)), "not finite"),
    ("multi-reward lists", PreferenceRow("p", ("a",), scores=(1.0,)), "needs rewards"),
    ("multi-reward lists", PreferenceRow("p", ("a", "b"), rewards=((1.0,),)), "rewards of 1 responses"),
    ("multi-reward lists", PreferenceRow("p", ("a", "b"), rewards=((1.0,), (1.0, 2.0))), "2 rewards of a response"),
    ("demonstrations", PreferenceRow("p", ("a", "b")), "2 responses where demonstrations have 1"),
]


@pytest.mark.parametrize(("kind", "row", "reason"), WRONG)
def test_rows_of_another_kind(kind: str, row: PreferenceRow, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        PreferenceSet.from_rows(kind, [row])
    assert caught.value.where == "row 1"


def test_kinds() -> None:
    with pytest.raises(UsageError, match="no kind of preferences"):
        PreferenceSet.from_rows("triples", [])
    for kind in KINDS:
        assert len(PreferenceSet.from_rows(kind, [])) == 0


def test_the_digest_is_of_the_content_alone() -> None:
    rows = [PreferenceRow("p", ("a", "b"), where="x:1"), PreferenceRow("q", ("a", "b"), where="x:2")]
    whole = PreferenceSet.from_rows("pairs", rows)
    moved = PreferenceSet.from_rows("pairs", [PreferenceRow(row.prompt, row.responses) for row in rows])
    assert whole.sha256() == moved.sha256()
    others = [
        whole[::-1],
        whole[:1],
        PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("b", "a")), rows[1]]),
        PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("a", "b"), margin=0.0), rows[1]]),
        PreferenceSet.from_rows("lists", [PreferenceRow(row.prompt, row.responses, (1.0, 0.0)) for row in rows]),
    ]
    assert len({whole.sha256(), *(other.sha256() for other in others)}) == 6


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_is_on_both_sides_of_a_split(seed: int) -> None:
    draw = np.random.default_rng(seed)
    spellings = ["Prompt {}", "prompt  {}", " PROMPT {}"]
    rows = [
        PreferenceRow(spellings[draw.integers(3)].format(draw.integers(30)), ("a", "b"), where=str(number))
        for number in range(100)
    ]
    data = PreferenceSet.from_rows("pairs", rows)
    rest, held = data.split(0.2, seed)
    sides = [{row.prompt.lower().split()[1] for row in side} for side in (rest, held)]
    assert not sides[0] & sides[1]
    assert sorted([*(int(row.where) for row in rest), *(int(row.where) for row in held)]) == list(range(100))
    assert [int(row.where) for row in held] == sorted(int(row.where) for row in held)
    assert 10 <= len(held) <= 30
    assert held.sha256() == data.split(0.2, seed)[1].sha256()
    assert any(held.sha256() != data.split(0.2, other)[1].sha256() for other in (seed + 1, seed + 2))


def test_splits_that_cannot_be() -> None:
    data = PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("a", "b")), PreferenceRow("P ", ("c", "d"))])
    with pytest.raises(DataError, match="all have the same prompt"):
        data.split(0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        data.split(1.0)


def test_all_pairs_of_lists() -> None:
    found = PreferenceSet.from_rows("lists", LISTS).pairs_of_lists()
    expected = []
    for row in LISTS:
        assert row.scores is not None
        for one, other in itertools.permutations(range(len(row.responses)), 2):
            if row.scores[one] > row.scores[other]:
                expected.append(
                    (row.prompt, row.responses[one], row.responses[other], row.scores[one] - row.scores[other])
                )
    assert sorted((row.prompt, *row.responses, row.margin) for row in found) == sorted(expected)
    assert found.kind == "pairs"
    assert found[0] == PreferenceRow("p", ("b", "c"), scores=(3.0, 2.0), margin=1.0, where="x:1")
    assert found.pairs_of_lists() is found
    assert "made of lists" in found.notes


def test_the_best_and_the_worst_of_lists() -> None:
    found = PreferenceSet.from_rows("lists", LISTS).pairs_of_lists("best-worst")
    assert [(row.prompt, row.responses) for row in found] == [("p", ("b", "a")), ("r", ("a", "c"))]
    with pytest.raises(UsageError, match="'all' or 'best-worst'"):
        PreferenceSet.from_rows("lists", LISTS).pairs_of_lists("some")


def test_lists_of_several_rewards_need_to_be_told_which() -> None:
    row = PreferenceRow("p", ("a", "b"), rewards=((1.0, 4.0), (3.0, 2.0)))
    data = PreferenceSet.from_rows("multi-reward lists", [row], reward_names=["kind", "true"])
    assert data.pairs_of_lists(reward="kind")[0].responses == ("b", "a")
    assert data.pairs_of_lists(reward="true")[0].responses == ("a", "b")
    assert data.demonstrations(reward="true")[0].responses == ("a",)
    with pytest.raises(UsageError, match="no score to order them by"):
        data.pairs_of_lists()
    with pytest.raises(UsageError, match="no reward 'nice'"):
        data.pairs_of_lists(reward="nice")


def test_pairs_as_unpaired_and_demonstrations() -> None:
    pairs = PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("a", "b"), margin=1.0, where="x:1")])
    unpaired = pairs.unpaired()
    assert [(row.responses, row.label, row.where) for row in unpaired] == [
        (("a",), True, "x:1"),
        (("b",), False, "x:1"),
    ]
    assert list(pairs.demonstrations()) == list(unpaired.demonstrations()) == [PreferenceRow("p", ("a",), where="x:1")]
    assert [row.responses[0] for row in PreferenceSet.from_rows("lists", LISTS).demonstrations()] == [
        "b",
        "a",
        "a",
        "a",
    ]
    with pytest.raises(UsageError, match="made of lists or multi-reward lists, and these are unpaired"):
        unpaired.pairs_of_lists()
    with pytest.raises(UsageError, match="made of pairs"):
        unpaired.demonstrations().unpaired()


TALK = (turns("q", system="s"), (answer("a"), answer("b")))
WRITTEN: list[tuple[str, list[PreferenceRow]]] = [
    ("pairs", [PreferenceRow("p", ("a", "b")), PreferenceRow("q", ("c", "d"))]),
    ("pairs", [PreferenceRow("p", ("a", "b"))] * 150 + [PreferenceRow("q", ("c", "d"), (2.0, 1.0), margin=0.5)]),
    ("pairs", [PreferenceRow(*TALK)]),
    ("unpaired", [PreferenceRow("p", ("a",), label=True), PreferenceRow("p", ("b",), label=False)]),
    ("lists", LISTS),
    ("multi-reward lists", [PreferenceRow("p", ("a", "b"), (1.0, 2.0), rewards=((1.0, 4.0), (3.0, 2.0)))]),
    ("demonstrations", [PreferenceRow(turns("q"), (answer("a"),)), PreferenceRow(turns("r"), (answer("b"),))]),
]


@pytest.mark.parametrize(("kind", "rows"), WRITTEN, ids=range(len(WRITTEN)))
def test_what_is_written_is_read(tmp_path: Path, kind: str, rows: list[PreferenceRow]) -> None:
    data = PreferenceSet.from_rows(kind, rows)
    write_preferences(data, tmp_path / "x.jsonl", beside={"source": list(range(len(rows)))})
    found = read_preferences(tmp_path / "x.jsonl")
    assert (found.kind, found.reward_names, found.ignored) == (kind, data.reward_names, ("source",))
    assert found.sha256() == data.sha256()
    with pytest.raises(UsageError, match="1 values for"):
        write_preferences(PreferenceSet.from_rows(kind, rows * 2), tmp_path / "x.jsonl", beside={"source": [1]})
    with pytest.raises(UsageError, match="'prompt' is one that preferences have"):
        write_preferences(data, tmp_path / "x.jsonl", beside={"prompt": list(range(len(rows)))})
    assert read_preferences(tmp_path / "x.jsonl").sha256() == data.sha256()
