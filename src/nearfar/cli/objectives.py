"""``nearfar objectives``: the catalogue, and one objective's page."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from nearfar.cli import console
from nearfar.cli.app import app


@app.command("objectives")
def show(
    name: Annotated[str | None, typer.Argument(help="An objective, to read its page.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list of {name, kind, aliases, paper}.")
    ] = False,
) -> None:
    """List the objectives: name, kind, formula, paper; or read one's page.

    Examples:

    `nearfar objectives`

    `nearfar objectives dcl`

    `nearfar objectives --json`
    """
    from nearfar import objectives

    chosen = objectives.catalogue() if name is None else [objectives.find(name)[0]]
    if as_json:
        console.emit_json(
            [{"name": cls.name, "kind": cls.kind, "aliases": sorted(cls.aliases), "paper": cls.paper} for cls in chosen]
        )
        return
    if name is None:
        rows = [(cls.name, cls.kind, cls.formula, cls.paper) for cls in chosen]
        console.out.print(console.table(["name", "kind", "formula", "paper"], rows))
        return
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
    console.out.print(inspect.cleandoc(cls.__doc__ or ""), markup=False, soft_wrap=True)
    defaults = [
        str(parameter)
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.name not in ("args", "kwargs")
    ]
    console.out.print(f"\n{cls.__name__}({', '.join(defaults)})", markup=False, style="dim", soft_wrap=True)
