"""``nearfar views``: the text views by name, one view's page, and what they make of a text."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from nearfar.views.text import Entry


@app.command("views")
def show(
    name: Annotated[
        str | None, typer.Argument(help="A view, to read its page; or several to apply: synonym:0.2+punctuation.")
    ] = None,
    apply: Annotated[
        str | None, typer.Option("--apply", help="A text to apply it to; without NAME, all that can.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the view: --set p=0.2. May be repeated.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many views of the text.")] = 2,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Whose tokens, for views of token ids: a folder, or minilm.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    level: Annotated[
        str | None, typer.Option("--level", help="Only words, characters, passages, models, tokens or latent.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the text views: what each does, how it is usually set, who introduced it; read one's page, or try it.

    Examples:

    `nearfar views`

    `nearfar views synonym`

    `nearfar views crop:0.5+punctuation --apply "a quick brown fox jumps over the lazy dog"`

    `nearfar views synonym --apply "a quick fox" --set thesaurus=synonyms.txt --set share=0.5`

    `nearfar views token-shuffle --apply "a quick fox" --encoder minilm`

    `nearfar views --apply "She did not see 3 foxes. They ran."`
    """
    from nearfar.views import text
    from nearfar.views.text.catalogue import CATALOGUE, LEVELS

    if level is not None and level not in LEVELS:
        raise UsageError(f"there is no level {level!r}", hint=f"choose one of {', '.join(LEVELS)}")
    chosen = [entry for entry in CATALOGUE if level in (None, entry.level)]
    given = _options(set_ or [])
    if apply is not None:
        _apply(name, chosen, apply, given, count=count, encoder=encoder, seed=seed, as_json=as_json)
        return
    if given or encoder is not None:
        raise UsageError("--set and --encoder are for --apply", hint='add --apply "a text"')
    if name is not None:
        chosen = [text.find(name)]
    if as_json:
        console.emit_json([_described(entry) for entry in chosen])
        return
    if name is not None:
        _page(chosen[0])
        return
    for each, what in LEVELS.items():
        rows = [
            (entry.name, entry.rule, entry.usual, entry.gives, ", ".join(entry.needs))
            for entry in chosen
            if entry.level == each
        ]
        if rows:
            columns = ["name", "what it does", "usual", "gives", "needs"]
            console.out.print(console.table(columns, rows, title=f"{each}: {what}"))
            console.out.print()
    console.out.print('next: nearfar views NAME --apply "a text"', markup=False, style="dim")


def _options(assignments: list[str]) -> dict[str, Any]:
    from nearfar.views.text.registry import value_of

    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{assignment!r} is not an option", where="--set", hint="write --set name=value")
        found[name.strip()] = value_of(value)
    return found


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "numbers": list(entry.numbers),
        "level": entry.level,
        "rule": entry.rule,
        "usual": entry.usual,
        "source": entry.source,
        "gives": entry.gives,
        "strength": entry.strength or None,
        "needs": list(entry.needs),
        "options": sorted(entry.arguments),
    }


def _page(entry: Entry) -> None:
    from nearfar.cli.objectives import signature

    console.out.print(f"{entry.name}  ({entry.level})", style="bold", markup=False)
    gives = {"positive": "a text of the same meaning", "negative": "a hard negative"}
    rows = [
        ("does", entry.rule),
        ("usual", entry.usual),
        ("after", entry.source),
        ("gives", gives.get(entry.gives, entry.gives)),
        ("needs", ", ".join(entry.needs)),
        ("strength", f"{entry.strength}, as in {entry.name}:{entry.strength.upper()}" if entry.strength else ""),
    ]
    console.out.print(console.table(["", ""], [row for row in rows if row[1]], headed=False))
    made = entry.make
    console.out.print("\n" + inspect.cleandoc(made.__doc__ or ""), markup=False, soft_wrap=True)
    if inspect.isclass(made):
        console.out.print(
            f"\nnearfar.views.{entry.place.replace(':', '.')}({signature(made.__init__)})",
            markup=False,
            style="dim",
            soft_wrap=True,
        )


def _apply(
    written: str | None,
    chosen: list[Entry],
    said: str,
    given: dict[str, Any],
    *,
    count: int,
    encoder: str | None,
    seed: int,
    as_json: bool,
) -> None:
    from nearfar.views.text import preview

    if written is not None:
        seen = preview.preview(written, said, options=given, count=count, encoder=encoder, seed=seed)
        if as_json:
            console.emit_json({"view": written, "text": said, "seed": seed, "views": seen})
            return
        for each in seen:
            console.out.print(each if isinstance(each, str) else "  |  ".join(each), markup=False, soft_wrap=True)
        return
    if given:
        raise UsageError("--set needs to know of which view", hint='nearfar views NAME --apply "a text" --set p=0.5')
    rows = preview.all_of(chosen, said, seed=seed)
    if as_json:
        console.emit_json({"text": said, "seed": seed, "views": dict(rows)})
        return
    shown = [(name, each if isinstance(each, str) else "  |  ".join(each)) for name, each in rows]
    console.out.print(console.table(["view", "text"], shown))
