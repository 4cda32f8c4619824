from __future__ import annotations

import pytest

from nearfar.data.conjunctions import GROUPS, KINDS, without_conjunction


def test_the_table_of_the_paper() -> None:
    phrases = [phrase for group in GROUPS.values() for phrase in group]
    assert len(phrases) == len(set(phrases)) == 43
    assert len(KINDS) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_every_phrase_is_found_and_removed(kind: str) -> None:
    for phrase in GROUPS[kind]:
        for opening in (phrase, phrase.capitalize(), phrase.upper(), f"  {phrase.replace(' ', '  ')}"):
            for sign in (",", "", " -", ":"):
                assert without_conjunction(f"{opening}{sign} we went home.") == (KINDS.index(kind), "we went home.")


@pytest.mark.parametrize("sentence", [
    "We went home, however.", "Nowhere to go.", "Thenceforth it was so.", "Then", "Thus.", "However, ...", "",
    "now-famous men", "A still life", "that isn't so",
])  # fmt: skip
def test_what_opens_with_none(sentence: str) -> None:
    assert without_conjunction(sentence) is None


def test_the_longest_phrase_counts() -> None:
    assert without_conjunction("Henceforth it rains") == (KINDS.index("result"), "it rains")
    assert without_conjunction("In fact, it rains") == (KINDS.index("strengthen"), "it rains")
    assert without_conjunction("Now then, it rains") == (KINDS.index("time"), "then, it rains")
