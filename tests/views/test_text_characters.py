"""Views of letters and marks, and those that change what a text says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.views.text.characters import KEYBOARD, OCR, CharacterMask, CharacterNoise
from nearfar.views.text.opposites import NameSwap, Negation, NumberSwap

TEXT = "The Quick brown fox jumps over 13 lazy dogs, said old Billy Brown."


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["keyboard", "ocr", "case"])
def test_as_many_characters_change_as_the_rate_says_and_into_what_the_kind_says(kind: Any, rate: float) -> None:
    expected = max(1, int(rate * len(TEXT)))
    for seen in CharacterNoise(kind, rate)([TEXT] * 40, generator()):
        assert len(seen) == len(TEXT)
        differ = [(old, new) for old, new in zip(TEXT, seen, strict=True) if old != new]
        able = sum(_able(kind, letter) for letter in TEXT)
        assert len(differ) == min(expected, able)
        for old, new in differ:
            if kind == "case":
                assert new == old.swapcase()
            elif kind == "ocr":
                assert new in OCR[old]
            else:
                assert new.lower() in KEYBOARD[old.lower()]
                assert new.isupper() == old.isupper()


def _able(kind: str, letter: str) -> bool:
    return {"case": letter.isalpha(), "ocr": letter in OCR, "keyboard": letter.lower() in KEYBOARD}[kind]


def test_exchanges_stay_within_a_word_and_lose_nothing() -> None:
    for seen in CharacterNoise("swap", 0.05)([TEXT] * 100, generator()):
        for old, new in zip(TEXT.split(), seen.split(), strict=True):
            assert Counter(old) == Counter(new)
        assert sum(a != b for a, b in zip(TEXT, seen, strict=True)) == 2 * int(0.05 * len(TEXT))


def test_letters_are_left_out_and_no_word_goes() -> None:
    for rate, said in ((0.1, TEXT), (1.0, TEXT), (1.0, "a b c")):
        for seen in CharacterNoise("delete", rate)([said] * 20, generator()):
            assert len(seen.split()) == len(said.split())
            letters = iter(said)
            assert all(letter in letters for letter in seen), "the order changed"
    assert (
        CharacterNoise("delete", 0.1)([TEXT], generator())[0] == CharacterNoise("delete", 0.1)([TEXT], generator())[0]
    )
    assert len(CharacterNoise("delete", 0.1)([TEXT], generator())[0]) == len(TEXT) - int(0.1 * len(TEXT))


def test_keys_are_beside_each_other_both_ways() -> None:
    assert set(KEYBOARD["g"]) == set("tyfhvb")
    assert set(KEYBOARD["q"]) == set("wa")
    assert all(key in KEYBOARD[other] for key, others in KEYBOARD.items() for other in others)
    assert all(old not in new for old, new in OCR.items())


@pytest.mark.parametrize("kind", ["keyboard", "ocr", "swap", "delete", "case"])
def test_noise_of_nothing_and_of_one_letter(kind: Any) -> None:
    view = CharacterNoise(kind)
    assert view(["", "12", "..."], generator())[0] == ""
    assert all(seen.strip() for seen in view(["o"] * 10, generator()))
    assert CharacterNoise(kind, 0.0)([TEXT]) == [TEXT]
    first = view([TEXT] * 5, generator(1))
    assert first == view([TEXT] * 5, generator(1))
    assert len(set(first)) > 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="keyboard, ocr"):
        CharacterNoise("blur")  # type: ignore[arg-type]


def test_a_run_of_characters_is_masked() -> None:
    starts = set()
    for seen in CharacterMask(5, mark="<mask>")([TEXT] * 400, generator()):
        before, mark, after = seen.partition("<mask>")
        assert mark
        assert TEXT.startswith(before)
        assert TEXT.endswith(after)
        assert len(before) + len(after) == len(TEXT) - 5
        starts.add(len(before))
    assert starts == set(range(len(TEXT) - 4))
    assert CharacterMask()(["abc", "a", ""], generator()) == ["a[MASK]", "a", ""]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("He is here.", "He is not here."),
        ("He is not here.", "He is here."),
        ("He isn't here.", "He is here."),
        ("They won't go.", "They will go."),
        ("I can’t.", "I can."),
        ("She can run.", "She cannot run."),
        ("She cannot run.", "She can run."),
        ("It never rains.", "It rains."),
        ("I would not.", "I would."),
        ("So it was, they said.", "So it was not, they said."),
        ("Birds fly.", "Birds fly."),
        ("Not", "Not"),
    ],
)
def test_negations(said: str, expected: str) -> None:
    assert Negation()([said]) == [expected]


def test_numbers_become_others_of_as_many_digits() -> None:
    said = "In 1990, 7 of 007 paid 3.50, 0 paid."
    for seen in NumberSwap()([said] * 100, generator()):
        assert len(seen) == len(said)
        for old, new in zip(said, seen, strict=True):
            assert old.isdigit() == new.isdigit()
        numbers = [part.strip(",.") for part in seen.split() if part[0].isdigit()]
        assert numbers[0][0] != "0"
        assert numbers[0] != "1990"
        assert numbers[1] != "7"
        assert numbers[2][0] == "0"
        assert numbers[2] != "007"
        assert numbers[4] != "0"
    one = NumberSwap(0.0)([said] * 50, generator())
    assert all(_differing(seen, said) == 1 for seen in one), "where none is chosen, one is"
    assert NumberSwap(numbers=["5", "6"])(["5 and 6"]) == ["6 and 5"]
    assert NumberSwap()(["no number"]) == ["no number"]


def _differing(seen: str, said: str) -> int:
    from re import findall

    return sum(a != b for a, b in zip(findall(r"\d+", seen), findall(r"\d+", said), strict=True))


def test_names_become_others() -> None:
    view = NameSwap(["Anna", "Ben", "New York"])
    for seen in view(["Anna saw Annabel in New York"] * 30, generator()):
        words = seen.replace("New York", "NY").split()
        assert words[0] in ("Ben", "NY")
        assert words[2] == "Annabel"
        assert words[-1] in ("Ben", "Anna")
    beside = NameSwap()(["We saw Anna Smith.", "They met Ben."], generator())
    assert beside == ["We saw Ben.", "They met Anna Smith."]
    assert NameSwap()(["We saw Anna."]) == ["We saw Anna."]
    with pytest.raises(UsageError, match="one name alone"):
        NameSwap(["Anna"])
