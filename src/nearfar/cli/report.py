"""``nearfar report``: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A folder that `nearfar train`, `compare` or `classify` wrote.")],
    as_json: options.Json = False,
) -> None:
    """Write the report.html of a run, a comparison or a classification: one self-contained page, for no network.

    Example: `nearfar report runs/mine`
    """
    from nearfar import report as pages
    from nearfar.report import classification, comparison

    kinds = ((comparison.is_comparison, comparison.write), (classification.is_classification, classification.write))
    write = next((write for is_kind, write in kinds if is_kind(run)), pages.write)
    written = write(run)
    if as_json:
        console.emit_json({"report": str(written)})
    else:
        console.out.print(str(written), markup=False, soft_wrap=True)
