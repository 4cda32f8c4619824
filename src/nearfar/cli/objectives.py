"""``nearfar objectives``: the catalogue, and one objective's page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from nearfar.cli import console
from nearfar.cli.app import app
from nearfar.errors import UsageError

CALLS = {
    "row": "rows of scores, some columns near and some far; (query, key, relation=...) or (scores=...)",
    "view": "batch statistics of views; (z1, z2, ...)",
    "point": "single scores; (score, target)",
    "combination": "several losses at once; ([loss1, loss2, ...], shared parameters)",
    "preference": "log-probabilities or rewards of responses; (chosen, rejected, ...)",
}


@app.command("objectives")
def show(
    name: Annotated[str | None, typer.Argument(help="An objective, to read its page.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: row, view, point, preference or combination.")] = None,
    search: Annotated[str | None, typer.Option(help="Only those whose page holds this word.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list of {name, kind, aliases, paper}.")
    ] = False,
) -> None:
    """List the objectives: name, kind, formula, paper; or read one's page.

    Examples:

    `nearfar objectives`

    `nearfar objectives dcl`

    `nearfar objectives --search queue`

    `nearfar objectives --json`
    """
    from nearfar import objectives

    chosen = objectives.catalogue() if name is None else [objectives.find(name)[0]]
    kinds = sorted({cls.kind for cls in objectives.catalogue()})
    if kind is not None and kind not in kinds:
        raise UsageError(f"there is no kind {kind!r}", hint=f"choose one of {', '.join(kinds)}")
    chosen = [cls for cls in chosen if kind in (None, cls.kind) and (search is None or _mentions(cls, search))]
    if as_json:
        console.emit_json(
            [{"name": cls.name, "kind": cls.kind, "aliases": sorted(cls.aliases), "paper": cls.paper} for cls in chosen]
        )
        return
    if name is None:
        for each in dict.fromkeys(cls.kind for cls in chosen):
            rows = [(cls.name, cls.formula, cls.paper) for cls in chosen if cls.kind == each]
            console.out.print(
                console.table(["name", "formula", "paper"], rows, title=f"{each} objectives: {CALLS[each]}")
            )
            console.out.print()
        if not chosen:
            raise UsageError("no objective fits", hint="nearfar objectives lists all")
        return
    if not chosen:
        raise UsageError(f"{name} is not among them", hint="leave --kind and --search out")
    cls = chosen[0]
    preset = objectives.find(name)[1]
    console.out.print(f"{cls.name}  ({cls.kind} objective)", style="bold", markup=False)
    if cls.aliases:
        console.out.print("also called " + ", ".join(sorted(cls.aliases)), markup=False)
    if preset:
        console.out.print(
            f"{name} stands for {cls.name} with " + ", ".join(f"{k}={v}" for k, v in preset.items()), markup=False
        )
    console.out.print(f"{cls.paper}\n", markup=False)
    page = inspect.cleandoc(cls.__doc__ or "")
    console.out.print(page, markup=False, soft_wrap=True)
    for base in cls.__mro__[1:]:
        # what the page refers to, "call as" or "see", is said here
        if f":class:`{base.__name__}`" in page and base.__module__.startswith("nearfar."):
            console.out.print(
                f"\n{base.__name__}: {inspect.cleandoc(base.__doc__ or '')}", markup=False, soft_wrap=True
            )
    made = signature(cls.__init__)
    console.out.print(f"\n{cls.__name__}({made})({signature(cls.forward)})", markup=False, style="dim", soft_wrap=True)
    if extras := getattr(cls, "extras", ()):
        console.out.print("extra: " + ", ".join(extras), markup=False)
    others = [each for each in objectives.catalogue() if each is not cls and f":class:`{each.__name__}`" in page]
    if others:
        console.out.print("see also: nearfar objectives " + ", ".join(each.name for each in others), markup=False)


def signature(method: Callable[..., object]) -> str:
    """The parameters of a method as they are written in its source."""
    said, keywords = [], False
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            said.append("*")
        keywords |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        said.append(f"{star}{parameter.name}: {parameter.annotation}{default}")
    return ", ".join(said)


def _mentions(cls: type, word: str) -> bool:
    page = " ".join([cls.name, *cls.aliases, cls.formula, cls.paper, cls.__doc__ or ""])  # type: ignore[attr-defined]
    return word.lower() in page.lower()
