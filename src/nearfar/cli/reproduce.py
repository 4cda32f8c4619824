"""``nearfar reproduce``: run the experiments of papers, judge their claims, write the scoreboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from nearfar.claims import Outcome


@app.command("reproduce")
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Recipes, or Python files with a RECIPE.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All recipes, and the scoreboard: JSON, a page and report.html.")
    ] = False,
    wing: Annotated[str | None, typer.Option(help="With --all, only those of this wing.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...; a verdict needs five.")] = 5,
    scale: Annotated[
        Literal["quick", "full", "smoke"], typer.Option(help="quick: a minute or two each; smoke: wiring only.")
    ] = "quick",
    workers: Annotated[int | None, typer.Option(min=1, help="Parallel processes; one for each core.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of records and scoreboard.")
    ] = options.CLAIMS_FOLDER,
    page: Annotated[
        Path | None, typer.Option(help="With --all, write scoreboard.json and scoreboard.md into this folder too.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run what is recorded for the same code as well.")] = False,
    sabotage: Annotated[bool, typer.Option(help="Also run the wrong implementations that must not pass.")] = True,
    as_json: options.Json = False,
) -> None:
    """Run the experiment of a paper over several seeds and say whether its claim holds, is inconclusive or fails.

    What is recorded for the same code, settings and versions is not run again. The exit code is 1 when an experiment
    errs or a sabotage passes (at the smoke scale: when one errs); a claim that does not hold is a result.

    Examples:

    `nearfar reproduce supcon`

    `nearfar reproduce supcon dcl --seeds 10`

    `nearfar reproduce my_recipe.py`

    `nearfar reproduce --all --output claims-run`
    """
    from nearfar import claims, recipes
    from nearfar.claims import scoreboard

    if everything == bool(names):
        raise UsageError("name recipes, or pass --all", hint="nearfar recipes lists them")
    if not everything and (wing or page):
        raise UsageError("--wing and --page belong to --all")
    chosen = recipes.recipes(wing) if everything else [recipes.find(name) for name in names or []]

    with console.progress("experiments") as update:

        def done(outcome: Outcome) -> None:
            if len(chosen) > 1:
                console.note(f"{outcome.sentence()} ({outcome.seconds['cpu']:.0f} s)")

        outcomes = claims.reproduce(
            chosen,
            output,
            seeds=seeds,
            scale=scale,
            workers=workers,
            again=again,
            sabotage=sabotage,
            progress=update,
            done=done,
        )
    if everything:
        board = scoreboard.of(outcomes)
        written = scoreboard.write(board, output)
        if page is not None:
            scoreboard.write(board, page, report=False)
        if as_json:
            console.emit_json(board)
        else:
            _overview(outcomes)
            console.out.print(scoreboard.summary_line(board), markup=False)
            console.out.print(f"report: {written[-1]}", markup=False, soft_wrap=True)
    elif as_json:
        console.emit_json([outcome.to_dict() for outcome in outcomes])
    else:
        for outcome in outcomes:
            _show(outcome)
    if scale == "smoke":
        console.note("smoke scale: a few steps, to see that everything runs; the verdicts say nothing of the papers")
    if any(outcome.errors or (outcome.is_wrong and scale != "smoke") for outcome in outcomes):
        raise typer.Exit(1)


def _overview(outcomes: list[Outcome]) -> None:
    from nearfar.claims import scoreboard

    rows = []
    for outcome in outcomes:
        claim = outcome.to_dict()
        effects = [f"{said['measure']}: {scoreboard.effect(said)}" for said in claim["statements"]]
        rows.append(
            (
                claim["id"],
                claim["verdict"],
                "\n".join(effects or claim["errors"]),
                scoreboard.caught_word(claim),
                f"{claim['seconds']['cpu']:.0f}",
            )
        )
    columns = ["recipe", "verdict", "effect [95 % interval]", "sabotage", "CPU s"]
    console.out.print(console.table(columns, rows, right=[4]))
    console.out.print()


def _show(outcome: Outcome) -> None:
    from nearfar.claims import scoreboard

    recipe, claim = outcome.recipe, outcome.to_dict()
    console.out.print(f"\n{recipe.id}: {recipe.title}", style="bold", markup=False)
    console.out.print(f"{recipe.claim}\n", markup=False)
    if outcome.arms:
        spoilt = outcome.sabotaged_arms
        rows = [
            (arm, measure, scoreboard.mean(of), scoreboard.mean(spoilt.get(arm, {}).get(measure)))
            for arm, measures in outcome.arms.items()
            for measure, of in measures.items()
        ]
        title = f"{outcome.seeds} seeds, {outcome.scale} scale: mean [95 % interval]"
        console.out.print(console.table(["arm", "measure", "measured", "sabotaged"], rows, title=title, right=[2, 3]))
        console.out.print()
    for heading, findings in (
        ("statement", claim["statements"]),
        (f"sabotaged: {recipe.sabotage}", claim["sabotage"]["statements"]),
    ):
        if findings:
            rows = [
                (said["statement"], scoreboard.effect(said), f"{said['margin']:g}", said["verdict"])
                for said in findings
            ]
            columns = [heading, "effect [95 % interval]", "margin", "verdict"]
            console.out.print(console.table(columns, rows, right=[1, 2]))
            console.out.print()
    for warning in outcome.warnings:
        console.warning(warning)
    console.out.print(outcome.sentence(), style="bold", markup=False)
    if outcome.seconds:
        console.out.print(f"{outcome.seconds['cpu']:.1f} s of CPU time", style="dim", markup=False)
