"""``nearfar recipes``: the papers, and one paper's page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from nearfar.recipes import Recipe


@app.command("recipes")
def show(
    name: Annotated[str | None, typer.Argument(help="A recipe, to read its page; or a file of your own.")] = None,
    wing: Annotated[str | None, typer.Option(help="Only those of this wing, such as representation.")] = None,
    search: Annotated[str | None, typer.Option(help="Only those whose page holds this word.")] = None,
    training: Annotated[
        bool,
        typer.Option("--training", help="Only those that train on your own texts: which data, what the encoder needs."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON: a list of {id, wing, title, paper, claim}, with --training how it trains."
        ),
    ] = False,
) -> None:
    """List the papers that are recipes, with their claims; or read one's page.

    Examples:

    `nearfar recipes`

    `nearfar recipes supcon`

    `nearfar recipes --search labels`

    `nearfar recipes --training`

    `nearfar recipes --json`
    """
    from nearfar import recipes

    chosen = recipes.recipes(wing) if name is None else [recipes.find(name)]
    chosen = [recipe for recipe in chosen if wing in (None, recipe.wing) and _mentions(recipe, search)]
    if training:
        chosen = [recipe for recipe in chosen if recipe.training is not None]
    if as_json:
        console.emit_json(
            [
                {
                    "id": recipe.id,
                    "wing": recipe.wing,
                    "title": recipe.title,
                    "paper": str(recipe.paper),
                    "claim": recipe.claim,
                    **({"training": _training(recipe)} if training else {}),
                }
                for recipe in chosen
            ]
        )
        return
    if not chosen:
        raise UsageError("no recipe fits", hint="leave --wing, --search and --training out")
    if name is not None:
        _page(chosen[0])
        return
    if training:
        _list_training(chosen)
        return
    for each in dict.fromkeys(recipe.wing for recipe in chosen):
        rows = [(recipe.id, recipe.claim, str(recipe.paper)) for recipe in chosen if recipe.wing == each]
        console.out.print(console.table(["recipe", "claim", "paper"], rows, title=each))
        console.out.print()


def _training(recipe: Recipe) -> dict[str, Any]:
    how = recipe.training
    assert how is not None
    return {
        "shapes": dict(how.shapes),
        "needs": list(how.needs),
        "options": dict(how.options),
        "settings": dict(how.settings),
    }


def _list_training(chosen: list[Recipe]) -> None:
    """Which recipes train on which shape of data, shape by shape."""
    from nearfar.training.by_recipe import NEEDS

    trained = [(recipe, recipe.training) for recipe in chosen if recipe.training is not None]
    for shape in dict.fromkeys(shape for _, how in trained for shape in how.shapes):
        rows = [
            (recipe.id, how.shapes[shape], ", ".join(NEEDS[need] for need in how.needs))
            for recipe, how in trained
            if shape in how.shapes
        ]
        console.out.print(console.table(["recipe", "what it does", "the encoder needs"], rows, title=shape))
        console.out.print()
    console.out.print("next: nearfar train FILE --recipe NAME --encoder minilm", markup=False, style="dim")


def _mentions(recipe: Recipe, word: str | None) -> bool:
    from nearfar.recipes import page

    texts = [recipe.id, recipe.title, str(recipe.paper)]
    for part in page.parts(recipe):
        texts += [f"{term} {text}" for term, text in part.content]
    return word is None or word.lower() in " ".join(texts).lower()


def _page(recipe: Recipe) -> None:
    from nearfar.recipes import page

    console.out.print(f"{recipe.id}  ({recipe.wing})", style="bold", markup=False)
    console.out.print(f"{recipe.title}. {recipe.paper}", markup=False, soft_wrap=True)
    for part in page.parts(recipe):
        console.out.print(f"\n{part.title}", style="bold", markup=False)
        if part.kind == "terms":
            console.out.print(console.table(["", ""], part.content, headed=False))
            continue
        lead = {"list": "- ", "code": "  "}.get(part.kind, "")
        for _, text in part.content:
            console.out.print(f"{lead}{text}".rstrip(), markup=False, soft_wrap=part.kind == "code")
    console.out.print("\nLast verdict on the scoreboard", style="bold", markup=False)
    for line in _last_verdict(recipe.id):
        console.out.print(line, markup=False)


def _last_verdict(name: str) -> list[str]:
    import nearfar
    from nearfar.claims import scoreboard

    checkout = Path(nearfar.__file__).parents[2] / "docs" / scoreboard.FILE
    found = scoreboard.recorded(name, options.CLAIMS_FOLDER / scoreboard.FILE, checkout)
    if found is None:
        return [f"none recorded: nearfar reproduce {name}"]
    claim: dict[str, Any] = found[0]
    machine = found[1]["machine"]
    lines = [claim["sentence"]]
    lines += [f"- {said['statement']}: {scoreboard.effect(said)}" for said in claim["statements"]]
    lines.append(
        f"{claim['scale']} scale, {claim['finished'][:10]}, torch {machine['torch']}, code {claim['fingerprint']}"
    )
    return lines
