"""Instructions that a program checks, and prompts and gaps that are compared by them."""

from __future__ import annotations

from random import Random

import pytest

from nearfar.alignment.reward.instructions import (
    PROPERTIES,
    InstructionKind,
    Length,
    Opening,
    Word,
    english,
    sentences,
    words,
)
from nearfar.alignment.reward.levels import gap_pairs, met, prompt_pairs, with_instructions
from nearfar.errors import UsageError

VOCABULARY = ["river", "winter", "Market", "engine", "letter", "garden", "silver", "window"]
TEXTS = [
    "The river froze early. Nobody, said the miller, had seen such a winter!",
    "no capitals here and no marks either",
    "1. Open the window\n2. Close it again\n\nThen wait. Is it warm?",
    'She wrote "a letter" on paper.',
    "Short.",
    "Ein Brief über den Winter. Größe 7.",
]


def test_words_and_sentences() -> None:
    assert words("It's a well-known river, isn't it? 7 times") == [
        "it's", "a", "well-known", "river", "isn't", "it", "7", "times",
    ]  # fmt: skip
    assert [sentences(text) for text in TEXTS] == [2, 1, 2, 1, 1, 2]
    assert sentences("") == 0
    assert sentences("Wait... what?! Yes") == 3


@pytest.mark.parametrize("kind", english(VOCABULARY), ids=lambda kind: str(kind.name))
def test_what_is_drawn_is_met_or_not_as_asked(kind: InstructionKind) -> None:
    random = Random(0)
    drawn = 0
    for text in TEXTS:
        for asked in (True, False):
            for _ in range(20):
                found = kind.draw(text, asked, random)
                if found is not None:
                    drawn += 1
                    assert found.met(text) is asked, (found, text)
                    assert found.text.endswith(".")
    assert drawn > 60


def test_bounds_of_lengths() -> None:
    random = Random(1)
    for _ in range(200):
        found = Length(most=5).draw("a b c d", random.random() < 0.5, random)
        assert found is None or (1 <= int(found.value) <= 5)
    at_least = {found.value for _ in range(100) if (found := Length().draw("a b c d", True, random)) is not None}
    assert at_least == {2, 3, 4, 5, 6}


def test_words_of_a_closed_vocabulary() -> None:
    random, letters = Random(2), ["a", "b", "c"]
    kind = Word(letters, letters=1, closed=True)
    assert {kind.draw("a b x", True, random).value for _ in range(40)} == {"a", "b"}  # type: ignore[union-attr]
    assert {kind.draw("a b x", False, random).value for _ in range(40)} == {"c"}  # type: ignore[union-attr]
    assert kind.draw("a b c", False, random) is None
    assert Opening(letters).draw("a", False, random) is not None
    assert Opening(["a"]).draw("a", False, random) is None
    assert Opening(letters).draw("!", True, random) is None


PAIRS = [(TEXTS[place], TEXTS[(place + 1) % len(TEXTS)]) for place in range(len(TEXTS))] * 20


def test_prompts_compared() -> None:
    made = prompt_pairs(PAIRS, english(VOCABULARY), each=2, sizes=(1, 3), seed=4)
    assert len(made) > 150
    assert {each.side for each in made} == {0, 1}
    kinds = set()
    for each in made:
        response = PAIRS[each.row][each.side]
        assert len(each.better) == len(each.worse) <= 3
        good, bad, count = met(each.better, response), met(each.worse, response), len(each.better)
        assert (good == count and bad < count) or (good >= 1 and bad == 0)
        kinds.add((good == count, bad == 0))
    assert {(True, False), (False, True), (True, True)} <= kinds
    again = prompt_pairs(PAIRS, english(VOCABULARY), each=2, sizes=(1, 3), seed=4)
    assert [each.better for each in again] == [each.better for each in made]


def test_no_prompt_has_two_instructions_of_one_kind() -> None:
    def general(kind: str) -> str:
        return kind.removeprefix("at least ").removeprefix("at most ")

    for each in prompt_pairs(PAIRS, english(VOCABULARY), sizes=(4, 4), seed=5):
        for prompt in (each.better, each.worse):
            assert len({general(one.kind) for one in prompt}) == 4


def test_gaps_compared() -> None:
    made = gap_pairs(PAIRS, english(VOCABULARY), sizes=(1, 3), seed=6)
    assert len(made) > 80
    for each in made:
        chosen, rejected = PAIRS[each.row]
        wide, narrow = (met(asked, chosen) - met(asked, rejected) for asked in (each.wide, each.narrow))
        assert wide > narrow
        assert len(each.wide) == len(each.narrow)
    assert gap_pairs([("Short.", "Short.")], english(VOCABULARY), seed=1) == [], "equal responses have no gap"


def test_instructions_in_a_prompt() -> None:
    found = PROPERTIES[0].draw("a, b", True, Random(0))
    assert found is not None
    assert with_instructions("Say a and b", [found]) == "Say a and b\nUse a comma at least once."


def test_numbers_of_instructions_that_there_are_not() -> None:
    for sizes, kinds in (((0, 1), english(VOCABULARY)), ((2, 1), english(VOCABULARY)), ((1, 2), [])):
        with pytest.raises(UsageError, match="one at least"):
            prompt_pairs(PAIRS, kinds, sizes=sizes)
