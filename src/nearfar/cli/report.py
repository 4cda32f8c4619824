"""``nearfar report``: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, as `nearfar train` writes it.")],
    as_json: options.Json = False,
) -> None:
    """Write a run's report.html: one self-contained page that opens without a network.

    Example: `nearfar report runs/mine`
    """
    from nearfar import report as pages

    written = pages.write(run)
    if as_json:
        console.emit_json({"report": str(written)})
    else:
        console.out.print(str(written), markup=False)
