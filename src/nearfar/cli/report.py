"""``nearfar report``: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A folder that `nearfar train` or `nearfar compare` wrote.")],
    as_json: options.Json = False,
) -> None:
    """Write the report.html of a run or a comparison: one self-contained page that opens without a network.

    Example: `nearfar report runs/mine`
    """
    from nearfar import report as pages
    from nearfar.report import comparison

    written = comparison.write(run) if comparison.is_comparison(run) else pages.write(run)
    if as_json:
        console.emit_json({"report": str(written)})
    else:
        console.out.print(str(written), markup=False, soft_wrap=True)
