"""What holds for every recipe: complete, wired, driven by its seed; and a handful of claims that are really run."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import claims, objectives
from nearfar.claims.scoreboard import markdown, read
from nearfar.claims.worker import checked
from nearfar.objectives import Objective
from nearfar.recipes import Arms, Recipe, names, page, registry, wings

MODULES = names()
SCOREBOARD = Path(__file__).parents[2] / "docs" / "scoreboard.json"

TIMED = {"catlip": {"times as fast as CLIP"}}
"""Measures that are times, which no seed decides."""

every_recipe = pytest.mark.parametrize("name", MODULES)


def recipe_of(name: str) -> Recipe:
    return registry.of_module(MODULES[name])


@functools.cache
def smoke(name: str, seed: int, run: int = 0, sabotage: bool = False) -> Arms:
    """What a recipe's experiment measures in a second, by one thread as everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1000 + run)  # what stands here before must not matter
    try:
        return checked(recipe_of(name).experiment(seed, "smoke", sabotage=sabotage))
    finally:
        torch.set_num_threads(threads)


def untimed(name: str, arms: Arms) -> dict[str, dict[str, float]]:
    """Measurements without those that are times."""
    timed = TIMED.get(name, set())
    return {arm: {measure: value for measure, value in of.items() if measure not in timed} for arm, of in arms.items()}


@every_recipe
def test_it_is_complete(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.shortcomings() == []
    assert recipe.id == name, "the file is not called by the id"
    assert recipe.module == MODULES[name]
    assert recipe.wing in wings()
    assert registry.find(name.upper().replace("-", "_")) is recipe
    assert inspect.getdoc(inspect.getmodule(recipe.experiment)), "the module has no docstring"
    titles = [part.title for part in page.parts(recipe)]
    assert {"Claim", "Parts", "World of the experiment", "Statements: all must hold", "Use"} <= set(titles)


@every_recipe
def test_it_measures_what_its_statements_compare(name: str) -> None:
    measured = smoke(name, 0)
    for statement in recipe_of(name).statements:
        statement.difference(measured)


@every_recipe
def test_its_seed_decides_everything(name: str) -> None:
    measured = untimed(name, smoke(name, 0))
    again = untimed(name, smoke(name, 0, run=1))
    assert again == measured, "the same seed measures something else the second time"
    assert untimed(name, smoke(name, 1)) != measured, "another seed measures the same"


@every_recipe
def test_its_sabotage_changes_arms_that_it_has(name: str) -> None:
    honest, spoilt = smoke(name, 0), smoke(name, 0, sabotage=True)
    whole = claims.merged({0: honest}, {0: spoilt})[0]
    assert whole != honest, "the sabotage changes nothing"
    recipe = recipe_of(name)
    for statement in recipe.statements:
        statement.difference(whole)
    compared = {arm for said in recipe.statements for arm in (said.method, said.baseline)}
    assert compared & spoilt.keys(), "the sabotage touches no arm that a statement compares"


@every_recipe
def test_it_builds_an_objective_of_the_catalogue(name: str) -> None:
    recipe = recipe_of(name)
    if recipe.build is None:
        assert "build" not in page.use(recipe)
        return
    assert callable(recipe.build)
    needed = [
        parameter.name
        for parameter in inspect.signature(recipe.build).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:  # the sizes of the user's data: a class of the catalogue, or a function that says which it makes
        made = recipe.build if inspect.isclass(recipe.build) else inspect.signature(recipe.build).return_annotation
        assert made in objectives.catalogue() or made in {cls.__name__ for cls in objectives.catalogue()}
        return
    made = recipe.build()
    assert isinstance(made, Objective)
    assert any(isinstance(made, cls) for cls in objectives.catalogue())


def test_the_scoreboard_has_every_recipe() -> None:
    assert [claim["id"] for claim in scoreboard()] == list(MODULES)


def test_the_scoreboards_page_is_of_its_json() -> None:
    page = SCOREBOARD.with_suffix(".md").read_text(encoding="utf-8")
    assert page == markdown(read(SCOREBOARD)), "run `make claims`"


def test_no_recorded_sabotage_passes() -> None:
    for claim in scoreboard():
        assert claim["errors"] == [], claim["id"]
        assert claim["sabotage"]["caught"], claim["id"]
        assert claim["scale"] == "quick"
        assert claim["seeds"] >= 5


def test_what_did_not_hold_says_why() -> None:
    for claim in scoreboard():
        if claim["verdict"] != "holds":
            assert recipe_of(claim["id"]).not_asserted.strip(), claim["id"]


def test_recorded_statements_are_those_of_the_recipes() -> None:
    for claim in scoreboard():
        recorded = [said["statement"] for said in claim["statements"]]
        assert recorded == [str(said) for said in recipe_of(claim["id"]).statements], claim["id"]


def really_run() -> list[str]:
    """The claims that `make test` runs in full: of those that hold by a clear distance the three quickest."""
    if not SCOREBOARD.exists():
        return []
    clear = [
        claim
        for claim in scoreboard()
        if claim["verdict"] == "holds"
        and all(said["low"] - said["margin"] > (said["high"] - said["low"]) / 4 for said in claim["statements"])
    ]
    return [claim["id"] for claim in sorted(clear, key=lambda claim: claim["seconds"]["cpu"])[:3]]


def scoreboard() -> list[Any]:
    """The entries of docs/scoreboard.json, as `make claims` wrote them."""
    return list(read(SCOREBOARD)["claims"])


@pytest.mark.parametrize("name", really_run())
def test_a_handful_of_claims_comes_out_as_recorded(name: str, tmp_path: Path) -> None:
    (outcome,) = claims.reproduce([recipe_of(name)], tmp_path, workers=2)
    assert outcome.errors == []
    assert outcome.caught
    (recorded,) = [claim for claim in scoreboard() if claim["id"] == name]
    assert outcome.verdict == recorded["verdict"]
