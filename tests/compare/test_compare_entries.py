"""What can be written after --objectives, --recipes and --budget, and what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.compare import Budget, CompareSettings, Entry, parse_entries
from nearfar.compare.settings import rates, temperatures
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE


def test_names_options_and_brackets() -> None:
    plain, mine, wrapped, rate = parse_entries(
        "infonce, mine=infonce(temperature=0.1, two-sided=true),"
        "small = matryoshka(info-nce, dimensions=[8, 16], temperature=0.2),fast=supcon(learning_rate=0.5)"
    )
    assert (plain.name, plain.target, plain.arguments) == ("infonce", "infonce", {})
    assert (mine.name, mine.target) == ("mine", "infonce")
    assert mine.arguments == {"temperature": 0.1, "two_sided": True}
    made = mine.make()
    assert isinstance(made, InfoNCE)
    assert made.two_sided
    assert (wrapped.name, wrapped.target) == ("small", "matryoshka(info-nce)")
    assert wrapped.arguments == {"dimensions": [8, 16], "temperature": 0.2}
    assert wrapped.make().objective.temperature.value == 0.2
    assert (fast_rate := rate.learning_rate) == 0.5, fast_rate
    assert rate.arguments == {}


def test_a_list_may_hold_entries_made_already() -> None:
    made = Entry("x", "supcon", {"temperature": 0.3})
    assert parse_entries(["dcl", made]) == (Entry("dcl", "dcl"), made)


def test_a_recipe_in_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("first", encoding="utf-8")
    entry = Entry("own", str(file), kind="recipe")
    before = entry.digest()
    file.write_text("second", encoding="utf-8")
    assert before is not None
    assert entry.digest() not in (None, before)
    assert Entry("supcon", "supcon", kind="recipe").digest() is None
    assert Entry("infonce", "infonce").digest() is None


def test_recipes_make_objectives_too() -> None:
    entries = parse_entries("infonce", "supcon, warm=supcon(temperature=0.7)")
    assert [(entry.name, entry.kind) for entry in entries] == [
        ("infonce", "objective"),
        ("supcon", "recipe"),
        ("warm", "recipe"),
    ]
    assert entries[2].make().temperature.value == 0.7
    with pytest.raises(UsageError, match="cannot be made so"):
        parse_entries("infonce", "supcon(nonsense=1)")
    with pytest.raises(UsageError, match="no recipe"):
        parse_entries("infonce", "nosuchpaper")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("infonce", "at least two"),
        ("", "at least two"),
        ("infonce,infonce", "again=infonce"),
        ("infonce,infonec", "info-nce"),
        ("infonce,supcon(temperature=0.1", "do not match"),
        ("infonce,supcon)", "do not match"),
        ("infonce,=supcon", "is no entry"),
        ("infonce,supcon(a,b)", "is no entry"),
        ("infonce,x=(temperature=1)", "is no entry"),
        ("infonce,supcon(temperature=0)", "temperature"),
        ("infonce,supcon(wrong=1)", "takes no 'wrong'"),
        ("infonce,supcon(learning_rate=-1)", "learning rate of"),
    ],
)
def test_what_cannot_be_read_says_how_to_mend_it(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_entries(text)


def test_only_a_fixed_temperature_that_nobody_set_is_searched() -> None:
    def of(text: str) -> float | None:
        return parse_entries(f"{text},spare=dcl")[0].temperature()

    assert of("infonce") == InfoNCE().temperature.value
    assert of("matryoshka(infonce)") == InfoNCE().temperature.value
    for text in ("infonce(temperature=0.1)", "infonce(temperature=learned)", "triplet", "barlow-twins"):
        assert of(text) is None


def test_the_grid() -> None:
    assert temperatures(None) == []
    assert temperatures(0.05) == temperatures(0.5) == [0.1, 0.03, 0.3]
    assert temperatures(2.0) == pytest.approx([2.0, 0.6, 6.0])
    assert rates(0.02) == pytest.approx([0.02, 0.006, 0.06])


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [(400, 400, "steps"), ("400", 400, "steps"), ("400steps", 400, "steps"), ("1 step", 1, "steps"),
     ("2.5 epochs", 2.5, "epochs"), ("120s", 120, "seconds"), ("2min", 120, "seconds"), ("0.5h", 1800, "seconds")],
)  # fmt: skip
def test_budgets(text: str | int, amount: float, unit: str) -> None:
    assert Budget.parse(text) == Budget(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "0", "-3", "1.5", "1.5 steps", "ten", "3 days", "0s", True, "s", "1e3"])
def test_budgets_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"budget": "soon"}, "budget"),
        ({"evaluations": 0}, "evaluations"),
        ({"output": ""}, "no place"),
        ({"training": {"steps": 3}}, "sets steps itself"),
        ({"training": {"encodr": "static"}}, "did you mean 'encoder'"),
        ({"training": {"batch_size": 0}}, "batch size"),
    ],
)
def test_settings_that_cannot_be_used(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompareSettings(**{"output": "cmp", **options})
